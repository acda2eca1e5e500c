// Package evidence reads what a machine tells about the end of a process: the
// counters of its memory cgroups (v1 and v2), /proc/vmstat, the kernel log, and the
// memory and processor time that it used. It only reads; what follows from it is
// decided by package worker.
//
// Every reader works on Linux and answers elsewhere that nothing is known.
package evidence

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Group is a memory cgroup as it is mounted here.
type Group struct {
	// Path is its name within its hierarchy, "/" for the root of what is visible.
	Path string `json:"path"`
	// Dir is its directory.
	Dir string `json:"dir"`
	// V2 says that it belongs to the unified hierarchy.
	V2 bool `json:"v2"`
}

// Above is the cgroup that holds this one; ok is false at the root of what is
// visible.
func (g Group) Above() (above Group, ok bool) {
	if g.Path == "/" || g.Path == "" {
		return Group{}, false
	}
	return Group{Path: filepath.Dir(g.Path), Dir: filepath.Dir(g.Dir), V2: g.V2}, true
}

// Counters are what a Group counts. Figures that could not be read are -1.
type Counters struct {
	OOMKills int64 // processes of it that the kernel killed for memory
	Usage    int64 // bytes, less what of the page cache is not in use
	Limit    int64 // bytes; 0: none
	OOMD     int64 // kills by systemd-oomd
}

// Memory is that of the machine, in bytes; -1 when unknown.
type Memory struct {
	Total, Available int64
}

// Usage is what a process and its descendants use.
type Usage struct {
	RSS  int64 // bytes
	Peak int64 // the most that the process itself ever had resident, in bytes; 0 when unknown
	CPU  time.Duration
	// Processes counts them, the first one too. 0: it is gone.
	Processes int
}

// KernelLine is a line of the kernel log.
type KernelLine struct {
	At   time.Time
	Text string
}

// OOMKill is a kill that the kernel log tells of.
type OOMKill struct {
	At   time.Time
	PID  int // as the first pid namespace counts
	Name string
	// Group names the memory cgroup whose limit was reached; "" when the whole
	// machine was out of memory, or that line was not seen.
	Group string
	// Task names the memory cgroup of the process, "" when unknown.
	Task string
	Text string // the line
}

// Xid is a fault of an NVIDIA card that the kernel log tells of.
type Xid struct {
	At     time.Time
	Device string // PCI address
	Code   int
	PID    int // 0 when the line names none
	Text   string
}

var (
	killedLine = regexp.MustCompile(`(Memory cgroup out|Out) of memory: Killed process (\d+) \((.*?)\)`)
	// oldKilled is what kernels before 5.0 wrote.
	oldKilled  = regexp.MustCompile(`^Killed process (\d+) \((.*?)\) total-vm`)
	oomSummary = regexp.MustCompile(`^oom-kill:constraint=(\w+).*?(?:oom_memcg=([^,]*),)?(?:task_memcg=([^,]*),)?task=.*,pid=(\d+),uid=`)
	xidLine    = regexp.MustCompile(`NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+),(?: pid='?(\d+)'?)?`)
)

// OOMKills finds the kills among kernel lines, oldest first.
func OOMKills(lines []KernelLine) []OOMKill {
	var out []OOMKill
	group, task := map[int]string{}, map[int]string{}
	for _, l := range lines {
		if m := oomSummary.FindStringSubmatch(l.Text); m != nil {
			pid, _ := strconv.Atoi(m[4])
			group[pid], task[pid] = m[2], m[3]
			continue
		}
		pid, name := "", ""
		if m := killedLine.FindStringSubmatch(l.Text); m != nil {
			pid, name = m[2], m[3]
		} else if m := oldKilled.FindStringSubmatch(l.Text); m != nil {
			pid, name = m[1], m[2]
		} else {
			continue
		}
		n, _ := strconv.Atoi(pid)
		out = append(out, OOMKill{At: l.At, PID: n, Name: name, Group: group[n], Task: task[n], Text: l.Text})
	}
	return out
}

// Xids finds the faults of NVIDIA cards among kernel lines, oldest first.
func Xids(lines []KernelLine) []Xid {
	var out []Xid
	for _, l := range lines {
		if !strings.Contains(l.Text, "Xid") {
			continue
		}
		if m := xidLine.FindStringSubmatch(l.Text); m != nil {
			code, _ := strconv.Atoi(m[2])
			pid, _ := strconv.Atoi(m[3])
			out = append(out, Xid{At: l.At, Device: m[1], Code: code, PID: pid, Text: l.Text})
		}
	}
	return out
}

// telling reports whether a kernel line is worth keeping.
func telling(text string) bool {
	return strings.Contains(text, "oom-kill:") || strings.Contains(text, "Killed process") || strings.Contains(text, "Xid")
}
