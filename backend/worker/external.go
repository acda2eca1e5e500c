package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/evidence"
	"easel/backend/process"
)

// external looks after a ComfyUI that somebody else runs: whether it answers, which
// launch of it that is, what it logs and how it ended.
type external struct {
	m     *Manager
	c     *comfy.Client
	id    string // of our socket
	place place
	life  context.Context // of Run

	// The fields down to told belong to the goroutine of Run. launch is the one seen
	// last, fixed to pid and start time where these can be seen.
	launch  string
	pid     int
	who     runner // who runs that launch, and as what
	witness *process.Witness
	watch   *watch
	unwatch context.CancelFunc
	told    bool // its end was told

	// mu guards the fields that follow.
	mu       sync.Mutex
	log      startLog
	piece    string // of a line without its end
	number   int64  // of the last line
	heard    string // launch whose lines were read
	heardAt  time.Time
	bar      string
	thread   time.Time        // when the log told of a thread that died
	own      bool             // its lines come from /internal/logs
	asked    string           // who asked for its restart, while that goes on
	stall    *backend.Verdict // why, when it is for that
	restarts bool             // the command of worker.restart runs
	closed   bool
	gone     chan struct{} // closed when the launch ends
}

// runExternal drives a worker under worker.url until the context ends. Its state
// follows whether it answers: one question when it comes, then an open socket.
func (m *Manager) runExternal(ctx context.Context) error {
	x := &external{
		m: m, id: "easel-watch-" + uuid.NewString(), c: m.newClient(m.spec.URL), place: placeOf(m.spec.Log), life: ctx,
		gone: make(chan struct{}),
	}
	x.own = x.place.kind == ""
	defer x.c.Close()
	if rec, found, err := ReadRecord(m.spec.StateDir, m.spec.ID); err == nil && found && rec.URL == m.spec.URL {
		x.launch, x.pid = rec.Launch, rec.PID
		if rec.Runner != nil {
			x.who = *rec.Runner
		}
		m.run.rec.Restarts = rec.Restarts
		m.edit(func(w *backend.Worker) { w.LastDeath, w.Restarts = rec.LastDeath, rec.Restarts })
	}
	m.run.rec.ID, m.run.rec.URL = m.spec.ID, m.spec.URL
	m.mu.Lock()
	m.ext = x
	m.mu.Unlock()
	m.wg.Add(2)
	go func() { defer m.wg.Done(); m.dropEnds(ctx) }()
	go func() { defer m.wg.Done(); x.followLog(ctx) }()
	defer x.leave()
	wait := 250 * time.Millisecond
	for ctx.Err() == nil {
		if x.connect(ctx) {
			wait = 250 * time.Millisecond
			x.listen(ctx)
		}
		if !sleep(ctx, wait) {
			break
		}
		wait = min(wait*2, 5*time.Second)
	}
	return nil
}

// leave ends the watch over a process that goes on.
func (x *external) leave() {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	x.letGo()
}

// letGo ends the watch over the process.
func (x *external) letGo() {
	x.witness.Close()
	x.witness = nil
	if x.watch != nil {
		x.unwatch()
		x.watch.close()
		x.watch = nil
	}
}

// dropEnds keeps Ended from filling up: nothing of ours ends here.
func (m *Manager) dropEnds(ctx context.Context) {
	for {
		select {
		case <-m.ends:
		case <-ctx.Done():
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// connect asks once whether the server answers, and makes the worker ready.
func (x *external) connect(ctx context.Context) bool {
	m := x.m
	stats, err := x.c.SystemStats(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		x.lost(ctx, err)
		return false
	}
	x.identify(ctx)
	x.settleRestart()
	var dirs comfy.Dirs
	if x.pid != 0 {
		dirs = foldersOf(x.pid)
	}
	if s := m.State().State; s == backend.WorkerStopped || s == backend.WorkerBackoff {
		_ = m.to(backend.WorkerPreparing, "looking for it at "+m.spec.URL)
	}
	m.mu.Lock()
	m.client, m.last, m.dirs = x.c, x.launch, dirs
	m.w.Launch, m.w.ComfyUI = x.launch, &backend.ComfyUIInfo{Version: stats.Version}
	if x.pid != 0 {
		pid := x.pid
		m.w.PID = &pid
	}
	m.mu.Unlock()
	_ = m.to(backend.WorkerStarting, "it answers")
	_ = m.to(backend.WorkerReady, "ready at "+m.spec.URL+"; run by "+x.runBy())
	m.mu.Lock()
	if m.settleBusy() {
		m.tell()
	}
	m.mu.Unlock()
	return true
}

// runBy names who runs it.
func (x *external) runBy() string {
	switch x.place.kind {
	case placeJournal, placeDocker:
		return x.place.String()
	}
	return "somebody else"
}

// identify settles which launch answers: where the process can be seen on this
// machine, its pid and start time are the launch; else the invocation of its unit or
// the start of its container; else it is the same one until a refused connection
// shows that it ended.
func (x *external) identify(ctx context.Context) {
	who := x.ask(ctx)
	pid, ticks := x.process(who)
	launch := x.launch
	switch {
	case who.Container != nil:
		launch = who.Container.launch()
	case pid != 0:
		launch = fmt.Sprintf("pid-%d-%d", pid, ticks)
	case who.Unit != nil && who.Unit.Invocation != "":
		launch = "unit-" + who.Unit.Invocation
	case launch == "" || x.pid != 0:
		launch = uuid.NewString()
	}
	if launch == x.launch && x.witness != nil {
		return
	}
	if x.launch != "" && launch != x.launch {
		x.ended(ctx, "the ComfyUI at "+x.m.spec.URL+" was restarted by "+x.runBy())
		x.m.count()
	}
	x.letGo()
	x.launch, x.pid, x.who, x.told = launch, pid, who, false
	x.mu.Lock()
	x.gone, x.thread, x.bar = make(chan struct{}), time.Time{}, ""
	x.mu.Unlock()
	if pid != 0 {
		x.witness = process.Watch(pid, ticks)
		x.watch = newWatch(pid, ticks, evidence.Group{}, 0, false)
		x.watch.gpu, x.watch.vram = x.m.spec.GPU, x.m.o.VRAM
		wctx, cancel := context.WithCancel(ctx)
		x.unwatch = cancel
		w := x.watch
		x.m.wg.Add(1)
		go func() { defer x.m.wg.Done(); w.run(wctx) }()
	}
	x.save()
}

// process is the process that answers, 0 where it cannot be seen.
func (x *external) process(who runner) (pid int, ticks uint64) {
	if who.Container != nil { // the listener is docker's proxy
		return seenPID(who.Container.State.Pid)
	}
	if port, ok := localPort(x.m.spec.URL); ok {
		if l, found := listenerOn(port); found && l.pid != 0 {
			return l.pid, l.ticks
		}
	}
	if who.Unit != nil {
		return seenPID(who.Unit.Main)
	}
	return 0, 0
}

// seenPID is the pid with its start time, 0 when it is not to be seen.
func seenPID(pid int) (int, uint64) {
	if pid <= 0 {
		return 0, 0
	}
	ticks, err := process.StartTicks(pid)
	if err != nil {
		return 0, 0
	}
	return pid, ticks
}

func (x *external) save() {
	m := x.m
	m.run.rec.Launch, m.run.rec.PID, m.run.rec.Ready = x.launch, x.pid, true
	m.run.rec.Runner = nil
	if x.who.known() {
		who := x.who
		m.run.rec.Runner = &who
	}
	m.save()
}

// lost notes that the server does not answer. A refused connection means that
// nothing listens there: the process has ended.
func (x *external) lost(ctx context.Context, err error) {
	m := x.m
	reason := fmt.Sprintf("no answer from %s: %s", m.spec.URL, comfy.Plain(rootCause(err).Error(), 200))
	if errors.Is(err, syscall.ECONNREFUSED) && x.launch != "" {
		x.ended(ctx, "the ComfyUI at "+m.spec.URL+" ended: nothing listens there")
	}
	x.away(reason)
}

// away brings the worker to where it waits until it answers.
func (x *external) away(reason string) {
	m := x.m
	m.mu.Lock()
	m.w.PID, m.w.Launch = nil, ""
	state := m.w.State
	m.mu.Unlock()
	x.mu.Lock()
	asked := x.asked
	x.mu.Unlock()
	more := "trying again until it does"
	if asked != "" {
		more = "restarted by " + asked
	} else if m.spec.RestartCommand != "" {
		more += "; `easel worker restart` runs " + comfy.Plain(m.spec.RestartCommand, 80)
	}
	switch state {
	case backend.WorkerStopped, backend.WorkerBackoff: // not seen yet, or waited for
		if full := reason + "; " + more; m.State().Reason != full {
			m.edit(func(w *backend.Worker) { w.Reason = full })
		}
	default:
		_ = m.to(backend.WorkerExited, reason)
		_ = m.to(backend.WorkerBackoff, reason+"; "+more)
	}
}

// listen holds a socket open until it breaks, and reads the log meanwhile.
func (x *external) listen(ctx context.Context) {
	m := x.m
	subscribed := false
	err := x.c.Listen(ctx, x.id, func(msg comfy.Message) {
		switch msg := msg.(type) {
		case comfy.Status:
			if !subscribed {
				subscribed = true
				m.wg.Add(1)
				go func() { defer m.wg.Done(); x.subscribe(ctx) }()
			}
		case comfy.LogEntries:
			x.entries(msg.Entries)
		}
	})
	if ctx.Err() != nil {
		return
	}
	reason := fmt.Sprintf("the connection to %s ended: %s", m.spec.URL, comfy.Plain(rootCause(err).Error(), 200))
	if x.isGone() {
		x.ended(ctx, "the ComfyUI at "+m.spec.URL+" ended")
		if d := m.State().LastDeath; d != nil {
			reason = d.Summary
		}
	}
	x.away(reason)
}

// isGone reports whether the process is known to have ended. A socket may break by
// itself, and one that breaks because of an end does so a moment before it.
func (x *external) isGone() bool {
	x.mu.Lock()
	asked := x.asked != ""
	x.mu.Unlock()
	if x.witness == nil {
		return asked // we had it restarted: a broken socket is its end
	}
	for range 20 {
		if !x.witness.Alive() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// localPort is the port of a URL that means this machine.
func localPort(address string) (int, bool) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, false
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return 0, false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.Atoi(port)
	return n, err == nil
}
