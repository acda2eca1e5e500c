package tui

import (
	"context"
	"strings"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
)

// onKey gives a key to the one place that has the keyboard: an open dialog, a
// focused line of input, the screen in front, then the keys that work everywhere.
func (m *Model) onKey(k tea.KeyPressMsg) {
	name := k.String()
	typing := m.over == nil && m.front().Typing()
	switch {
	case name == "ctrl+z":
		m.do(tea.Suspend)
	case name == "ctrl+l":
		m.do(tea.Batch(tea.ClearScreen, m.env.Pics.Again()))
	case m.tooSmall():
		if name == "q" || name == "ctrl+c" {
			m.askLeave()
		}
	case m.over != nil:
		m.over.key(m, k)
	case typing && name == "ctrl+c":
		m.do(m.front().Type(tea.KeyPressMsg{Code: tea.KeyEscape}))
	case typing && !strings.HasPrefix(name, "alt+"):
		m.do(m.front().Type(k))
	default:
		m.act(k)
	}
}

// act does what a key means on this screen, or everywhere.
func (m *Model) act(k tea.KeyPressMsg) {
	a, ok := screen.Find(k, m.front().Actions())
	if !ok {
		if a, ok = screen.Find(k, m.global()); !ok {
			return
		}
	}
	m.run(a)
}

// run does an action, or says why it cannot be done.
func (m *Model) run(a screen.Action) {
	if a.Why != "" {
		m.say(screen.Warn, a.Why)
		return
	}
	if a.Do != nil {
		m.do(a.Do())
	}
}

// global are the actions that work on every screen.
func (m *Model) global() []screen.Action {
	k := m.env.Keys
	quiet := func(f func()) func() tea.Cmd { return func() tea.Cmd { f(); return nil } }
	as := []screen.Action{
		{Key: k.Worker, Hint: true, Title: text.T("Worker: start, stop, restart, free memory"), Do: quiet(m.workerMenu)},
		{Key: k.Copy, Title: text.T("Copy id, path or curl line"), Do: quiet(m.copyMenu)},
		{Key: k.Palette, Hint: true, Do: quiet(m.openPalette)},
		{Key: k.Screens, Title: text.T("List every screen"), Do: quiet(m.screensMenu)},
		{Key: k.Help, Title: text.T("Help"), Do: quiet(m.openHelp)},
		{Key: k.Redraw, Title: text.T("Draw the screen again"), Do: func() tea.Cmd { return tea.Batch(tea.ClearScreen, m.env.Pics.Again()) }},
		{Key: k.Suspend, Title: text.T("Suspend the console"), Do: func() tea.Cmd { return tea.Suspend }},
		{Key: k.Leave, Title: text.T("Leave the console"), Do: quiet(m.askLeave)},
	}
	as = append(as, m.languages()...)
	for i, d := range m.doors {
		as = append(as, screen.Action{Key: d.key, Title: text.T("Go to %s", d.name), Why: d.why(), Do: quiet(func() { m.goTo(i) })})
	}
	return as
}

// why says that a screen is not built yet, "" when it is.
func (d door) why() string {
	if d.view != nil {
		return ""
	}
	return text.T("The %s screen is not built yet: %s.", d.name, d.until)
}

// goTo brings screen i to the front.
func (m *Model) goTo(i int) {
	if why := m.doors[i].why(); why != "" {
		m.say(screen.Info, why)
		return
	}
	if i == m.at {
		return
	}
	m.do(m.front().Hide())
	m.at = i
	m.do(m.front().Show())
}

// askLeave leaves, after asking once what becomes of an engine that this console
// started.
func (m *Model) askLeave() {
	switch {
	case m.ending:
		m.quit()
	case !m.ours || m.leave == LeaveRunning:
		m.quit()
	case m.leave == LeaveStop:
		m.stopAll()
	default:
		m.ask(m.leaveDialog())
	}
}

func (m *Model) leaveDialog() screen.Dialog {
	body := []string{text.T("This console started the engine of %s. What becomes of it?", m.env.State.Box)}
	if n := len(m.env.State.Running) + m.env.State.Queue.Queued; n > 0 {
		body = append(body, text.N(n, "%d job runs or waits. Nothing of the queue is lost either way.", "%d jobs run or wait. Nothing of the queue is lost either way."))
	}
	answer := func(a string, then func()) func(bool) tea.Cmd {
		return func(keep bool) tea.Cmd {
			then()
			if !keep || m.opts.Remember == nil {
				return nil
			}
			m.leave = a
			remember := m.opts.Remember
			return func() tea.Msg {
				if err := remember(a); err != nil {
					return screen.SaidMsg{Err: err}
				}
				return nil
			}
		}
	}
	d := screen.Dialog{
		Title: text.T("Leave"), Body: body,
		Choices: []screen.Choice{
			{Key: "l", Label: text.T("leave it running"), Note: text.T("jobs go on; easel comes back to them"), Default: true, Do: answer(LeaveRunning, m.quit)},
			{Key: "s", Label: text.T("stop worker and engine"), Note: text.T("its job is done again later"), Do: answer(LeaveStop, m.stopAll)},
			{Key: "n", Label: text.T("stay here")},
		},
	}
	if m.opts.Remember != nil {
		d.Check = text.T("remember the answer")
	}
	return d
}

// stopAll stops worker and engine, then leaves.
func (m *Model) stopAll() {
	m.ending = true
	m.say(screen.Info, text.T("stopping worker and engine …"))
	svc := m.svc
	m.do(m.env.Call(func(ctx context.Context) tea.Msg { return stoppedMsg{err: svc.Stop(ctx, false)} }))
}

// workerMenu offers what can be done to a worker.
func (m *Model) workerMenu() {
	ws := m.env.State.Workers
	switch len(ws) {
	case 0:
		m.say(screen.Info, text.T("no worker is known yet"))
	case 1:
		m.ask(m.workerDialog(ws[0]))
	default:
		d := screen.Dialog{Title: text.T("Which worker?")}
		for _, w := range ws {
			d.Choices = append(d.Choices, screen.Choice{
				Label: widget.Clean(w.ID), Note: string(w.State),
				Do: func(bool) tea.Cmd { m.ask(m.workerDialog(w)); return nil },
			})
		}
		d.Choices[0].Default = true
		m.ask(d)
	}
}

func (m *Model) workerDialog(w backend.Worker) screen.Dialog {
	send := func(v backend.WorkerVerb, done string) func(bool) tea.Cmd {
		return func(bool) tea.Cmd { return m.workerAct(w.ID, v, done) }
	}
	sure := func(v backend.WorkerVerb) func(bool) tea.Cmd {
		return func(bool) tea.Cmd { m.ask(m.sureDialog(w, v)); return nil }
	}
	up := w.PID != nil
	d := screen.Dialog{
		Title: text.T("Worker %s", widget.Clean(w.ID)),
		Body:  []string{strings.TrimSpace(string(w.State) + "  " + text.Said(widget.Clean(w.Reason)))},
		Choices: []screen.Choice{
			{Key: "s", Label: text.T("start"), Why: either(up, text.T("it runs")), Do: send(backend.WorkerStart, text.T("the worker starts"))},
			{Key: "r", Label: text.T("restart"), Note: text.T("asks"), Why: either(!up, text.T("it does not run")), Do: sure(backend.WorkerRestart)},
			{Key: "f", Label: text.T("free memory"), Note: text.T("unloads the models"), Why: either(!up, text.T("it does not run")), Do: send(backend.WorkerFree, text.T("memory is freed after the current job"))},
			{Key: "o", Label: text.T("stop"), Note: text.T("asks"), Why: either(!up, text.T("it does not run")), Do: sure(backend.WorkerStop)},
			{Label: text.T("nothing"), Default: true},
		},
	}
	if w.External {
		other := text.T("somebody else runs it")
		for i := range d.Choices[:4] {
			d.Choices[i].Why = other
		}
		if w.RestartCommand != "" {
			d.Choices[1].Why, d.Choices[1].Note = "", text.T("asks; by worker.restart")
		}
	}
	return d
}

func either(yes bool, s string) string {
	if yes {
		return s
	}
	return ""
}

// sureDialog asks before a worker is stopped or restarted and names the job that
// runs.
func (m *Model) sureDialog(w backend.Worker, v backend.WorkerVerb) screen.Dialog {
	d := screen.Dialog{Title: text.T("Restart worker %s?", widget.Clean(w.ID)), Tone: screen.Warn}
	label, done := text.T("restart"), text.T("the worker restarts")
	if v == backend.WorkerStop {
		d.Title = text.T("Stop worker %s?", widget.Clean(w.ID))
		label, done = text.T("stop"), text.T("the worker stops")
	}
	d.Body = []string{text.T("Nothing runs on it.")}
	for _, j := range m.env.State.Running {
		if w.Job == nil || *w.Job == j.ID {
			d.Body = []string{text.T("%s is running: it goes back to the queue and is done again from its beginning.", act.Name(j))}
			break
		}
	}
	if w.External {
		d.Body = append(d.Body, text.T("Somebody else runs it; this is run: %s", widget.Clean(w.RestartCommand)))
	}
	if v == backend.WorkerStop {
		d.Body = append(d.Body, text.T("Waiting jobs wait until it is started again."))
	}
	d.Choices = []screen.Choice{
		{Key: "y", Label: label, Do: func(bool) tea.Cmd { return m.workerAct(w.ID, v, done) }},
		{Key: "n", Label: text.T("no"), Default: true},
	}
	return d
}

func (m *Model) workerAct(id string, v backend.WorkerVerb, done string) tea.Cmd {
	svc := m.svc
	return m.env.Call(func(ctx context.Context) tea.Msg {
		_, err := svc.WorkerAct(ctx, backend.WorkerAction{Verb: v, ID: id, By: "console"})
		return screen.SaidMsg{Tone: screen.Good, Text: done, Err: err}
	})
}

// copyMenu offers what can be copied; it goes to the terminal's clipboard by OSC
// 52, over SSH too.
func (m *Model) copyMenu() {
	cs := m.front().Copies()
	if len(cs) == 0 {
		m.say(screen.Info, text.T("there is nothing here to copy"))
		return
	}
	d := screen.Dialog{Title: text.T("Copy")}
	used := map[string]bool{"q": true}
	for _, c := range cs {
		letter := strings.ToLower(c.Name[:1])
		if used[letter] {
			letter = ""
		}
		used[letter] = true
		d.Choices = append(d.Choices, screen.Choice{
			Key: letter, Label: c.Name, Note: widget.CutMiddle(widget.Clean(c.Text), 48),
			Do: func(bool) tea.Cmd {
				m.say(screen.Good, text.T("%s copied", c.Name))
				return tea.SetClipboard(c.Text)
			},
		})
	}
	d.Choices[0].Default = true
	m.ask(d)
}

// screensMenu lists every screen.
func (m *Model) screensMenu() {
	d := screen.Dialog{Title: text.T("Screens")}
	for i, dr := range m.doors {
		c := screen.Choice{Key: dr.key.Help().Key, Label: dr.name, Default: i == m.at, Do: func(bool) tea.Cmd { m.goTo(i); return nil }}
		if dr.view == nil {
			c.Note, c.Why = dr.until, dr.why()
		}
		d.Choices = append(d.Choices, c)
	}
	m.ask(d)
}
