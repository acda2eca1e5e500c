// Package home is the first screen: the cards, the worker and why it is in its
// state, the running job with its live picture, what comes next, and what came
// out. It draws from the live State and asks the engine only for pictures and for
// what a person does.
package home

import (
	"context"
	"fmt"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/gallery"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
	"easel/views/detail"
)

// Service is what Home asks of the engine, in commands only.
type Service interface {
	detail.Service
	WorkerAct(ctx context.Context, a backend.WorkerAction) ([]backend.Worker, error)
}

// pane is what has the keyboard.
type pane int

const (
	paneRecent pane = iota
	paneNow
	paneQueue
	panes
)

// nowSlot is the gallery's place for the preview or the last picture.
const nowSlot = "home/now"

// Model is the screen.
type Model struct {
	env    *screen.Env
	svc    Service
	acts   *act.Jobs
	detail *detail.Model

	w, h   int
	front  bool
	focus  pane
	queue  widget.List
	recent widget.List
	lay    layout

	own   int // grows with every message
	cache cache
}

// cache is the frame as last drawn, with all that it was drawn from.
type cache struct {
	rev, envRev, picRev, own int
	second                   int64
	text                     string
}

// New makes the screen.
func New(env *screen.Env, svc Service, acts *act.Jobs) *Model {
	return &Model{env: env, svc: svc, acts: acts, detail: detail.New(env, svc, acts, "home/detail")}
}

// Show brings the screen to the front.
func (m *Model) Show() tea.Cmd {
	m.front = true
	m.arrange()
	return m.want()
}

// Hide frees the screen's pictures.
func (m *Model) Hide() tea.Cmd {
	m.front = false
	var c tea.Cmd
	if m.detail.IsOpen() {
		c = m.detail.Close()
	}
	return tea.Batch(c, m.env.Pics.Drop(nowSlot))
}

// SetSize lays the screen out for w×h cells.
func (m *Model) SetSize(w, h int) tea.Cmd {
	m.w, m.h = w, h
	m.arrange()
	return tea.Batch(m.detail.SetSize(w, m.detailHeight()), m.want())
}

// detailHeight leaves the cards and the worker above the opened job.
func (m *Model) detailHeight() int { return m.h - m.lay.top }

// Update takes data and mouse messages.
func (m *Model) Update(msg tea.Msg) tea.Cmd {
	m.own++
	m.arrange()
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.MouseClickMsg:
		cmd = m.click(msg.Mouse())
	case tea.MouseWheelMsg:
		m.wheel(msg.Mouse())
	}
	if !m.front {
		return cmd
	}
	return tea.Batch(cmd, m.detail.Update(msg), m.want())
}

// arrange computes the layout and keeps the cursors inside their lists.
func (m *Model) arrange() {
	top := m.lay.top
	m.lay = m.plan()
	if top != m.lay.top && m.detail.IsOpen() {
		m.detail.SetSize(m.w, m.detailHeight())
	}
	m.queue.Clamp(len(m.queued()), m.lay.body)
	m.recent.Clamp(len(m.env.State.Recent), m.lay.recent)
}

// queued is the queue pane's list: what runs, then what waits.
func (m *Model) queued() []backend.Job {
	s := m.env.State
	out := make([]backend.Job, 0, len(s.Running)+len(s.Waiting))
	return append(append(out, s.Running...), s.Waiting...)
}

// now is the job of the now pane: the running one, else the last that made a
// picture.
func (m *Model) now() (j backend.Job, running, ok bool) {
	s := m.env.State
	if len(s.Running) > 0 {
		return s.Running[0], true, true
	}
	for _, j := range s.Recent {
		if act.Image(j) >= 0 {
			return j, false, true
		}
	}
	return backend.Job{}, false, false
}

// want asks the gallery for the picture of the now pane.
func (m *Model) want() tea.Cmd {
	if !m.front || m.w == 0 {
		return nil
	}
	if m.detail.IsOpen() {
		return m.env.Pics.Drop(nowSlot)
	}
	j, running, ok := m.now()
	cols, rows := m.lay.picture()
	switch {
	case !ok || cols < 8 || rows < 3:
		return m.env.Pics.Drop(nowSlot)
	case running:
		p := m.env.State.Preview[j.ID]
		if p == nil {
			return m.env.Pics.Drop(nowSlot)
		}
		key := gallery.Live + fmt.Sprintf("%s/%d", j.ID, m.env.State.Previews)
		return m.env.Pics.Want(nowSlot, key, cols, rows, func(context.Context, int, int) ([]byte, error) { return p.Data, nil })
	}
	svc, id, n := m.svc, j.ID, act.Image(j)
	return m.env.Pics.Want(nowSlot, fmt.Sprintf("%s/%d", id, n), cols, rows, func(ctx context.Context, w, h int) ([]byte, error) {
		return svc.Picture(ctx, id, n, w, h)
	})
}

// selected is the job under the cursor of the pane with the keyboard.
func (m *Model) selected() []backend.Job {
	switch m.focus {
	case paneQueue:
		if q := m.queued(); m.queue.Cur < len(q) {
			return q[m.queue.Cur : m.queue.Cur+1]
		}
	case paneRecent:
		if r := m.env.State.Recent; m.recent.Cur < len(r) {
			return r[m.recent.Cur : m.recent.Cur+1]
		}
	case paneNow:
		if j, _, ok := m.now(); ok {
			return []backend.Job{j}
		}
	}
	return nil
}

// open opens what is under the cursor; on a worker that counts down to a restart
// it restarts at once.
func (m *Model) open() tea.Cmd {
	if w, ok := m.countdown(); ok && m.focus == paneNow {
		id := w.ID
		return m.env.Call(func(ctx context.Context) tea.Msg {
			_, err := m.svc.WorkerAct(ctx, backend.WorkerAction{Verb: backend.WorkerStart, ID: id, By: "console"})
			return screen.SaidMsg{Tone: screen.Good, Text: text.T("the worker starts now"), Err: err}
		})
	}
	sel := m.selected()
	if len(sel) == 0 {
		m.env.Shell.Toast(screen.Info, text.T("there is nothing to open here yet"))
		return nil
	}
	m.detail.SetSize(m.w, m.detailHeight())
	return tea.Batch(m.detail.Open(sel[0]), m.want())
}

// countdown is the worker that waits to be restarted, if one does.
func (m *Model) countdown() (backend.Worker, bool) {
	for _, w := range m.env.State.Workers {
		if w.State == backend.WorkerBackoff {
			return w, true
		}
	}
	return backend.Worker{}, false
}

// move moves the cursor of the focused list.
func (m *Model) move(d int) func() tea.Cmd {
	return func() tea.Cmd {
		switch m.focus {
		case paneQueue:
			m.queue.Move(d, len(m.queued()), m.lay.body)
		case paneRecent:
			m.recent.Move(d, len(m.env.State.Recent), m.lay.recent)
		}
		return nil
	}
}

func (m *Model) turn(d int) func() tea.Cmd {
	return func() tea.Cmd {
		m.focus = (m.focus + pane(d) + panes) % panes
		return nil
	}
}

// Actions are what Home can do now.
func (m *Model) Actions() []screen.Action {
	if m.detail.IsOpen() {
		return m.detail.Actions()
	}
	k, sel := m.env.Keys, m.selected()
	page := max(m.lay.body-1, 1)
	return []screen.Action{
		{Key: k.Open, Hint: true, Title: text.T("Open the job under the cursor"), Do: m.open},
		{Key: k.NextPane, Hint: true, Do: m.turn(1)},
		{Key: k.PrevPane, Do: m.turn(-1)},
		{Key: k.Up, Do: m.move(-1)},
		{Key: k.Down, Do: m.move(1)},
		{Key: k.PageUp, Do: m.move(-page)},
		{Key: k.PageDown, Do: m.move(page)},
		{Key: k.Top, Do: m.move(-1 << 20)},
		{Key: k.Bottom, Do: m.move(1 << 20)},
		{Key: k.Add, Hint: true, Title: text.T("Add a workflow to the queue"), Do: func() tea.Cmd { return m.acts.Add("") }},
		{Key: k.Cancel, Hint: true, Title: text.T("Cancel the job"), Why: m.acts.Why(backend.VerbCancel, sel), Do: func() tea.Cmd { return m.acts.Cancel(sel) }},
		{Key: k.Retry, Hint: true, Title: text.T("Try the job again"), Why: m.acts.Why(backend.VerbRetry, sel), Do: func() tea.Cmd { return m.acts.Retry(sel) }},
		{Key: k.Hold, Title: text.T("Hold or release the job"), Why: m.acts.Why(backend.VerbHold, sel), Do: func() tea.Cmd { return m.acts.Hold(sel) }},
		{Key: k.MoveUp, Title: text.T("Move the job up"), Why: m.acts.Why(backend.VerbUp, sel), Do: func() tea.Cmd { return m.acts.Move(true, sel) }},
		{Key: k.MoveDown, Title: text.T("Move the job down"), Why: m.acts.Why(backend.VerbDown, sel), Do: func() tea.Cmd { return m.acts.Move(false, sel) }},
		{Key: k.More, Title: text.T("Raise the job's priority"), Why: m.acts.Why(backend.VerbPriority, sel), Do: func() tea.Cmd { return m.acts.Priority(1, sel) }},
		{Key: k.Less, Title: text.T("Lower the job's priority"), Why: m.acts.Why(backend.VerbPriority, sel), Do: func() tea.Cmd { return m.acts.Priority(-1, sel) }},
		{Key: k.Pause, Title: text.T("Pause the queue, or let it go on"), Do: m.acts.Pause},
	}
}

// Typing is false: Home has no line of input.
func (m *Model) Typing() bool { return false }

// Type does nothing.
func (m *Model) Type(tea.KeyPressMsg) tea.Cmd { return nil }

// Paste does nothing.
func (m *Model) Paste(string) tea.Cmd { return nil }

// Copies is what can be copied of the job under the cursor.
func (m *Model) Copies() []screen.Copy {
	if m.detail.IsOpen() {
		return m.detail.Copies()
	}
	if sel := m.selected(); len(sel) > 0 {
		return act.Copies(sel[0], act.Image(sel[0]))
	}
	return nil
}

// click selects what is under the mouse; a second click there opens it.
func (m *Model) click(at tea.Mouse) tea.Cmd {
	if m.detail.IsOpen() || at.Button != tea.MouseLeft {
		return nil
	}
	before, q, r := m.focus, m.queue.Cur, m.recent.Cur
	body, rec := at.Y-m.lay.top-1, at.Y-m.lay.top-m.lay.body-2
	switch {
	case body >= 0 && body < m.lay.body && at.X < m.lay.split:
		m.focus = paneNow
	case body >= 0 && body < m.lay.body:
		m.focus = paneQueue
		m.queue.Cur = m.queue.Top + body
	case rec >= 0 && rec < m.lay.recent:
		m.focus = paneRecent
		m.recent.Cur = m.recent.Top + rec
	default:
		return nil
	}
	m.arrange()
	if m.focus == before && m.queue.Cur == q && m.recent.Cur == r {
		return m.open()
	}
	return nil
}

func (m *Model) wheel(at tea.Mouse) {
	d := 1
	switch at.Button {
	case tea.MouseWheelUp:
		d = -1
	case tea.MouseWheelDown:
	default:
		return
	}
	switch y := at.Y - m.lay.top - 1; {
	case m.detail.IsOpen():
	case y < m.lay.body && at.X >= m.lay.split:
		m.queue.Move(d, len(m.queued()), m.lay.body)
	case y > m.lay.body:
		m.recent.Move(d, len(m.env.State.Recent), m.lay.recent)
	}
}
