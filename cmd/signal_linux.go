package cmd

import (
	"errors"
	"syscall"
)

// signalGroup signals a worker and everything in its process group; a group that
// is gone is no error.
func signalGroup(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(-pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
