package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"easel/backend/keeper"
	"easel/backend/process"
)

// The test binary plays python: with FAKE_COMFY set it is a small ComfyUI whose
// behaviour FAKE_COMFY names.
func TestMain(m *testing.M) {
	if mode := os.Getenv("FAKE_COMFY"); mode != "" {
		os.Exit(fakeComfy(mode))
	}
	os.Exit(m.Run())
}

// fakeComfy is the process: python main.py flags.
func fakeComfy(mode string) int {
	args := os.Args[1:]
	if slices.Contains(args, "--help") {
		help, err := os.ReadFile("help.txt") // in the checkout, where it runs
		if err != nil {
			fmt.Fprintln(os.Stderr, "ModuleNotFoundError: No module named 'yaml'")
			return 1
		}
		_, _ = os.Stdout.Write(help)
		return 0
	}
	port := args[slices.Index(args, "--port")+1]
	switch mode {
	case "exit2":
		fmt.Fprintln(os.Stderr, "usage: main.py [-h]\nmain.py: error: unrecognized arguments: --nosuch")
		return 2
	case "no-torch":
		fmt.Fprintln(os.Stderr, "Traceback (most recent call last):\n  File \"main.py\", line 1, in <module>\n    import torch\nModuleNotFoundError: No module named 'torch'")
		return 1
	case "abort":
		debug.SetTraceback("crash")
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	case "crash-early":
		fmt.Fprintln(os.Stderr, "something went wrong")
		return 1
	case "port-once":
		if os.WriteFile("taken-"+port, nil, 0o600) == nil && len(must(filepath.Glob("taken-*"))) == 1 {
			fmt.Fprintf(os.Stderr, "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', %s): address already in use\n", port)
			return 1
		}
	case "hang":
		fmt.Fprintln(os.Stderr, "waiting for the network")
		select {}
	case "moving":
		for i := range 8 {
			fmt.Fprintf(os.Stderr, "still loading %d\n", i)
			time.Sleep(100 * time.Millisecond)
		}
	case "deaf":
		signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGABRT)
	case "stacks": // as Python does with PYTHONFAULTHANDLER
		abort := make(chan os.Signal, 1)
		signal.Notify(abort, syscall.SIGABRT)
		go func() {
			<-abort
			_ = syscall.Exec("/bin/sh", []string{"sh", "-c", "cat " + os.Getenv("FAKE_STACKS") + " >&2; kill -ABRT $$"}, os.Environ())
		}()
	case "pack-exit":
		fmt.Fprintln(os.Stderr, "[Prompt Server] web root: /x/web")
		return 7
	case "grandchild":
		c := exec.Command("sleep", "300")
		if err := c.Start(); err != nil {
			return 1
		}
		fmt.Fprintln(os.Stderr, "grandchild", c.Process.Pid)
	}
	fmt.Fprint(os.Stderr, "\nImport times for custom nodes:\n   0.0 seconds: /x/custom_nodes/quick\n   1.5 seconds (IMPORT FAILED): /x/custom_nodes/slow\n\n")
	return serveComfy(mode, port)
}

// eat takes more memory than the cgroups of these tests have. It ends by itself
// where no limit holds it, so that no machine is ever emptied.
func eat() {
	var all [][]byte
	for range 512 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Fprintln(os.Stderr, "nothing held it at", len(all), "MiB")
	os.Exit(99)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func serveComfy(mode, port string) int {
	stop := make(chan os.Signal, 1)
	if mode != "deaf" {
		signal.Notify(stop, syscall.SIGINT)
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintf(os.Stderr, "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', %s): address already in use\n", port)
		return 1
	}
	fmt.Fprintf(os.Stderr, "Starting server\n\nTo see the GUI go to: http://127.0.0.1:%s\n", port)
	if mode == "flood" {
		for i := range 20000 {
			fmt.Fprintf(os.Stderr, "line %d of a flood that never says anything useful\n", i)
		}
	}
	exit := make(chan int, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/system_stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"system": map[string]any{"comfyui_version": "0.3.64", "python_version": "3", "argv": os.Args[1:]}, "devices": []any{map[string]any{"name": "cpu", "type": "cpu"}}})
	})
	asked := 0
	mux.HandleFunc("/object_info", func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprintf(w, `{"Asked":{"input":{"required":{}},"asked":%d,"max":Infinity}}`, asked)
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("mark") != "" {
			_ = os.WriteFile(os.Getenv("__COMFY_CLI_SESSION__")+".reboot", nil, 0o600)
		}
		var n int
		_, _ = fmt.Sscan(r.URL.Query().Get("status"), &n)
		exit <- n
	})
	mux.HandleFunc("/sh", func(_ http.ResponseWriter, r *http.Request) { // this process becomes a shell
		_ = syscall.Exec("/bin/sh", []string{"sh", "-c", r.URL.Query().Get("run")}, os.Environ())
	})
	mux.HandleFunc("/eat", func(http.ResponseWriter, *http.Request) { eat() })
	mux.HandleFunc("/child", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, exec.Command("/bin/sh", "-c", r.URL.Query().Get("run")).Run())
	})
	mux.HandleFunc("/say", func(_ http.ResponseWriter, r *http.Request) { fmt.Fprint(os.Stderr, r.URL.Query().Get("text")) })
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_ = c.Write(r.Context(), websocket.MessageText, []byte(`{"type":"status","data":{"status":{"exec_info":{"queue_remaining":0}},"sid":"x"}}`))
		for {
			if _, _, err := c.Read(r.Context()); err != nil {
				return
			}
		}
	})
	go func() { _ = http.Serve(l, mux) }()
	select {
	case n := <-exit:
		return n
	case <-stop:
		fmt.Fprintln(os.Stderr, "\nStopped server")
		return 0
	}
}

// checkout makes a directory that looks like a ComfyUI checkout.
func checkout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ComfyUI")
	for _, d := range []string{"comfy", "custom_nodes"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	help, err := os.ReadFile("testdata/help-0.3.64.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.py": "", "nodes.py": "", "comfyui_version.py": "__version__ = \"0.3.64\"\n", "help.txt": string(help),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fakeSpec is the spec of a worker that behaves as mode says.
func fakeSpec(t *testing.T, mode string) Spec {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Spec{
		ID: "gpu0", StateDir: t.TempDir(), ComfyUI: checkout(t), Python: exe, NoCgroup: true,
		Environ: append(os.Environ(), "FAKE_COMFY="+mode, "GORACE=atexit_sleep_ms=0"),
	}
}

// testSpawner is the keeper's part by os/exec: sessions, groups, ends.
type testSpawner struct {
	t *testing.T

	mu     sync.Mutex
	procs  map[string]*testProc
	m      *Manager // gets the ends; nil: they are kept
	ended  []keeper.Ended
	acked  map[string]bool
	starts int
	groups []string // cgroups made for launches
	sent   []syscall.Signal
	began  time.Time // when the last process was started
	gone   time.Time // when the last one had ended
}

type testProc struct {
	cmd    *exec.Cmd
	living keeper.Living
	ours   int
}

func newSpawner(t *testing.T) *testSpawner {
	s := &testSpawner{t: t, procs: map[string]*testProc{}, acked: map[string]bool{}}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range s.procs {
			_ = syscall.Kill(-p.living.PID, syscall.SIGKILL)
		}
		for _, dir := range s.groups {
			for range 100 { // until what is in it has ended
				if err := syscall.Rmdir(dir); err == nil || errors.Is(err, syscall.ENOENT) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	})
	return s
}

func (s *testSpawner) Start(_ context.Context, l keeper.Launch) (keeper.Living, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := os.OpenFile(l.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		if err := os.MkdirAll(filepath.Dir(l.Log), 0o700); err != nil {
			return keeper.Living{}, err
		}
		if log, err = os.OpenFile(l.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return keeper.Living{}, err
		}
	}
	defer log.Close()
	s.began = time.Now()
	cmd := exec.Command(l.Argv[0], l.Argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(l.Env, keeper.EnvLaunch+"="+l.ID), l.Dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return keeper.Living{}, err
	}
	s.starts++
	if l.Cgroup != "" {
		_ = process.MoveToCgroup(cmd.Process.Pid, l.Cgroup)
		s.groups = append(s.groups, l.Cgroup)
	}
	ticks, _ := process.StartTicks(cmd.Process.Pid)
	p := &testProc{cmd: cmd, living: keeper.Living{Launch: l.ID, PID: cmd.Process.Pid, StartTicks: ticks, Started: time.Now()}}
	s.procs[l.ID] = p
	go s.wait(p)
	return p.living, nil
}

func (s *testSpawner) wait(p *testProc) {
	_ = p.cmd.Wait()
	_ = syscall.Kill(-p.living.PID, syscall.SIGKILL)
	st := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	s.mu.Lock()
	s.gone = time.Now()
	e := keeper.Ended{
		Launch: p.living.Launch, PID: p.living.PID, ExitCode: st.ExitStatus(), StatusKnown: true,
		Ours: p.ours != 0, OurSignal: p.ours, At: time.Now(), Started: p.living.Started,
	}
	if u, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		e.MaxRSS = u.Maxrss << 10
	}
	if st.Signaled() {
		e.Signal = int(st.Signal())
	}
	delete(s.procs, p.living.Launch)
	m := s.m
	if m == nil {
		s.ended = append(s.ended, e)
	}
	s.mu.Unlock()
	if m != nil {
		m.Ended(e)
	}
}

func (s *testSpawner) Signal(_ context.Context, launch string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.procs[launch]
	if p == nil {
		return keeper.ErrNotLiving
	}
	p.ours = int(sig)
	s.sent = append(s.sent, sig)
	return syscall.Kill(-p.living.PID, sig)
}

func (s *testSpawner) Ack(launch string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[launch] = true
	return nil
}

func (s *testSpawner) living() []keeper.Living {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []keeper.Living
	for _, p := range s.procs {
		out = append(out, p.living)
	}
	return out
}

func (s *testSpawner) signals() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, sig := range s.sent {
		names = append(names, signalNames[int(sig)])
	}
	return strings.Join(names, " ")
}
