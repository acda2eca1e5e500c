package worker

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/process"
)

// The stand-ins answer as systemctl, journalctl and docker do, from files beside
// them.
var standIns = map[string]string{
	"systemctl": `[ "$1" = --user ] && shift && dir="$dir/user"
case "$1" in
show) cat "$dir/$2.show" 2>/dev/null || printf 'MainPID=0\nResult=success\nLoadState=not-found\nActiveState=inactive\n' ;;
*) echo "systemctl $*" >>"$dir/called"; exec "$dir/do" "$@" ;;
esac`,
	"journalctl": `case " $* " in
*" -f "*) exec tail -n +1 -f --pid=$PPID "$dir/journal" ;;
*) cat "$dir/journal" ;;
esac`,
	"docker": `case "$1" in
inspect) cat "$dir/inspect" 2>/dev/null || { echo '[]'; echo "Error: No such container: $4" >&2; exit 1; } ;;
events) cat "$dir/events" 2>/dev/null ;;
logs) [ "$2" = -f ] && exec tail -n +1 -f --pid=$PPID "$dir/docker.log" ;;
esac`,
}

// standIn puts the stand-ins first in PATH and returns where their files are.
func standIn(t *testing.T) string {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	for name, body := range standIns {
		text := "#!/bin/sh\ndir='" + dir + "'\n" + body + "\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, name := range []string{"journal", "docker.log"} {
		write(t, filepath.Join(dir, name), "")
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// foreign is a ComfyUI that another process is the parent of.
type foreign struct {
	pid int
	url string
}

// outsider starts a ComfyUI whose parent is a shell in a session of its own.
func outsider(t *testing.T, port int, log string) foreign {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
	}
	script := fmt.Sprintf("'%s' main.py --port %d >>'%s' 2>&1 & echo $!; wait; exec sleep 600", exe, port, log)
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "FAKE_COMFY=normal", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return foreign{pid, fmt.Sprintf("http://127.0.0.1:%d", port)}
}

// hasLogged waits for a line of the log.
func (r *rig) hasLogged(text string) backend.LogLine {
	r.t.Helper()
	var found backend.LogLine
	eventually(r.t, func() bool {
		for _, l := range r.lines.last(1000) {
			if strings.Contains(l.Text, text) {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

func TestExternalUnitIsKilledForMemory(t *testing.T) {
	dir := standIn(t)
	p := outsider(t, 0, os.DevNull)
	pid := strconv.Itoa(p.pid)
	write(t, filepath.Join(dir, "comfyui.service.show"), unitWith("MainPID", pid, "ExecMainPID", pid))
	appendTo(t, filepath.Join(dir, "journal"), `{"__CURSOR":"s=1;i=0","__REALTIME_TIMESTAMP":"1795593500000000","MESSAGE":"got prompt","PRIORITY":"6","_SYSTEMD_INVOCATION_ID":"0123456789abcdef0123456789abcdef"}`+"\n")
	r := start(t, Spec{ID: "url", StateDir: t.TempDir(), URL: p.url, Log: "journal:comfyui"}, newSpawner(t), options(), nil)
	w := r.wait(backend.WorkerReady)
	if w.PID == nil || *w.PID != p.pid || !strings.Contains(w.Reason, "run by systemd unit comfyui.service") {
		t.Errorf("%+v", w)
	}
	if l := r.hasLogged("got prompt"); l.At.UnixMilli() != 1795593500000 {
		t.Errorf("the line is of %s", l.At)
	}
	job := "11111111-0000-4000-8000-000000000001"
	r.SetBusy(&job, "7")
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	appendTo(t, filepath.Join(dir, "journal"), journalOOM+"\n"+journalExit+"\n"+result("oom-kill")+"\n")
	write(t, filepath.Join(dir, "comfyui.service.show"), unitEnded("oom-kill", "2", "9", "ExecMainPID", pid))
	v := r.died(1)
	if v.Kind != backend.KindHostOOM || v.Certainty != backend.Certain || v.Job == nil || *v.Job != job || v.Launch != w.Launch || v.Signal == nil || *v.Signal != 9 {
		t.Errorf("%+v", v)
	}
	for _, want := range []string{"Result=oom-kill", "A process of this unit has been killed by the OOM killer", "got prompt"} {
		if !strings.Contains(strings.Join(v.Evidence, "\n"), want) {
			t.Errorf("evidence has no %q: %q", want, v.Evidence)
		}
	}
	r.hasLogged("systemd: comfyui.service: Failed with result 'oom-kill'.")
	if w := r.wait(backend.WorkerBackoff); !strings.Contains(w.Reason, "killed by the kernel") {
		t.Errorf("reason %q", w.Reason)
	}
}

func TestExternalContainer(t *testing.T) {
	dir := standIn(t)
	p := outsider(t, 0, os.DevNull)
	runs := strings.ReplaceAll(dockerRuns, "4711", strconv.Itoa(p.pid))
	write(t, filepath.Join(dir, "inspect"), runs)
	appendTo(t, filepath.Join(dir, "docker.log"), "2026-11-25T03:00:01.000000001Z To see the GUI go to: http://0.0.0.0:8188\n2026-11-25T03:00:02.5Z 10%|#\r20%|##\n")
	r := start(t, Spec{ID: "url", StateDir: t.TempDir(), URL: p.url, Log: "docker:comfy"}, newSpawner(t), options(), nil)
	w := r.wait(backend.WorkerReady)
	if !strings.HasPrefix(w.Launch, "docker-5f6d0c2a-") {
		t.Errorf("%+v", w)
	}
	r.hasLogged("To see the GUI")
	if l := r.hasLogged("20%|##"); strings.Contains(l.Text, "10%") || l.At.UnixMilli() != time.Date(2026, 11, 25, 3, 0, 2, 5e8, time.UTC).UnixMilli() {
		t.Errorf("%+v", l)
	}
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	write(t, filepath.Join(dir, "inspect"), dockerEnded("137", "true"))
	if v := r.died(1); v.Kind != backend.KindHostOOM || v.Certainty != backend.Certain || !strings.Contains(strings.Join(v.Evidence, "\n"), "OOMKilled=true") ||
		!strings.Contains(strings.Join(v.Evidence, "\n"), "To see the GUI") {
		t.Errorf("%+v", v)
	}
}

// TestExternalLogFile follows a file; who runs it is not known, so the kernel is
// asked how it ended.
func TestExternalLogFile(t *testing.T) {
	log := filepath.Join(t.TempDir(), "comfyui.log")
	p := outsider(t, 0, log)
	r := start(t, Spec{ID: "url", StateDir: t.TempDir(), URL: p.url, Log: log}, newSpawner(t), options(), nil)
	w := r.wait(backend.WorkerReady)
	r.hasLogged("To see the GUI go to")
	get(t, p.url+"/say?text=loading+the+model%0A")
	r.hasLogged("loading the model")
	ticks, _ := process.StartTicks(p.pid)
	x := process.Watch(p.pid, ticks)
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	v := r.died(1)
	if _, _, told := x.Exit(t.Context()); !told {
		if v.Kind != backend.KindUnknown || !strings.Contains(v.Summary, "how is not known") {
			t.Errorf("%+v", v)
		}
		t.Skip("this kernel does not tell how a stranger's process ended")
	}
	if v.Kind != backend.KindKilled || v.Signal == nil || *v.Signal != 9 || v.Launch != w.Launch || !strings.Contains(strings.Join(v.Evidence, "\n"), "loading the model") {
		t.Errorf("%+v", v)
	}
}

func TestExternalLogThatCannotBeRead(t *testing.T) {
	p := outsider(t, 0, os.DevNull)
	r := start(t, Spec{ID: "url", StateDir: t.TempDir(), URL: p.url, Log: "/nonexistent/comfyui.log"}, newSpawner(t), options(), nil)
	r.wait(backend.WorkerReady)
	if l := r.hasLogged("cannot be read"); !strings.Contains(l.Text, "no such file") {
		t.Errorf("%q", l.Text)
	}
}

func TestExternalRestart(t *testing.T) {
	dir := standIn(t)
	p := outsider(t, 0, os.DevNull)
	pid := strconv.Itoa(p.pid)
	write(t, filepath.Join(dir, "comfyui.service.show"), unitWith("MainPID", pid, "ExecMainPID", pid))
	exe, _ := os.Executable()
	_, port, _ := strings.Cut(strings.TrimPrefix(p.url, "http://"), ":")
	write(t, filepath.Join(dir, "do"), fmt.Sprintf("#!/bin/sh\necho restarting $2\nkill %d\n(FAKE_COMFY=normal setsid '%s' main.py --port %s >/dev/null 2>&1 & echo $! >'%s/pid')\n", p.pid, exe, port, dir))
	t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	})
	spec := Spec{ID: "url", StateDir: t.TempDir(), URL: p.url, Log: "journal:comfyui", RestartCommand: "systemctl restart 'comfyui'"}
	r := start(t, spec, newSpawner(t), options(), nil)
	w := r.wait(backend.WorkerReady)
	if err := r.Restart(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "comfyui.service.show"), unitWith("MainPID", strings.TrimSpace(string(b)), "ExecMainPID", strings.TrimSpace(string(b)), "InvocationID", "ffffffffffffffffffffffffffffffff"))
	n := r.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != w.Launch })
	if v := r.died(1); v.Kind != backend.KindAsked || !strings.Contains(v.Summary, "Ada (worker.restart: systemctl restart 'comfyui')") {
		t.Errorf("%+v", v)
	}
	if _, _, ok := r.Client(); !ok || n.LastDeath != nil {
		t.Errorf("after the restart: client %v, %+v", ok, n)
	}
	r.hasLogged("easel: running systemctl restart comfyui")
	r.hasLogged("restarting comfyui")

	write(t, filepath.Join(dir, "do"), "#!/bin/sh\necho Interactive authentication required. >&2\nexit 4\n")
	err = r.Restart(t.Context(), "Ada")
	if err == nil || !strings.Contains(err.Error(), "Interactive authentication required") {
		t.Errorf("a command that fails: %v", err)
	}
	eventually(t, func() bool { _, _, ok := r.Client(); return ok })
	if err := r.Stop(t.Context(), "Ada"); err == nil || !strings.Contains(backend.FailureOf(err).Hint, "worker.restart") {
		t.Errorf("stop: %v", err)
	}
	if states := r.seen(); !slices.Contains(states, "backoff") {
		t.Errorf("states %v", states)
	}
}
