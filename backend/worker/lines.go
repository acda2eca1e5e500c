package worker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"easel/backend"
	"easel/backend/process"
)

// What of the log is kept in memory: lines and bytes of text.
const (
	keepLines = 2000
	keepBytes = 2 << 20
	// keepLogs is how many log files of a worker are kept.
	keepLogs = 5
	// maxLog is how much of one log file is kept, in bytes.
	maxLog = 64 << 20
)

// lineBuffer holds the last lines of a worker's log, of whatever launch. A bar is
// replaced in place.
type lineBuffer struct {
	// mu guards the fields that follow.
	mu      sync.Mutex
	entries []entry // oldest first
	bytes   int
	seq     int64         // of the last change
	changed chan struct{} // closed upon the next change
	one     bool          // all launches write one log
}

// joined says that all launches write one log, as a unit or a container does: the
// tail of one is that of all.
func (b *lineBuffer) joined() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.one = true
}

// last is the last n lines of whatever launch.
func (b *lineBuffer) last(n int) []backend.LogLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []backend.LogLine
	for _, e := range b.entries[max(0, len(b.entries)-n):] {
		out = append(out, e.line)
	}
	return out
}

// entry is a line and the number of its last change.
type entry struct {
	line backend.LogLine
	seq  int64
}

func newLineBuffer() *lineBuffer { return &lineBuffer{changed: make(chan struct{})} }

// add appends a line, or replaces the bar that has its number.
func (b *lineBuffer) add(l backend.LogLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	if n := len(b.entries); n > 0 && b.entries[n-1].line.N == l.N && b.entries[n-1].line.Launch == l.Launch {
		b.bytes += len(l.Text) - len(b.entries[n-1].line.Text)
		b.entries[n-1] = entry{l, b.seq}
	} else {
		b.entries = append(b.entries, entry{l, b.seq})
		b.bytes += len(l.Text)
	}
	for len(b.entries) > keepLines || b.bytes > keepBytes && len(b.entries) > 1 {
		b.bytes -= len(b.entries[0].line.Text)
		b.entries[0] = entry{}
		b.entries = b.entries[1:]
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// since lists what changed after seq, of one launch or ("") of all, with the
// number of the last change and a channel that is closed upon the next.
func (b *lineBuffer) since(seq int64, launch string) ([]backend.LogLine, int64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := len(b.entries)
	for from > 0 && b.entries[from-1].seq > seq {
		from--
	}
	var out []backend.LogLine
	for _, e := range b.entries[from:] {
		if launch == "" || e.line.Launch == launch {
			out = append(out, e.line)
		}
	}
	return out, b.seq, b.changed
}

// tail is the last n lines of a launch (n < 0: all). whole says that nothing
// before them is missing. seq is for since.
func (b *lineBuffer) tail(launch string, n int) (lines []backend.LogLine, whole bool, seq int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.line.Launch == launch || b.one {
			lines = append(lines, e.line)
		}
	}
	whole = len(lines) > 0 && lines[0].N == 1 || b.one
	if n >= 0 && len(lines) >= n {
		return lines[len(lines)-n:], true, b.seq
	}
	return lines, whole, b.seq
}

// Logs gives lines of the worker's log to fn: the tail, then, with Follow, what
// comes until the context ends or fn fails. A reader that is too slow misses lines,
// as their numbers show. Follow without a launch goes on with the next one.
func (m *Manager) Logs(ctx context.Context, q backend.LogQuery, fn func(backend.LogLine) error) error {
	launch := q.Launch
	if launch == "" {
		launch = m.lastLaunch()
	}
	seq, err := m.logTail(launch, q, fn)
	if err != nil || !q.Follow {
		return err
	}
	for {
		lines, last, changed := m.lines.since(seq, q.Launch)
		seq = last
		for _, l := range lines {
			if err := fn(l); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// logTail gives the tail, from memory when it holds enough, else from the file.
func (m *Manager) logTail(launch string, q backend.LogQuery, fn func(backend.LogLine) error) (int64, error) {
	lines, whole, seq := m.lines.tail(launch, q.Tail)
	if !whole && q.Tail != 0 && launch != "" {
		older, err := m.fileLines(launch, q.Tail, lines)
		switch {
		case err == nil:
			lines = older
		case q.Launch != "" && errors.Is(err, fs.ErrNotExist):
			return 0, backend.Fail(backend.FailNotFound, "the log of launch "+q.Launch+" is not kept", "easel worker logs shows the last one")
		case !errors.Is(err, fs.ErrNotExist):
			return 0, err
		}
	}
	for _, l := range lines {
		if err := fn(l); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// fileLines reads the last n lines of a log file. What memory holds of the same
// launch says how they are numbered, and stands for the end of the file.
func (m *Manager) fileLines(launch string, n int, held []backend.LogLine) ([]backend.LogLine, error) {
	path := m.logPath(launch)
	if strings.ContainsAny(launch, "/\\") {
		return nil, fs.ErrNotExist
	}
	read, err := process.ReadTail(path, n)
	if err != nil {
		return nil, err
	}
	last := int64(len(read))
	if len(held) > 0 {
		last = held[len(held)-1].N
	}
	var at backend.Time
	if info, err := os.Stat(path); err == nil {
		at = backend.At(info.ModTime())
	}
	var log startLog
	out := make([]backend.LogLine, 0, len(read))
	for i, l := range read {
		out = append(out, backend.LogLine{
			Launch: launch, N: last - int64(len(read)-1-i), At: at, Text: l.Text, Level: log.line(l.Text), Bar: l.Bar,
		})
	}
	if len(held) > 0 {
		out = slices.DeleteFunc(out, func(l backend.LogLine) bool { return l.N >= held[0].N || l.N < 1 })
		out = append(out, held...)
	}
	if n >= 0 && len(out) > n {
		out = out[len(out)-n:]
	}
	return out, nil
}

// logPath is the log file of a launch.
func (m *Manager) logPath(launch string) string {
	return filepath.Join(m.spec.StateDir, "logs", "worker-"+m.spec.ID+"-"+launch+".log")
}

// pruneLogs removes the oldest log files of this worker.
func (m *Manager) pruneLogs() {
	paths, err := filepath.Glob(m.logPath("*"))
	if err != nil || len(paths) <= keepLogs {
		return
	}
	type file struct {
		path string
		mod  int64
	}
	var files []file
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			files = append(files, file{p, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return int(min(1, max(-1, b.mod-a.mod))) })
	for _, f := range files[min(keepLogs, len(files)):] {
		if err := os.Remove(f.path); err != nil {
			m.log.Warn("remove an old worker log", "path", f.path, "err", err)
		}
	}
}
