package queue

import (
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
)

// View draws the screen, w×h cells.
func (m *Model) View() string {
	c := render{rev: m.env.State.Rev, envRev: m.env.Rev, picRev: m.env.Pics.Rev(), own: m.own, second: m.env.Now.Unix()}
	old := m.cacheR
	if old.text != "" && old.rev == c.rev && old.envRev == c.envRev && old.picRev == c.picRev && old.own == c.own && old.second == c.second {
		return old.text
	}
	m.build()
	lines := []string{m.title()}
	if m.detail.IsOpen() {
		lines = append(lines, m.detail.View(nil))
	} else {
		lines = append(lines, m.table()...)
	}
	c.text = strings.Join(lines, "\n")
	m.cacheR = c
	return c.text
}

// title is the first line: counts and pause, or the filter while it is used.
func (m *Model) title() string {
	t, s := m.env.Theme, m.env.State
	w := m.w - 4
	left := ""
	switch {
	case m.typing:
		left = t.Key.Render("/ ") + m.filter.View(t, max(w/2, 10))
	case m.filter.Value() != "":
		left = t.Accent.Render(text.T("/ %s", m.filter.Value())) + t.Muted.Render(text.T("  %s shown · esc shows all", widget.Number(len(m.rows))))
	case len(m.marks) > 0:
		left = t.Accent.Render(text.T("%d marked", len(m.marks))) + t.Muted.Render(text.T(" · esc lets them go"))
	default:
		left = t.Title.Render(text.T("queue")) + "  " + t.Muted.Render(m.counts())
	}
	right := t.Muted.Render(text.T("sorted by %s", m.sortName()))
	if s.Queue.Paused {
		right = t.Warn.Render(text.T("paused · p: go on")) + "  " + right
	}
	return widget.Row(t, widget.Spread(left, right, w), m.w)
}

func (m *Model) counts() string {
	s := m.env.State
	if !s.Have {
		return text.T("not known yet")
	}
	parts := []string{
		text.T("%s running", widget.Number(len(s.Running))),
		text.T("%s waiting", widget.Number(s.Queue.Queued)),
	}
	if s.Queue.Held > 0 {
		parts = append(parts, text.T("%s held", widget.Number(s.Queue.Held)))
	}
	if hidden := s.Queue.Queued + s.Queue.Held - len(s.Waiting); hidden > 0 {
		parts = append(parts, text.T("%s more further down", widget.Number(hidden)))
	}
	return strings.Join(parts, " · ")
}

func (m *Model) sortName() string {
	switch m.sort {
	case byName:
		return text.T("name")
	case byState:
		return text.T("state")
	case byPriority:
		return text.T("priority")
	case byAge:
		return text.T("age")
	}
	return text.T("the queue's order")
}

// widths are the columns for a line of w cells, gaps not counted. Figures that
// matter less go first when there is no room.
type widths struct {
	pos, name, state, prio, reason, age, eta int
}

func columnWidths(w int) widths {
	c := widths{pos: 5, state: 11, prio: 4, age: 4, eta: 7}
	free := w - 2 - c.pos - c.state - c.prio - c.age - c.eta - 6*2
	if free < 30 {
		free += c.prio + 2
		c.prio = 0
	}
	c.name = min(max(free*45/100, 18), 50, max(free, 0))
	c.reason = max(free-c.name, 0)
	return c
}

// line joins cells of the given widths, leaving out empty columns.
func (c widths) line(pos, name, state, prio, reason, age, eta string) string {
	var b strings.Builder
	put := func(s string, w int, right bool) {
		if w <= 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		if right {
			b.WriteString(widget.FitRight(s, w))
		} else {
			b.WriteString(widget.Fit(s, w))
		}
	}
	put(pos, c.pos, true)
	put(name, c.name, false)
	put(state, c.state, false)
	put(prio, c.prio, true)
	put(reason, c.reason, false)
	put(age, c.age, true)
	put(eta, c.eta, true)
	return b.String()
}

// table is the header and the rows, h-1 lines.
func (m *Model) table() []string {
	t, h := m.env.Theme, m.height()
	w := m.w - 4
	c := columnWidths(w - 2)
	head := t.Muted.Render("  " + c.line("#", text.T("name"), text.T("state"), text.T("prio"), text.T("waits for, made"), text.T("age"), text.T("time")))
	lines := []string{widget.Row(t, head, m.w)}
	if len(m.rows) == 0 {
		for _, l := range m.empty(w, h) {
			lines = append(lines, widget.Row(t, l, m.w))
		}
		return lines
	}
	per := m.perJob()
	for i := range h {
		n := m.list.Top + i
		row := ""
		if n < len(m.rows) {
			row = m.row(m.rows[n], n, c, w, per)
		}
		line := widget.Row(t, row, m.w)
		if widget.Scrollbar(i, h, len(m.rows), m.list.Top) {
			line = strings.TrimSuffix(line, t.Border.Render("│")) + t.Accent.Render("┃")
		}
		lines = append(lines, line)
	}
	return lines
}

func (m *Model) empty(w, h int) []string {
	t := m.env.Theme
	say := text.T("The queue is empty. a adds a workflow; in a shell: easel run FILE.")
	switch {
	case !m.env.State.Have:
		say = text.T("The queue is not known yet.")
	case m.filter.Value() != "":
		say = text.T("No job matches. esc shows all.")
	}
	lines := make([]string, h)
	lines[h/2] = widget.Spaces((w-widget.Width(say))/2) + t.Muted.Render(say)
	return lines
}

// perJob is the mean seconds of the jobs finished last, 0 when unknown.
func (m *Model) perJob() float64 {
	var sum float64
	var n int
	for _, j := range m.env.State.Recent {
		if j.State == backend.JobSucceeded && j.InferenceS != nil && n < 20 {
			sum += *j.InferenceS
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

func (m *Model) row(j backend.Job, i int, c widths, w int, per float64) string {
	t := m.env.Theme
	sign, style := act.Sign(t, j)
	place, ahead := m.place(j)
	pos := ""
	if place > 0 {
		pos = widget.Number(place)
	}
	age := j.Created.Time
	if j.State.Final() {
		age = j.Finished.Time
	}
	prio := ""
	if j.Priority != 0 {
		prio = strconv.Itoa(j.Priority)
	}
	name := t.Text
	if j.State.Final() {
		name = t.Muted
	}
	line := c.line(t.Muted.Render(pos), name.Render(widget.CutMiddle(act.Name(j), c.name)), style.Render(sign+" "+act.Word(j)), t.Text.Render(prio),
		m.reason(j, c.reason), t.Muted.Render(widget.Age(m.env.Now.Sub(age))), t.Muted.Render(m.eta(j, ahead, per)))
	mark := "  "
	if m.marks[j.ID] {
		mark = t.Accent.Render("◆ ")
	}
	if i != m.list.Cur {
		return mark + line
	}
	if !m.marks[j.ID] {
		mark = t.Focus.Render("▸ ")
	}
	return widget.Select(t, mark+line, w)
}

// place is a waiting job's place in the queue (1 is next), and how many jobs run
// before it.
func (m *Model) place(j backend.Job) (place, ahead int) {
	if j.State != backend.JobQueued {
		return 0, 0
	}
	n := 0
	for _, o := range m.env.State.Waiting {
		if o.State != backend.JobQueued {
			continue
		}
		n++
		if o.ID == j.ID {
			return n, n
		}
	}
	return 0, 0
}

func (m *Model) reason(j backend.Job, w int) string {
	t := m.env.Theme
	switch {
	case j.State == backend.JobRunning && j.Progress != nil:
		bar := widget.Bar(j.Progress.Fraction, min(12, w/3), t.Accent, t.Faint)
		return bar + " " + t.Text.Render(widget.FitRight(widget.Percent(j.Progress.Fraction), 5)+"  "+act.Step(j.Progress))
	case j.State == backend.JobFailed:
		return t.Danger.Render(act.Result(j))
	case j.State.Final():
		return t.Text.Render(act.Result(j))
	}
	return t.Muted.Render(text.Said(widget.Clean(j.WaitReason)))
}

func (m *Model) eta(j backend.Job, ahead int, per float64) string {
	switch {
	case j.State.Final():
		return act.Took(j)
	case j.State == backend.JobRunning:
		if j.Progress != nil && j.Progress.ETAS != nil {
			return widget.Seconds(*j.Progress.ETAS)
		}
		return ""
	case j.NotBefore.After(m.env.Now):
		return text.T("in %s", widget.Uptime(j.NotBefore.Sub(m.env.Now)))
	case j.State == backend.JobHeld || m.env.State.Queue.Paused || per == 0 || ahead == 0:
		return ""
	}
	d := time.Duration(per * float64(ahead) * float64(time.Second))
	if d < time.Minute {
		return widget.Uptime(d)
	}
	return "~" + widget.Uptime(d)
}
