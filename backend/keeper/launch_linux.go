package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend/fault"
	"easel/backend/process"
)

// envHome is the environment variable that tells to which state directory a
// worker belongs, beside EnvLaunch.
const envHome = "EASEL_LAUNCH_HOME"

// launch is a worker process that runs.
type launch struct {
	Living
	ours      bool
	ourSignal int
}

// living lists the running launches, oldest first.
func (k *keeper) living() []Living {
	list := make([]Living, 0, len(k.launches))
	for _, l := range k.launches {
		list = append(list, l.Living)
	}
	slices.SortFunc(list, func(a, b Living) int { return a.Started.Compare(b.Started) })
	return list
}

// start runs a launch, or finds it running or ended.
func (k *keeper) start(l *Launch) (*Living, error) {
	if l == nil || l.ID == "" || len(l.Argv) == 0 || l.Log == "" {
		return nil, errors.New("start: a launch needs an id, a command and a log")
	}
	if known := k.launches[l.ID]; known != nil {
		living := known.Living
		return &living, nil
	}
	for _, e := range k.ends {
		if e.Launch == l.ID {
			return &Living{Launch: e.Launch, PID: e.PID, Started: e.Started}, nil
		}
	}
	if k.phase != running && k.phase != replacing {
		return nil, errors.New("start: Easel is stopping")
	}
	pid, err := k.fork(l)
	if err != nil {
		return nil, err
	}
	fault.Hit("keeper.after-fork")
	ticks, err := process.StartTicks(pid)
	if err != nil {
		k.log.Warn("cannot read the start time of a worker", "pid", pid, "err", err)
	}
	k.adjust(pid, l)
	living := Living{Launch: l.ID, PID: pid, StartTicks: ticks, Started: time.Now()}
	k.launches[l.ID] = &launch{Living: living}
	k.saveLaunches()
	k.log.Info("worker started", "launch", l.ID, "pid", pid)
	return &living, nil
}

// fork starts the process of a launch. Nothing but 0, 1 and 2 is open in it.
func (k *keeper) fork(l *Launch) (int, error) {
	if err := os.MkdirAll(filepath.Dir(l.Log), 0o700); err != nil {
		return 0, fmt.Errorf("make the folder of the worker's log: %w", err)
	}
	out, err := openLog(l.Log, 1<<62)
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("start a worker: %w", err)
	}
	defer func() { _ = null.Close() }()
	env := l.Env
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool {
		return strings.HasPrefix(e, EnvLaunch+"=") || strings.HasPrefix(e, envHome+"=") || strings.HasPrefix(e, "NOTIFY_SOCKET=")
	})
	env = append(env, EnvLaunch+"="+l.ID, envHome+"="+k.cfg.StateDir)
	return spawn(l.Argv, env, l.Dir, []syscall.Conn{null, out, out})
}

// adjust sets what can be set on a process from outside. Failing is no reason not
// to run it.
func (k *keeper) adjust(pid int, l *Launch) {
	if l.Cgroup != "" { // first, so that little of its memory counts elsewhere
		if err := process.MoveToCgroup(pid, l.Cgroup); err != nil {
			k.log.Warn("a worker stays in the cgroup of the keeper", "err", err)
		}
	}
	if l.CoreZero {
		if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
			k.log.Warn("cannot forbid core dumps", "pid", pid, "err", err)
		}
	}
	if l.OOMScoreAdj != nil {
		path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
		if err := os.WriteFile(path, []byte(strconv.Itoa(*l.OOMScoreAdj)), 0); err != nil {
			k.log.Warn("cannot set oom_score_adj", "pid", pid, "err", err)
		}
	}
}

// signal sends sig to the group of a launch, after it wrote down that it did.
func (k *keeper) signal(id string, sig unix.Signal) error {
	l := k.launches[id]
	if l == nil {
		return fmt.Errorf("signal %d to launch %s: %w", int(sig), id, ErrNotLiving)
	}
	if l.Adopted && !process.Alive(l.PID, l.StartTicks) {
		return fmt.Errorf("signal %d to launch %s: %w", int(sig), id, ErrNotLiving)
	}
	if sig != 0 {
		l.ours, l.ourSignal = true, int(sig)
		k.saveLaunches()
	}
	if err := unix.Kill(-l.PID, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d to launch %s (process group %d): %w", int(sig), id, l.PID, err)
	}
	return nil
}

// ack forgets an end.
func (k *keeper) ack(id string) {
	n := len(k.ends)
	k.ends = slices.DeleteFunc(k.ends, func(e Ended) bool { return e.Launch == id })
	if len(k.ends) != n {
		k.saveEnds()
	}
}

// reap takes the status of every child that has ended: engine, workers, and
// orphans that were given to us.
func (k *keeper) reap() {
	for {
		pid, ok := exited()
		if !ok {
			return
		}
		k.childEnded(pid)
		if k.phase == over {
			return
		}
	}
}

// childEnded reaps one child. The group is killed while the leader still holds its
// number, so that no other process can be hit.
func (k *keeper) childEnded(pid int) {
	if k.engine != nil && k.engine.pid == pid {
		_ = unix.Kill(-pid, unix.SIGKILL)
		status, _ := reapOne(pid)
		k.engineEnded(status)
		return
	}
	for _, l := range k.launches {
		if l.PID == pid && !l.Adopted {
			at := time.Now()
			_ = unix.Kill(-pid, unix.SIGKILL)
			status, usage := reapOne(pid)
			k.sweep(l)
			k.workerEnded(l, endOf(l, at, status, usage))
			return
		}
	}
	status, _ := reapOne(pid)
	if k.preflight != nil && k.preflight.pid == pid {
		k.preflightEnded(status)
	}
}

// endOf is the record of an end whose status is known.
func endOf(l *launch, at time.Time, status unix.WaitStatus, usage unix.Rusage) Ended {
	e := Ended{
		Launch: l.Launch, PID: l.PID, ExitCode: -1, StatusKnown: true, Ours: l.ours, OurSignal: l.ourSignal,
		At: at, Started: l.Started, MaxRSS: usage.Maxrss << 10,
		UserS: float64(usage.Utime.Nano()) / 1e9, SysS: float64(usage.Stime.Nano()) / 1e9,
	}
	if status.Exited() {
		e.ExitCode = status.ExitStatus()
	}
	if status.Signaled() {
		e.Signal = int(status.Signal())
	}
	return e
}

// unseenEnd is the record of an end that no parent saw.
func unseenEnd(l launchRecord) Ended {
	return Ended{
		Launch: l.Launch, PID: l.PID, ExitCode: -1, Ours: l.Ours, OurSignal: l.OurSignal,
		At: time.Now(), Started: l.Started,
	}
}

// workerEnded keeps an end and tells the engine.
func (k *keeper) workerEnded(l *launch, e Ended) {
	delete(k.launches, l.Launch)
	k.ends = append(k.ends, e)
	k.saveEnds() // before the launch is forgotten, so that a crash in between loses nothing
	k.saveLaunches()
	k.log.Info("worker ended", "launch", e.Launch, "pid", e.PID, "exit", e.ExitCode, "signal", e.Signal, "known", e.StatusKnown, "ours", e.Ours)
	if k.engine != nil {
		k.engine.send(message{Op: opEnded, Ended: &e})
	}
	if k.phase == stoppingWorkers && len(k.launches) == 0 {
		k.phase = over
	}
}

// adopt watches a process that is no child of ours.
func (k *keeper) adopt(l *launch) {
	l.Adopted = true
	k.launches[l.Launch] = l
	go func() { // owned by the process: it ends with the launch, or with us
		if err := process.WaitGone(context.Background(), l.PID, l.StartTicks); err == nil {
			k.inbox <- event{adopt: l.Launch}
		}
	}()
}

// adoptedEnded handles the end of an adopted launch.
func (k *keeper) adoptedEnded(id string) {
	l := k.launches[id]
	if l == nil {
		return
	}
	k.sweep(l)
	k.workerEnded(l, unseenEnd(launchRecord{Living: l.Living, Ours: l.ours, OurSignal: l.ourSignal}))
}

// sweep kills what a launch left behind outside its process group: whatever
// carries its id. What a child of ours left are our children now, which are quickly
// looked through; but the kernel may miss some of them while others exit, and what
// an adopted process left may be anywhere. So everything is looked through a little
// later, too, or at once when the keeper is about to end.
func (k *keeper) sweep(l *launch) {
	if l.Adopted || k.phase != running {
		k.sweepOf(l, processes)
	} else {
		k.sweepOf(l, func() []int { list, _ := process.Descendants(os.Getpid()); return list })
	}
	go func() { // bounded; if the keeper ends first, it has swept at the end
		for _, wait := range []time.Duration{50 * time.Millisecond, time.Second} {
			time.Sleep(wait)
			k.sweepOf(l, processes)
		}
	}()
}

// sweepOf kills those of the listed processes that belong to a launch.
func (k *keeper) sweepOf(l *launch, list func() []int) {
	mark, home := EnvLaunch+"="+l.Launch, envHome+"="+k.cfg.StateDir
	for range 3 { // what is killed may have been forking
		found := false
		for _, pid := range list() {
			env, _ := process.Environ(pid)
			if pid == os.Getpid() || !slices.Contains(env, mark) || !slices.Contains(env, home) {
				continue
			}
			found = unix.Kill(pid, unix.SIGKILL) == nil || found
		}
		if !found {
			return
		}
	}
}

// processes lists every pid.
func processes() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	names, _ := d.Readdirnames(-1)
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// inherit takes what a former keeper left: from the handover, from its files, and
// from /proc for a worker that was forked and not written down.
func (k *keeper) inherit() {
	a := k.cfg.Adopt
	var file launchesFile
	if err := k.load(launchesName, &file); err == nil && file.BootID != k.boot {
		for i := range file.Launches {
			file.Launches[i].StartTicks = ^uint64(0) // of another boot: certainly gone
		}
	}
	_ = k.load(endsName, &k.ends)
	var last State
	if k.load(stateName, &last) == nil {
		k.restarts, k.crash = last.Restarts, last.LastCrash
	}
	if a != nil {
		k.restarts = max(k.restarts, a.Restarts)
		if a.LastCrash != nil {
			k.crash = a.LastCrash
		}
		k.takeListeners(a)
		for _, l := range a.Living {
			if !slices.ContainsFunc(file.Launches, func(r launchRecord) bool { return r.Launch == l.Launch }) {
				file.Launches = append(file.Launches, launchRecord{Living: l})
			}
		}
	}
	file.Launches = append(file.Launches, k.strays(file.Launches)...)
	for _, r := range file.Launches {
		k.inheritLaunch(r, a != nil && a.Children)
	}
}

func (k *keeper) inheritLaunch(r launchRecord, children bool) {
	if slices.ContainsFunc(k.ends, func(e Ended) bool { return e.Launch == r.Launch }) {
		return
	}
	l := &launch{Living: r.Living, ours: r.Ours, ourSignal: r.OurSignal}
	switch {
	case children && !r.Adopted: // also one that has ended: the reaping sees it
		k.launches[r.Launch] = l
	case process.Alive(r.PID, r.StartTicks):
		k.log.Info("adopting a worker", "launch", r.Launch, "pid", r.PID)
		fault.Hit("keeper.adoption")
		k.adopt(l)
	default:
		l.Adopted = true // what it left may be anywhere
		k.sweep(l)
		k.ends = append(k.ends, unseenEnd(r))
	}
}

// strays finds workers of this state directory that no file tells of: their keeper
// died between the fork and the writing.
func (k *keeper) strays(known []launchRecord) []launchRecord {
	var found []launchRecord
	for _, pid := range processes() {
		env, err := process.Environ(pid)
		if err != nil || !slices.Contains(env, envHome+"="+k.cfg.StateDir) {
			continue
		}
		id := ""
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, EnvLaunch+"="); ok {
				id = v
			}
		}
		i, err := process.Stat(pid)
		if err != nil || id == "" || i.SID != pid || i.Dead() {
			continue // only the leader is the worker
		}
		same := func(r launchRecord) bool { return r.Launch == id }
		if slices.ContainsFunc(known, same) || slices.ContainsFunc(k.ends, func(e Ended) bool { return e.Launch == id }) {
			continue
		}
		found = append(found, launchRecord{Living: Living{Launch: id, PID: pid, StartTicks: i.StartTicks, Started: time.Now()}})
	}
	return found
}

// load reads one of the keeper's files. A damaged one is set aside: what it told
// is lost, the processes themselves are still found.
func (k *keeper) load(name string, v any) error {
	path := filepath.Join(k.cfg.StateDir, name)
	err := readJSON(path, v)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Error("a file of the former keeper cannot be read", "file", path, "err", err)
		_ = os.Rename(path, path+".bad")
	}
	return err
}

func (k *keeper) saveLaunches() {
	f := launchesFile{BootID: k.boot, Launches: []launchRecord{}}
	for _, l := range k.launches {
		f.Launches = append(f.Launches, launchRecord{Living: l.Living, Ours: l.ours, OurSignal: l.ourSignal})
	}
	k.save(launchesName, f)
}

func (k *keeper) saveEnds() {
	if k.ends == nil {
		k.ends = []Ended{}
	}
	k.save(endsName, k.ends)
}

func inode(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
