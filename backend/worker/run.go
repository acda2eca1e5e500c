package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/evidence"
	"easel/backend/fault"
	"easel/backend/keeper"
	"easel/backend/process"
)

// Waits of Run.
const (
	tickStarting = 200 * time.Millisecond // while starting: last line, start timeout
	tickRunning  = time.Second            // else: where the log was read to
	abortWait    = 2 * time.Second        // for the stacks that SIGABRT makes Python print
	killWait     = 5 * time.Second        // between two SIGKILLs
	goneWait     = 2 * time.Second        // for the end of a launch that the keeper no longer knows
	spawnWithin  = 10 * time.Second
	// tailLines is how much of the end of a log a verdict looks at.
	tailLines = 400
)

// runState belongs to the goroutine of Run; Adopt and StayStopped set it before.
type runState struct {
	rec    Record
	known  bool           // rec was read
	living *keeper.Living // the process of rec, still running
	gone   *keeper.Ended  // how the process of rec ended
	stay   string         // why it is to stay stopped

	plan     *Plan
	planGen  int
	planStop context.CancelFunc
	cur      *launch // nil when no process runs

	asked   string // who asked for the end of cur
	again   bool   // and wants it started again
	signals int    // sent for that
	timeout time.Duration
	stall   *backend.Verdict // why it is being ended
	// oldGroups are cgroups to be removed.
	oldGroups []evidence.Group

	timer   *time.Timer
	ticking *time.Timer
}

// launch is one process of the worker.
type launch struct {
	id      string
	pid     int
	ticks   uint64
	started time.Time
	ready   bool
	adopted bool
	cancel  context.CancelFunc // ends the goroutines of it
	hint    chan struct{}      // its log says that it listens
	follow  *follow
	watch   *watch
}

type planned struct {
	gen  int
	plan Plan
	err  error
}

type readied struct {
	launch string
	stats  comfy.SystemStats
}

// Adopt looks for the launch of this worker's record among what the keeper knows,
// before Run. It returns the launches that are this worker's; the ends of others
// are not for it.
func (m *Manager) Adopt(living []keeper.Living, ended []keeper.Ended) []string {
	if m.spec.external() {
		return nil
	}
	r := &m.run
	rec, found, err := ReadRecord(m.spec.StateDir, m.spec.ID)
	if err != nil {
		m.log.Warn("worker record", "err", err)
	}
	if !found || err != nil {
		return nil
	}
	r.rec, r.known = rec, true
	if rec.Launch == "" {
		return nil
	}
	if i := slices.IndexFunc(living, func(l keeper.Living) bool { return l.Launch == rec.Launch }); i >= 0 {
		r.living = &living[i]
	}
	if i := slices.IndexFunc(ended, func(e keeper.Ended) bool { return e.Launch == rec.Launch }); i >= 0 {
		r.gone, r.living = &ended[i], nil
	}
	if r.living == nil && r.gone == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.w.Launch, m.last, m.dirs = rec.Launch, rec.Launch, rec.Dirs
	return []string{rec.Launch}
}

// StayStopped keeps the worker from being started by Run, before Run; a process
// that runs is stopped. why is shown.
func (m *Manager) StayStopped(why string) { m.run.stay = firstOf(why, "stopped") }

// Run looks after the worker until the context ends: it starts or adopts it,
// restarts it by the policy and obeys orders. When it returns nil the worker may
// still run: that is for the next engine. Stop it first if it shall not.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.done)
	defer m.wg.Wait()
	m.wg.Add(1)
	go func() { defer m.wg.Done(); m.news.run() }()
	defer m.news.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if m.spec.external() {
		return m.runExternal(ctx)
	}
	r := &m.run
	r.timer, r.ticking = stoppedTimer(), time.NewTimer(tickStarting)
	defer r.timer.Stop()
	defer r.ticking.Stop()
	m.begin(ctx)
	for {
		select {
		case <-ctx.Done():
			m.leave()
			return nil
		case o := <-m.orders:
			o.done <- m.obey(ctx, o)
		case e := <-m.ends:
			m.onEnded(ctx, e)
		case p := <-m.planned:
			m.onPlan(ctx, p)
		case e := <-m.readied:
			m.onReady(e)
		case <-r.timer.C:
			m.onTimer(ctx)
		case <-r.ticking.C:
			m.onTick(ctx)
		}
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// begin goes on with what the record says, or starts the worker.
func (m *Manager) begin(ctx context.Context) {
	r := &m.run
	r.rec.ID, r.rec.BootID = m.spec.ID, process.BootID()
	sweepGroups(time.Now())
	if r.known {
		m.edit(func(w *backend.Worker) { w.Restarts, w.LastDeath = r.rec.Restarts, r.rec.LastDeath })
	}
	switch {
	case r.living != nil:
		m.goOn(ctx, *r.living)
		return
	case r.gone != nil:
		m.goOn(ctx, keeper.Living{Launch: r.gone.Launch, PID: r.gone.PID, Started: r.rec.Started})
		m.onEnded(ctx, *r.gone)
		return
	case r.rec.Launch != "":
		m.lostTogether()
	}
	if r.stay != "" {
		m.edit(func(w *backend.Worker) { w.Reason = r.stay })
		return
	}
	m.prepare(ctx, "starting")
}

// lostTogether writes down the end of a launch that nobody saw: the machine or
// everything of Easel ended with it.
func (m *Manager) lostTogether() {
	r := &m.run
	v := backend.Verdict{
		Kind: backend.KindUnknown, Certainty: backend.Unknown, At: backend.Now(), Worker: m.spec.ID, Launch: r.rec.Launch,
		Summary: "ended together with Easel, cause not seen", Evidence: lastLines(m.tailOf(r.rec.Log)),
		Remedy: "none needed after a restart of the machine; else its last log lines may tell",
	}
	m.report(v, "")
	m.dropGroup()
	r.rec.Launch, r.rec.PID, r.rec.Asked, r.rec.Stall = "", 0, "", nil
	r.rec.LastDeath = &v
	m.save()
}

// goOn takes over a process that a former engine started.
func (m *Manager) goOn(ctx context.Context, l keeper.Living) {
	r := &m.run
	if m.to(backend.WorkerPreparing, "found the worker of the last engine") != nil {
		return
	}
	r.rec.PID, r.rec.StartTicks = l.PID, l.StartTicks
	if !l.Started.IsZero() {
		r.rec.Started = l.Started
	}
	cur := &launch{id: l.Launch, pid: l.PID, ticks: l.StartTicks, started: r.rec.Started, ready: r.rec.Ready, adopted: true}
	m.mu.Lock()
	m.client, m.dirs, m.last = m.newClient(r.rec.URL), r.rec.Dirs, l.Launch
	pid := l.PID
	m.w.PID, m.w.Launch, m.w.URL, m.w.Started = &pid, l.Launch, r.rec.URL, backend.At(cur.started)
	m.w.Packs = r.rec.Packs
	m.setInstall(r.rec.Dir, r.rec.Comfy, r.rec.GPU)
	m.mu.Unlock()
	_ = m.to(backend.WorkerStarting, fmt.Sprintf("adopted pid %d from the last engine; waiting for its answer", l.PID))
	fault.Hit("worker.adoption")
	cur.watch = m.newWatch(cur, r.gone != nil)
	m.attend(ctx, cur, r.rec.Offset)
	m.save()
	m.planAhead(ctx)
	switch {
	case r.gone != nil:
	case r.rec.Asked != "":
		m.end(ctx, r.rec.Asked, r.rec.Again)
	case r.rec.Stall != nil:
		stall := *r.rec.Stall
		if err := m.obeyStall(ctx, stall); err != nil {
			m.log.Error("go on ending a stalled worker", "err", err)
		}
	case r.stay != "":
		m.end(ctx, r.stay, false)
	}
}

// leave ends Run and leaves the process to the next engine.
func (m *Manager) leave() {
	r := &m.run
	if r.planStop != nil {
		r.planStop()
	}
	if r.cur != nil {
		r.cur.cancel()
		r.cur.follow.wait()
		r.cur.watch.close()
		m.noteLog()
		m.save()
	}
	m.removeGroups()
}

// save writes the record. Losing it means that a next engine does not find the
// worker by itself; the present one goes on.
func (m *Manager) save() {
	if err := m.run.rec.write(m.spec.StateDir); err != nil {
		m.log.Error("worker record", "err", err)
	}
}

// obey carries out an order.
func (m *Manager) obey(ctx context.Context, o order) error {
	r := &m.run
	state := m.State().State
	switch o.verb {
	case verbStop:
		return m.obeyStop(ctx, state, o.by)
	case verbStall:
		return m.obeyStall(ctx, *o.verdict)
	}
	r.stay, r.rec.Deaths = "", nil // a person decided: the policy begins anew
	switch {
	case state == backend.WorkerStopping:
		r.again = true
		r.rec.Again = true
		m.save()
	case alive(state) && o.verb == verbRestart:
		m.end(ctx, o.by, true)
	case alive(state) || state == backend.WorkerPreparing:
	default:
		r.timer.Stop()
		m.prepare(ctx, "started by "+o.by)
	}
	return nil
}

func (m *Manager) obeyStop(ctx context.Context, state backend.WorkerState, by string) error {
	r := &m.run
	switch {
	case state == backend.WorkerStopped:
	case state == backend.WorkerStopping:
		r.again, r.rec.Again = false, false
		m.save()
	case alive(state):
		m.end(ctx, by, false)
	default: // preparing, back-off, failed: nothing runs
		r.timer.Stop()
		r.planGen++
		if r.planStop != nil {
			r.planStop()
		}
		return m.to(backend.WorkerStopped, "stopped by "+by)
	}
	return nil
}

// end begins to stop the process: SIGINT now, and more by onTimer.
func (m *Manager) end(ctx context.Context, by string, again bool) {
	r := &m.run
	reason := "stopping, asked by " + by
	if again {
		reason = "stopping for a restart, asked by " + by
	}
	if m.to(backend.WorkerStopping, reason) != nil {
		return
	}
	r.asked, r.again, r.timeout, r.stall = by, again, 0, nil
	r.rec.Asked, r.rec.Again = by, again
	m.save()
	r.signals = 0
	m.signal(ctx)
}

// signal sends the next signal of a stop and sets the time for the one after it.
func (m *Manager) signal(ctx context.Context) {
	r := &m.run
	sig, wait := syscall.SIGINT, m.o.IntGrace
	switch {
	case r.signals == 1:
		sig, wait = syscall.SIGTERM, m.o.TermGrace
	case r.signals > 1:
		sig, wait = syscall.SIGKILL, killWait
	}
	if r.signals == 0 && (r.timeout > 0 || r.stall != nil) { // Python prints where it stands
		sig, wait, r.signals = syscall.SIGABRT, abortWait, 1
	}
	r.signals++
	if r.signals > 4 {
		m.edit(func(w *backend.Worker) {
			w.Reason = fmt.Sprintf("pid %d does not end, even by SIGKILL: it hangs in the kernel (a mount or the GPU driver)", r.cur.pid)
		})
	}
	sctx, cancel := context.WithTimeout(ctx, spawnWithin)
	defer cancel()
	err := m.sp.Signal(sctx, r.cur.id, sig)
	switch {
	case errors.Is(err, keeper.ErrNotLiving):
		wait = goneWait // its end is on the way here
	case err != nil:
		m.log.Error("signal the worker", "signal", sig, "err", err)
	}
	r.timer.Reset(wait)
}

// onTimer: a stop that needs the next signal, or a back-off that is over.
func (m *Manager) onTimer(ctx context.Context) {
	r := &m.run
	switch {
	case r.cur != nil && (r.asked != "" || r.timeout > 0 || r.stall != nil):
		if !process.Alive(r.cur.pid, r.cur.ticks) && r.cur.ticks != 0 && r.signals > 2 {
			m.onEnded(ctx, keeper.Ended{Launch: r.cur.id, PID: r.cur.pid, At: time.Now(), Started: r.cur.started})
			return
		}
		m.signal(ctx)
	case m.State().State == backend.WorkerBackoff:
		m.prepare(ctx, "restarting after a wait")
	}
}

// onTick keeps the record up to date, and watches over a start.
func (m *Manager) onTick(ctx context.Context) {
	r := &m.run
	next := tickRunning
	m.removeGroups()
	if r.cur != nil {
		kills := r.cur.watch.ownKills()
		if moved := m.noteLog(); moved || kills > r.rec.OOMKills {
			r.rec.OOMKills = max(r.rec.OOMKills, kills)
			m.save()
		}
		if !r.cur.ready {
			next = tickStarting
			m.showLine()
			m.checkStart(ctx)
		}
	}
	r.ticking.Reset(next)
}

// checkStart ends a process that is not ready and whose log stands still. One that
// had been ready under a former engine is left alone.
func (m *Manager) checkStart(ctx context.Context) {
	r := &m.run
	if r.asked != "" || r.timeout > 0 || r.stall != nil || time.Since(r.cur.follow.movedAt()) < m.o.StartTimeout {
		return
	}
	r.timeout, r.signals = m.o.StartTimeout, 0
	m.edit(func(w *backend.Worker) {
		w.Reason = fmt.Sprintf("not ready, and its log has not moved for %s: ending it", span(m.o.StartTimeout))
	})
	m.signal(ctx)
}

// onReady: the process answered.
func (m *Manager) onReady(e readied) {
	r := &m.run
	if r.cur == nil || r.cur.id != e.launch || m.State().State != backend.WorkerStarting {
		return
	}
	reason := fmt.Sprintf("ready, %s after its start", time.Since(r.cur.started).Round(100*time.Millisecond))
	if r.cur.adopted {
		reason = "ready; adopted from the last engine"
	}
	r.cur.ready = true
	r.rec.Ready, r.rec.Comfy = true, e.stats.Version
	m.noteLog()
	m.save()
	m.mu.Lock()
	m.setInstall(r.rec.Dir, firstOf(e.stats.Version, r.rec.Comfy), r.rec.GPU)
	m.mu.Unlock()
	if m.to(backend.WorkerReady, reason) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.settleBusy() { // the dispatcher told of a job before
		m.tell()
	}
}

// setInstall says which ComfyUI the worker runs. It needs mu.
func (m *Manager) setInstall(dir, version, gpu string) {
	if m.spec.Builtin {
		dir = ""
	}
	m.w.ComfyUI = &backend.ComfyUIInfo{Dir: dir, Version: version}
	m.w.GPU = nil
	if gpu != "" {
		m.w.GPU = &gpu
	}
}

// newClient is a client of the launch at url.
func (m *Manager) newClient(url string) *comfy.Client {
	return comfy.New(url, comfy.WithLogger(m.log))
}

// sessionMark is the file that ComfyUI-Manager leaves when it wants a restart.
func (m *Manager) sessionMark() string {
	return filepath.Join(m.spec.StateDir, "workers", m.spec.ID, "session.reboot")
}
