package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// MoveToCgroup moves a process to the cgroup with that directory, and what it may
// have started meanwhile: a shell is quick to start what it wraps.
func MoveToCgroup(pid int, dir string) error {
	procs := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move process %d to cgroup %s: %w", pid, dir, err)
	}
	for range 2 { // what a child started before it was moved itself
		kids, err := Descendants(pid)
		if err != nil {
			return fmt.Errorf("move what process %d started to cgroup %s: %w", pid, dir, err)
		}
		for _, kid := range kids {
			_ = os.WriteFile(procs, []byte(strconv.Itoa(kid)), 0) // it may have ended
		}
		if len(kids) == 0 {
			break
		}
	}
	return nil
}
