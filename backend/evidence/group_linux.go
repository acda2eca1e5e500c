package evidence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoGroups says that no memory cgroup of a process can be seen.
var ErrNoGroups = errors.New("no memory cgroup can be seen")

// hierarchy is a mounted tree of cgroups with the memory controller.
type hierarchy struct {
	mount string // directory
	root  string // which cgroup is mounted there
	v2    bool
}

// GroupsOf lists the memory cgroup of a process and those above it, innermost
// first, as far as they are mounted here.
func GroupsOf(pid int) ([]Group, error) { return groupsOf("/proc", pid) }

func groupsOf(proc string, pid int) ([]Group, error) {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("read the cgroups of process %d: %w", pid, err)
	}
	mounts, err := os.ReadFile(filepath.Join(proc, "self", "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	path, v2, ok := memoryPath(string(b))
	if !ok {
		return nil, ErrNoGroups
	}
	h, ok := findHierarchy(string(mounts), v2)
	if !ok {
		return nil, ErrNoGroups
	}
	rel, err := filepath.Rel(h.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, ErrNoGroups // outside of what is mounted
	}
	var out []Group
	for p := filepath.Join("/", rel); ; p = filepath.Dir(p) {
		out = append(out, Group{Path: p, Dir: filepath.Join(h.mount, p), V2: v2})
		if p == "/" {
			return out, nil
		}
	}
}

// memoryPath is the path of the memory cgroup in the text of /proc/PID/cgroup. A
// v1 controller hides that of v2.
func memoryPath(text string) (path string, v2, ok bool) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			if c == "memory" {
				return f[2], false, true
			}
		}
		if f[0] == "0" && f[1] == "" {
			path, v2, ok = f[2], true, true
		}
	}
	return path, v2, ok
}

// findHierarchy finds where it is mounted in the text of /proc/self/mountinfo.
func findHierarchy(text string, v2 bool) (hierarchy, bool) {
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimRight(line, "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		h := hierarchy{root: unescape(f[3]), mount: unescape(f[4]), v2: v2}
		if v2 && g[0] == "cgroup2" {
			return h, true
		}
		if !v2 && g[0] == "cgroup" {
			for o := range strings.SplitSeq(g[2], ",") {
				if o == "memory" {
					return h, true
				}
			}
		}
	}
	return hierarchy{}, false
}

// unescape undoes \040 and the like in a mount point.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Read reads the counters. A figure that is not there is -1.
func (g Group) Read() Counters {
	c := Counters{OOMKills: -1, Usage: -1, Limit: -1, OOMD: oomd(g.Dir)}
	if g.V2 {
		c.OOMKills = keyed(filepath.Join(g.Dir, "memory.events"), "oom_kill")
		c.Usage = number(filepath.Join(g.Dir, "memory.current"))
		c.Limit = limitOf(filepath.Join(g.Dir, "memory.max"))
	} else {
		c.OOMKills = keyed(filepath.Join(g.Dir, "memory.oom_control"), "oom_kill")
		c.Usage = number(filepath.Join(g.Dir, "memory.usage_in_bytes"))
		c.Limit = limitOf(filepath.Join(g.Dir, "memory.limit_in_bytes"))
	}
	if c.Usage > 0 {
		key := "total_inactive_file"
		if g.V2 {
			key = "inactive_file"
		}
		c.Usage -= max(0, min(c.Usage, keyed(filepath.Join(g.Dir, "memory.stat"), key)))
	}
	return c
}

// limitOf reads a limit: 0 for "max" and for the huge figure that means it in v1.
func limitOf(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
		return -1
	case n > 1<<60:
		return 0
	}
	return n
}

func number(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// keyed reads the figure of a line "key figure".
func keyed(path, key string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	return keyedIn(string(b), key)
}

func keyedIn(text, key string) int64 {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.TrimSuffix(f[0], ":") == key {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return -1
			}
			return n
		}
	}
	return -1
}

// oomd reads how many processes of a cgroup systemd-oomd killed; 0 when it never
// did.
func oomd(dir string) int64 {
	var buf [32]byte
	n, err := unix.Getxattr(dir, "user.oomd_kill", buf[:])
	if err != nil {
		return 0
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if err != nil {
		return 0
	}
	return v
}
