//go:build linux

package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/client"
)

// buildOnce builds the program once for all tests, with the fault points in it,
// and with the race detector when the tests have it.
var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "easel-e2e-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "easel")
	args := []string{"build", "-tags", "easelfault", "-o", bin}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "easel")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
})

// box is one machine's worth of Easel: a home of its own.
type box struct {
	t    testing.TB
	bin  string
	home string
	env  []string
}

// newBox makes a home and sees to it that nothing of it runs after the test.
func newBox(t testing.TB, env ...string) *box {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "ez")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, bin: bin, home: home, env: append([]string{
		"EASEL_HOME=" + home, "EASEL_WORKER_BUILTIN=true", "PATH=" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8",
		"EASEL_FAULT_DIR=" + home, "GORACE=halt_on_error=1",
	}, env...)}
	t.Cleanup(b.close)
	return b
}

func (b *box) close() {
	b.easel("stop")
	for _, pid := range b.processes() {
		b.t.Errorf("process %d is left over: %s", pid, cmdline(pid))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if b.t.Failed() {
		for _, name := range []string{"engine.log", "keeper.log"} {
			if log, err := os.ReadFile(filepath.Join(b.home, name)); err == nil {
				b.t.Logf("%s:\n%s", name, tail(string(log), 60))
			}
		}
	}
	if log, err := os.ReadFile(filepath.Join(b.home, "engine.log")); err == nil && bytes.Contains(log, []byte("DATA RACE")) {
		b.t.Errorf("a data race in the engine:\n%s", tail(string(log), 120))
	}
	_ = os.RemoveAll(b.home)
}

// processes are those that carry this box's home in their environment, workers
// included: they get it under another name.
func (b *box) processes() []int {
	var pids []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(dir + "/environ")
		if err != nil || !bytes.Contains(env, []byte("EASEL_HOME="+b.home+"\x00")) && !bytes.Contains(env, []byte("EASEL_LAUNCH_HOME="+b.home+"\x00")) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive reports whether pid is a process that is not a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := stat[bytes.LastIndexByte(stat, ')')+1:]
	return !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("Z"))
}

func cmdline(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(raw), "\x00", " ")
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

type result struct {
	out, err string
	code     int
}

// easel runs one command to its end.
func (b *box) easel(args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.bin, args...)
	cmd.Env, cmd.Dir = b.env, b.home
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := result{out: out.String(), err: errs.String()}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		r.code = ee.ExitCode()
	} else if err != nil {
		r.code = -1
		r.err += err.Error()
	}
	return r
}

// must is easel that has to exit with 0.
func (b *box) must(args ...string) string {
	b.t.Helper()
	r := b.easel(args...)
	if r.code != 0 {
		b.t.Fatalf("easel %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

func (b *box) client() *client.Client { return client.Unix(b.home) }

// status is the engine's word, or a fatal error after a while.
func (b *box) status() backend.Status {
	b.t.Helper()
	var last error
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		st, err := b.client().Status(ctx)
		cancel()
		if err == nil {
			return st
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("no status: %v", last)
	return backend.Status{}
}

// workerPID waits for a worker that runs, and returns its pid.
func (b *box) workerPID() int {
	b.t.Helper()
	var pid int
	b.wait("a worker that runs", func() bool {
		st := b.status()
		if len(st.Workers) == 0 || st.Workers[0].PID == nil {
			return false
		}
		pid = *st.Workers[0].PID
		return st.Workers[0].State == backend.WorkerReady || st.Workers[0].State == backend.WorkerBusy
	})
	return pid
}

// wait waits until ok, for at most a minute.
func (b *box) wait(what string, ok func() bool) {
	b.t.Helper()
	end := time.Now().Add(time.Minute)
	for time.Now().Before(end) {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.t.Fatalf("waited a minute for %s", what)
}

// job reads a job, over restarts of the engine.
func (b *box) job(id string) backend.Job {
	b.t.Helper()
	var last error
	for range 100 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		j, err := b.client().Job(ctx, id)
		cancel()
		if err == nil {
			return j
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("no job %s: %v", id, last)
	return backend.Job{}
}

// waitState waits until the job is in that state.
func (b *box) waitState(id string, state backend.JobState) backend.Job {
	b.t.Helper()
	var j backend.Job
	b.wait(fmt.Sprintf("job %s to be %s", id, state), func() bool {
		j = b.job(id)
		if j.State.Final() && j.State != state {
			raw, _ := json.MarshalIndent(j, "", "  ")
			b.t.Fatalf("job is %s, not %s:\n%s", j.State, state, raw)
		}
		return j.State == state
	})
	return j
}

// sketch writes a workflow for the built-in worker that takes that long.
func (b *box) sketch(name string, seed int, seconds float64) string {
	b.t.Helper()
	file := filepath.Join(b.home, name+".json")
	body := fmt.Sprintf(`{"1":{"class_type":"EaselSketch","inputs":{"text":"hills %s","seed":%d,"width":64,"height":64,"batch_size":1,"steps":10,"seconds":%g}},
"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"%s"}}}`, name, seed, seconds, name)
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// submit queues a workflow file and returns the job's id.
func (b *box) submit(file string, args ...string) string {
	b.t.Helper()
	out := b.must(append([]string{"run", file, "--detach", "--json"}, args...)...)
	var j backend.Job
	if err := json.Unmarshal([]byte(out), &j); err != nil || j.ID == "" {
		b.t.Fatalf("run --json printed %q (%v)", out, err)
	}
	return j.ID
}

func repoFile(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunPaintsAPictureAndStopLeavesNothing(t *testing.T) {
	b := newBox(t)
	out := filepath.Join(b.home, "pictures")
	printed := strings.Fields(b.must("run", repoFile(t, "assets/workflows/hello.json"), "--out", out))
	if len(printed) == 0 {
		t.Fatal("run printed no path")
	}
	path := printed[len(printed)-1]
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%s is no PNG: %v", path, err)
	}
	if img.Bounds().Dx() < 64 || !bytes.Contains(raw, []byte("tEXtprompt")) {
		t.Errorf("%s: %v, with its prompt: %v", path, img.Bounds(), bytes.Contains(raw, []byte("tEXtprompt")))
	}
	// The picture carries its prompt, so it can be run again as it is.
	if again := strings.Fields(b.must("run", path)); len(again) == 0 {
		t.Error("running the picture again printed no path")
	}
	st := b.status()
	if len(st.Workers) != 1 || !st.Workers[0].Builtin {
		t.Errorf("workers: %+v", st.Workers)
	}
	b.must("stop")
	b.wait("every process to end", func() bool { return len(b.processes()) == 0 })
	if r := b.easel("status", "--json"); r.code != 4 || !strings.Contains(r.out, `"engine":null`) && !strings.Contains(r.out, `"engine": null`) {
		t.Errorf("status after stop: exit %d, %s", r.code, r.out)
	}
}

func TestKilledWorkerRunsTheJobAgain(t *testing.T) {
	b := newBox(t)
	id := b.submit(b.sketch("again", 7, 3))
	b.waitState(id, backend.JobRunning)
	kill(t, b.workerPID())
	j := b.waitState(id, backend.JobSucceeded)
	if len(j.Attempts) != 2 || j.Attempts[0].Outcome != backend.OutcomeLost || j.Attempts[0].Verdict == nil {
		t.Fatalf("attempts: %+v", j.Attempts)
	}
	if v := j.Attempts[0].Verdict; v.Kind != backend.KindKilled || v.Signal == nil || *v.Signal != 9 {
		t.Errorf("verdict: %+v", v)
	}
	shown := b.must("jobs", "show", id)
	if !strings.Contains(shown, "killed") || !strings.Contains(shown, "lost") {
		t.Errorf("jobs show does not tell both attempts:\n%s", shown)
	}
	deaths := b.must("worker", "deaths", "--json")
	var list []backend.Verdict
	if err := json.Unmarshal([]byte(deaths), &list); err != nil || len(list) != 1 {
		t.Errorf("worker deaths: %v\n%s", err, deaths)
	}
}

func TestKilledEngineComesBackAndAdopts(t *testing.T) {
	b := newBox(t)
	id := b.submit(b.sketch("adopt", 8, 4))
	b.waitState(id, backend.JobRunning)
	before := b.status()
	kill(t, before.Engine.PID)
	from := time.Now()
	st, err := b.client().Status(t.Context()) // not refused: it waits in the backlog
	if err != nil {
		t.Fatalf("a call right after the kill: %v", err)
	}
	t.Logf("the next call was answered after %v", time.Since(from))
	if st.Engine.PID == before.Engine.PID || st.Keeper.PID != before.Keeper.PID || st.Keeper.Restarts < 1 {
		t.Errorf("engine %+v keeper %+v, before %+v %+v", st.Engine, st.Keeper, before.Engine, before.Keeper)
	}
	j := b.waitState(id, backend.JobSucceeded)
	if len(j.Attempts) != 1 {
		t.Errorf("attempts: %+v", j.Attempts)
	}
	if after := b.workerPID(); after != *before.Workers[0].PID {
		t.Errorf("the worker was started anew: %d, then %d", *before.Workers[0].PID, after)
	}
}

func TestKilledKeeperIsReplaced(t *testing.T) {
	b := newBox(t)
	id := b.submit(b.sketch("keeper", 9, 4))
	b.waitState(id, backend.JobRunning)
	before := b.status()
	kill(t, before.Keeper.PID)
	from := time.Now()
	var st backend.Status
	b.wait("a new keeper", func() bool {
		st = b.status()
		return st.Keeper.PID != before.Keeper.PID && st.Engine.PID != before.Engine.PID
	})
	t.Logf("all was back after %v", time.Since(from))
	j := b.waitState(id, backend.JobSucceeded)
	if len(j.Attempts) != 1 {
		t.Errorf("attempts: %+v", j.Attempts)
	}
	if after := b.workerPID(); after != *before.Workers[0].PID {
		t.Errorf("the worker was started anew: %d, then %d", *before.Workers[0].PID, after)
	}
	// An adopted worker's end is seen too.
	second := b.submit(b.sketch("keeper2", 10, 3))
	b.waitState(second, backend.JobRunning)
	kill(t, b.workerPID())
	if j := b.waitState(second, backend.JobSucceeded); len(j.Attempts) != 2 {
		t.Errorf("attempts after the adopted worker died: %+v", j.Attempts)
	}
}

func TestStopLetsTheWorkerBeAdopted(t *testing.T) {
	b := newBox(t)
	id := b.submit(b.sketch("keep", 11, 4))
	b.waitState(id, backend.JobRunning)
	pid := b.workerPID()
	b.must("stop", "--keep-worker")
	if !alive(pid) {
		t.Fatal("the worker is gone")
	}
	b.must("serve", "--detach")
	j := b.waitState(id, backend.JobSucceeded)
	if len(j.Attempts) != 1 || b.workerPID() != pid {
		t.Errorf("attempts: %+v, worker %d then %d", j.Attempts, pid, b.workerPID())
	}
}

func TestCancelTakesBackAndInterrupts(t *testing.T) {
	b := newBox(t)
	first := b.submit(b.sketch("one", 1, 20))
	second := b.submit(b.sketch("two", 2, 1))
	third := b.submit(b.sketch("three", 3, 0.1))
	b.waitState(first, backend.JobRunning)
	b.must("jobs", "cancel", second)
	b.waitState(second, backend.JobCancelled)
	b.must("jobs", "cancel", first)
	b.waitState(first, backend.JobCancelled)
	b.waitState(third, backend.JobSucceeded)
}

func TestHoldPauseAndOrder(t *testing.T) {
	b := newBox(t)
	b.must("serve", "--detach")
	b.must("jobs", "pause")
	var ids []string
	for i := range 4 {
		ids = append(ids, b.submit(b.sketch(fmt.Sprintf("n%d", i), i, 0)))
	}
	b.must("jobs", "hold", ids[0])
	b.must("jobs", "promote", ids[3])
	b.must("jobs", "resume")
	for _, id := range ids[1:] {
		b.waitState(id, backend.JobSucceeded)
	}
	if j := b.job(ids[0]); j.State != backend.JobHeld {
		t.Errorf("the held job is %s", j.State)
	}
	if a, z := b.job(ids[3]), b.job(ids[1]); a.Started.After(z.Started.Time) {
		t.Errorf("the promoted job started at %v, after %v", a.Started, z.Started)
	}
	b.must("jobs", "release", ids[0])
	b.waitState(ids[0], backend.JobSucceeded)
	retried := b.must("jobs", "retry", ids[1], "--json")
	if !strings.Contains(retried, ids[1]) {
		t.Errorf("retry printed %s", retried)
	}
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestKilledConsoleIsNotNoticed(t *testing.T) {
	b := newBox(t)
	b.must("serve", "--detach")
	b.workerPID()
	c := b.console(t, 100, 30)
	c.until(t, "builtin")
	id := b.submit(b.sketch("alone", 12, 2))
	b.waitState(id, backend.JobRunning)
	before := b.status()
	c.until(t, "alone") // it is on the screen
	c.close()           // kill -9, in mid-job
	j := b.waitState(id, backend.JobSucceeded)
	after := b.status()
	if len(j.Attempts) != 1 || after.Engine.PID != before.Engine.PID || after.Keeper.PID != before.Keeper.PID ||
		*after.Workers[0].PID != *before.Workers[0].PID {
		t.Errorf("attempts %+v, before %+v %+v, after %+v %+v", j.Attempts, before.Engine, before.Workers, after.Engine, after.Workers)
	}
}

func TestWhatALostAttemptLeftBehindIsListed(t *testing.T) {
	b := newBox(t)
	file := filepath.Join(b.home, "two.json")
	body := `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":255}},
"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"first"}},
"3":{"class_type":"EaselSketch","inputs":{"text":"t","seed":1,"width":64,"height":64,"batch_size":1,"steps":10,"seconds":3}},
"4":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"second"}}}`
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	id := b.submit(file)
	b.waitState(id, backend.JobRunning)
	first := filepath.Join(b.home, "sketch", "output", "first_00001_.png")
	b.wait("the first picture", func() bool { _, err := os.Stat(first); return err == nil })
	kill(t, b.workerPID())
	j := b.waitState(id, backend.JobSucceeded)
	if len(j.Attempts) != 2 || len(j.Attempts[0].Leftovers) != 1 || j.Attempts[0].Leftovers[0] != first || len(j.Attempts[1].Leftovers) != 0 {
		t.Errorf("attempts %+v", j.Attempts)
	}
	for _, o := range j.Outputs {
		if o.Path == first {
			t.Errorf("what the lost attempt wrote passes as a result: %+v", j.Outputs)
		}
	}
	if shown := b.must("jobs", "show", id); !strings.Contains(shown, "first_00001_.png") {
		t.Errorf("jobs show does not list it:\n%s", shown)
	}
}
