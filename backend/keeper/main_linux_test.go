package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend"
	"easel/backend/process"
)

// The test binary plays every process: keeper, engine, and workers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			end(Run(context.Background(), testConfig()))
		case "keeper-takeover":
			h, err := Inherit()
			if err == nil {
				cfg := testConfig()
				cfg.Adopt = h
				err = Run(context.Background(), cfg)
			}
			end(err)
		case "engine":
			standIn()
		case "keeper":
			preflightRole()
		case "worker":
			workerRole(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

func end(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.As(err, new(ErrRunning)) {
		os.Exit(7)
	}
	os.Exit(1)
}

// testConfig is the Config in KT_CONFIG; Run gets all it needs from there.
func testConfig() Config {
	var c Config
	if err := json.Unmarshal([]byte(os.Getenv("KT_CONFIG")), &c); err != nil {
		end(err)
	}
	return c
}

func preflightRole() {
	if os.Getenv("KT_PREFLIGHT") == "bad" {
		fmt.Println("the configuration has no key colour")
		os.Exit(2)
	}
	os.Exit(0)
}

// standIn is an engine that does nothing but serve what a test asks of it.
func standIn() {
	dir := testConfig().StateDir
	has := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	if has("crash") {
		fmt.Fprintln(os.Stderr, "about to fail")
		panic("the engine was told to crash")
	}
	c, hello, err := Attach(PairFD)
	if err != nil {
		end(err)
	}
	if has("refuse") {
		_ = c.Refuse(backend.Fail(backend.FailDisk, "the database is newer than this Easel", "install the newer one"))
		os.Exit(ExitHopeless)
	}
	for has("slow") {
		time.Sleep(10 * time.Millisecond)
	}
	ln, err := ControlListener()
	if err != nil {
		end(err)
	}
	e := &engineServer{c: c, hello: hello, ends: hello.Ended}
	go e.collect()
	server := &http.Server{Handler: e, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	if err := c.Ready(); err != nil && !errors.Is(err, ErrGone) {
		end(err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	select {
	case <-term:
		if has("deaf") {
			select {}
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		os.Exit(0)
	case <-c.Replaced():
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		os.Exit(0)
	case <-c.Closed():
		end(Takeover(context.Background(), c, TakeoverOptions{StateDir: dir, Listener: ln}))
	}
}

type engineServer struct {
	c     *Conn
	hello Hello
	mu    sync.Mutex
	ends  []Ended
}

func (e *engineServer) collect() {
	for end := range e.c.Ends() {
		e.mu.Lock()
		e.ends = append(e.ends, end)
		e.mu.Unlock()
	}
}

// ServeHTTP does one thing by the path and answers JSON.
func (e *engineServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var out any
	var err error
	q := r.URL.Query()
	switch r.URL.Path {
	case "/hello":
		out = map[string]any{"pid": os.Getpid(), "hello": e.hello}
	case "/start":
		var l Launch
		if err = json.NewDecoder(r.Body).Decode(&l); err == nil {
			out, err = e.c.Start(r.Context(), l)
		}
	case "/signal":
		n, _ := strconv.Atoi(q.Get("sig"))
		err = e.c.Signal(r.Context(), q.Get("id"), syscall.Signal(n))
	case "/ack":
		err = e.c.Ack(q.Get("id"))
	case "/ends":
		e.mu.Lock()
		out = e.ends
		defer e.mu.Unlock()
	case "/stop":
		if err = e.c.Stop(q.Get("keep") != ""); err == nil {
			defer time.AfterFunc(20*time.Millisecond, func() { os.Exit(0) })
		}
	case "/listen":
		var ln net.Listener
		if ln, err = e.c.Listen(r.Context(), "gateway", "tcp", q.Get("addr")); err == nil {
			out = ln.Addr().String()
			go func() { _ = http.Serve(ln, e) }() //nolint:gosec // a test
		}
	case "/turnaround":
		var l Launch
		if err = json.NewDecoder(r.Body).Decode(&l); err == nil {
			n, _ := strconv.Atoi(q.Get("n"))
			out, err = e.turnaround(r.Context(), l, n)
		}
	case "/reload":
		err = e.c.Reload(r.Context(), q.Get("exe"))
	}
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		out = err.Error()
	}
	_ = json.NewEncoder(w).Encode(out)
}

// workerRole is a worker that behaves in one way.
func workerRole(how string) {
	c := make(chan os.Signal, 1)
	if how == "stubborn" {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	} else {
		signal.Notify(c, syscall.SIGTERM)
	}
	fmt.Println("worker", how, os.Getpid())
	switch how {
	case "exit3":
		os.Exit(3)
	case "family": // a child in the group, and one in a session of its own
		for _, sid := range []bool{false, true} {
			cmd := exec.Command("/proc/self/exe", "worker", "stubborn")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: sid}
			if err := cmd.Start(); err != nil {
				end(err)
			}
			fmt.Println("child", cmd.Process.Pid)
		}
	case "orphans": // leave a child that ends after its parent
		_ = exec.Command("/bin/sh", "-c", "sleep 0.1 & sleep 0.2 & exit 0").Run()
		time.Sleep(time.Second)
		os.Exit(0)
	}
	<-c
	os.Exit(0)
}

// box is a state directory with a keeper.
type box struct {
	t   testing.TB
	dir string
	cfg Config
	env []string
	cmd *exec.Cmd
	out *os.File // keeper.log
}

func newBox(t testing.TB, change func(*Config)) *box {
	t.Helper()
	return boxAt(t, t.TempDir(), change)
}

func boxAt(t testing.TB, dir string, change func(*Config)) *box {
	t.Helper()
	b := &box{t: t, dir: dir, cfg: Config{StateDir: dir, StopEngine: 3 * time.Second, StopWorkers: time.Second}}
	if change != nil {
		change(&b.cfg)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.out, err = openLog(filepath.Join(dir, keeperLog), maxKeeperLog); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.out.Close() })
	t.Cleanup(b.sweep)
	return b
}

// sweep ends every process of the box: they all carry its configuration.
func (b *box) sweep() {
	if b.t.Failed() {
		if l, err := os.ReadFile(filepath.Join(b.dir, keeperLog)); err == nil {
			b.t.Logf("keeper.log:\n%s", l)
		}
		if l, err := os.ReadFile(filepath.Join(b.dir, engineLog)); err == nil {
			b.t.Logf("engine.log:\n%.2000s", l)
		}
	}
	for range 50 {
		mine := b.processes()
		if len(mine) == 0 {
			return
		}
		for _, pid := range mine {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes lists the living processes of the box.
func (b *box) processes() []int {
	var list []int
	for _, pid := range processes() {
		if pid == os.Getpid() || !process.Alive(pid, 0) {
			continue
		}
		env, err := process.Environ(pid)
		if err != nil {
			continue
		}
		for _, e := range env {
			if e == "KT_CONFIG="+b.config() {
				list = append(list, pid)
			}
		}
	}
	return list
}

func (b *box) config() string {
	c, err := json.Marshal(map[string]any{
		"StateDir": b.cfg.StateDir, "StopEngine": b.cfg.StopEngine, "StopWorkers": b.cfg.StopWorkers,
		"Policy": b.cfg.Policy, "DownAfter": b.cfg.DownAfter, "SilentAfter": b.cfg.SilentAfter,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return string(c)
}

func (b *box) environ() []string {
	// The race detector would let every process sleep a second before it exits.
	return append(append(os.Environ(), "KT_CONFIG="+b.config(), "GORACE=atexit_sleep_ms=0"), b.env...)
}

// serve starts a keeper in the foreground.
func (b *box) serve() *box {
	b.t.Helper()
	b.cmd = exec.Command("/proc/self/exe", "serve")
	b.cmd.Env = b.environ()
	b.cmd.Stderr = b.out
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return b
}

// client makes HTTP calls over the control socket, one connection each.
func (b *box) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, b.dir) },
	}}
}

// try makes one call.
func (b *box) try(path string, body, into any) (int, error) {
	var r io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = bytes.NewReader(j)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://easel"+path, r)
	if err != nil {
		return 0, err
	}
	resp, err := b.client().Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	b1, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("%s: %d %s", path, resp.StatusCode, b1)
	}
	if into == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(b1, into)
}

// do makes a call that must succeed; like every client of Easel it tries once more
// when the connection broke.
func (b *box) do(path string, body, into any) {
	b.t.Helper()
	code, err := b.try(path, body, into)
	if err != nil && code == 0 {
		_, err = b.try(path, body, into)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// wait polls until ok.
func (b *box) wait(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited 20 s for: %s", what)
		}
	}
}

type who struct {
	PID   int   `json:"pid"`
	Hello Hello `json:"hello"`
}

// engine waits until an engine serves and asks who it is.
func (b *box) engine() who {
	b.t.Helper()
	var w who
	b.wait("an engine that serves", func() bool { _, err := b.try("/hello", nil, &w); return err == nil })
	return w
}

func (b *box) launch(id, how string) Living {
	b.t.Helper()
	var l Living
	launch := b.launchOf(id, how)
	b.do("/start", launch, &l)
	if how != "sleep" {
		b.wait("the first line of the worker", func() bool { s, _ := os.ReadFile(launch.Log); return bytes.Contains(s, []byte("worker "+how)) })
	}
	return l
}

func (b *box) launchOf(id, how string) Launch {
	if how == "sleep" { // opens nothing by itself, as a Go program does
		return Launch{ID: id, Argv: []string{"sleep", "3600"}, Env: b.environ(), Log: filepath.Join(b.dir, "logs", id+".log")}
	}
	return Launch{ID: id, Argv: []string{"/proc/self/exe", "worker", how}, Env: b.environ(), Log: filepath.Join(b.dir, "logs", id+".log")}
}

// ended waits for the end of a launch.
func (b *box) ended(id string) Ended {
	b.t.Helper()
	var found Ended
	b.wait("the end of launch "+id, func() bool {
		var ends []Ended
		if _, err := b.try("/ends", nil, &ends); err != nil {
			return false
		}
		for _, e := range ends {
			if e.Launch == id {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// openFDs lists the open descriptors of a process.
func openFDs(t *testing.T, pid int) string {
	t.Helper()
	d, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// turnaround kills a worker and starts another as soon as it is told.
func (e *engineServer) turnaround(ctx context.Context, l Launch, n int) (time.Duration, error) {
	one, two := l, l
	one.ID, two.ID = fmt.Sprintf("a%d", n), fmt.Sprintf("b%d", n)
	w, err := e.c.Start(ctx, one)
	if err != nil {
		return 0, err
	}
	at := time.Now()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		return 0, err
	}
	e.told(one.ID)
	if _, err = e.c.Start(ctx, two); err != nil {
		return 0, err
	}
	took := time.Since(at)
	_ = e.c.Signal(ctx, two.ID, syscall.SIGKILL)
	e.told(two.ID)
	return took, errors.Join(e.c.Ack(one.ID), e.c.Ack(two.ID))
}

// told waits for the end of a launch.
func (e *engineServer) told(id string) {
	for ; ; time.Sleep(20 * time.Microsecond) {
		e.mu.Lock()
		n := len(e.ends)
		found := n > 0 && e.ends[n-1].Launch == id
		e.mu.Unlock()
		if found {
			return
		}
	}
}
