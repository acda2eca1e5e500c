package dispatch

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"easel/backend/process"
)

// userHZ is the unit of times in /proc/PID/stat, the same on every Linux that Go
// runs on.
const userHZ = 100

// measureTree measures pid and its descendants.
func measureTree(pid int) usage {
	u := usage{}
	if pid <= 0 {
		return u
	}
	pids, _ := process.Descendants(pid)
	for _, p := range append([]int{pid}, pids...) {
		rss, err := process.RSS(p)
		if err != nil {
			continue
		}
		u.ok = u.ok || p == pid
		u.rss += rss
		u.cpu += cpuTime(p)
		u.io += diskBytes(p)
	}
	return u
}

// cpuTime is utime and stime of a process, with those of its dead children.
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, s := range f[11:15] {
		n, _ := strconv.ParseInt(s, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / userHZ
}

// diskBytes is what a process moved from and to disks, 0 where it cannot be read.
func diskBytes(pid int) int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "io"))
	if err != nil {
		return 0
	}
	return field(b, "read_bytes:") + field(b, "write_bytes:")
}

// field is the number after a name at the beginning of a line.
func field(b []byte, name string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			f := strings.Fields(string(rest))
			if len(f) == 0 {
				return 0
			}
			n, _ := strconv.ParseInt(f[0], 10, 64)
			return n
		}
	}
	return 0
}

// freeRAM is what can still be taken, in bytes: what the kernel calls available,
// or less where our cgroup has a limit. 0 when it cannot be told.
func freeRAM() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	free := field(b, "MemAvailable:") << 10
	if left, ok := cgroupLeft(); ok {
		free = min(free, left)
	}
	return free
}

// cgroupLeft is how much our own cgroup may still take.
func cgroupLeft() (int64, bool) {
	own := ""
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "0::"); ok {
				own = strings.TrimSpace(rest)
			}
		}
	}
	for _, c := range []struct{ dir, limit, used string }{
		{filepath.Join("/sys/fs/cgroup", own), "memory.max", "memory.current"},
		{"/sys/fs/cgroup", "memory.max", "memory.current"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"},
	} {
		limit, ok := number(filepath.Join(c.dir, c.limit))
		used, also := number(filepath.Join(c.dir, c.used))
		if !ok || !also || limit >= 1<<60 {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join(c.dir, "memory.stat"))
		cache := max(field(stat, "inactive_file "), field(stat, "total_inactive_file "))
		return max(0, limit-used+cache), true
	}
	return 0, false
}

// number reads a file that holds one number; "max" is none.
func number(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// biggest is the process that holds most memory, those in skip left out.
func biggest(skip map[int]bool) (h holder) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return h
	}
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || skip[pid] {
			continue
		}
		if rss, err := process.RSS(pid); err == nil && rss > h.rss {
			h.pid, h.rss = pid, rss
		}
	}
	if info, err := process.Stat(h.pid); err == nil {
		h.name = info.Name
	}
	if st, err := os.Stat(filepath.Join("/proc", strconv.Itoa(h.pid))); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			h.user = strconv.Itoa(int(sys.Uid))
			if u, err := user.LookupId(h.user); err == nil {
				h.user = u.Username
			}
		}
	}
	return h
}

// freeDisk is the room left on the file system of path, in bytes; ok is false when
// it cannot be told.
func freeDisk(path string) (int64, bool) {
	var s syscall.Statfs_t
	if path == "" || syscall.Statfs(path, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // types differ by platform
}

// treeOf are pid and its descendants.
func treeOf(pid int) []int {
	pids, _ := process.Descendants(pid)
	return append(pids, pid)
}
