package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/keeper"
)

// oomScoreAdj makes the kernel prefer ComfyUI to sshd and to Easel when memory
// runs out.
const oomScoreAdj = 500

// prepare begins a start. With a plan that still holds the process is started at
// once, in this call.
func (m *Manager) prepare(ctx context.Context, reason string) {
	if m.to(backend.WorkerPreparing, reason) != nil {
		return
	}
	r := &m.run
	if r.plan != nil && r.plan.fresh() {
		m.launch(ctx)
		return
	}
	r.plan = nil
	m.planAhead(ctx)
}

// planAhead makes the plan beside Run, which gets it by onPlan.
func (m *Manager) planAhead(ctx context.Context) {
	r := &m.run
	if r.planStop != nil {
		r.planStop()
	}
	r.planGen++
	gen := r.planGen
	ctx, r.planStop = context.WithCancel(ctx)
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		p, err := MakePlan(ctx, m.spec)
		select {
		case m.planned <- planned{gen: gen, plan: p, err: err}:
		case <-ctx.Done():
		}
	}()
}

// onPlan takes a plan: for the start that waits for it, or for a later one.
func (m *Manager) onPlan(ctx context.Context, p planned) {
	r := &m.run
	if p.gen != r.planGen {
		return
	}
	waiting := m.State().State == backend.WorkerPreparing
	if p.err != nil {
		if waiting {
			m.fail(p.err)
		}
		return
	}
	r.plan = &p.plan
	for _, n := range p.plan.Notes {
		m.log.Info("launch plan", "note", n)
	}
	if waiting {
		m.launch(ctx)
	}
}

// fail ends a start that cannot be, in words of the error and its hint.
func (m *Manager) fail(err error) {
	f := backend.FailureOf(err)
	reason := f.Message
	if f.Hint != "" {
		reason += " · " + f.Hint
	}
	m.edit(func(w *backend.Worker) { w.Launch, w.PID, w.URL = "", nil, "" })
	_ = m.to(backend.WorkerFailed, comfy.Plain(reason, 1000))
}

// launch starts the process by the plan.
func (m *Manager) launch(ctx context.Context) {
	r := &m.run
	plan := *r.plan
	if err := plan.Refuse(); err != nil {
		r.plan = nil // a person changes something: look again
		m.fail(err)
		return
	}
	if err := plan.makeDirs(); err != nil {
		r.plan = nil
		m.fail(err)
		return
	}
	port, err := choosePort(plan.Port, r.rec.Port)
	if err != nil {
		m.fail(err)
		return
	}
	id := uuid.NewString()
	l := m.keeperLaunch(plan, id, port)
	r.rec.Group, r.rec.OOMKills = m.makeGroup(id), 0
	l.Cgroup = r.rec.Group.Dir
	_ = os.Remove(m.sessionMark())
	m.note(plan, l, port)
	m.save() // before the process exists: the next engine must know whose it is
	sctx, cancel := context.WithTimeout(ctx, spawnWithin)
	defer cancel()
	living, err := m.sp.Start(sctx, l)
	if err != nil {
		if ctx.Err() != nil { // the engine leaves: the next one finds the launch by its record
			return
		}
		r.rec.Launch = ""
		m.dropGroup()
		m.save()
		m.fail(startFailure(err, l))
		return
	}
	m.started(ctx, plan, living)
}

func (m *Manager) keeperLaunch(plan Plan, id string, port int) keeper.Launch {
	adj := oomScoreAdj
	return keeper.Launch{
		ID: id, Argv: plan.argv(port), Env: plan.Env, Dir: plan.Dir, Log: m.logPath(id), OOMScoreAdj: &adj, CoreZero: true,
	}
}

// note fills the record and the visible worker with a launch that is about to be.
func (m *Manager) note(plan Plan, l keeper.Launch, port int) {
	r := &m.run
	r.rec.Launch, r.rec.PID, r.rec.StartTicks, r.rec.Started = l.ID, 0, 0, time.Now()
	r.rec.Port, r.rec.URL = port, fmt.Sprintf("http://127.0.0.1:%d", port)
	r.rec.Argv, r.rec.Dir, r.rec.Python, r.rec.Log = l.Argv, plan.Checkout, plan.Python, l.Log
	r.rec.Offset, r.rec.Lines, r.rec.Ready, r.rec.Asked, r.rec.Again = 0, 0, false, "", false
	r.rec.Dirs, r.rec.Comfy, r.rec.GPU, r.rec.Packs = plan.Dirs, plan.Version, plan.GPU, nil
	r.rec.Stall = nil
	r.asked, r.again, r.signals, r.timeout, r.stall = "", false, 0, 0, nil
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = false
	m.w.Launch, m.last, m.dirs = l.ID, l.ID, plan.Dirs
	m.w.URL, m.w.Packs = r.rec.URL, nil
	m.setInstall(plan.Checkout, plan.Version, plan.GPU)
}

func startFailure(err error, l keeper.Launch) error {
	var f *backend.Failure
	if errors.As(err, &f) {
		return f
	}
	return backend.Fail(backend.FailWorker, fmt.Sprintf("%s could not be started: %v", l.Argv[0], err), "check worker.python and worker.comfyui; a full disk or too many processes also do that")
}

// started goes on with a process that runs.
func (m *Manager) started(ctx context.Context, plan Plan, living keeper.Living) {
	r := &m.run
	if living.Started.IsZero() {
		living.Started = time.Now()
	}
	r.rec.PID, r.rec.StartTicks, r.rec.Started = living.PID, living.StartTicks, living.Started
	cur := &launch{id: living.Launch, pid: living.PID, ticks: living.StartTicks, started: living.Started}
	pid := living.PID
	m.checkGroup(pid)
	cur.watch = m.newWatch(cur, false)
	m.mu.Lock()
	m.client = m.newClient(r.rec.URL)
	m.w.PID, m.w.Started = &pid, backend.At(living.Started)
	m.mu.Unlock()
	reason := fmt.Sprintf("pid %d started; not ready until it answers", pid)
	if len(plan.Notes) > 0 {
		reason += " · " + plan.Notes[0]
	}
	_ = m.to(backend.WorkerStarting, reason)
	m.save()
	m.attend(ctx, cur, 0)
	m.wg.Add(1)
	go func() { defer m.wg.Done(); m.pruneLogs() }()
}

// attend begins to read the log of a launch and to ask whether it is ready.
func (m *Manager) attend(ctx context.Context, cur *launch, offset int64) {
	r := &m.run
	ctx, cur.cancel = context.WithCancel(ctx)
	cur.hint = make(chan struct{}, 1)
	cur.follow = newFollow(m, cur, offset, r.rec.Lines, r.rec.Packs)
	r.cur = cur
	r.ticking.Reset(tickStarting)
	m.mu.Lock()
	c := m.client
	m.cur = cur
	m.mu.Unlock()
	m.wg.Add(3)
	go func() { defer m.wg.Done(); cur.watch.run(ctx) }()
	path := r.rec.Log // not read there: Run goes on meanwhile
	go func() { defer m.wg.Done(); cur.follow.run(ctx, path) }()
	go func() { defer m.wg.Done(); m.probe(ctx, cur.id, c, cur.hint) }()
}

// probe asks /system_stats until it answers 200. It is not asked again afterwards:
// the question touches CUDA.
func (m *Manager) probe(ctx context.Context, id string, c *comfy.Client, hint <-chan struct{}) {
	const first, last = 50 * time.Millisecond, 250 * time.Millisecond
	wait := first
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hint:
		case <-t.C:
		}
		stats, err := c.SystemStats(ctx)
		if err == nil {
			select {
			case m.readied <- readied{launch: id, stats: stats}:
			case <-ctx.Done():
			}
			return
		}
		wait = min(wait*3/2, last)
		t.Reset(wait)
	}
}

// choosePort is the port of a launch: the one wanted, or the one of the last
// launch, or a free one. It is tried before the start, since a ComfyUI that finds
// its port taken has by then emptied the temporary directory of the other.
func choosePort(want, before int) (int, error) {
	if want != 0 {
		var err error
		for range 25 { // the last process may only just be gone
			if err = bindable(want); err == nil {
				return want, nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return 0, backend.Fail(backend.FailWorker, fmt.Sprintf("port %d is taken%s", want, holder(want)),
			"end that program, or set worker.port = 0 for a free one")
	}
	if before != 0 && bindable(before) == nil {
		return before, nil
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return 0, backend.Fail(backend.FailWorker, fmt.Sprintf("no free port on 127.0.0.1: %v", err), "is the loopback interface up?")
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func bindable(port int) error {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // at once
	if err != nil {
		return err
	}
	return l.Close()
}

// holder names the program that listens on a port, as ", by python3 (pid 12, user
// root)"; "" when it is not known.
func holder(port int) string {
	l, ok := listenerOn(port)
	if !ok || l.pid == 0 {
		return ""
	}
	return fmt.Sprintf(", by %s (pid %d, user %s)", comfy.Plain(l.name, 40), l.pid, comfy.Plain(l.user, 40))
}
