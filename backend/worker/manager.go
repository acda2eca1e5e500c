package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/keeper"
)

// Spawner starts processes and signals them: the engine's end of the keeper.
type Spawner interface {
	// Start starts a launch, or finds it started already.
	Start(ctx context.Context, l keeper.Launch) (keeper.Living, error)
	// Signal sends a signal to the whole process group of a launch. It returns
	// keeper.ErrNotLiving when that has ended.
	Signal(ctx context.Context, launch string, sig syscall.Signal) error
	// Ack says that the end of a launch is written down.
	Ack(launch string) error
}

var _ Spawner = (*keeper.Conn)(nil)

// Options are what a Manager may be told. Callbacks run one at a time, in the order
// of what happened, on a goroutine of their own; they may call the Manager but not
// wait for it. OnLine runs on the goroutine that reads the log and must be quick.
type Options struct {
	OnChange func(backend.Worker)
	// OnDeath gets every end of a launch, also one that was asked for. When it
	// returns, the end counts as written down.
	OnDeath func(backend.Verdict)
	OnLine  func(backend.LogLine)
	Policy  Policy
	Logger  *slog.Logger // nowhere when nil
	// VRAM tells what of the memory of a card is in use, in bytes; 0 when unknown.
	// It is called each second and must be quick. Nil: not known.
	VRAM func(gpu string) (used, total int64)
	// StartTimeout is how long a log may stand still before the worker is ready:
	// 10 minutes.
	StartTimeout time.Duration
	// IntGrace is how long a stop waits after SIGINT before SIGTERM, TermGrace how
	// long after that before SIGKILL: 10 s and 5 s.
	IntGrace, TermGrace time.Duration
}

// Manager holds one worker. Make it with New, perhaps Adopt, then Run. All methods
// are safe for concurrent use once Run was called.
type Manager struct {
	spec Spec
	sp   Spawner
	o    Options
	log  *slog.Logger

	orders  chan order
	ends    chan keeper.Ended
	planned chan planned
	readied chan readied
	done    chan struct{} // closed when Run has returned
	news    *news
	lines   *lineBuffer
	wg      sync.WaitGroup // goroutines of Run

	// mu guards the fields that follow.
	mu      sync.Mutex
	w       backend.Worker
	changed chan struct{} // closed upon the next change of w
	client  *comfy.Client
	dirs    comfy.Dirs
	job     *string
	node    string
	last    string // launch that runs or ran last
	told    time.Time
	cur     *launch   // that runs, nil when none does
	ext     *external // the one that looks after a worker of somebody else
	ending  bool      // it is being ended because it stalled
	guard   Guard

	reading sync.Mutex // one ObjectInfo at a time
	run     runState
}

// New makes the Manager of one worker. The spawner is not used for a worker that
// somebody else runs.
func New(spec Spec, sp Spawner, o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.StartTimeout, 10*time.Minute)
	set(&o.IntGrace, 10*time.Second)
	set(&o.TermGrace, 5*time.Second)
	m := &Manager{
		spec: spec, sp: sp, o: o, log: o.Logger,
		orders: make(chan order), ends: make(chan keeper.Ended, 64), planned: make(chan planned, 1), readied: make(chan readied, 1),
		done: make(chan struct{}), news: newNews(), lines: newLineBuffer(), changed: make(chan struct{}),
	}
	m.w = backend.Worker{
		ID: spec.ID, State: backend.WorkerStopped, Reason: NotYet, Since: backend.Now(),
		Builtin: spec.Builtin, External: spec.external(), URL: spec.URL, RestartCommand: spec.RestartCommand,
	}
	if spec.GPU != "" {
		m.w.GPU = &spec.GPU
	}
	if !spec.external() && !spec.Builtin && spec.ComfyUI != "" {
		m.w.ComfyUI = &backend.ComfyUIInfo{Dir: spec.ComfyUI, Version: checkoutVersion(spec.ComfyUI)}
	}
	return m
}

// State is the worker now. It does not block, and what it returns is the caller's
// to read.
func (m *Manager) State() backend.Worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.w
}

// Client speaks to the running launch; ok is false unless it is ready or busy.
func (m *Manager) Client() (c *comfy.Client, launch string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending || m.w.State != backend.WorkerReady && m.w.State != backend.WorkerBusy {
		return nil, "", false
	}
	return m.client, m.w.Launch, true
}

// OutputDirs are ComfyUI's folders on this machine for the launch that runs or ran
// last; "" where they are not known, as with a worker of somebody else.
func (m *Manager) OutputDirs() comfy.Dirs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dirs
}

// SetBusy tells which job and node run: a job makes a ready worker busy, nil makes
// it ready again. A verdict names what was told last.
func (m *Manager) SetBusy(job *string, node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.job, m.node = job, node
	if m.settleBusy() {
		m.tell()
	}
}

// settleBusy makes state and job agree, and says whether anything changed. It needs
// mu.
func (m *Manager) settleBusy() bool {
	before := m.w.Job
	m.w.Job = m.job
	switch {
	case m.job != nil && m.w.State == backend.WorkerReady:
		m.move(backend.WorkerBusy, "runs job "+short(*m.job))
	case m.job == nil && m.w.State == backend.WorkerBusy:
		m.move(backend.WorkerReady, "ready")
	case m.job != nil && m.w.State == backend.WorkerBusy && (before == nil || *before != *m.job):
		m.w.Reason = "runs job " + short(*m.job)
	default:
		return (before == nil) != (m.job == nil) || before != nil && *before != *m.job
	}
	return true
}

// short is an id as people see it.
func short(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

// to moves the worker to a state. An arrow that does not exist is an error, and
// nothing changes.
func (m *Manager) to(state backend.WorkerState, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := checkTransition(m.w.State, state); err != nil {
		m.log.Error("worker state", "err", err, "reason", reason)
		return err
	}
	m.move(state, reason)
	m.tell()
	return nil
}

// move changes the state without a check. It needs mu.
func (m *Manager) move(state backend.WorkerState, reason string) {
	m.log.Info("worker", "state", state, "was", m.w.State, "reason", reason)
	m.w.State, m.w.Reason, m.w.Since = state, reason, backend.Now()
	if state != backend.WorkerBackoff {
		m.w.NextRestart = backend.Time{}
	}
	if state != backend.WorkerStarting {
		m.w.LastLine = ""
	}
}

// edit changes something else about the worker.
func (m *Manager) edit(f func(w *backend.Worker)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.w)
	m.tell()
}

// tell queues OnChange and wakes those who wait. It needs mu.
func (m *Manager) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
	m.told = time.Now()
	if m.o.OnChange != nil {
		w := m.w
		m.news.add(func() { m.o.OnChange(w) })
	}
}

// Wait blocks until the worker is as ok wants it, and returns it. It fails when the
// context ends or Run has returned.
func (m *Manager) Wait(ctx context.Context, ok func(backend.Worker) bool) (backend.Worker, error) {
	for {
		m.mu.Lock()
		w, changed := m.w, m.changed
		m.mu.Unlock()
		if ok(w) {
			return w, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return w, fmt.Errorf("worker %s is still %s: %w", m.spec.ID, w.State, ctx.Err())
		case <-m.done:
			return w, errLeft
		}
	}
}

var errLeft = backend.Fail(backend.FailEngineDown, "the engine no longer looks after this worker", "try again")

// verb is an order to Run.
type verb int

const (
	verbStart verb = iota
	verbStop
	verbRestart
	verbStall
)

type order struct {
	verb    verb
	by      string
	verdict *backend.Verdict // of verbStall
	done    chan error
}

// give hands an order to Run and waits until it is obeyed or refused.
func (m *Manager) give(ctx context.Context, o order) error {
	if m.spec.external() {
		if m.spec.RestartCommand != "" && (o.verb == verbRestart || o.verb == verbStall) {
			return m.restartOutside(ctx, firstOf(o.by, "somebody"), o.verdict)
		}
		return m.notOurs(o.verb)
	}
	o.by, o.done = firstOf(o.by, "somebody"), make(chan error, 1)
	select {
	case m.orders <- o:
		return <-o.done
	case <-ctx.Done():
		return ctx.Err()
	case <-m.done:
		return errLeft
	}
}

// notOurs refuses an order about a worker of somebody else.
func (m *Manager) notOurs(v verb) error {
	what := map[verb]string{verbStart: "start", verbStop: "stop", verbRestart: "restart", verbStall: "end"}[v]
	return backend.Fail(backend.FailConflict,
		fmt.Sprintf("Easel does not %s the ComfyUI at %s: somebody else runs it (worker.url)", what, m.spec.URL), m.instead(v))
}

// instead says what to do in the place of an order that is refused.
func (m *Manager) instead(v verb) string {
	switch {
	case m.spec.RestartCommand != "":
		return "`easel worker restart` runs worker.restart (" + comfy.Plain(m.spec.RestartCommand, 80) + ")"
	case v == verbRestart || v == verbStall:
		return "worker.restart = \"COMMAND\" makes it possible from here; `easel use DIR` starts its directory under Easel once it is stopped"
	}
	return "do it where it was started; `easel use DIR` starts its directory under Easel once it is stopped"
}

// Start starts the worker if it does not run, and returns when that has begun. In
// back-off it starts at once.
func (m *Manager) Start(ctx context.Context, by string) error {
	return m.give(ctx, order{verb: verbStart, by: by})
}

// Restart stops the worker and starts it again; it returns when that has begun.
func (m *Manager) Restart(ctx context.Context, by string) error {
	return m.give(ctx, order{verb: verbRestart, by: by})
}

// Stop stops the worker, and returns when its process has ended.
func (m *Manager) Stop(ctx context.Context, by string) error {
	if err := m.give(ctx, order{verb: verbStop, by: by}); err != nil {
		return err
	}
	_, err := m.Wait(ctx, func(w backend.Worker) bool { return w.State != backend.WorkerStopping })
	return err
}

// Ended tells how a launch ended, as the keeper saw it.
func (m *Manager) Ended(e keeper.Ended) {
	select {
	case m.ends <- e:
	case <-m.done:
	}
}

// lastLaunch is the launch that runs or ran last, "" when none is known.
func (m *Manager) lastLaunch() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// ObjectInfo is the answer of /object_info of the running launch, as strict JSON. It
// is read once a launch, since it stalls ComfyUI for up to seconds, and kept on the
// disk, since it may be 20 MB.
func (m *Manager) ObjectInfo(ctx context.Context) (json.RawMessage, error) {
	return m.objectInfo(ctx, false)
}

// RefreshObjectInfo reads /object_info again, as after models came or went.
func (m *Manager) RefreshObjectInfo(ctx context.Context) (json.RawMessage, error) {
	return m.objectInfo(ctx, true)
}

func (m *Manager) objectInfo(ctx context.Context, refresh bool) (json.RawMessage, error) {
	c, launch, ok := m.Client()
	if !ok {
		w := m.State()
		return nil, backend.Fail(backend.FailWorker, fmt.Sprintf("worker %s is %s: %s", w.ID, w.State, w.Reason), "its nodes are known when it is ready")
	}
	path := m.infoPath(launch)
	m.reading.Lock()
	defer m.reading.Unlock()
	if !refresh {
		if b, err := os.ReadFile(path); err == nil {
			return b, nil
		}
	}
	info, err := c.ObjectInfo(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the nodes of worker %s: %w", m.spec.ID, err)
	}
	old, _ := filepath.Glob(m.infoPath("*"))
	for _, o := range old {
		_ = os.Remove(o)
	}
	if err := writeFile(path, info.Raw()); err != nil {
		m.log.Warn("keep object_info", "err", err) // read again the next time
	}
	return info.Raw(), nil
}

// infoPath is where the answer of /object_info of a launch is kept.
func (m *Manager) infoPath(launch string) string {
	return filepath.Join(m.spec.StateDir, "workers", m.spec.ID+".object_info-"+launch+".json")
}
