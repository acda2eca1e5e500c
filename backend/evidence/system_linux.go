package evidence

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"easel/backend/process"
)

// clockTick is the unit of the times in /proc/PID/stat: the kernel gives it to
// programs as 100 a second on every architecture that Go runs on.
const clockTick = time.Second / 100

// ReadMemory reads /proc/meminfo.
func ReadMemory() Memory {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Memory{Total: -1, Available: -1}
	}
	kib := func(key string) int64 {
		n := keyedIn(string(b), key)
		if n < 0 {
			return -1
		}
		return n << 10
	}
	return Memory{Total: kib("MemTotal"), Available: kib("MemAvailable")}
}

// SystemOOMKills is how many processes the kernel has killed for memory since boot,
// whatever their cgroup; -1 when unknown.
func SystemOOMKills() int64 { return keyed("/proc/vmstat", "oom_kill") }

// UsageOf adds up what the listed processes use; the first one is the process
// itself, and the figure Peak is its own. Those that are gone count nothing.
func UsageOf(pids []int) Usage {
	var u Usage
	for i, pid := range pids {
		cpu, ok := cpuOf(pid)
		if !ok {
			continue
		}
		u.Processes++
		u.CPU += cpu
		if rss, err := process.RSS(pid); err == nil {
			u.RSS += rss
		}
		if i == 0 {
			if n := keyed("/proc/"+strconv.Itoa(pid)+"/status", "VmHWM"); n > 0 {
				u.Peak = n << 10
			}
		}
	}
	return u
}

// cpuOf is the processor time of a process that runs, and of its children that
// it has waited for.
func cpuOf(pid int) (time.Duration, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 || f[0] == "Z" || f[0] == "X" {
		return 0, false
	}
	var sum int64
	for _, s := range f[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, false
		}
		sum += n
	}
	return time.Duration(sum) * clockTick, true
}

// Program is the file name of the program that a process runs, "" when unknown. It
// is not what the process calls itself: that of a script is its interpreter.
func Program(pid int) string {
	link, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(link, " (deleted)"))
}

// FirstPIDs reports whether pids mean here what they mean in the kernel log: false
// in a container with pids of its own.
func FirstPIDs() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == "pid:[4026531836]" // PROC_PID_INIT_INO
}
