package logs

import (
	"strings"
	"time"

	"easel/backend"
	"easel/tui/widget"
)

// Bounds of what is kept.
const (
	maxLines    = 10_000
	maxBytes    = 8 << 20
	maxLineText = 16 << 10 // bytes of one line; more is cut and said
)

// line is one kept line, clean.
type line struct {
	seq   int64 // grows by one a line, never reused
	n     int64 // the worker's own number
	level string
	text  string
	bar   bool
	mark  bool // not a line of the log but a remark of ours: a new launch
	at    time.Time
}

// ring is the last lines of a log, bounded in lines and bytes. The oldest go
// first.
type ring struct {
	buf    []line // head … are alive
	head   int
	bytes  int
	next   int64
	launch string
	lastN  int64
	errors int // lines of level error that are kept
}

// len is the number of lines kept.
func (r *ring) len() int { return len(r.buf) - r.head }

// first is the seq of the oldest line.
func (r *ring) first() int64 { return r.next - int64(r.len()) }

// at is the line with a seq that is kept.
func (r *ring) at(seq int64) *line { return &r.buf[r.head+int(seq-r.first())] }

// add takes a line in. A bar replaces the line of its number; a line that was
// seen already is dropped; a new launch is marked.
func (r *ring) add(l backend.LogLine, mark string) {
	if l.Launch != r.launch {
		if r.launch != "" {
			r.push(line{text: mark, mark: true, at: l.At.Time})
		}
		r.launch, r.lastN = l.Launch, 0
	}
	text := cut(l.Text)
	if l.N == r.lastN && r.len() > 0 {
		last := &r.buf[len(r.buf)-1]
		if last.n == l.N && !last.mark {
			r.bytes += len(text) - len(last.text)
			last.text, last.bar = text, l.Bar || isBar(text)
			return
		}
	}
	if l.N <= r.lastN {
		return
	}
	r.lastN = l.N
	r.push(line{n: l.N, level: l.Level, text: text, bar: l.Bar || isBar(text), at: l.At.Time})
}

func (r *ring) push(l line) {
	l.seq = r.next
	r.next++
	r.buf = append(r.buf, l)
	r.bytes += len(l.text)
	if l.level == "error" {
		r.errors++
	}
	for r.len() > maxLines || r.bytes > maxBytes && r.len() > 1 {
		old := &r.buf[r.head]
		r.bytes -= len(old.text)
		if old.level == "error" {
			r.errors--
		}
		*old = line{}
		r.head++
	}
	if r.head > maxLines/2 && r.head > len(r.buf)/3 {
		r.buf = append(r.buf[:0:0], r.buf[r.head:]...)
		r.head = 0
	}
}

// isBar reports whether a line is a progress bar that was finished, so that the log
// no longer says so.
func isBar(s string) bool { return strings.Contains(s, "%|") && tqdm.MatchString(s) }

// cut cleans a line and bounds its length.
func cut(s string) string {
	if len(s) <= maxLineText {
		return widget.CleanLong(s, maxLineText)
	}
	return widget.CleanLong(s, maxLineText) + " … (" + widget.Bytes(int64(len(s))) + ")"
}
