//go:build linux

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/dispatch"
	"easel/backend/keeper"
	wk "easel/backend/worker"
	"easel/backend/workflow"
	"easel/config"
)

// discoverWithin bounds the look for other ComfyUIs on this box.
const discoverWithin = 5 * time.Second

// worker is one ComfyUI under this engine.
type worker struct {
	id     string
	spec   wk.Spec
	m      *wk.Manager
	cancel context.CancelFunc
	done   chan struct{}
	eng    *Engine
	flags  []string // besides those of spec

	// mu guards the fields that follow.
	mu     sync.Mutex
	launch string // that info belongs to
	info   *workflow.ObjectInfo
	marked string // the launch that was last seen, for the cards' time line
}

// specs says which workers a configuration asks for. names are the cards' UUIDs by
// index, as far as they are known.
func specs(cfg config.Config, o Options, names map[int]string) []wk.Spec {
	base := wk.Spec{
		ID: "cpu", StateDir: o.StateDir, ComfyUI: cfg.Worker.ComfyUI, Python: cfg.Worker.Python, Command: cfg.Worker.Command,
		Args: cfg.Worker.Args, Data: cfg.Worker.Data, Port: cfg.Worker.Port, Environ: o.Environ,
		Packages: cfg.Worker.Packages, PipIndex: cfg.Worker.PipIndex,
	}
	switch {
	case cfg.Worker.URL != "":
		base.ID, base.URL = "url", cfg.Worker.URL
		base.Log, base.RestartCommand = cfg.Worker.Log, cfg.Worker.Restart
		return []wk.Spec{base}
	case cfg.Worker.Builtin || cfg.Worker.ComfyUI == "" && cfg.Worker.Command == "":
		base.ID, base.Builtin = "builtin", true
		return []wk.Spec{base}
	case onCPU(cfg.Worker):
		return []wk.Spec{base}
	case len(cfg.Worker.GPUs) <= 1:
		base.ID = "gpu0"
		if len(cfg.Worker.GPUs) == 1 {
			base.ID = "gpu" + strconv.Itoa(cfg.Worker.GPUs[0])
			base.GPU = pin(cfg.Worker.GPUs[0], names, true)
		}
		return []wk.Spec{base}
	}
	var list []wk.Spec
	for _, n := range cfg.Worker.GPUs {
		s := base
		s.ID, s.GPU = "gpu"+strconv.Itoa(n), pin(n, names, false)
		s.Port, s.Sibling = 0, len(list) > 0
		list = append(list, s)
	}
	return list
}

// onCPU reports whether a worker is told to use no card.
func onCPU(w config.Worker) bool {
	return slices.Contains(w.Args, "--cpu") || slices.Contains(strings.Fields(w.Command), "--cpu")
}

// setUpWorkers makes the workers, adopts those that run, and starts the others.
func (e *Engine) setUpWorkers(ctx context.Context, g *errgroup.Group) {
	e.runWorker = func(w *worker) {
		wctx, cancel := context.WithCancel(ctx)
		w.cancel, w.done = cancel, make(chan struct{})
		g.Go(func() error {
			defer close(w.done)
			defer cancel()
			return w.m.Run(wctx)
		})
	}
	e.background = func(fn func(context.Context)) {
		g.Go(func() error { fn(ctx); return nil })
	}
	known := map[string]bool{}
	list := specs(e.config(), e.opts, e.cardNames(ctx, e.config()))
	if e.undecided() {
		list = nil
		e.looking.Store(true)
		g.Go(func() error { e.decide(ctx); return nil })
	}
	for _, s := range list {
		w := e.newWorker(s)
		for _, l := range w.m.Adopt(e.hello.Living, e.hello.Ended) {
			known[l] = true
		}
		e.addWorker(w)
	}
	e.settleUnknown(ctx, known)
}

// undecided reports whether nothing says what paints, and no built-in worker of
// ours has painted here before.
func (e *Engine) undecided() bool {
	w := e.config().Worker
	if w.ComfyUI != "" || w.Command != "" || w.URL != "" || w.Builtin {
		return false
	}
	_, err := os.Stat(filepath.Join(e.opts.StateDir, "workers", "builtin.json"))
	return err != nil
}

// decide looks for a ComfyUI on this box when none is configured. With one found
// nothing is started: a person says which to use. Else it is the built-in worker.
func (e *Engine) decide(ctx context.Context) {
	defer e.looking.Store(false)
	dctx, cancel := context.WithTimeout(ctx, discoverWithin)
	found := wk.Discover(dctx)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if len(found) == 0 {
		e.addWorker(e.newWorker(specs(e.config(), e.opts, nil)[0]))
		return
	}
	where := found[0].Dir
	if found[0].URL != "" {
		where = found[0].URL
	}
	e.mu.Lock()
	e.found = found
	e.remarks = append(e.remarks, fmt.Sprintf("no worker is configured, and there is a ComfyUI at %s: `easel use %s` uses it, `easel use sketch` the built-in worker", where, where))
	e.mu.Unlock()
	e.tellWorkers()
}

// newWorker makes a worker that does not run yet.
func (e *Engine) newWorker(s wk.Spec) *worker {
	w := &worker{id: s.ID, spec: s, eng: e}
	cfg := e.config()
	policy := wk.DefaultPolicy()
	policy.Attempts, policy.Window = cfg.Restart.Attempts, cfg.Restart.Window.Duration
	w.m = wk.New(s, e.conn, wk.Options{
		OnChange: func(backend.Worker) { e.onWorker(w) },
		OnDeath:  func(v backend.Verdict) { e.onDeath(w, v) },
		Policy:   policy,
		Logger:   e.log.With("worker", s.ID),
	})
	return w
}

// addWorker runs w and gives it a lane.
func (e *Engine) addWorker(w *worker) {
	e.mu.Lock()
	e.workers = append(e.workers, w)
	e.mu.Unlock()
	e.runWorker(w)
	e.disp.AddWorker(w.id, lane{w})
	e.tellWorkers()
}

// lane is a worker as the dispatcher sees it.
type lane struct{ *worker }

var (
	_ dispatch.Worker   = lane{}
	_ dispatch.Control  = lane{}
	_ dispatch.Observer = lane{}
	_ dispatch.Launcher = lane{}
)

func (l lane) State() backend.Worker                 { return l.m.State() }
func (l lane) Client() (*comfy.Client, string, bool) { return l.m.Client() }
func (l lane) SetBusy(job *string, node string)      { l.m.SetBusy(job, node) }
func (l lane) Dirs() comfy.Dirs                      { return l.m.OutputDirs() }

// settleUnknown acknowledges ends and stops launches that belong to no worker of
// this configuration.
func (e *Engine) settleUnknown(ctx context.Context, known map[string]bool) {
	for _, end := range e.hello.Ended {
		if !known[end.Launch] {
			_ = e.conn.Ack(end.Launch)
		}
	}
	for _, l := range e.hello.Living {
		if !known[l.Launch] {
			e.log.Warn("a worker runs that the configuration does not know: stopping it", "launch", l.Launch, "pid", l.PID)
			_ = e.conn.Signal(ctx, l.Launch, 15)
		}
	}
}

// onWorker passes on a change of a worker's state.
func (e *Engine) onWorker(w *worker) {
	e.disp.Changed(w.id)
	e.markWorker(w)
	e.tellWorkers()
}

// onDeath records the end of a launch, then lets the dispatcher settle its jobs.
func (e *Engine) onDeath(w *worker, v backend.Verdict) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	v = e.disp.Explain(w.id, v)
	if err := e.store.AddDeath(ctx, v); err != nil {
		e.log.Error("record the end of a worker", "err", err)
	}
	e.markDeath(w, v)
	e.disp.Ended(w.id, v)
}

// onEnded routes the end of a process to its worker.
func (e *Engine) onEnded(end keeper.Ended) {
	e.mu.Lock()
	list := slices.Clone(e.workers)
	e.mu.Unlock()
	for _, w := range list {
		if w.m.State().Launch == end.Launch {
			w.m.Ended(end)
			return
		}
	}
	_ = e.conn.Ack(end.Launch)
}

// workerStates are the workers as people see them.
func (e *Engine) workerStates() []backend.Worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]backend.Worker, 0, len(e.workers))
	for _, w := range e.workers {
		st := w.m.State()
		if remark := e.disp.Remark(w.id); remark != "" {
			st.Reason += " · " + remark
		}
		out = append(out, st)
	}
	return out
}

func (e *Engine) tellWorkers() {
	if any, _ := e.hub.watched(); any {
		e.hub.publish(backend.Frame{Kind: backend.FrameWorkers, Workers: e.workerStates()})
	}
}

// worker is the worker of that id; "" is the first.
func (e *Engine) worker(id string) *worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.workers {
		if id == "" || w.id == id {
			return w
		}
	}
	return nil
}

// readyWorker is a worker that answers, nil when none does.
func (e *Engine) readyWorker() *worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.workers {
		if _, _, ok := w.m.Client(); ok {
			return w
		}
	}
	return nil
}

// waitReady waits for a worker that answers: it may only just have been started.
func (e *Engine) waitReady(ctx context.Context) (*worker, error) {
	for {
		if w := e.readyWorker(); w != nil {
			return w, nil
		}
		for _, st := range e.workerStates() {
			if st.State == backend.WorkerFailed || st.State == backend.WorkerStopped {
				return nil, backend.Fail(backend.FailWorker, "worker "+st.ID+" is "+string(st.State)+": "+clip(st.Reason), "easel worker start")
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.closing.Done():
			return nil, backend.Fail(backend.FailBusy, "the engine is being stopped", "")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// classes is what the nodes of the running launch take, nil when it cannot be
// read now.
func (w *worker) classes(ctx context.Context) *workflow.ObjectInfo {
	_, launch, ok := w.m.Client()
	if !ok {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.launch == launch && w.info != nil {
		return w.info
	}
	raw, err := w.m.ObjectInfo(ctx)
	if err != nil {
		return nil
	}
	info, err := workflow.ParseObjectInfo(bytes.NewReader(raw))
	if err != nil {
		return nil
	}
	w.launch, w.info = launch, info
	return info
}

// refresh reads some classes again, for their lists of files change while ComfyUI
// runs. It gives the classes with fresh lists, nil when they cannot be read now.
func (w *worker) refresh(ctx context.Context, info *workflow.ObjectInfo, classes []string) *workflow.ObjectInfo {
	c, launch, ok := w.m.Client()
	if !ok {
		return nil
	}
	newer := map[string]json.RawMessage{}
	for _, name := range classes {
		raw, known, err := c.ObjectInfoClass(ctx, name)
		if err != nil {
			return nil
		}
		if known {
			newer[name] = raw
		}
	}
	w.mu.Lock()
	if w.launch == launch {
		w.info = info.With(newer)
	}
	w.mu.Unlock()
	fresh := info.With(newer)
	fresh.Fresh = true
	return fresh
}

// actWorkers serves POST /v1/workers/actions.
func (e *Engine) actWorkers(r *http.Request) (any, error) {
	var a backend.WorkerAction
	if err := readJSON(r, &a); err != nil {
		return nil, err
	}
	if a.By == "" {
		a.By = peerName(r.Context())
	}
	var begun []*worker // these start by themselves
	if a.Verb == backend.WorkerStart || a.Verb == backend.WorkerRestart {
		var err error
		if begun, err = e.reconfigure(r.Context()); err != nil {
			return nil, err
		}
	}
	list := e.selectWorkers(a.ID)
	known := len(list) > 0
	list = slices.DeleteFunc(list, func(w *worker) bool { return slices.Contains(begun, w) })
	if !known {
		return nil, backend.Fail(backend.FailNotFound, "there is no worker "+clip(a.ID), "easel status lists the workers")
	}
	var errs []error
	for _, w := range list {
		errs = append(errs, e.actWorker(r.Context(), w, a))
	}
	if err := errors.Join(errs...); err != nil {
		for _, err := range errs {
			var f *backend.Failure
			if errors.As(err, &f) {
				return nil, f
			}
		}
		return nil, err
	}
	return e.workerStates(), nil
}

func (e *Engine) selectWorkers(id string) []*worker {
	if id != "" {
		if w := e.worker(id); w != nil {
			return []*worker{w}
		}
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.workers)
}

// actWorker does one verb to one worker.
func (e *Engine) actWorker(ctx context.Context, w *worker, a backend.WorkerAction) error {
	by := clip(a.By)
	switch a.Verb {
	case backend.WorkerStart:
		return w.m.Start(ctx, by)
	case backend.WorkerRestart:
		return w.m.Restart(ctx, by)
	case backend.WorkerStop:
		return w.m.Stop(ctx, by)
	case backend.WorkerFree:
		return e.disp.Free(ctx, w.id)
	}
	return backend.Fail(backend.FailUsage, "a worker cannot "+clip(string(a.Verb)), "verbs: start stop restart free")
}

// reconfigure reads the configuration again, and replaces the workers that it
// changes. Jobs stay in the queue. begun are the new ones.
func (e *Engine) reconfigure(ctx context.Context) (begun []*worker, err error) {
	cfg, _, err := config.Load(e.opts.ConfigPath, e.opts.Environ)
	if err != nil {
		return nil, backend.Fail(backend.FailUsage, err.Error(), "correct the configuration: easel config check")
	}
	e.replacing.Lock()
	defer e.replacing.Unlock()
	e.mu.Lock()
	e.cfg = cfg
	clear(e.badFlags)
	old := slices.Clone(e.workers)
	e.mu.Unlock()
	e.disp.SetOptions(guardOptions(cfg, e.opts.StateDir))
	want := specs(cfg, e.opts, e.cardNames(ctx, cfg))
	if e.undecided() && len(old) == 0 {
		return nil, backend.Fail(backend.FailWorker, "no worker is configured", "easel use DIR, easel use URL or easel use sketch")
	}
	for _, w := range old {
		if slices.ContainsFunc(want, w.spec.Equal) {
			want = slices.DeleteFunc(want, w.spec.Equal)
			continue
		}
		e.removeWorker(ctx, w)
	}
	for _, s := range want {
		w := e.newWorker(s)
		e.addWorker(w)
		begun = append(begun, w)
	}
	e.mu.Lock()
	e.found, e.remarks = nil, nil
	e.mu.Unlock()
	return begun, nil
}

// removeWorker stops a worker that the configuration no longer has.
func (e *Engine) removeWorker(ctx context.Context, w *worker) {
	if w.spec.URL == "" {
		if err := w.m.Stop(ctx, "a change of the configuration"); err != nil {
			e.log.Warn("stop a worker that is no longer configured", "worker", w.id, "err", err)
		}
	}
	e.mu.Lock()
	e.workers = slices.DeleteFunc(e.workers, func(o *worker) bool { return o == w })
	e.mu.Unlock()
	e.disp.RemoveWorker(context.WithoutCancel(ctx), w.id)
	w.cancel()
	<-w.done
}

// stopWorkers stops all workers that are ours, side by side.
func (e *Engine) stopWorkers(ctx context.Context) error {
	var g errgroup.Group
	for _, w := range e.selectWorkers("") {
		if w.spec.URL != "" {
			continue
		}
		g.Go(func() error {
			if err := w.m.Stop(ctx, "easel stop"); err != nil {
				return fmt.Errorf("stop worker %s: %w", w.id, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// afterRestart does what queue.after_restart says.
func (e *Engine) afterRestart(ctx context.Context) {
	if e.config().Queue.AfterRestart != "pause" || e.hello.Restarts == 0 && len(e.hello.Living) == 0 {
		return
	}
	if err := e.store.SetPaused(ctx, true, "paused since the engine was restarted (queue.after_restart)"); err != nil {
		e.log.Error("pause the queue", "err", err)
	}
}
