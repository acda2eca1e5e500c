package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/process"
)

// rig is a Manager that runs, with what it told.
type rig struct {
	*Manager
	t    *testing.T
	sp   *testSpawner
	stop func() // leaves: Run returns, the process stays

	mu     sync.Mutex
	states []string
	deaths []backend.Verdict
}

func options() Options {
	return Options{Policy: Policy{Backoff: 20 * time.Millisecond, Jitter: -1}}
}

// start makes a rig; before runs ahead of Run.
func start(t *testing.T, spec Spec, sp *testSpawner, o Options, before func(*Manager)) *rig {
	t.Helper()
	r := &rig{t: t, sp: sp}
	o.OnChange = func(w backend.Worker) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.states); n == 0 || r.states[n-1] != string(w.State) {
			r.states = append(r.states, string(w.State))
		}
		if w.Reason == "" {
			t.Errorf("state %s has no reason", w.State)
		}
	}
	o.OnDeath = func(v backend.Verdict) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.deaths = append(r.deaths, v)
	}
	r.Manager = New(spec, sp, o)
	if before != nil {
		before(r.Manager)
	}
	sp.mu.Lock()
	sp.m = r.Manager
	sp.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		sp.mu.Lock()
		if sp.m == r.Manager {
			sp.m = nil
		}
		sp.mu.Unlock()
		cancel()
		<-done
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) wait(states ...backend.WorkerState) backend.Worker {
	r.t.Helper()
	return r.until(func(w backend.Worker) bool { return slices.Contains(states, w.State) })
}

func (r *rig) until(ok func(backend.Worker) bool) backend.Worker {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	w, err := r.Wait(ctx, ok)
	if err != nil {
		r.t.Fatalf("%v (reason %q, states %v)", err, w.Reason, r.seen())
	}
	return w
}

func (r *rig) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.states)
}

// died waits for the nth verdict.
func (r *rig) died(n int) backend.Verdict {
	r.t.Helper()
	var v backend.Verdict
	eventually(r.t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.deaths) < n {
			return false
		}
		v = r.deaths[n-1]
		return true
	})
	return v
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func get(t *testing.T, address string) {
	t.Helper()
	res, err := http.Get(address)
	if err != nil {
		return // the process ended before it answered
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

func TestStartReadyStop(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	if w.PID == nil || w.Launch == "" || w.URL == "" || w.ComfyUI == nil || w.ComfyUI.Version != "0.3.64" {
		t.Errorf("ready worker lacks something: %+v", w)
	}
	if len(w.Packs) > 0 && w.Packs[0].Path != "/x/custom_nodes/slow" {
		t.Errorf("packs are not slowest first: %+v", w.Packs)
	}
	if c, launch, ok := r.Client(); !ok || launch != w.Launch || c.URL() != w.URL {
		t.Errorf("client: %v %q %v", c, launch, ok)
	}
	job := "0123456789abcdef"
	r.SetBusy(&job, "7")
	if w := r.State(); w.State != backend.WorkerBusy || w.Reason != "runs job 01234567" || *w.Job != job {
		t.Errorf("busy: %+v", w)
	}
	r.SetBusy(nil, "")
	if err := r.Stop(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	if w := r.State(); w.State != backend.WorkerStopped || !strings.Contains(w.Reason, "Ada") || w.PID != nil || w.LastDeath != nil {
		t.Errorf("stopped: %+v", w)
	}
	if v := r.died(1); v.Kind != backend.KindAsked || v.ExitCode == nil || *v.ExitCode != 0 {
		t.Errorf("verdict of a stop: %+v", v)
	}
	want := []string{"stopped", "preparing", "starting", "ready", "busy", "ready", "stopping", "stopped"}
	got := r.seen()
	if got[0] != "stopped" {
		want = want[1:]
	}
	if !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	if sp.signals() != "SIGINT" {
		t.Errorf("signals %q", sp.signals())
	}
	eventually(t, func() bool { sp.mu.Lock(); defer sp.mu.Unlock(); return len(sp.acked) == 1 })
}

func TestStopEscalatesToTheWholeGroup(t *testing.T) {
	sp := newSpawner(t)
	o := options()
	o.IntGrace, o.TermGrace = 300*time.Millisecond, 200*time.Millisecond
	r := start(t, fakeSpec(t, "deaf"), sp, o, nil)
	r.wait(backend.WorkerReady)
	if err := r.Stop(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	if sp.signals() != "SIGINT SIGTERM SIGKILL" {
		t.Errorf("signals %q", sp.signals())
	}
}

func TestGrandchildEndsWithTheWorker(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "grandchild"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	kids, err := process.Descendants(*w.PID)
	if err != nil || len(kids) != 1 {
		t.Fatalf("descendants %v %v", kids, err)
	}
	if err := r.Stop(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !process.Alive(kids[0], 0) })
}

func TestRestartAfterKillIsAtOnce(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	var times, own []time.Duration
	for i := range 9 {
		w := r.until(func(w backend.Worker) bool { return w.State == backend.WorkerReady })
		killed := time.Now()
		if err := syscall.Kill(*w.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n := r.until(func(n backend.Worker) bool { return n.State == backend.WorkerStarting && n.Launch != w.Launch })
		sp.mu.Lock()
		times = append(times, sp.began.Sub(killed))
		own = append(own, sp.began.Sub(sp.gone))
		sp.mu.Unlock()
		if n.Restarts != i+1 || n.LastDeath == nil || n.LastDeath.Kind != backend.KindKilled {
			t.Errorf("restart %d: %+v", i+1, n)
		}
	}
	slices.Sort(times)
	slices.Sort(own)
	t.Logf("killed → new process: %v", times)
	t.Logf("its end known → new process: %v", own)
	// The budget is 5 ms from kill to start at the median. Other tests share these
	// cores, so only the better third is held to it here.
	if best := times[len(times)/3]; best > 10*time.Millisecond {
		t.Errorf("restarts take %s and more", best)
	}
}

func TestBadStartsAreNotRepeated(t *testing.T) {
	for mode, want := range map[string]struct{ reason, line string }{
		"exit2":    {"take --nosuch out of worker.args", "main.py: error: unrecognized arguments: --nosuch"},
		"no-torch": {"worker.python", "ModuleNotFoundError: No module named 'torch'"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sp := newSpawner(t)
			r := start(t, fakeSpec(t, mode), sp, options(), nil)
			w := r.wait(backend.WorkerFailed)
			if !strings.Contains(w.Reason, want.reason) || sp.starts != 1 {
				t.Errorf("%d starts, reason %q", sp.starts, w.Reason)
			}
			if v := r.died(1); v.Kind != backend.KindBadStart || !slices.Contains(v.Evidence, want.line) {
				t.Errorf("verdict %+v", v)
			}
		})
	}
}

func TestStartsThatFailAreCounted(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "crash-early"), sp, options(), nil)
	w := r.wait(backend.WorkerFailed)
	if sp.starts != 4 || !strings.Contains(w.Reason, "4 starts in a row") {
		t.Errorf("%d starts, reason %q", sp.starts, w.Reason)
	}
	if !slices.Contains(r.seen(), "backoff") {
		t.Errorf("states %v", r.seen())
	}
	if err := r.Stop(t.Context(), "Ada"); err != nil || r.State().State != backend.WorkerStopped {
		t.Errorf("stop of a failed worker: %v, %s", err, r.State().State)
	}
}

func TestCrashBeforeReady(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "abort"), sp, options(), nil)
	if v := r.died(1); v.Kind != backend.KindCrash || v.Signal == nil || *v.Signal != 6 {
		t.Errorf("verdict %+v", v)
	}
	r.wait(backend.WorkerFailed)
}

func TestStartTimeoutWaitsForTheLog(t *testing.T) {
	sp := newSpawner(t)
	o := options()
	o.StartTimeout = 400 * time.Millisecond // "moving" takes 800 ms and says something each 100
	r := start(t, fakeSpec(t, "moving"), sp, o, nil)
	r.wait(backend.WorkerReady)
	sp2 := newSpawner(t)
	r = start(t, fakeSpec(t, "hang"), sp2, o, nil)
	v := r.died(1)
	if v.Kind != backend.KindBadStart || !strings.Contains(v.Summary, "had not moved") || !strings.HasPrefix(sp2.signals(), "SIGABRT") {
		t.Errorf("verdict %+v, signals %s", v, sp2.signals())
	}
}

func TestManagerAsksForRestart(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	get(t, w.URL+"/exit?status=0&mark=1")
	n := r.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != w.Launch })
	if v := r.died(1); v.Kind != backend.KindAsked || !strings.Contains(v.Summary, "Manager") || n.LastDeath != nil {
		t.Errorf("verdict %+v", v)
	}
}

func TestExitUnderLoadNamesJobAndNode(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	job := "job-1"
	r.SetBusy(&job, "12")
	get(t, w.URL+"/exit?status=3")
	v := r.died(1)
	if v.Kind != backend.KindCrash || *v.ExitCode != 3 || v.Job == nil || *v.Job != job || *v.Node != "12" || v.Launch != w.Launch {
		t.Errorf("verdict %+v", v)
	}
}

func TestOrders(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), func(m *Manager) { m.StayStopped("stopped by Ada") })
	if w := r.wait(backend.WorkerStopped); sp.starts != 0 {
		t.Errorf("%d starts, reason %q", sp.starts, w.Reason)
	}
	eventually(t, func() bool { return r.State().Reason == "stopped by Ada" })
	if err := r.Start(t.Context(), "Bob"); err != nil {
		t.Fatal(err)
	}
	w := r.wait(backend.WorkerReady)
	if err := r.Start(t.Context(), "Bob"); err != nil || r.State().Launch != w.Launch {
		t.Errorf("start of a ready worker: %v", err)
	}
	if err := r.Restart(t.Context(), "Bob"); err != nil {
		t.Fatal(err)
	}
	n := r.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != w.Launch })
	if n.Restarts != 0 || n.URL != w.URL {
		t.Errorf("after a restart that was asked for: %+v", n)
	}
	if _, err := r.ObjectInfo(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestObjectInfoIsReadOnceALaunch(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	r := start(t, spec, sp, options(), nil)
	if _, err := r.ObjectInfo(t.Context()); err == nil {
		t.Error("no error while the worker starts")
	}
	r.wait(backend.WorkerReady)
	for range 2 {
		b, err := r.ObjectInfo(t.Context())
		if err != nil || !strings.Contains(string(b), `"asked":1`) || strings.Contains(string(b), "Infinity") {
			t.Errorf("%s %v", b, err)
		}
	}
	if b, err := r.RefreshObjectInfo(t.Context()); err != nil || !strings.Contains(string(b), `"asked":2`) {
		t.Errorf("%s %v", b, err)
	}
	r.stop()
	r2 := start(t, spec, sp, options(), func(m *Manager) { m.Adopt(sp.living(), nil) })
	r2.wait(backend.WorkerReady)
	if b, err := r2.ObjectInfo(t.Context()); err != nil || !strings.Contains(string(b), `"asked":2`) {
		t.Errorf("after adoption: %s %v", b, err)
	}
}

func TestAdoption(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	get(t, w.URL+"/say?text="+url.QueryEscape("before\n"))
	eventually(t, func() bool { return hasText(r.Manager, "before") })
	r.stop()
	if !process.Alive(*w.PID, 0) {
		t.Fatal("leaving ended the worker")
	}
	get(t, w.URL+"/say?text="+url.QueryEscape("between\n"))
	rec, found, err := ReadRecord(spec.StateDir, spec.ID)
	if err != nil || !found || rec.Launch != w.Launch || rec.PID != *w.PID || rec.Offset == 0 {
		t.Fatalf("record %+v %v %v", rec, found, err)
	}
	var told []string
	var mu sync.Mutex
	o := options()
	o.OnLine = func(l backend.LogLine) { mu.Lock(); defer mu.Unlock(); told = append(told, l.Text) }
	job := "job-1"
	r2 := start(t, spec, sp, o, func(m *Manager) {
		if got := m.Adopt(sp.living(), nil); !slices.Equal(got, []string{w.Launch}) {
			t.Errorf("adopted %v", got)
		}
		if m.State().Launch != w.Launch {
			t.Error("the launch is not known before Run")
		}
		m.SetBusy(&job, "3")
	})
	n := r2.wait(backend.WorkerBusy)
	if n.Launch != w.Launch || *n.PID != *w.PID || sp.starts != 1 || n.URL != w.URL || len(n.Packs) != 2 {
		t.Errorf("%d starts, %+v, was %+v", sp.starts, n, w)
	}
	if r2.OutputDirs() != r.OutputDirs() || r2.OutputDirs().Output != filepath.Join(spec.ComfyUI, "output") {
		t.Errorf("dirs %+v", r2.OutputDirs())
	}
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(told, "between") })
	mu.Lock()
	if slices.Contains(told, "before") {
		t.Error("lines before the stored offset were told again")
	}
	mu.Unlock()
	eventually(t, func() bool { return hasText(r2.Manager, "before") })
	r2.SetBusy(nil, "")
	if err := r2.Restart(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	r2.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != w.Launch })
}

func TestDeathInTheGapIsExplained(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	r.stop()
	_ = syscall.Kill(*w.PID, syscall.SIGKILL)
	eventually(t, func() bool { sp.mu.Lock(); defer sp.mu.Unlock(); return len(sp.ended) == 1 })
	r2 := start(t, spec, sp, options(), func(m *Manager) { m.Adopt(nil, sp.ended) })
	n := r2.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != w.Launch })
	if v := r2.died(1); v.Kind != backend.KindKilled || v.Launch != w.Launch || n.Restarts != 1 {
		t.Errorf("verdict %+v, worker %+v", v, n)
	}
}

func TestLaunchThatVanishedIsSaidToBe(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	r.stop()
	_ = syscall.Kill(*w.PID, syscall.SIGKILL)
	eventually(t, func() bool { return !process.Alive(*w.PID, 0) })
	r2 := start(t, spec, sp, options(), func(m *Manager) { m.Adopt(nil, nil) })
	if v := r2.died(1); v.Kind != backend.KindUnknown || v.Launch != w.Launch {
		t.Errorf("verdict %+v", v)
	}
	r2.wait(backend.WorkerReady)
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	spec := fakeSpec(t, "normal")
	spec.Port = l.Addr().(*net.TCPAddr).Port
	sp := newSpawner(t)
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerFailed)
	if !strings.Contains(w.Reason, "port "+strconv.Itoa(spec.Port)+" is taken, by ") || !strings.Contains(w.Reason, "pid "+strconv.Itoa(os.Getpid())) || sp.starts != 0 {
		t.Errorf("%d starts, reason %q", sp.starts, w.Reason)
	}
}

func TestTakenPortIsReplacedByAnother(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "port-once")
	r := start(t, spec, sp, options(), nil)
	r.wait(backend.WorkerReady)
	taken, err := filepath.Glob(filepath.Join(spec.ComfyUI, "taken-*"))
	if err != nil || len(taken) != 2 || sp.starts != 2 {
		t.Errorf("%d starts, ports %v", sp.starts, taken)
	}
	if v := r.died(1); v.Kind != backend.KindBadStart {
		t.Errorf("verdict %+v", v)
	}
}

func TestMountThatVanishesIsNotFilled(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	spec.Data = filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(spec.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	if err := os.Rename(spec.Data, spec.Data+".gone"); err != nil { // what umount leaves: another, empty directory
		t.Fatal(err)
	}
	if err := os.Mkdir(spec.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(*w.PID, syscall.SIGKILL)
	f := r.wait(backend.WorkerFailed)
	left, err := os.ReadDir(spec.Data)
	if err != nil || len(left) != 0 || !strings.Contains(f.Reason, "is no longer what it was") {
		t.Errorf("%v, reason %q, in it %v", err, f.Reason, left)
	}
	if err := r.Start(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	r.wait(backend.WorkerReady)
}

func TestRefusals(t *testing.T) {
	spec := fakeSpec(t, "normal")
	spec.Args = []string{"--lowvramm"}
	r := start(t, spec, newSpawner(t), options(), nil)
	if w := r.wait(backend.WorkerFailed); !strings.Contains(w.Reason, "no flag --lowvramm") || !strings.Contains(w.Reason, "did you mean --lowvram?") {
		t.Errorf("reason %q", w.Reason)
	}
	spec = fakeSpec(t, "normal")
	spec.Command = "pip install /mnt/data/models/whl/*.whl && python main.py --port 8000"
	r = start(t, spec, newSpawner(t), options(), nil)
	if w := r.wait(backend.WorkerFailed); !strings.Contains(w.Reason, spec.Python+" -m pip install /mnt/data/models/whl/*.whl") {
		t.Errorf("reason %q", w.Reason)
	}
}

func hasText(m *Manager, text string) bool {
	found := false
	_ = m.Logs(context.Background(), backend.LogQuery{Tail: -1}, func(l backend.LogLine) error {
		found = found || l.Text == text
		return nil
	})
	return found
}

func TestLogs(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "flood"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	eventually(t, func() bool { return hasText(r.Manager, "line 19999 of a flood that never says anything useful") })
	var all []backend.LogLine
	take := func(l backend.LogLine) error { all = append(all, l); return nil }
	if err := r.Logs(t.Context(), backend.LogQuery{Tail: -1}, take); err != nil {
		t.Fatal(err)
	}
	if len(all) < 20005 || all[0].N != 1 {
		t.Errorf("%d lines, first %+v", len(all), all[0])
	}
	for i := 1; i < len(all); i++ {
		if all[i].N != all[i-1].N+1 {
			t.Fatalf("line %d follows %d", all[i].N, all[i-1].N)
		}
	}
	last := all[len(all)-1].N
	all = nil
	if err := r.Logs(t.Context(), backend.LogQuery{Tail: 3}, take); err != nil || len(all) != 3 || all[2].N != last {
		t.Errorf("%v %+v", err, all)
	}
	if err := r.Logs(t.Context(), backend.LogQuery{Launch: "no-such", Tail: 3}, take); backend.FailureOf(err).Kind != backend.FailNotFound {
		t.Errorf("unknown launch: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan backend.LogLine, 100)
	done := make(chan error)
	go func() {
		done <- r.Logs(ctx, backend.LogQuery{Follow: true}, func(l backend.LogLine) error { lines <- l; return nil })
	}()
	get(t, w.URL+"/say?text="+url.QueryEscape(" 50%|##### | 1/2 [00:01]\r"))
	bar := next(t, lines, func(l backend.LogLine) bool { return l.Bar })
	get(t, w.URL+"/say?text="+url.QueryEscape("100%|#####| 2/2 [00:02]\n"))
	full := next(t, lines, func(l backend.LogLine) bool { return strings.HasPrefix(l.Text, "100%") && !l.Bar })
	if full.N != bar.N || bar.N != last+1 {
		t.Errorf("a bar is line %d, its end line %d, before it %d", bar.N, full.N, last)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func next(t *testing.T, lines <-chan backend.LogLine, ok func(backend.LogLine) bool) backend.LogLine {
	t.Helper()
	for {
		select {
		case l := <-lines:
			if ok(l) {
				return l
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no such line within 10 s")
		}
	}
}

func TestExternalWorker(t *testing.T) {
	sp := newSpawner(t) // starts the server; the manager of the URL must not use it
	own := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	w := own.wait(backend.WorkerReady)
	spec := Spec{ID: "url", StateDir: t.TempDir(), URL: w.URL}
	r := start(t, spec, newSpawner(t), options(), nil)
	e := r.wait(backend.WorkerReady)
	if !e.External || e.Launch == "" || e.URL != w.URL || e.PID == nil || *e.PID != *w.PID || r.sp.starts != 0 {
		t.Errorf("%+v", e)
	}
	for _, err := range []error{r.Start(t.Context(), "Ada"), r.Stop(t.Context(), "Ada"), r.Restart(t.Context(), "Ada")} {
		var f *backend.Failure
		if !errors.As(err, &f) || f.Kind != backend.FailConflict || !strings.Contains(f.Message, "somebody else") {
			t.Errorf("order: %v", err)
		}
	}
	_ = syscall.Kill(*w.PID, syscall.SIGKILL) // its own manager starts it again on the same port
	n := r.until(func(n backend.Worker) bool { return n.State == backend.WorkerReady && n.Launch != e.Launch })
	if v := r.died(1); v.Launch != e.Launch || n.Launch == "" {
		t.Errorf("verdict %+v, now %+v", v, n)
	}
}
