//go:build !linux

package worker

import "os/exec"

// startTied starts a program and calls done when it has ended.
func startTied(cmd *exec.Cmd, done func(error)) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { done(cmd.Wait()) }()
	return nil
}

// ownGroup does nothing here.
func ownGroup(*exec.Cmd) {}

// descends is true: it cannot be told here.
func descends(int, int) bool { return true }
