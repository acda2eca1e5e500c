package sketch

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// logger writes what ComfyUI would: bare lines without time or level. It keeps
// the last 300 writes for /internal/logs and tells subscribers of each.
type logger struct {
	level  int
	out    io.Writer // below ERROR
	errout io.Writer
	notify func(entry *object) // called without mu

	mu   sync.Mutex // guards ring and the order of writes
	ring []*object
}

var levels = map[string]int{"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}

const ringSize = 300

func (l *logger) info(format string, args ...any) { l.at("INFO", format, args...) }

func (l *logger) warn(format string, args ...any) { l.at("WARNING", format, args...) }

func (l *logger) error(format string, args ...any) { l.at("ERROR", format, args...) }

// line writes text as it is, at level ERROR.
func (l *logger) line(text string) { l.at("ERROR", "%s", text) }

func (l *logger) at(level, format string, args ...any) {
	if levels[level] < l.level {
		return
	}
	w := l.errout
	if levels[level] < levels["ERROR"] {
		w = l.out
	}
	l.write(w, fmt.Sprintf(format, args...)+"\n")
}

// bar writes a piece of a progress bar, whatever the level.
func (l *logger) bar(text string) { l.write(l.errout, text) }

func (l *logger) write(w io.Writer, text string) {
	e := obj("t", time.Now().Format("2006-01-02T15:04:05.000000"), "m", text)
	l.mu.Lock()
	if n := len(l.ring); n > 0 && strings.HasPrefix(text, "\r") && !strings.HasSuffix(l.ring[n-1].at("m").(string), "\n") {
		l.ring = l.ring[:n-1]
	}
	if l.ring = append(l.ring, e); len(l.ring) > ringSize {
		l.ring = append([]*object(nil), l.ring[len(l.ring)-ringSize:]...)
	}
	_, _ = io.WriteString(w, text) // nobody is left to tell
	l.mu.Unlock()
	if l.notify != nil {
		l.notify(e)
	}
}

// entries copies what is kept, oldest first.
func (l *logger) entries() []any {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]any, len(l.ring))
	for i, e := range l.ring {
		list[i] = e
	}
	return list
}

var fatalSignals = map[int]string{4: "Illegal instruction", 6: "Aborted", 7: "Bus error", 8: "Floating point exception", 11: "Segmentation fault"}

// faulthandler writes what Python's faulthandler writes before such an end.
func (l *logger) faulthandler(signal int) {
	name := fatalSignals[signal]
	if name == "" {
		return
	}
	l.write(l.errout, "Fatal Python error: "+name+"\n\nCurrent thread 0x00007f0000000001 (most recent call first):\n  File \"easel sketch\", line 1 in execute\n")
}

// tqdm is the progress bar that samplers print to the log: "\r", then
// ` 20%|██        | 1/5 [00:00<00:00,  6.66it/s]`.
type tqdm struct {
	log          *logger
	total, shown int
	start, last  time.Time
}

func newTQDM(log *logger, total int) *tqdm {
	t := &tqdm{log: log, total: total, start: time.Now()}
	t.last = t.start
	t.print(0)
	return t
}

// step prints the bar, ten times a second at most, as tqdm does.
func (t *tqdm) step(n int) {
	if now := time.Now(); now.Sub(t.last) >= 100*time.Millisecond {
		t.last = now
		t.print(n)
	}
}

// close prints the bar a last time and ends the line.
func (t *tqdm) close(n int) {
	t.print(n)
	t.log.bar("\n")
}

func (t *tqdm) print(n int) {
	t.shown = n
	t.log.bar("\r" + barText(n, t.total, time.Since(t.start)))
}

// barText is one state of a bar, as tqdm formats it without a terminal.
func barText(n, total int, elapsed time.Duration) string {
	const width, parts = 10, " ▏▎▍▌▋▊▉█"
	eighths := n * width * 8 / max(total, 1)
	bar := strings.Repeat("█", eighths/8)
	if eighths/8 < width {
		bar += string([]rune(parts)[eighths%8]) + strings.Repeat(" ", width-eighths/8-1)
	}
	left, rate := "?", "?it/s"
	if n > 0 && elapsed > 0 {
		r := float64(n) / elapsed.Seconds()
		left = clock(time.Duration(float64(total-n) / r * float64(time.Second)))
		if r >= 1 {
			rate = fmt.Sprintf("%5.2fit/s", r)
		} else {
			rate = fmt.Sprintf("%5.2fs/it", 1/r)
		}
	}
	sep := ", "
	return fmt.Sprintf("%3d%%|%s| %d/%d [%s<%s%s%s]", n*100/max(total, 1), bar, n, total, clock(elapsed), left, sep, rate)
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}
