package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/term"

	"easel/backend"
)

// display tells on stderr what becomes of jobs. It is used by one goroutine at a
// time.
type display interface {
	job(backend.Job)  // the job is like this now
	note(text string) // something about engine, queue or worker
	end()             // nothing more comes
}

// locked lets a timer speak beside the goroutine that follows the jobs.
type locked struct {
	mu sync.Mutex // guards display
	display
}

func (l *locked) job(j backend.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.display.job(j)
}

func (l *locked) note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.display.note(text)
}

func (l *locked) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.display.end()
}

// newDisplay is a line that is redrawn on a terminal, plain lines elsewhere.
// total is the number of jobs.
func (a *app) newDisplay(total int) display {
	if !a.terminal {
		return &plainLines{w: a.err, now: time.Now, last: map[string]plainState{}}
	}
	width := func() int { return 80 }
	if f, ok := a.err.(*os.File); ok {
		width = func() int {
			if w, _, err := term.GetSize(f.Fd()); err == nil && w > 0 {
				return w
			}
			return 80
		}
	}
	return &barLine{w: a.err, width: width, now: time.Now, total: total, jobs: map[string]backend.Job{}}
}

// nodeEvery is how often at most a change of node makes a plain line.
const nodeEvery = time.Second

// plainLines prints a line for each change of state, and of node at most once a
// second.
type plainLines struct {
	w        io.Writer
	now      func() time.Time
	last     map[string]plainState
	lastNote string
}

type plainState struct {
	state, node string
	at          time.Time
}

func (p *plainLines) job(j backend.Job) {
	is := plainState{state: stateWord(j) + fmt.Sprint(len(j.Attempts)), at: p.now()}
	if j.State == backend.JobQueued || j.State == backend.JobHeld {
		is.state = stateWord(j)
	}
	if j.Progress != nil {
		is.node = j.Progress.Node
	}
	was, known := p.last[j.ID]
	if known && was.state == is.state {
		if j.State != backend.JobRunning || was.node == is.node || is.at.Sub(was.at) < nodeEvery {
			return
		}
	}
	p.last[j.ID] = is
	fmt.Fprintln(p.w, strings.TrimRight(short(j.ID)+" "+jobName(j)+": "+stateLine(j), " "))
}

// stateLine is where a job stands, for a line of its own.
func stateLine(j backend.Job) string {
	what := jobWhat(j)
	if j.State == backend.JobSucceeded {
		what = "in " + jobTook(j, time.Now()) + " · " + what
	}
	if what == "" {
		return stateWord(j)
	}
	return stateWord(j) + " · " + what
}

func (p *plainLines) note(text string) {
	if text != p.lastNote {
		p.lastNote = text
		fmt.Fprintln(p.w, "easel: "+text)
	}
}

func (p *plainLines) end() {}

// drawEvery is how often at most the line of a terminal is redrawn for progress.
const drawEvery = 50 * time.Millisecond

// barLine keeps one line at the bottom of a terminal.
type barLine struct {
	w        io.Writer
	width    func() int
	now      func() time.Time
	total    int
	ended    int
	jobs     map[string]backend.Job
	current  string // id of the job in the line
	drawn    bool
	drawnAt  time.Time
	lastNote string
}

func (b *barLine) job(j backend.Job) {
	old, known := b.jobs[j.ID]
	b.jobs[j.ID] = j
	if j.State.Final() {
		if !known || !old.State.Final() {
			b.ended++
			b.above(symbol(j) + " " + jobName(j) + " · " + stateLine(j))
		}
		b.current = ""
		return
	}
	if cur, ok := b.jobs[b.current]; !ok || cur.State != backend.JobRunning || j.State == backend.JobRunning {
		b.current = j.ID
	}
	if b.current != j.ID || known && old.State == j.State && b.now().Sub(b.drawnAt) < drawEvery {
		return
	}
	b.draw(b.line(j))
}

// symbol pairs the word of an end with a sign.
func symbol(j backend.Job) string {
	switch j.State {
	case backend.JobSucceeded:
		return "✓"
	case backend.JobFailed:
		return "✗"
	}
	return "–"
}

// barCells is how wide the bar is, in cells.
const barCells = 24

// line is the job as a name, a bar and words.
func (b *barLine) line(j backend.Job) string {
	head := cut(jobName(j), 24)
	if b.total > 1 {
		head = fmt.Sprintf("%d/%d %s", b.ended, b.total, head)
	}
	if j.State != backend.JobRunning || j.Progress == nil {
		return head + " · " + stateLine(j)
	}
	full := min(max(int(j.Progress.Fraction*barCells+0.5), 0), barCells)
	return head + "  " + strings.Repeat("█", full) + strings.Repeat("░", barCells-full) + "  " + progressWords(*j.Progress)
}

func (b *barLine) draw(s string) {
	fmt.Fprint(b.w, "\r\x1b[K"+cut(s, b.width()-1))
	b.drawn, b.drawnAt = true, b.now()
}

// above prints a line that stays, over the one that is redrawn.
func (b *barLine) above(s string) {
	b.clear()
	fmt.Fprintln(b.w, s)
}

func (b *barLine) clear() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn = false
	}
}

func (b *barLine) note(text string) {
	if text == b.lastNote {
		return
	}
	b.lastNote = text
	b.above("easel: " + text)
	if j, ok := b.jobs[b.current]; ok && !j.State.Final() {
		b.draw(b.line(j))
	}
}

func (b *barLine) end() { b.clear() }
