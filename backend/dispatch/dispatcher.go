package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/jobs"
)

// Limits of what the dispatcher tries again (engineering.md §5).
const (
	maxAttempts = 5 // attempts of any kind before a job is failed
	maxCounted  = 2 // attempts that took their worker down before a job is set aside
	insideMax   = 2 // prompts inside one ComfyUI: the running one and the next
)

// Worker is one ComfyUI as the dispatcher sees it.
type Worker interface {
	// State is the worker now. It must not block.
	State() backend.Worker
	// Client speaks to the running launch; ok is false unless it is ready or busy.
	Client() (c *comfy.Client, launch string, ok bool)
	// SetBusy tells which job and node run; nil is none.
	SetBusy(job *string, node string)
	// Dirs are the folders of the running launch on this machine, "" where they are
	// not known.
	Dirs() comfy.Dirs
}

// Hooks are called with what is not stored. They must not block.
type Hooks struct {
	Progress func(backend.JobProgress)
	Preview  func(backend.Preview)
	// Changed says that Remark, Note, Notices or Foreign have something new to say
	// about a worker; "" is about the machine.
	Changed func(worker string)
}

// Dispatcher takes jobs to workers. Make it with New, run it with Run.
type Dispatcher struct {
	store *jobs.Store
	hooks Hooks
	log   *slog.Logger

	// pick serialises "choose the next job and write down that it is sent", so that
	// two lanes never take the same one.
	pick sync.Mutex

	// mu guards the fields that follow.
	mu    sync.Mutex
	lanes map[string]*lane
	ctx   context.Context // of Run; nil before
	wg    sync.WaitGroup
	// progress is the last word on each running job, for readers that come later.
	progress map[string]backend.Progress
	remarks  map[string]remark                  // by worker
	foreign  map[string][]backend.ForeignPrompt // by worker
	noDisk   string                             // why nothing is sent, "" when the disk is no reason
	noRAM    string
	closed   bool

	options atomic.Pointer[Options]
	learned *learned
	box     machine
}

// New makes a dispatcher over store.
func New(store *jobs.Store, hooks Hooks, log *slog.Logger) *Dispatcher {
	if hooks.Progress == nil {
		hooks.Progress = func(backend.JobProgress) {}
	}
	if hooks.Preview == nil {
		hooks.Preview = func(backend.Preview) {}
	}
	if hooks.Changed == nil {
		hooks.Changed = func(string) {}
	}
	d := &Dispatcher{
		store: store, hooks: hooks, log: log, lanes: map[string]*lane{}, progress: map[string]backend.Progress{},
		remarks: map[string]remark{}, foreign: map[string][]backend.ForeignPrompt{}, learned: &learned{store: store, log: log},
		box: machine{ram: freeRAM, disk: freeDisk, who: biggest},
	}
	o := DefaultOptions()
	d.options.Store(&o)
	return d
}

// Run dispatches until ctx ends, and returns when every lane has let go of its
// worker. What is inside a ComfyUI then stays there for the next engine to find.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.learned.load(ctx)
	d.look()
	d.mu.Lock()
	d.ctx = ctx
	d.wg.Go(func() { d.guard(ctx) })
	for _, l := range d.lanes {
		d.startLane(l)
	}
	d.mu.Unlock()
	for ctx.Err() == nil {
		d.follow(ctx)
	}
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.wg.Wait()
	return nil
}

// follow wakes the lanes upon changes of the queue, and when a not-before time
// comes, until ctx or the subscription ends.
func (d *Dispatcher) follow(ctx context.Context) {
	events, cancel := d.store.Subscribe(1024)
	defer cancel()
	d.Wake()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if at, ok, err := d.store.NextWake(ctx, time.Now()); ok && err == nil {
			timer.Reset(max(time.Until(at), 10*time.Millisecond))
		} else {
			timer.Reset(time.Hour)
		}
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return // overflow: subscribe anew, and look at everything
			}
			if concerns(e) {
				d.Wake()
			}
		case <-timer.C:
			d.Wake()
		}
	}
}

// concerns reports whether an event changes what should be sent, or taken back.
// That a job began to run or has ended is known to the lane that saw it.
func concerns(e backend.Event) bool {
	switch e.Kind {
	case backend.EventAccepted, backend.EventMoved:
		return true
	case backend.EventState:
		return e.Job == nil || e.Job.Cancelling || e.Job.State == backend.JobQueued || e.Job.State == backend.JobHeld
	}
	return false
}

// Wake makes every lane look at the queue.
func (d *Dispatcher) Wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lanes {
		l.poke()
	}
}

// AddWorker gives a worker a lane. Jobs that a launch which is gone left open
// are settled when the lane starts.
func (d *Dispatcher) AddWorker(id string, w Worker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes[id] != nil || d.closed {
		return
	}
	l := newLane(d, id, w)
	d.lanes[id] = l
	if d.ctx != nil {
		d.startLane(l)
	}
}

// RemoveWorker ends the lane of a worker that will not come back, and waits for
// it. Its open attempts are lost.
func (d *Dispatcher) RemoveWorker(ctx context.Context, id string) {
	d.mu.Lock()
	l := d.lanes[id]
	delete(d.lanes, id)
	d.mu.Unlock()
	if l == nil {
		return
	}
	l.end()
	l.settleAll(ctx, "")
	l.remarkOn("", "")
	d.setForeign(id, nil)
	d.Wake()
}

// startLane runs l. d.mu is held.
func (d *Dispatcher) startLane(l *lane) {
	ctx, cancel := context.WithCancel(d.ctx)
	l.cancel = cancel
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		defer close(l.done)
		l.run(ctx)
	}()
}

// Changed says that the state of a worker changed.
func (d *Dispatcher) Changed(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		l.poke()
	}
}

// Ended says that a launch of a worker has ended, and why. Its attempts are
// settled by the worker's lane.
func (d *Dispatcher) Ended(id string, v backend.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[id]; l != nil {
		l.addDeath(v)
	}
}

// Progress is the last progress of a running job, nil when there is none.
func (d *Dispatcher) Progress(job string) *backend.Progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.progress[job]; ok {
		return &p
	}
	return nil
}

// tell keeps and passes on progress; nil forgets it.
func (d *Dispatcher) tell(job string, p *backend.Progress) {
	d.mu.Lock()
	if p == nil {
		delete(d.progress, job)
	} else {
		d.progress[job] = *p
	}
	d.mu.Unlock()
	if p != nil {
		d.hooks.Progress(backend.JobProgress{Job: job, Progress: *p})
	}
}

// Free asks a worker to free its memory once nothing is sent ahead, and waits
// until it was asked.
func (d *Dispatcher) Free(ctx context.Context, id string) error {
	d.mu.Lock()
	l := d.lanes[id]
	d.mu.Unlock()
	if l == nil {
		return backend.Fail(backend.FailNotFound, "there is no worker "+id, "easel status lists the workers")
	}
	return l.free(ctx)
}
