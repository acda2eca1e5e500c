package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend"
	"easel/backend/process"
)

// phase is where the keeper stands.
//
//	running ─▶ stoppingEngine → stoppingWorkers → over
//	 ▲   │            ▲
//	 │   ▼            │
//	replacing ────────┘   (after an exec in place the old binary's engine is asked
//	                      to end without stopping workers; the new one follows)
type phase int

const (
	running phase = iota
	replacing
	stoppingEngine
	stoppingWorkers
	over
)

// keeper is the state of the process. One goroutine, loop, owns all of it; the
// others only send it events.
type keeper struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File
	ln    *net.UnixListener
	lnIno uint64 // of the socket's path, so that only our own is removed
	named map[string]*named
	ticks uint64 // our own start time
	boot  string

	phase    phase
	deadline time.Time // when the phase is forced, zero: never
	keep     bool      // workers stay when the keeper ends
	result   error     // what Run returns

	engine    *engine // nil while none runs
	gen       int
	history   []EngineEnd
	restarts  int
	crash     *backend.CrashInfo
	breaker   bool
	everReady bool
	nextStart time.Time // zero: no start is planned
	notServed time.Time // since when nothing serves
	refusal   *backend.Failure
	preflight *preflight

	launches map[string]*launch
	ends     []Ended // not acknowledged, oldest first
	down     *down

	inbox    chan event
	ready    *os.File // where Detach waits, nil when none does
	notify   *notifier
	lastTick time.Time
	homeless time.Time // since when the state directory is gone, zero: it is there
}

// event is what another goroutine tells the loop.
type event struct {
	gen   int      // of the engine, for messages
	msg   *message // nil: the pair was closed by the engine
	adopt string   // an adopted launch that ended
	old   bool     // the engine of the former keeper has ended
}

// named is a listener that an engine asked for.
type named struct {
	network, address string
	file             *os.File
	given            bool // by a service manager, which chose its address
}

// Run is the keeper's process. It returns when engine and workers have ended (or
// were told to stay), after SIGTERM, SIGINT, the end of ctx, or the engine's Stop.
// It returns ErrRunning when another keeper holds the state directory and a
// *backend.Failure when the directory cannot be used or no engine can serve.
// It takes over signals and children of the whole process: call it once, from a
// process that does nothing else.
func Run(ctx context.Context, cfg Config) error {
	closeOnExecAll()
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	_ = os.WriteFile("/proc/self/comm", []byte("easel-keeper"), 0)
	if cfg.StateDir == "" && cfg.Adopt != nil {
		cfg.StateDir = cfg.Adopt.StateDir
	}
	k := &keeper{
		cfg: cfg.withDefaults(), named: map[string]*named{}, launches: map[string]*launch{},
		inbox: make(chan event, 64), boot: process.BootID(), ready: readyPipe(), notify: newNotifier(),
	}
	k.log = k.cfg.Logger.With("keeper", os.Getpid())
	err := k.open()
	k.cfg.Adopt.tell(err)
	if err == nil {
		err = k.loop(ctx)
		k.close()
	}
	k.tellReady(err)
	return err
}

// readyPipe is the pipe on which Detach waits, if it started this process.
func readyPipe() *os.File {
	fd, err := strconv.Atoi(os.Getenv(envReady))
	_ = os.Unsetenv(envReady)
	if err != nil || fd < 3 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "ready")
}

// open takes the lock and everything that a former keeper left.
func (k *keeper) open() error {
	if err := CheckStateDir(k.cfg.StateDir); err != nil {
		return err
	}
	if err := k.takeLock(); err != nil {
		return err
	}
	var err error
	if k.ticks, err = process.StartTicks(os.Getpid()); err != nil {
		return fmt.Errorf("read our own start time (is /proc mounted?): %w", err)
	}
	k.inherit()
	if err := k.activate(); err != nil {
		return err
	}
	if k.ln == nil {
		if k.ln, err = Listen(k.cfg.StateDir); err != nil {
			return err
		}
	}
	if st, err := os.Stat(SocketPath(k.cfg.StateDir)); err == nil && !k.isGiven() {
		k.lnIno = inode(st)
	}
	k.down = newDown(k.log)
	k.notServed = time.Now()
	k.saveLaunches()
	k.saveEnds()
	return nil
}

// takeLock takes keeper.lock, or says who holds it. After a takeover the former
// holder may need a moment to be gone.
func (k *keeper) takeLock() error {
	a := k.cfg.Adopt
	if a != nil && a.LockFD > 0 {
		unix.CloseOnExec(a.LockFD)
		k.lock = os.NewFile(uintptr(a.LockFD), lockName)
		return nil
	}
	path := filepath.Join(k.cfg.StateDir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return dirFailure(k.cfg.StateDir, err)
	}
	patience := time.Now()
	if a != nil {
		patience = patience.Add(3 * time.Second)
	}
	for {
		err = unix.Flock(int(rawFD(f)), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		holder := lockHolder(path)
		stranger := a != nil && holder != a.OldKeeper && process.Alive(holder, 0)
		if !errors.Is(err, unix.EWOULDBLOCK) || stranger || !time.Now().Before(patience) {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return ErrRunning{PID: holder}
			}
			return fmt.Errorf("lock %s: %w", path, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	k.lock = f
	if err := f.Truncate(0); err != nil {
		return dirFailure(k.cfg.StateDir, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return dirFailure(k.cfg.StateDir, err)
	}
	return nil
}

// lockHolder is the pid in the lock file, 0 when it holds none.
func lockHolder(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// loop runs until everything has ended.
func (k *keeper) loop(ctx context.Context) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(signals)
	defer signal.Stop(children)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	k.lastTick = time.Now()
	k.begin()
	k.reap() // children of the image before an exec in place
	asked := ctx.Done()
	for k.phase != over {
		alarm.Reset(k.nextAlarm())
		select {
		case <-asked:
			asked = nil
			k.askStop("the context ended")
		case s := <-signals:
			k.onSignal(s)
		case <-children:
			k.reap()
		case e := <-k.inbox:
			k.onEvent(e)
		case <-tick.C:
			k.reap() // in case a SIGCHLD got lost
			k.onTick(time.Now())
		case <-alarm.C:
		}
		k.onAlarm(time.Now())
	}
	return k.result
}

// begin starts the first engine, when the former one is gone.
func (k *keeper) begin() {
	if a := k.cfg.Adopt; a != nil && a.Replace != nil {
		if err := k.takeEngine(a.Replace); err == nil {
			return
		}
		_ = unix.Kill(-a.Replace.PID, unix.SIGKILL)
	}
	pid, ticks := k.formerEngine()
	if pid == 0 {
		k.nextStart = time.Now()
		k.onAlarm(time.Now())
		return
	}
	k.log.Info("waiting for the former engine to end", "engine", pid)
	go func() {
		endFormer(pid, ticks)
		k.inbox <- event{old: true}
	}()
}

// formerEngine is an engine that still runs from before this keeper, 0 when none.
func (k *keeper) formerEngine() (int, uint64) {
	if a := k.cfg.Adopt; a != nil {
		ticks, err := process.StartTicks(a.Engine)
		if a.Engine == 0 || err != nil {
			return 0, 0
		}
		return a.Engine, ticks
	}
	var s State
	if readJSON(filepath.Join(k.cfg.StateDir, stateName), &s) != nil || s.EnginePID == 0 {
		return 0, 0
	}
	if s.EngineTicks == 0 || !process.Alive(s.EnginePID, s.EngineTicks) {
		return 0, 0
	}
	return s.EnginePID, s.EngineTicks
}

// endFormer waits for an engine without a keeper, which ends by itself, and helps
// after a while: two engines must never use one database.
func endFormer(pid int, ticks uint64) {
	for _, step := range []struct {
		wait time.Duration
		sig  unix.Signal
	}{{3 * time.Second, unix.SIGTERM}, {3 * time.Second, unix.SIGKILL}, {3 * time.Second, 0}} {
		ctx, cancel := context.WithTimeout(context.Background(), step.wait)
		err := process.WaitGone(ctx, pid, ticks)
		cancel()
		if err == nil || step.sig == 0 {
			return
		}
		if process.Alive(pid, ticks) {
			_ = unix.Kill(pid, step.sig)
		}
	}
}

// nextAlarm is how long until something is due.
func (k *keeper) nextAlarm() time.Duration {
	due := time.Now().Add(time.Hour)
	for _, t := range []time.Time{k.nextStart, k.deadline, k.downAt()} {
		if !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	return max(0, time.Until(due))
}

// onAlarm does what is due.
func (k *keeper) onAlarm(now time.Time) {
	if !k.nextStart.IsZero() && !now.Before(k.nextStart) && k.phase == running && k.engine == nil {
		k.startEngine()
	}
	if at := k.downAt(); !at.IsZero() && !now.Before(at) {
		k.down.open(k.listening(), k.downFailure())
	}
	if !k.deadline.IsZero() && !now.Before(k.deadline) {
		k.force()
	}
}

// downAt is when the keeper begins to answer callers itself, zero while the engine
// serves or it does so already.
func (k *keeper) downAt() time.Time {
	switch {
	case k.notServed.IsZero() || k.down.isOpen():
		return time.Time{}
	case k.breaker:
		return k.notServed
	default:
		return k.notServed.Add(k.cfg.DownAfter)
	}
}

// downFailure is what callers are told while nothing serves.
func (k *keeper) downFailure() *backend.Failure {
	msg, hint := "no engine serves: it is starting", "try again in a moment"
	if c := k.crash; c != nil && k.engine == nil || k.breaker {
		msg = "the engine is down"
		if c != nil {
			msg += ": it " + c.Reason
		}
		hint = "its last lines are in " + filepath.Join(k.cfg.StateDir, engineLog) + "; Easel keeps trying to start it"
	}
	return backend.Fail(backend.FailEngineDown, msg, hint)
}

// homelessFor is how long the state directory may be gone before all is stopped.
const homelessFor = 5 * time.Second

// watchHome stops everything when the state directory was deleted or moved away:
// nobody could reach us any more, to stop us or for anything else.
func (k *keeper) watchHome(now time.Time) {
	here, err := os.Stat(filepath.Join(k.cfg.StateDir, lockName))
	if ours, e := k.lock.Stat(); e != nil || err == nil && os.SameFile(here, ours) {
		k.homeless = time.Time{}
		return
	}
	if k.homeless.IsZero() {
		k.homeless = now
	}
	if now.Sub(k.homeless) >= homelessFor {
		k.askStop("the state directory " + k.cfg.StateDir + " is gone")
	}
}

// onTick looks for an engine that is stuck, and for a state directory that is gone.
func (k *keeper) onTick(now time.Time) {
	k.notify.alive(now)
	k.watchHome(now)
	gap := now.Sub(k.lastTick)
	k.lastTick = now
	e := k.engine
	if e == nil {
		return
	}
	if gap > 3*time.Second { // we were stopped ourselves: its messages are unread
		e.heard = now
		return
	}
	switch silent := now.Sub(e.heard); {
	case silent > k.cfg.SilentAfter+min(k.cfg.SilentAfter, 5*time.Second):
		if !e.killed {
			e.killed = true
			k.log.Error("the engine did not end by SIGQUIT: killing it", "engine", e.pid)
			_ = unix.Kill(-e.pid, unix.SIGKILL)
		}
	case silent > k.cfg.SilentAfter && !e.quit:
		e.quit = true
		k.log.Error("the engine is silent: asking for its stacks", "engine", e.pid, "silent", silent)
		_ = unix.Kill(e.pid, unix.SIGQUIT)
	}
}

// onEvent handles what another goroutine told.
func (k *keeper) onEvent(e event) {
	switch {
	case e.old:
		k.nextStart = time.Now()
		if k.phase != running {
			k.nextStart = time.Time{}
		}
	case e.adopt != "":
		k.adoptedEnded(e.adopt)
	case k.engine == nil || e.gen != k.engine.gen:
		if e.msg != nil {
			closeAll(e.msg.files)
		}
	case e.msg != nil:
		k.onMessage(e.msg)
	}
}

// saveState writes keeper.json.
func (k *keeper) saveState() {
	s := State{
		PID: os.Getpid(), StartTicks: k.ticks, Version: k.cfg.Version, Breaker: k.breaker,
		Restarts: k.restarts, LastCrash: k.crash,
	}
	if k.engine != nil {
		s.EnginePID, s.EngineTicks, s.Serving = k.engine.pid, k.engine.ticks, k.engine.ready
	} else if !k.nextStart.IsZero() {
		s.NextStart = backend.At(k.nextStart)
	}
	k.save(stateName, s)
}

// save writes one of the keeper's files; a full disk must not stop the keeper.
func (k *keeper) save(name string, v any) {
	if err := writeJSON(filepath.Join(k.cfg.StateDir, name), v); err != nil {
		k.log.Error("cannot write down what the keeper knows", "file", name, "err", err)
	}
}

// close gives everything back.
func (k *keeper) close() {
	k.down.close()
	path := SocketPath(k.cfg.StateDir)
	if st, err := os.Stat(path); err == nil && inode(st) == k.lnIno {
		_ = os.Remove(path)
	}
	_ = k.ln.Close()
	for _, n := range k.named {
		_ = n.file.Close()
	}
	_ = os.Remove(filepath.Join(k.cfg.StateDir, stateName))
	_ = k.lock.Close()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
