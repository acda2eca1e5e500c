package worker

import (
	"os/exec"
	"runtime"
	"syscall"

	"easel/backend/process"
)

// startTied starts a program that ends with us, and calls done when it has ended. The
// death signal belongs to the thread that forked: that thread stays until then.
func startTied(cmd *exec.Cmd, done func(error)) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			done(cmd.Wait())
		}
	}()
	return <-started
}

// ownGroup has a program run in a process group of its own, all of which is ended
// with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// descends reports whether a process is main or comes from it.
func descends(pid, main int) bool {
	for range 32 {
		if pid == main {
			return true
		}
		info, err := process.Stat(pid)
		if err != nil || info.PPID <= 1 {
			return false
		}
		pid = info.PPID
	}
	return false
}
