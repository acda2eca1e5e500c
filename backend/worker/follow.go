package worker

import (
	"context"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/process"
)

// follow reads the log of one launch.
type follow struct {
	m    *Manager
	cur  *launch
	from int64
	done chan struct{}

	log startLog // of the goroutine that reads
	n   int64    // number of the last line
	bar bool     // and whether it may still be replaced

	// mu guards the fields that follow.
	mu     sync.Mutex
	moved  time.Time // when a line came last
	last   string
	shown  string
	offset int64 // after the last final line
	lines  int64 // its number
	packs  []backend.Pack
	trim   int64 // offset at the last Trim
	// for Activity
	heard      time.Time // when a line came last; zero: none did
	threadDied time.Time
	fault      string
	shownBar   string
}

// newFollow follows from an offset after which lines of that log are numbered
// lines+1 and so on.
func newFollow(m *Manager, cur *launch, offset, lines int64, packs []backend.Pack) *follow {
	f := &follow{m: m, cur: cur, from: offset, done: make(chan struct{}), n: lines, offset: offset, lines: lines, packs: packs, moved: time.Now()}
	f.log.packs = packs
	f.log.Listening = cur.ready // its start is over
	return f
}

// run reads until the context ends, and then what is left.
func (f *follow) run(ctx context.Context, path string) {
	defer close(f.done)
	if f.from > 0 {
		f.recall(path)
	}
	if err := process.Follow(ctx, path, f.from, f.line); err != nil {
		f.m.log.Warn("the log of the worker cannot be read", "path", path, "err", err)
	}
}

// wait blocks until the log is read to its end; the launch's context must have
// ended.
func (f *follow) wait() { <-f.done }

// recall fills the memory with the lines before the offset, for who asks for logs
// later. They were told once.
func (f *follow) recall(path string) {
	lines, err := process.ReadTail(path, keepLines)
	if err != nil {
		return
	}
	for len(lines) > 0 && (lines[len(lines)-1].Offset > f.from || lines[len(lines)-1].Bar) {
		lines = lines[:len(lines)-1]
	}
	var log startLog
	for i, l := range lines {
		if n := f.lines - int64(len(lines)-1-i); n > 0 {
			f.m.lines.add(backend.LogLine{Launch: f.cur.id, N: n, At: backend.Now(), Text: l.Text, Level: log.line(l.Text)})
		}
	}
}

// line takes a line of the file.
func (f *follow) line(l process.Line) {
	if !f.bar {
		f.n++
	}
	f.bar = l.Bar
	level := levelInfo
	if !l.Bar {
		level = f.log.line(l.Text)
	}
	out := backend.LogLine{Launch: f.cur.id, N: f.n, At: backend.Now(), Text: l.Text, Level: level, Bar: l.Bar}
	f.m.lines.add(out)
	f.mu.Lock()
	f.moved = time.Now()
	f.heard, f.shownBar = f.moved, ""
	switch {
	case l.Bar:
		f.shownBar = l.Text
	case threadDied(l.Text):
		f.threadDied = f.moved
	case f.fault == "" && cudaFault(l.Text):
		f.fault = l.Text
	}
	if l.Text != "" {
		f.last = l.Text
	}
	if !l.Bar {
		f.offset, f.lines = l.Offset, f.n
	}
	if len(f.log.packs) != len(f.packs) {
		f.packs = f.log.Packs()
	}
	f.mu.Unlock()
	if f.log.Listening {
		select {
		case f.cur.hint <- struct{}{}:
		default:
		}
	}
	if f.m.o.OnLine != nil {
		f.m.o.OnLine(out)
	}
}

// movedAt is when the log moved last, or when we began to look at it.
func (f *follow) movedAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

// noteLog brings the record up to date with the log, and says whether it changed.
func (m *Manager) noteLog() bool {
	r := &m.run
	f := r.cur.follow
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.offset == r.rec.Offset && len(f.packs) == len(r.rec.Packs) {
		return false
	}
	r.rec.Offset, r.rec.Lines, r.rec.Packs = f.offset, f.lines, f.packs
	if f.offset-f.trim > maxLog/4 {
		f.trim = f.offset
		if err := process.Trim(r.rec.Log, maxLog); err != nil {
			m.log.Warn("trim the log of the worker", "err", err)
		}
	}
	return true
}

// showLine shows the last line of the log, and the packs, while the worker starts.
func (m *Manager) showLine() {
	f := m.run.cur.follow
	f.mu.Lock()
	last, packs := f.last, f.packs
	fresh := last != f.shown
	f.shown = last
	f.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w.State != backend.WorkerStarting || !fresh && len(packs) == len(m.w.Packs) {
		return
	}
	m.w.LastLine, m.w.Packs = last, packs
	m.tell()
}
