package keeper

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// forceWithin is how long a killed process may take to be gone.
const forceWithin = 3 * time.Second

// onSignal handles a signal sent to the keeper: the first SIGTERM or SIGINT stops
// in order, the second at once. SIGHUP is ignored: a terminal that closes ends
// nothing.
func (k *keeper) onSignal(s os.Signal) {
	if s != unix.SIGTERM && s != unix.SIGINT {
		return
	}
	if k.phase == stoppingEngine || k.phase == stoppingWorkers {
		k.log.Warn("second signal: ending everything now", "signal", s.String())
		k.forceAll()
		return
	}
	k.askStop("signal " + s.String())
}

// askStop begins an orderly stop: the engine first, which stops its workers, then
// what is left of them.
func (k *keeper) askStop(why string) {
	if k.phase != running && k.phase != replacing {
		return
	}
	k.log.Info("stopping", "why", why)
	k.announce("STOPPING=1", "STATUS=stopping: "+why)
	k.nextStart = time.Time{}
	if k.engine == nil {
		k.stopWorkers()
		return
	}
	k.phase, k.deadline = stoppingEngine, time.Now().Add(k.cfg.StopEngine)
	_ = unix.Kill(k.engine.pid, unix.SIGTERM)
}

// stopWorkers ends the workers that still run, unless they are to stay.
func (k *keeper) stopWorkers() {
	k.nextStart = time.Time{}
	if k.keep || len(k.launches) == 0 {
		k.phase = over
		return
	}
	k.phase, k.deadline = stoppingWorkers, time.Now().Add(k.cfg.StopWorkers)
	k.signalAll(unix.SIGTERM)
}

// signalAll signals every worker's group.
func (k *keeper) signalAll(sig unix.Signal) {
	for id := range k.launches {
		if err := k.signal(id, sig); err != nil {
			k.log.Warn("cannot signal a worker", "err", err)
		}
	}
}

// force is called when a phase took too long.
func (k *keeper) force() {
	k.deadline = time.Time{}
	switch {
	case k.phase == stoppingWorkers:
		k.forceWorkers()
	case k.engine == nil:
	case !k.engine.killed:
		k.log.Error("the engine did not end in time: killing it", "engine", k.engine.pid)
		k.killEngine()
		k.deadline = time.Now().Add(forceWithin)
	case k.phase == replacing:
		k.phase = running // it cannot be killed; it may still come back
	default:
		k.log.Error("the engine cannot be killed: leaving it", "engine", k.engine.pid)
		k.result = fmt.Errorf("the engine (pid %d) could not be ended: it hangs in the kernel", k.engine.pid)
		k.stopWorkers()
	}
}

// forceWorkers kills the workers, and gives up on those that were killed before.
func (k *keeper) forceWorkers() {
	for id, l := range k.launches {
		if l.ourSignal == int(unix.SIGKILL) {
			k.result = fmt.Errorf("the worker with pid %d could not be ended: it hangs in the kernel (a driver, or a file system that does not answer)", l.PID)
			k.log.Error("a worker cannot be killed: leaving it", "launch", id, "pid", l.PID)
			k.phase = over
		}
	}
	if k.phase == over {
		return
	}
	k.signalAll(unix.SIGKILL)
	k.deadline = time.Now().Add(forceWithin)
}

// forceAll ends everything at once.
func (k *keeper) forceAll() {
	if !k.keep {
		k.signalAll(unix.SIGKILL)
	}
	k.deadline = time.Now().Add(forceWithin)
	if k.engine != nil && !k.engine.killed {
		k.killEngine()
	}
}

func (k *keeper) killEngine() {
	k.engine.killed = true
	_ = unix.Kill(-k.engine.pid, unix.SIGKILL)
}
