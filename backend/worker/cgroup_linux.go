package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend/evidence"
)

// groupPrefix begins the names of the cgroups of workers, groupHome is the one that
// Easel itself moves to where a cgroup with children may hold no process.
const (
	groupPrefix = "easel-"
	groupHome   = "easel.self"
)

// baseGroup is the cgroup below which those of workers are made: that of this
// process.
func baseGroup() (evidence.Group, error) {
	groups, err := evidence.GroupsOf(os.Getpid())
	if err != nil {
		return evidence.Group{}, err
	}
	if groups[0].V2 && filepath.Base(groups[0].Dir) == groupHome && len(groups) > 1 {
		return groups[1], nil
	}
	return groups[0], nil
}

// makeGroup makes the memory cgroup of a launch, with a limit where one makes sense.
// The error says why there is none.
func makeGroup(id, launch string, limit int64) (evidence.Group, error) {
	base, err := baseGroup()
	if err != nil {
		return evidence.Group{}, err
	}
	if err := ready(base); err != nil {
		return evidence.Group{}, err
	}
	name := groupPrefix + id + "-" + short(launch)
	g := evidence.Group{Path: filepath.Join(base.Path, name), Dir: filepath.Join(base.Dir, name), V2: base.V2}
	if err := os.Mkdir(g.Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return evidence.Group{}, fmt.Errorf("no right to make a cgroup: %w", err)
	}
	if g.Read().OOMKills < 0 {
		_ = os.Remove(g.Dir)
		return evidence.Group{}, errors.New("the memory controller is not passed on to this cgroup")
	}
	if limit == 0 {
		limit = limitBelow(base, evidence.ReadMemory())
	}
	if limit > 0 {
		err = setLimit(g, limit)
	}
	return g, err
}

// ready makes sure that a cgroup below base would count memory.
func ready(base evidence.Group) error {
	if !base.V2 {
		b, err := os.ReadFile(filepath.Join(base.Dir, "memory.use_hierarchy"))
		if err == nil && strings.TrimSpace(string(b)) == "0" {
			return errors.New("limits of this cgroup do not hold for those below it")
		}
		return nil
	}
	b, err := os.ReadFile(filepath.Join(base.Dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(b)), "memory") {
		return nil
	}
	if !delegated(base.Dir) {
		return errors.New("this cgroup is not delegated to Easel (systemd: Delegate=yes)")
	}
	if err := moveHome(base.Dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(base.Dir, "cgroup.subtree_control"), []byte("+memory"), 0)
}

// delegated reports whether systemd gave the cgroup to this service.
func delegated(dir string) bool {
	var buf [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, buf[:]); err == nil && string(buf[:n]) == "1" {
			return true
		}
	}
	return false
}

// moveHome moves keeper and engine to a cgroup of their own, since one that passes
// on controllers may hold no process. It does nothing when another program is there.
func moveHome(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	pids := strings.Fields(string(b))
	for _, s := range pids {
		if pid, _ := strconv.Atoi(s); pid != os.Getpid() && pid != os.Getppid() {
			return fmt.Errorf("pid %d shares this cgroup", pid)
		}
	}
	home := filepath.Join(dir, groupHome)
	if err := os.Mkdir(home, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, s := range pids {
		if err := os.WriteFile(filepath.Join(home, "cgroup.procs"), []byte(s), 0); err != nil {
			return err
		}
	}
	return nil
}

// limitBelow chooses a limit that leaves Easel, sshd and the like some room below
// the least of the machine's memory and the limits of the cgroups above; 0 when that
// leaves too little.
func limitBelow(base evidence.Group, mem evidence.Memory) int64 {
	all := mem.Total
	for g, more := base, true; more; g, more = g.Above() {
		if l := g.Read().Limit; l > 0 && (all <= 0 || l < all) {
			all = l
		}
	}
	room := min(max(all/32, 256<<20), 1<<30)
	if all < 1<<30 {
		return 0
	}
	return all - room
}

func setLimit(g evidence.Group, limit int64) error {
	name := "memory.limit_in_bytes"
	if g.V2 {
		name = "memory.max"
	}
	if err := os.WriteFile(filepath.Join(g.Dir, name), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		return fmt.Errorf("the cgroup %s has no limit: %w", g.Path, err)
	}
	return nil
}

// inGroup reports whether a process is in a cgroup.
func inGroup(pid int, g evidence.Group) bool {
	groups, err := evidence.GroupsOf(pid)
	return err == nil && len(groups) > 0 && groups[0] == g
}

// removeGroup removes the cgroup of a launch that has ended, and says whether it is
// gone: what the launch left may need a moment to end.
func removeGroup(g evidence.Group) bool {
	err := unix.Rmdir(g.Dir)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// sweepGroups removes the cgroups of workers that nobody needs any more: empty ones
// that are older than an hour, beside the one that this process would make.
func sweepGroups(now time.Time) {
	base, err := baseGroup()
	if err != nil {
		return
	}
	dir := base.Dir
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range list {
		st, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), groupPrefix) || now.Sub(st.ModTime()) < time.Hour {
			continue
		}
		_ = unix.Rmdir(filepath.Join(dir, e.Name())) // fails when a process is in it
	}
}
