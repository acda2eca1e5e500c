package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/backend/evidence"
	"easel/backend/process"
)

// TestWorkerRunsInItsCgroup moves a worker to a cgroup, and what it started at once.
func TestWorkerRunsInItsCgroup(t *testing.T) {
	groups, err := evidence.GroupsOf(os.Getpid())
	if err != nil {
		t.Skipf("no cgroups here: %v", err)
	}
	dir := filepath.Join(groups[0].Dir, fmt.Sprintf("easel-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no right to make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		for range 200 { // until what is in it has ended
			if err := syscall.Rmdir(dir); err == nil || errors.Is(err, syscall.ENOENT) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is still in use", dir)
	})
	b := newBox(t, nil)
	b.serve()
	b.engine()
	l := b.launchOf("w1", "plain")
	l.Argv, l.Cgroup = []string{"/bin/sh", "-c", "sleep 300 & sleep 301; true"}, dir
	var w Living
	b.do("/start", l, &w)
	b.wait("the worker and its children in the cgroup", func() bool {
		kids, err := process.Descendants(w.PID)
		if err != nil || len(kids) != 2 {
			return false
		}
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		here := strings.Fields(string(procs))
		return !slices.ContainsFunc(append(kids, w.PID), func(pid int) bool { return !slices.Contains(here, fmt.Sprint(pid)) })
	})
	l = b.launchOf("w2", "plain")
	l.Cgroup = dir + "-none"
	b.do("/start", l, &w) // runs all the same
	if !process.Alive(w.PID, w.StartTicks) {
		t.Error("a cgroup that is not there keeps a worker from running")
	}
}
