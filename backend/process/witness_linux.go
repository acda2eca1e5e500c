package process

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Witness watches a process that is no child of ours. On Linux 6.15 and later the
// kernel tells it how that process ended, as long as the Witness was there before.
type Witness struct {
	pid   int
	ticks uint64
	f     *os.File
}

// Watch begins to watch a process. It is never nil; where the kernel has no pidfd,
// Exit knows nothing.
func Watch(pid int, startTicks uint64) *Witness {
	w := &Witness{pid: pid, ticks: startTicks}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return w
	}
	w.f = os.NewFile(uintptr(fd), "pidfd")
	if !Alive(pid, startTicks) { // after the open, so that it is that process
		w.Close()
	}
	return w
}

// Alive reports whether the process runs.
func (w *Witness) Alive() bool { return w != nil && Alive(w.pid, w.ticks) }

// Signal sends a signal to that very process, even when its pid was given to another
// one since.
func (w *Witness) Signal(sig unix.Signal) error {
	if w.f == nil {
		if !w.Alive() {
			return unix.ESRCH
		}
		return unix.Kill(w.pid, sig)
	}
	return unix.PidfdSendSignal(int(w.f.Fd()), sig, nil, 0)
}

// exitWithin is how long the parent of a process may take to notice its end.
const exitWithin = 500 * time.Millisecond

// Exit is how the process ended: its exit status, or the signal that ended it. The
// kernel tells it once its parent has asked; ok is false when it does not tell.
func (w *Witness) Exit(ctx context.Context) (status, signal int, ok bool) {
	if w == nil || w.f == nil {
		return 0, 0, false
	}
	for end := time.Now().Add(exitWithin); ; {
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := unix.IoctlPidfdInfo(int(w.f.Fd()), &info)
		switch {
		case err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0:
			ws := unix.WaitStatus(uint32(info.Exit_code))
			if ws.Signaled() {
				return -1, int(ws.Signal()), true
			}
			return ws.ExitStatus(), 0, true
		case err != nil && err != unix.ESRCH || time.Now().After(end): // ENOTTY, EINVAL: an older kernel
			return 0, 0, false
		}
		select {
		case <-ctx.Done():
			return 0, 0, false
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Close ends the watch.
func (w *Witness) Close() {
	if w != nil && w.f != nil {
		_ = w.f.Close()
		w.f = nil
	}
}
