package home

import (
	"strings"

	"charm.land/lipgloss/v2"

	"easel/backend"
	"easel/tui/live"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
	"easel/views/detail"
)

// View draws the screen, w×h cells.
func (m *Model) View() string {
	c := cache{rev: m.env.State.Rev, envRev: m.env.Rev, picRev: m.env.Pics.Rev(), own: m.own, second: m.env.Now.Unix()}
	if m.cache.text != "" && m.cache.rev == c.rev && m.cache.envRev == c.envRev && m.cache.picRev == c.picRev && m.cache.second == c.second && m.cache.own == c.own {
		return m.cache.text
	}
	lines := m.header()
	if m.detail.IsOpen() {
		lines = append(lines, m.detail.View(nil))
	} else {
		lines = append(lines, m.body()...)
	}
	c.text = strings.Join(lines, "\n")
	m.cache = c
	return c.text
}

// header is the cards and the workers.
func (m *Model) header() []string {
	t, w := m.env.Theme, m.w
	var lines []string
	for _, l := range widget.Lines(m.gpuLines(w-4, m.lay.details), m.lay.gpus) {
		lines = append(lines, widget.Row(t, l, w))
	}
	for _, l := range widget.Lines(m.workerLines(w-4), m.lay.workers) {
		lines = append(lines, widget.Row(t, l, w))
	}
	return lines
}

// workerLines says how the workers are, one or two lines each, and what there is
// to know about this box.
func (m *Model) workerLines(w int) []string {
	t, s := m.env.Theme, m.env.State
	if len(s.Workers) == 0 {
		say := text.T("no worker")
		if !s.Have {
			say = m.looking()
		}
		return []string{widget.Fit(t.Title.Render(text.T("worker"))+"  "+t.Muted.Render(say), w)}
	}
	var lines []string
	for _, wk := range s.Workers {
		lines = append(lines, m.workerLine(wk, w))
		if d := wk.LastDeath; d != nil && d.Kind != backend.KindAsked && !d.At.IsZero() {
			lines = append(lines, m.deathLine(d, w))
		}
	}
	if len(s.Status.Found) > 0 {
		lines = append(lines, widget.Cut("  "+t.Held.Render(foundLine(s.Status.Found[0])), w))
	}
	return lines
}

// foundLine names a ComfyUI of this box that is not used, and how to use it.
func foundLine(f backend.FoundComfy) string {
	what, use := f.Dir, f.Dir
	if f.URL != "" {
		what, use = f.URL, f.URL
	}
	return text.T("a ComfyUI is at %s: easel use %s", widget.Clean(what), widget.Clean(use))
}

// looking says what the console does before the engine has answered.
func (m *Model) looking() string {
	s := m.env.State
	if s.Note != "" {
		return text.Said(widget.Clean(s.Note))
	}
	return text.T("looking for the engine of %s …", widget.Clean(s.Box))
}

func (m *Model) workerLine(wk backend.Worker, w int) string {
	t := m.env.Theme
	sign, word, style := workerState(m, wk)
	left := t.Title.Render(text.T("worker")) + "  " + t.Strong.Render(widget.Clean(wk.ID)) + "  " + style.Render(sign+" "+word)
	if r := m.workerReason(wk); r != "" {
		left += "  " + t.Text.Render(r)
	}
	return widget.Spread(left, t.Muted.Render(strings.Join(m.workerFacts(wk), " · ")), w)
}

func (m *Model) workerFacts(wk backend.Worker) []string {
	var facts []string
	switch {
	case wk.Builtin:
		facts = append(facts, text.T("built-in: no diffusion, no models"))
	case wk.ComfyUI != nil && wk.ComfyUI.Version != "":
		facts = append(facts, "ComfyUI "+widget.Clean(wk.ComfyUI.Version))
	case wk.External:
		facts = append(facts, text.T("somebody else's %s", widget.Clean(wk.URL)))
	}
	if !wk.Started.IsZero() && wk.PID != nil {
		facts = append(facts, text.T("up %s", widget.Uptime(m.env.Now.Sub(wk.Started.Time))))
	}
	if wk.Restarts > 0 {
		facts = append(facts, text.N(wk.Restarts, "%d restart", "%d restarts"))
	}
	return facts
}

// workerState is a worker's state as symbol, word and style.
func workerState(m *Model, wk backend.Worker) (string, string, lipgloss.Style) {
	t := m.env.Theme
	switch wk.State {
	case backend.WorkerReady:
		return "●", text.T("ready"), t.Good
	case backend.WorkerBusy:
		return "●", text.T("busy"), t.Accent
	case backend.WorkerPreparing:
		return "◐", text.T("preparing"), t.Warn
	case backend.WorkerStarting:
		return "◐", text.T("starting"), t.Warn
	case backend.WorkerStopping:
		return "◐", text.T("stopping"), t.Warn
	case backend.WorkerBackoff:
		return "◔", text.T("restarts"), t.Warn
	case backend.WorkerExited:
		return "○", text.T("ended"), t.Warn
	case backend.WorkerFailed:
		return "✗", text.T("failed"), t.Danger
	}
	return "○", text.T("stopped"), t.Muted
}

// workerReason is what more there is to say about a worker's state.
func (m *Model) workerReason(wk backend.Worker) string {
	reason := text.Said(widget.Clean(wk.Reason))
	switch wk.State {
	case backend.WorkerBackoff:
		left := wk.NextRestart.Sub(m.env.Now)
		if wk.NextRestart.IsZero() || left < 0 {
			return reason
		}
		in := text.T("in %s", widget.Seconds(float64(int(left.Seconds()+0.999))))
		if m.focus == paneNow {
			in += text.T(" (enter: now)")
		}
		return in + "  " + reason
	case backend.WorkerStarting, backend.WorkerPreparing:
		if wk.LastLine != "" {
			return widget.Clean(wk.LastLine)
		}
	case backend.WorkerReady, backend.WorkerBusy:
		return ""
	}
	return reason
}

func (m *Model) deathLine(d *backend.Verdict, w int) string {
	t := m.env.Theme
	s := t.Muted.Render(text.T("last death %s", act.Clock(d.At, m.env.Now, m.env.Loc))) + "  " +
		t.Warn.Render(widget.Clean(d.Kind)) + "  " + t.Text.Render(text.Said(widget.Clean(d.Summary)))
	if d.Remedy != "" {
		s += t.Muted.Render(" · " + text.Said(widget.Clean(d.Remedy)))
	}
	return widget.Cut("  "+s, w)
}

// body is the panes now, queue and recent.
func (m *Model) body() []string {
	t, l := m.env.Theme, m.lay
	lines := []string{widget.Rule(t, m.w, "├", "┤", []widget.Joint{{At: l.split, Down: true}},
		widget.Label{At: 2, Text: m.paneTitle(text.T("now"), paneNow)},
		widget.Label{At: l.split + 2, Text: m.paneTitle(text.T("queue"), paneQueue)},
		widget.Label{At: -2, Text: t.Muted.Render(m.queueTitle())})}
	left, right := m.nowLines(l.split-3, l.body), m.queueLines(m.w-l.split-4, l.body)
	for i := range l.body {
		lines = append(lines, widget.Row2(t, left[i], right[i], l.split, m.w))
	}
	lines = append(lines, widget.Rule(t, m.w, "├", "┤", []widget.Joint{{At: l.split, Up: true}},
		widget.Label{At: 2, Text: m.paneTitle(text.T("recent"), paneRecent)}))
	for _, r := range m.recentLines(m.w-4, l.recent) {
		lines = append(lines, widget.Row(t, r, m.w))
	}
	return lines
}

func (m *Model) paneTitle(s string, p pane) string {
	if m.focus == p {
		return m.env.Theme.Focus.Render("▸ " + s)
	}
	return m.env.Theme.Title.Render(s)
}

func (m *Model) queueTitle() string {
	s := m.env.State
	if !s.Have {
		return ""
	}
	parts := []string{text.T("%s waiting", widget.Number(s.Queue.Queued))}
	if s.Queue.Held > 0 {
		parts = append(parts, text.T("%s held", widget.Number(s.Queue.Held)))
	}
	if s.Queue.Paused {
		parts = append(parts, text.T("paused"))
	}
	if d, ok := s.ETA(); ok && s.Queue.Queued+len(s.Running) > 0 {
		parts = append(parts, widget.Uptime(d))
	}
	return strings.Join(parts, " · ")
}

// nowLines is the running job, or the last picture, w×h.
func (m *Model) nowLines(w, h int) []string {
	t := m.env.Theme
	j, running, ok := m.now()
	if !ok {
		return widget.Lines(m.idle(w, h), h)
	}
	var lines []string
	if running {
		lines = append(lines,
			widget.Spread(t.Strong.Render(act.Name(j)), t.Accent.Render(act.Step(j.Progress)), w),
			m.bar(j, w))
	} else {
		lines = append(lines, widget.Spread(t.Muted.Render(m.idleWord()), t.Muted.Render(act.Took(j)), w),
			t.Text.Render(widget.Cut(text.T("last: %s", act.Result(j)), w)))
	}
	cols, rows := m.lay.picture()
	if cols < 8 || rows < 3 {
		return widget.Lines(lines, h)
	}
	pic, ok := m.env.Pics.Lines(nowSlot, cols, rows)
	switch {
	case ok:
	case running && m.env.State.Preview[j.ID] == nil:
		pic = centre(t.Muted, previewWord(j, m.env.State), cols, rows)
	default:
		pic = detail.Instead(m.env, nowSlot, cols, rows)
	}
	return widget.Lines(append(lines, pic...), h)
}

func previewWord(j backend.Job, s *live.State) string {
	if j.Progress == nil {
		return text.T("the worker loads it …")
	}
	if s.Link != live.Connected {
		return text.T("no news from the engine")
	}
	return text.T("no preview from this node")
}

func (m *Model) bar(j backend.Job, w int) string {
	t := m.env.Theme
	if j.Cancelling {
		return t.Warn.Render(widget.Cut(text.T("cancelling …"), w))
	}
	if j.Progress == nil {
		return t.Muted.Render(text.T("started %s", act.Clock(j.Started, m.env.Now, m.env.Loc)))
	}
	right := widget.FitRight(widget.Percent(j.Progress.Fraction), 5)
	if e := act.ETA(j.Progress); e != "" {
		right += "  " + widget.Fit(e, 10)
	}
	return widget.Bar(j.Progress.Fraction, w-widget.Width(right)-1, t.Accent, t.Faint) + " " + t.Text.Render(right)
}

// idleWord says why nothing runs.
func (m *Model) idleWord() string {
	s := m.env.State
	switch {
	case s.Link != live.Connected:
		return text.T("no news from the engine")
	case s.Queue.Paused && s.Queue.Queued > 0:
		return text.T("nothing runs: the queue is paused (p: go on)")
	case len(s.Waiting) > 0 && s.Waiting[0].WaitReason != "":
		return text.T("nothing runs: %s", text.Said(widget.Clean(s.Waiting[0].WaitReason)))
	}
	return text.T("nothing runs")
}

// idle is the now pane of a box that has made nothing yet.
func (m *Model) idle(w, h int) []string {
	t, s := m.env.Theme, m.env.State
	if s.Link == live.Down && s.Err != "" {
		return m.down(w)
	}
	if !s.Have {
		return centre(t.Muted, m.looking(), w, h)
	}
	if s.Queue.Queued > 0 {
		return centre(t.Muted, m.idleWord(), w, h)
	}
	say := []string{
		text.T("Nothing runs."),
		text.T("a adds a workflow to the queue;"),
		text.T("in a shell: easel run FILE"),
	}
	lines := make([]string, max(h, len(say)))
	top := max((h-len(say))/2, 0)
	for i, l := range say {
		lines[top+i] = widget.Spaces((w-widget.Width(l))/2) + t.Muted.Render(l)
	}
	return lines
}

// down is why there is no engine, and each way out of that.
func (m *Model) down(w int) []string {
	t, s := m.env.Theme, m.env.State
	var lines []string
	add := func(style lipgloss.Style, sign, say string) {
		for i, l := range widget.Wrap(say, max(w-2, 1), 6) {
			if i > 0 || sign == "" {
				sign = widget.Spaces(widget.Width(sign))
			}
			lines = append(lines, style.Render(sign+l))
		}
	}
	add(t.Text, "", s.Err)
	lines = append(lines, "")
	if s.Hint != "" {
		for way := range strings.SplitSeq(s.Hint, "\n") {
			add(t.Muted, "→ ", way)
		}
	}
	add(t.Muted, "→ ", text.T("then q, and easel again"))
	return lines
}

func centre(style lipgloss.Style, s string, w, h int) []string {
	lines := make([]string, h)
	wrapped := widget.Wrap(s, max(w-2, 1), max(h, 1))
	top := max((h-len(wrapped))/2, 0)
	for i, l := range wrapped {
		if top+i < h {
			lines[top+i] = widget.Spaces((w-widget.Width(l))/2) + style.Render(l)
		}
	}
	return lines
}

// queueLines is what runs and what waits.
func (m *Model) queueLines(w, h int) []string {
	t, jobs := m.env.Theme, m.queued()
	if len(jobs) == 0 {
		if !m.env.State.Have {
			return widget.Lines(nil, h)
		}
		return centre(t.Muted, text.T("The queue is empty."), w, h)
	}
	lines := make([]string, 0, h)
	for i := m.queue.Top; i < len(jobs) && len(lines) < h; i++ {
		lines = append(lines, m.queueRow(jobs[i], i, w))
	}
	return widget.Lines(lines, h)
}

func (m *Model) queueRow(j backend.Job, i, w int) string {
	t := m.env.Theme
	sign, style := act.Sign(t, j)
	word := act.Word(j)
	if r := text.Said(widget.Clean(j.WaitReason)); j.State == backend.JobQueued && r != "" && word != text.T("next") && widget.Width(r) < w/3 {
		word = r
	}
	if j.Priority != 0 {
		word = text.T("p%+d ", j.Priority) + word
	}
	row := widget.Spread(style.Render(sign)+" "+t.Text.Render(act.Name(j)), style.Render(word), w-2)
	return m.mark(row, m.focus == paneQueue && i == m.queue.Cur, w)
}

// mark draws a row with the cursor before it, or without.
func (m *Model) mark(row string, on bool, w int) string {
	if !on {
		return "  " + row
	}
	return widget.Select(m.env.Theme, "▸ "+row, w)
}

// recentLines is what has finished, newest first.
func (m *Model) recentLines(w, h int) []string {
	t, jobs := m.env.Theme, m.env.State.Recent
	if len(jobs) == 0 {
		if !m.env.State.Have {
			return widget.Lines(nil, h)
		}
		return widget.Lines([]string{t.Muted.Render(text.T("Nothing has finished yet."))}, h)
	}
	lines := make([]string, 0, h)
	for i := m.recent.Top; i < len(jobs) && len(lines) < h; i++ {
		lines = append(lines, m.recentRow(jobs[i], i, w))
	}
	return widget.Lines(lines, h)
}

func (m *Model) recentRow(j backend.Job, i, w int) string {
	t := m.env.Theme
	sign, style := act.Sign(t, j)
	nameW := min(max(w/4, 16), 36)
	result := t.Text.Render(act.Result(j))
	if j.State == backend.JobFailed {
		result = t.Danger.Render(act.Result(j))
	}
	left := style.Render(sign) + " " + t.Text.Render(widget.Fit(act.Name(j), nameW)) + "  " + result
	right := t.Muted.Render(widget.FitRight(act.Took(j), 7) + "  " + widget.FitRight(widget.Age(m.env.Now.Sub(j.Finished.Time)), 4))
	return m.mark(widget.Spread(left, right, w-2), m.focus == paneRecent && i == m.recent.Cur, w)
}
