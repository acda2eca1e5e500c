package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"easel/backend/evidence"
	"easel/backend/keeper"
	"easel/backend/process"
)

// Times of a watch.
const (
	sampleEach = time.Second
	treeEach   = 5 // samples between two looks for children
	// settled is how long before an end a counter is taken for the one before it: a
	// sample that comes later may already show the kill, since a process with much
	// memory takes a while to end.
	settled = 3 * time.Second
	// keepSamples is how many samples are kept.
	keepSamples = 12
)

// sample is what a watch saw at one moment.
type sample struct {
	at     time.Time
	usage  evidence.Usage
	memory evidence.Memory
	system int64
	groups []evidence.Counters // as watch.groups
	vram   [2]int64            // used, total
}

// watch looks at one process about once a second, so that its end can be
// explained.
type watch struct {
	pid   int
	ticks uint64
	gpu   string
	vram  func(gpu string) (used, total int64)

	// mu guards the fields that follow.
	mu      sync.Mutex
	groups  []evidence.Group
	own     bool // groups[0] holds this worker alone
	samples []sample
	pids    []int
	shell   bool
	kernel  *evidence.KernelLog
	over    bool  // the end was told: there is nothing to look at any more
	base    int64 // kills that the own group had counted when the watch began
}

// newWatch begins to watch a process. own is the cgroup made for it, the zero Group
// for none, kills what that had counted when it was looked at last. gone says that
// the process has ended already: then the kernel log is read from its start.
func newWatch(pid int, ticks uint64, own evidence.Group, kills int64, gone bool) *watch {
	w := &watch{pid: pid, ticks: ticks, pids: []int{pid}, base: kills, over: gone}
	w.kernel, _ = evidence.OpenKernelLog(gone)
	if gone {
		if own.Dir != "" {
			w.groups, w.own = []evidence.Group{own}, true
		}
		return w
	}
	groups, err := evidence.GroupsOf(pid)
	switch {
	case own.Dir != "" && err != nil: // it ended just now
		w.groups, w.own = []evidence.Group{own}, true
	default:
		w.groups, w.own = groups, own.Dir != "" && len(groups) > 0 && groups[0] == own
	}
	w.shell = isShell(evidence.Program(pid))
	return w
}

// isShell reports whether a program of that name is a shell.
func isShell(name string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"}, name)
}

// run samples until the context ends.
func (w *watch) run(ctx context.Context) {
	t := time.NewTicker(sampleEach)
	defer t.Stop()
	for n := 0; ; n++ {
		w.sample(n%treeEach == 0 || n == 2)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// sample looks once. tree looks for children, too.
func (w *watch) sample(tree bool) {
	var pids []int
	if tree {
		kids, _ := process.Descendants(w.pid)
		pids = append([]int{w.pid}, kids...)
	}
	var vram [2]int64
	if w.vram != nil {
		vram[0], vram[1] = w.vram(w.gpu)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if pids != nil && process.Alive(w.pid, w.ticks) {
		w.pids = pids
		w.shell = isShell(evidence.Program(w.pid))
	}
	s := w.read(time.Now())
	s.vram = vram
	if s.usage.Processes == 0 || s.usage.RSS == 0 {
		return // it is ending: what was before counts
	}
	w.kernel.Lines(time.Time{}) // so that little is left to read at the end
	w.samples = append(w.samples, s)
	if n := len(w.samples); n > keepSamples {
		w.samples = slices.Delete(w.samples, 0, n-keepSamples)
	}
}

// read reads everything. It needs mu.
func (w *watch) read(now time.Time) sample {
	s := sample{at: now, usage: evidence.UsageOf(w.pids), memory: evidence.ReadMemory(), system: evidence.SystemOOMKills()}
	for _, g := range w.groups {
		s.groups = append(s.groups, g.Read())
	}
	return s
}

// usage is what the worker uses now.
func (w *watch) usage() evidence.Usage {
	w.mu.Lock()
	pids := w.pids
	w.mu.Unlock()
	return evidence.UsageOf(pids)
}

// ownKills is what the counter of the own cgroup showed last; -1 without one.
func (w *watch) ownKills() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.samples); n > 0 && w.own {
		return w.samples[n-1].groups[0].OOMKills
	}
	return -1
}

// end says what the machine tells about an end, and ends the watch.
func (w *watch) end(e keeper.Ended) *Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.kernel.Close()
	w.over = true
	last := w.read(time.Now())
	before, ok := w.before(e.At)
	m := &Machine{
		Free: -1, KernelLog: w.kernel != nil, FirstPIDs: evidence.FirstPIDs(), PIDs: w.pids, Shell: w.shell,
		System: Moved{Before: -1, After: last.system}, Total: last.memory.Total,
	}
	for i, g := range w.groups {
		mv := Moved{Path: g.Path, Before: -1, After: last.groups[i].OOMKills, Usage: -1, Limit: last.groups[i].Limit}
		if ok {
			mv.Before, mv.OOMD = before.groups[i].OOMKills, last.groups[i].OOMD-before.groups[i].OOMD
		}
		if i == 0 && w.own {
			if !ok {
				mv.Before = w.base
			}
			m.Own = &mv
		}
		m.Shared = append(m.Shared, mv)
	}
	if ok {
		m.System.Before = before.system
		w.just(m, e)
	}
	w.fromKernel(m, e.At)
	if m.Own != nil {
		own := m.Shared[0]
		m.Own, m.Shared = &own, m.Shared[1:]
	}
	return m
}

// close ends the watch of a process that goes on.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.kernel.Close()
}

// before is the sample by which a counter counts as unmoved: the newest that is
// older than the end by a while, else the oldest. Samples that are too old are
// none. It needs mu.
func (w *watch) before(at time.Time) (sample, bool) {
	if len(w.samples) == 0 || at.Sub(w.samples[len(w.samples)-1].at) > 2*kernelWindow {
		return sample{}, false
	}
	for i := len(w.samples) - 1; i >= 0; i-- {
		if at.Sub(w.samples[i].at) >= settled {
			return w.samples[i], true
		}
	}
	return w.samples[0], true
}

// just fills in the figures of the moment before the end: of the last samples the
// one with the least left. A peak that came after all samples was just before, too.
func (w *watch) just(m *Machine, e keeper.Ended) {
	n := len(w.samples)
	newest := w.samples[n-1]
	m.RSS, m.Free = newest.usage.RSS, newest.memory.Available
	m.VRAMUsed, m.VRAMTotal = newest.vram[0], newest.vram[1]
	pick := newest
	for i := n - 2; i >= 0 && e.At.Sub(w.samples[i].at) < settled; i-- {
		if s := w.samples[i]; s.usage.RSS-s.memory.Available > m.RSS-m.Free {
			m.RSS, m.Free, pick = s.usage.RSS, s.memory.Available, s
		}
	}
	for i := range m.Shared {
		m.Shared[i].Usage = pick.groups[i].Usage
	}
	if newest.usage.Peak > 0 && e.MaxRSS > newest.usage.Peak && e.MaxRSS > m.RSS {
		grown := e.MaxRSS - m.RSS // since that sample
		m.RSS = e.MaxRSS
		m.Free = max(0, m.Free-grown)
		for i := range m.Shared {
			if m.Shared[i].Usage >= 0 {
				m.Shared[i].Usage += grown
				if m.Shared[i].Limit > 0 {
					m.Shared[i].Usage = min(m.Shared[i].Usage, m.Shared[i].Limit)
				}
			}
		}
	}
}

// fromKernel adds what the kernel log tells of the moments before the end. The
// kernel counts a kill, sends the signal and then writes its line: where a counter
// moved and there is no line yet, it waits a moment.
func (w *watch) fromKernel(m *Machine, at time.Time) {
	if w.kernel == nil {
		return
	}
	since := at.Add(-kernelWindow)
	lines := w.kernel.Lines(since)
	moved := m.System.kills() > 0
	if moved && len(evidence.OOMKills(lines)) == 0 {
		time.Sleep(5 * time.Millisecond)
		lines = w.kernel.Lines(since)
	}
	m.Kills = evidence.OOMKills(lines)
	m.Xids = evidence.Xids(w.kernel.Lines(at.Add(-time.Minute)))
}

// card is what was seen last of the memory of its card; 0 when unknown.
func (w *watch) card() (used, total int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.samples); n > 0 {
		return w.samples[n-1].vram[0], w.samples[n-1].vram[1]
	}
	return 0, 0
}
