package dispatch

import "time"

// usage is what a process and its descendants use together.
type usage struct {
	at  time.Time
	rss int64         // bytes resident
	cpu time.Duration // used since they began
	io  int64         // bytes read from and written to disks since they began
	ok  bool          // it could be measured
}

// sampler keeps the last measurements of one process tree.
type sampler struct {
	list []usage
	base int64 // the least that it held in this launch, bytes
	peak int64 // the most since the last call of top
}

// add measures the tree below pid, at most once a second or so.
func (m *sampler) add(pid int, window time.Duration) {
	now := time.Now()
	if n := len(m.list); n > 0 && now.Sub(m.list[n-1].at) < min(time.Second, window/4) {
		return
	}
	u := measureTree(pid)
	if !u.ok {
		m.list = nil
		return
	}
	u.at = now
	m.list = append(m.list, u)
	for len(m.list) > 2 && now.Sub(m.list[1].at) >= window {
		m.list = m.list[1:]
	}
	if m.base == 0 || u.rss < m.base {
		m.base = u.rss
	}
	m.peak = max(m.peak, u.rss)
}

// rss is what the tree held last, in bytes; 0 when unknown.
func (m *sampler) rss() int64 {
	if n := len(m.list); n > 0 {
		return m.list[n-1].rss
	}
	return 0
}

// growth is how much more it holds than it once did in this launch, in bytes.
func (m *sampler) growth() int64 { return m.rss() - m.base }

// Below this a process counts as idle.
const (
	idleCPU = 0.05      // of one core
	idleIO  = 512 << 10 // bytes a second
)

// idle reports whether the tree used next to nothing over window. known is false
// when that cannot be said. load is the share of one core.
func (m *sampler) idle(window time.Duration) (idle, known bool, load float64) {
	n := len(m.list)
	if n < 2 {
		return false, false, 0
	}
	a, b := m.list[0], m.list[n-1]
	span := b.at.Sub(a.at)
	if span < window*3/4 {
		return false, false, 0
	}
	load = max(0, (b.cpu-a.cpu).Seconds()/span.Seconds())
	moved := float64(b.io-a.io) / span.Seconds()
	return load < idleCPU && moved < idleIO, true, load
}

// holder is a process that holds memory.
type holder struct {
	pid  int
	name string
	user string
	rss  int64
}
