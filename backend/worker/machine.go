package worker

import (
	"fmt"
	"path"
	"slices"
	"time"

	"easel/backend"
	"easel/backend/evidence"
)

// Machine is what the machine told about the moment at which a worker ended.
type Machine struct {
	// Own is the memory cgroup that held this worker alone, nil when it had none.
	Own *Moved
	// Shared are the cgroups that it shared with others, innermost first.
	Shared []Moved
	// System counts for the whole machine, by /proc/vmstat.
	System Moved
	// RSS is what the worker had resident just before, and Free what was available
	// then, in bytes; 0 and -1 when unknown. Total is the machine's memory.
	RSS, Free, Total int64
	// VRAMUsed and VRAMTotal are of its card just before, in bytes; 0 when unknown.
	VRAMUsed, VRAMTotal int64
	// KernelLog says that the kernel log could be read, FirstPIDs that the pids in
	// it are those that are seen here.
	KernelLog, FirstPIDs bool
	// Kills and Xids are from the kernel log, of the moments before the end.
	Kills []evidence.OOMKill
	Xids  []evidence.Xid
	// PIDs are the processes of the worker as they were seen last, the first one
	// itself.
	PIDs []int
	// Shell says that the first process was a shell that ran ComfyUI.
	Shell bool
}

// Moved is a counter of kills before and at the end; -1 when unknown.
type Moved struct {
	Path          string
	Before, After int64
	// OOMD counts the kills by systemd-oomd between.
	OOMD int64
	// Usage and Limit are in bytes, just before; Limit 0: none.
	Usage, Limit int64
}

// kills is how often the kernel killed in between.
func (m Moved) kills() int64 {
	if m.Before < 0 || m.After < 0 {
		return 0
	}
	return max(0, m.After-m.Before)
}

// known reports whether the counter could be read at both times.
func (m Moved) known() bool { return m.Before >= 0 && m.After >= 0 }

// holds reports whether a cgroup that the kernel names is this one. The kernel names
// it from the real root, which need not be the one that is visible here.
func (m Moved) holds(name string) bool {
	return name != "" && path.Base(name) == path.Base(m.Path)
}

// String says in words what moved.
func (m Moved) String() string {
	where := "cgroup " + m.Path
	if m.Path == "" {
		where = "the whole machine (/proc/vmstat)"
	}
	s := fmt.Sprintf("oom_kill of %s went from %d to %d", where, m.Before, m.After)
	if m.Limit > 0 && m.Usage >= 0 {
		s += fmt.Sprintf("; it had %s of %s", gib(m.Usage), gib(m.Limit))
	}
	return s
}

// gib writes bytes for people.
func gib(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// oom is what the machine says about a process that was ended by signal 9.
type oom struct {
	certainty string // "" when nothing speaks for it
	by        string // who killed
	had       string // how full it was, "" when unknown
	evidence  []string
}

// oomOf decides whether the kernel killed the worker for memory. pids are the
// processes that may stand for it: the one that ended, and the one that a shell
// named. The rules:
//
//   - certain: a kernel line names it, or the counter of the cgroup that it had for
//     itself moved (unless the kernel log names others for each of these kills);
//   - likely: a counter that it shares moved, and it had more than was free just
//     before, unless the kernel log names only others;
//   - else nothing: a foreign kill beside an unrelated one moves shared counters
//     all the same.
func oomOf(m *Machine, pids []int) oom {
	if m == nil {
		return oom{}
	}
	if k, ok := m.named(pids); ok {
		had := m.fullness(k.Group)
		if k.Group == "" {
			had = m.machineFullness()
		}
		o := oom{certainty: backend.Certain, by: "the kernel", had: had, evidence: []string{"kernel log: " + k.Text}}
		if m.Own != nil && m.Own.kills() > 0 {
			o.evidence = append(o.evidence, m.Own.String())
		}
		return o
	}
	if m.Own != nil && m.Own.OOMD > 0 {
		return oom{certainty: backend.Certain, by: "systemd-oomd", had: m.fullness(m.Own.Path), evidence: []string{"systemd-oomd marked cgroup " + m.Own.Path}}
	}
	if m.Own != nil && m.Own.known() {
		return m.ownKill(pids)
	}
	return m.sharedKill()
}

// named finds the kill that names one of the pids.
func (m *Machine) named(pids []int) (evidence.OOMKill, bool) {
	if !m.FirstPIDs {
		return evidence.OOMKill{}, false
	}
	i := slices.IndexFunc(m.Kills, func(k evidence.OOMKill) bool { return slices.Contains(pids, k.PID) })
	if i < 0 {
		return evidence.OOMKill{}, false
	}
	return m.Kills[i], true
}

// inside are the processes of the worker, those that the kernel killed in its own
// cgroup among them.
func (m *Machine) inside() []int {
	pids := slices.Clone(m.PIDs)
	for _, k := range m.Kills {
		if m.Own != nil && m.Own.holds(k.Task) {
			pids = append(pids, k.PID)
		}
	}
	return pids
}

// ownKill reads the counter of the worker's own cgroup.
func (m *Machine) ownKill(pids []int) oom {
	n := m.Own.kills()
	if n == 0 {
		return oom{}
	}
	var others []string
	if m.FirstPIDs {
		for _, k := range m.Kills {
			if m.Own.holds(k.Task) && !slices.Contains(pids, k.PID) {
				others = append(others, "kernel log: "+k.Text)
			}
		}
	}
	if int64(len(others)) >= n { // a child of it was killed, and it was not
		return oom{evidence: others}
	}
	return oom{certainty: backend.Certain, by: "the kernel", had: m.fullness(""), evidence: []string{m.Own.String()}}
}

// sharedKill reads the counters that the worker shares with others.
func (m *Machine) sharedKill() oom {
	if m.FirstPIDs && m.KernelLog && len(m.Kills) > 0 {
		return oom{evidence: []string{"the kernel killed another process for memory: " + m.Kills[len(m.Kills)-1].Text}}
	}
	size := fmt.Sprintf("the worker had %s just before", gib(m.RSS))
	for _, g := range m.Shared {
		free := g.Limit - g.Usage
		if g.OOMD > 0 && m.RSS > 0 {
			return oom{certainty: backend.Likely, by: "systemd-oomd", had: m.fullness(g.Path), evidence: []string{"systemd-oomd marked cgroup " + g.Path, size}}
		}
		if g.kills() > 0 && g.Limit > 0 && g.Usage >= 0 && m.RSS > free {
			return oom{
				certainty: backend.Likely, by: "the kernel", had: m.fullness(g.Path),
				evidence: []string{g.String(), fmt.Sprintf("%s, and %s was free in it", size, gib(max(0, free)))},
			}
		}
	}
	if m.System.kills() > 0 && m.Free >= 0 && m.RSS > m.Free {
		return oom{
			certainty: backend.Likely, by: "the kernel", had: m.fullness(""),
			evidence: []string{m.System.String(), fmt.Sprintf("%s, and %s was free", size, gib(m.Free))},
		}
	}
	return oom{}
}

// fullness says how full the memory was that ran out: that of the named cgroup, or
// of the innermost one with a limit that was nearly reached, or the machine's.
func (m *Machine) fullness(group string) string {
	var all []Moved
	if m.Own != nil {
		all = append(all, *m.Own)
	}
	all = append(all, m.Shared...)
	for _, g := range all {
		used := max(g.Usage, min(m.RSS, g.Limit))
		if g.Limit > 0 && (g.holds(group) || group == "" && used > g.Limit-g.Limit/8) {
			return fmt.Sprintf("the cgroup had %s of %s", gib(min(used, g.Limit)), gib(g.Limit))
		}
	}
	return m.machineFullness()
}

// machineFullness says how full the memory of the machine was, "" when unknown.
func (m *Machine) machineFullness() string {
	if m.Total <= 0 || m.Free < 0 {
		return ""
	}
	return fmt.Sprintf("the machine had %s of %s in use", gib(m.Total-m.Free), gib(m.Total))
}

// figures are the memory figures just before, for any end.
func (m *Machine) figures() []string {
	if m == nil || m.RSS <= 0 {
		return nil
	}
	s := "just before: " + gib(m.RSS) + " of memory"
	if m.Free >= 0 && m.Total > 0 {
		s += fmt.Sprintf(", %s of %s free on the machine", gib(m.Free), gib(m.Total))
	}
	if m.VRAMTotal > 0 {
		s += fmt.Sprintf(", %s of %s of its card in use", gib(m.VRAMUsed), gib(m.VRAMTotal))
	}
	return []string{s}
}

// xid finds the fault of a card that belongs to the worker: one that names a
// process of it.
func (m *Machine) xid() (evidence.Xid, bool) {
	if m == nil || !m.FirstPIDs {
		return evidence.Xid{}, false
	}
	i := slices.IndexFunc(m.Xids, func(x evidence.Xid) bool { return x.PID != 0 && slices.Contains(m.PIDs, x.PID) })
	if i < 0 {
		return evidence.Xid{}, false
	}
	return m.Xids[i], true
}

// kernelWindow is how long before an end a line of the kernel log may tell of it: a
// process with much memory takes a while to end.
const kernelWindow = 10 * time.Second
