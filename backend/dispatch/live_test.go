package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/jobs"
	"easel/backend/sketch"
)

// TestMain plays the built-in worker when a test starts this binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("DISPATCH_TEST_WORKER") != "" {
		os.Exit(sketch.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// realWorker is a built-in worker in a process of its own.
type realWorker struct {
	t    *testing.T
	dir  string
	args []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	client *comfy.Client
	launch string
	busy   string
	flags  []string
	log    Activity
	d      *Dispatcher
	ends   []string // why it was ended, oldest first
	wg     sync.WaitGroup
}

func (w *realWorker) State() backend.Worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := backend.Worker{ID: "w", State: backend.WorkerReady, Launch: w.launch}
	if w.cmd != nil {
		pid := w.cmd.Process.Pid
		st.PID = &pid
	}
	return st
}

// Activity is what the log showed.
func (w *realWorker) Activity() Activity {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log
}

// Write takes in the log.
func (w *realWorker) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Line = time.Now()
	if strings.Contains(string(b), "Exception in thread") {
		w.log.ThreadDied = time.Now()
	}
	w.log.Bar = string(b)
	return len(b), nil
}

// Stall ends the launch as the engine does: its end is reported as asked for.
func (w *realWorker) Stall(ctx context.Context, v backend.Verdict) error {
	return w.Restart(ctx, "stall: "+v.Summary)
}

// Restart stops the process and starts another.
func (w *realWorker) Restart(_ context.Context, by string) error {
	w.mu.Lock()
	cmd, launch, d := w.cmd, w.launch, w.d
	w.client = nil
	w.ends = append(w.ends, by)
	w.mu.Unlock()
	w.wg.Go(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		kill := time.AfterFunc(time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		d.Ended("w", backend.Verdict{Kind: backend.KindAsked, Certainty: backend.Certain, Summary: by, Launch: launch, At: backend.Now()})
		w.start()
		d.Changed("w")
	})
	return nil
}

// Flags are those of the running process.
func (w *realWorker) Flags() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flags
}

// Relaunch restarts the process with more flags.
func (w *realWorker) Relaunch(flags []string) error {
	w.mu.Lock()
	w.flags = flags
	w.mu.Unlock()
	return w.Restart(context.Background(), "flags: "+strings.Join(flags, " "))
}

// ended is why the worker was ended so far.
func (w *realWorker) ended() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ends)
}

func (w *realWorker) Client() (*comfy.Client, string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.client, w.launch, w.client != nil
}

func (w *realWorker) SetBusy(job *string, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = ""
	if job != nil {
		w.busy = *job
	}
}

func (w *realWorker) Dirs() comfy.Dirs {
	return comfy.Dirs{Output: filepath.Join(w.dir, "output"), Input: filepath.Join(w.dir, "input"), Temp: filepath.Join(w.dir, "temp", "temp")}
}

// start starts the process and waits until it answers.
func (w *realWorker) start() {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	args := append([]string{
		"--port", fmt.Sprint(port), "--output-directory", filepath.Join(w.dir, "output"),
		"--input-directory", filepath.Join(w.dir, "input"), "--temp-directory", filepath.Join(w.dir, "temp"),
	}, slices.Concat(w.args, w.Flags())...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.Env = append(os.Environ(), "DISPATCH_TEST_WORKER=1")
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	c := comfy.New(fmt.Sprintf("http://127.0.0.1:%d", port), comfy.WithReconnect(200*time.Millisecond, 50*time.Millisecond, time.Second))
	for range 400 {
		if _, err = c.SystemStats(context.Background()); err == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.cmd, w.client, w.launch = cmd, c, uuid.NewString()
	w.mu.Unlock()
}

// kill ends the process and tells the dispatcher, as the engine does.
func (w *realWorker) kill(d *Dispatcher, v backend.Verdict) {
	w.mu.Lock()
	cmd, launch := w.cmd, w.launch
	w.client = nil
	w.mu.Unlock()
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	v.Launch, v.At = launch, backend.Now()
	if d != nil {
		d.Ended("w", v)
	}
}

// bench is a store, a dispatcher and one worker.
type bench struct {
	t      *testing.T
	store  *jobs.Store
	w      *realWorker
	d      *Dispatcher
	cancel func()
	done   chan struct{}
	tune   func(*Options)
	box    *machine // instead of this one
}

func newBench(t *testing.T, args ...string) *bench {
	t.Helper()
	return tunedBench(t, nil, nil, args...)
}

func tunedBench(t *testing.T, tune func(*Options), box *machine, args ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"output", "input", "temp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store, err := jobs.Open(t.Context(), filepath.Join(dir, "jobs.db"), jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, w: &realWorker{t: t, dir: dir, args: args}, tune: tune, box: box}
	b.w.start()
	b.run()
	t.Cleanup(func() {
		b.stop()
		b.w.wg.Wait()
		b.w.kill(nil, backend.Verdict{})
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// run starts a dispatcher, as an engine does; stop ends it as a crash would,
// without touching the worker.
func (b *bench) run() {
	b.d = New(b.store, Hooks{}, slog.New(slog.DiscardHandler))
	if b.box != nil {
		b.d.box = *b.box
	}
	if b.tune != nil {
		o := DefaultOptions()
		b.tune(&o)
		b.d.SetOptions(o)
	}
	b.w.mu.Lock()
	b.w.d = b.d
	b.w.mu.Unlock()
	b.d.AddWorker("w", b.w)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan struct{})
	go func() { defer close(b.done); _ = b.d.Run(ctx) }()
}

func (b *bench) stop() { b.cancel(); <-b.done }

func (b *bench) submit(seconds float64, change func(*backend.Submission)) string {
	b.t.Helper()
	sub := backend.Submission{Owner: "me", Source: backend.SourceCLI, Graph: json.RawMessage(fmt.Sprintf(
		`{"1":{"class_type":"EaselSketch","inputs":{"text":"t","seed":%d,"width":64,"height":64,"batch_size":1,"steps":10,"seconds":%g}},
		"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"p"}}}`, time.Now().UnixNano(), seconds))}
	if change != nil {
		change(&sub)
	}
	j, _, err := b.store.Submit(b.t.Context(), sub)
	if err != nil {
		b.t.Fatal(err)
	}
	return j.ID
}

func (b *bench) wait(id string, state backend.JobState) backend.Job {
	b.t.Helper()
	var j backend.Job
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		if j, err = b.store.Get(b.t.Context(), id); err != nil {
			b.t.Fatal(err)
		}
		if j.State == state {
			return j
		}
		if j.State.Final() {
			break
		}
	}
	raw, _ := json.MarshalIndent(j, "", " ")
	b.t.Fatalf("job never became %s:\n%s", state, raw)
	return j
}

func TestJobsRunInOrderAndCarryTheirOutputs(t *testing.T) {
	b := newBench(t)
	var ids []string
	for range 5 {
		ids = append(ids, b.submit(0.05, nil))
	}
	var last backend.Time
	for _, id := range ids {
		j := b.wait(id, backend.JobSucceeded)
		if len(j.Attempts) != 1 || len(j.Outputs) != 1 || j.Outputs[0].Width == nil || *j.Outputs[0].Width != 64 || j.InferenceS == nil {
			t.Errorf("job %+v", j)
		}
		if j.Started.Before(last.Time) {
			t.Error("out of order")
		}
		last = j.Started
	}
}

func TestInvalidGraphFailsWithNodeAndInput(t *testing.T) {
	b := newBench(t)
	id := b.submit(0, func(s *backend.Submission) {
		s.Graph = json.RawMessage(`{"1":{"class_type":"EmptyImage","inputs":{"width":0,"height":64,"batch_size":1,"color":0}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"p"}}}`)
	})
	j := b.wait(id, backend.JobFailed)
	if j.Error == nil || j.Error.Kind != backend.KindInvalid || j.Error.Node != "1" || j.Error.Input != "width" {
		t.Errorf("error %+v", j.Error)
	}
}

func TestAnotherDispatcherAdoptsWhatRuns(t *testing.T) {
	b := newBench(t)
	id := b.submit(2, nil)
	next := b.submit(0.05, nil)
	b.wait(id, backend.JobRunning)
	b.stop()
	b.run()
	if j := b.wait(id, backend.JobSucceeded); len(j.Attempts) != 1 {
		t.Errorf("attempts %+v", j.Attempts)
	}
	if j := b.wait(next, backend.JobSucceeded); len(j.Attempts) != 1 {
		t.Errorf("attempts of the second %+v", j.Attempts)
	}
}

func TestWhatEndedWhileNobodyListenedIsFound(t *testing.T) {
	b := newBench(t)
	id := b.submit(0.5, nil)
	b.wait(id, backend.JobRunning)
	b.stop()
	time.Sleep(time.Second) // it ends meanwhile, unheard
	b.run()
	if j := b.wait(id, backend.JobSucceeded); len(j.Attempts) != 1 || len(j.Outputs) != 1 {
		t.Errorf("job %+v", j)
	}
}

func TestDeathsAreSettledAndTheJobSetAside(t *testing.T) {
	b := newBench(t)
	id := b.submit(5, nil)
	crash := backend.Verdict{Kind: backend.KindCrash, Certainty: backend.Certain, Summary: "segmentation fault"}
	for range 2 {
		b.wait(id, backend.JobRunning)
		b.w.kill(b.d, crash)
		b.waitSettled(id)
		b.w.start()
		b.d.Changed("w")
	}
	j := b.wait(id, backend.JobFailed)
	if len(j.Attempts) != 2 || !j.Error.Quarantined || j.Error.Kind != backend.KindCrash {
		t.Errorf("job %+v, error %+v", j, j.Error)
	}
	if id := b.submit(0.05, nil); b.wait(id, backend.JobSucceeded).ID != id {
		t.Error("the queue does not go on")
	}
}

// waitSettled waits until the job has no open attempt.
func (b *bench) waitSettled(id string) {
	b.t.Helper()
	for range 500 {
		j, err := b.store.Get(b.t.Context(), id)
		if err != nil {
			b.t.Fatal(err)
		}
		if n := len(j.Attempts); n == 0 || !j.Attempts[n-1].Outcome.Open() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatal("an attempt stays open")
}

func TestCancelPauseAndPriority(t *testing.T) {
	b := newBench(t)
	long := b.submit(20, nil)
	sent := b.submit(0.05, nil)
	b.wait(long, backend.JobRunning)
	// A job of a higher priority takes the place of the one sent ahead.
	rush := b.submit(0.05, func(s *backend.Submission) { s.Priority = 5 })
	act := func(v backend.Verb, id string) {
		t.Helper()
		if _, err := b.store.Act(t.Context(), backend.JobAction{Verb: v, Jobs: backend.JobFilter{IDs: []string{id}}}); err != nil {
			t.Fatal(err)
		}
	}
	act(backend.VerbCancel, long)
	b.wait(long, backend.JobCancelled)
	first, second := b.wait(rush, backend.JobSucceeded), b.wait(sent, backend.JobSucceeded)
	if first.Started.After(second.Started.Time) {
		t.Errorf("the rush job started at %v, the other at %v", first.Started, second.Started)
	}
	if len(second.Attempts) != 1 {
		t.Errorf("taking back counted as an attempt: %+v", second.Attempts)
	}
	if err := b.store.SetPaused(t.Context(), true, "test"); err != nil {
		t.Fatal(err)
	}
	held := b.submit(0, nil)
	time.Sleep(300 * time.Millisecond)
	if j, _ := b.store.Get(t.Context(), held); j.State != backend.JobQueued || len(j.Attempts) != 0 {
		t.Errorf("it ran while paused: %+v", j)
	}
	if err := b.store.SetPaused(t.Context(), false, ""); err != nil {
		t.Fatal(err)
	}
	b.d.Wake()
	b.wait(held, backend.JobSucceeded)
}

func TestTimeLimitEndsAJob(t *testing.T) {
	b := newBench(t)
	id := b.submit(20, func(s *backend.Submission) { s.TimeoutS = 0.5 })
	if j := b.wait(id, backend.JobFailed); j.Error.Kind != backend.KindTimeout {
		t.Errorf("error %+v", j.Error)
	}
}

func TestFullDiskIsNoResult(t *testing.T) {
	b := newBench(t, "--fault", "disk-full")
	id := b.submit(0, nil)
	if j := b.wait(id, backend.JobFailed); j.Error == nil || j.Error.Message == "" {
		t.Errorf("job %+v", j)
	}
}

func TestDeafSocketIsNoticed(t *testing.T) {
	b := newBench(t, "--fault", "deaf-socket")
	id := b.submit(0.2, nil)
	b.wait(id, backend.JobSucceeded)
}
