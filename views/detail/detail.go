// Package detail shows one job: its picture large, and beside it what made it
// (prompt, seed, settings), its times, outputs, attempts with their verdicts, and
// what to do when it failed. Home and Queue open it over themselves; it is not a
// screen of its own.
package detail

import (
	"context"
	"encoding/json"
	"fmt"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/gallery"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
)

// Service is what the engine must answer about one job. Calls block and are only
// made in commands.
type Service interface {
	Graph(ctx context.Context, id string) (graph, workflow json.RawMessage, err error)
	Picture(ctx context.Context, jobID string, n, w, h int) ([]byte, error)
}

// Model is the pane. It is closed until Open.
type Model struct {
	env  *screen.Env
	svc  Service
	acts *act.Jobs
	slot string // of the gallery

	w, h int
	open bool
	job  backend.Job // as last seen
	out  int         // the output that is shown
	full bool        // the picture alone
	top  int         // scroll of the facts
	rows int         // lines of facts, as last drawn

	facts []fact
	have  bool // facts came
	err   string
	gen   int
}

// New makes a closed pane; slot names its place for pictures.
func New(env *screen.Env, svc Service, acts *act.Jobs, slot string) *Model {
	return &Model{env: env, svc: svc, acts: acts, slot: slot}
}

// graphMsg answers load.
type graphMsg struct {
	slot  string
	gen   int
	facts []fact
	err   error
}

// IsOpen reports whether the pane covers its screen.
func (m *Model) IsOpen() bool { return m.open }

// Job is the job that is shown.
func (m *Model) Job() backend.Job { return m.job }

// Open shows a job.
func (m *Model) Open(j backend.Job) tea.Cmd {
	m.open, m.job, m.top, m.full = true, j, 0, false
	m.out = max(act.Image(j), 0)
	m.facts, m.have, m.err = nil, false, ""
	return tea.Batch(m.load(), m.want())
}

// Close hides the pane and frees its picture.
func (m *Model) Close() tea.Cmd {
	m.open = false
	m.gen++
	return m.env.Pics.Drop(m.slot)
}

// SetSize gives the size of the whole pane.
func (m *Model) SetSize(w, h int) tea.Cmd {
	m.w, m.h = w, h
	return m.want()
}

func (m *Model) load() tea.Cmd {
	m.gen++
	gen, slot, svc, id := m.gen, m.slot, m.svc, m.job.ID
	return m.env.Call(func(ctx context.Context) tea.Msg {
		g, _, err := svc.Graph(ctx, id)
		if err != nil {
			return graphMsg{slot: slot, gen: gen, err: err}
		}
		return graphMsg{slot: slot, gen: gen, facts: facts(g)}
	})
}

// Update takes the answer of load, and follows the job through the State.
func (m *Model) Update(msg tea.Msg) tea.Cmd {
	if g, ok := msg.(graphMsg); ok {
		if g.slot == m.slot && g.gen == m.gen {
			m.facts, m.have = g.facts, true
			if g.err != nil {
				m.err = g.err.Error()
			}
		}
		return nil
	}
	if !m.open {
		return nil
	}
	if j, ok := m.env.State.Job(m.job.ID); ok {
		had := act.Image(m.job)
		m.job = j
		if now := act.Image(j); had < 0 && now >= 0 {
			m.out = now
		}
	}
	return m.want()
}

// want asks for what the picture pane should show: the output, or while the job
// runs its preview.
func (m *Model) want() tea.Cmd {
	if !m.open {
		return nil
	}
	cols, rows := m.picture()
	if cols == 0 {
		return m.env.Pics.Drop(m.slot)
	}
	if m.out < len(m.job.Outputs) && m.job.Outputs[m.out].Kind == "image" {
		svc, id, n := m.svc, m.job.ID, m.out
		return m.env.Pics.Want(m.slot, fmt.Sprintf("%s/%d", id, n), cols, rows, func(ctx context.Context, w, h int) ([]byte, error) {
			return svc.Picture(ctx, id, n, w, h)
		})
	}
	if p := m.env.State.Preview[m.job.ID]; p != nil {
		return m.env.Pics.Want(m.slot, gallery.Live+fmt.Sprintf("%s/%d", m.job.ID, m.env.State.Previews), cols, rows,
			func(context.Context, int, int) ([]byte, error) { return p.Data, nil })
	}
	return nil
}

// showsPicture reports whether there is a picture to make room for.
func (m *Model) showsPicture() bool {
	return act.Image(m.job) >= 0 || m.env.State.Preview[m.job.ID] != nil
}

// split is the column of the line between picture and facts; 0 when there is no
// picture, w-1 when there are no facts.
func (m *Model) split() int {
	switch {
	case !m.showsPicture():
		return 0
	case m.full:
		return m.w - 1
	}
	return max(m.w*58/100, m.w-64)
}

// picture is the room for the picture in cells.
func (m *Model) picture() (cols, rows int) {
	s := m.split()
	if s < 8 || m.h < 4 {
		return 0, 0
	}
	return s - 3, m.h - 1
}

// Actions are what can be done here.
func (m *Model) Actions() []screen.Action {
	k := m.env.Keys
	sel := []backend.Job{m.job}
	quiet := func(f func()) func() tea.Cmd { return func() tea.Cmd { f(); return m.want() } }
	next := func(d int) func() tea.Cmd {
		return quiet(func() { m.out = max(0, min(m.out+d, len(m.job.Outputs)-1)) })
	}
	as := []screen.Action{
		{Key: k.Back, Hint: true, Do: func() tea.Cmd { return m.Close() }},
		{Key: k.Left, Do: next(-1)},
		{Key: k.Right, Do: next(1)},
		{Key: k.Up, Do: quiet(func() { m.scroll(-1) })},
		{Key: k.Down, Do: quiet(func() { m.scroll(1) })},
		{Key: k.PageUp, Do: quiet(func() { m.scroll(-m.h / 2) })},
		{Key: k.PageDown, Do: quiet(func() { m.scroll(m.h / 2) })},
		{Key: k.Top, Do: quiet(func() { m.top = 0 })},
		{Key: k.Bottom, Do: quiet(func() { m.scroll(1 << 20) })},
		{Key: k.Full, Hint: true, Title: text.T("Picture: full screen"), Why: m.whyFull(), Do: quiet(func() { m.full = !m.full })},
	}
	if m.job.State.Final() {
		as = append(as, screen.Action{Key: k.Retry, Hint: true, Title: text.T("Try this job again"), Do: func() tea.Cmd { return m.acts.Retry(sel) }})
	} else {
		as = append(as, screen.Action{Key: k.Cancel, Hint: true, Title: text.T("Cancel this job"), Do: func() tea.Cmd { return m.acts.Cancel(sel) }})
	}
	return as
}

func (m *Model) whyFull() string {
	if m.showsPicture() {
		return ""
	}
	return text.T("there is no picture yet")
}

func (m *Model) scroll(d int) {
	m.top = max(0, min(m.top+d, m.rows-(m.h-1)))
}

// Copies is what can be copied here.
func (m *Model) Copies() []screen.Copy { return act.Copies(m.job, m.out) }

// View draws the pane: its rule, then the picture and the facts, w×h in all.
func (m *Model) View(jointsUp []widget.Joint) string {
	t, s := m.env.Theme, m.split()
	joints := jointsUp
	if s > 0 && s < m.w-1 {
		joints = append(joints[:len(joints):len(joints)], widget.Joint{At: s, Down: true})
	}
	lines := []string{widget.Rule(t, m.w, "├", "┤", joints,
		widget.Label{At: 2, Text: t.Focus.Render(widget.Cut(act.Name(m.job), m.w/2))},
		widget.Label{At: -2, Text: t.Muted.Render(m.which())})}
	pic := m.pictureLines()
	info := m.info(m.infoWidth())
	m.rows = len(info)
	m.top = max(0, min(m.top, len(info)-(m.h-1)))
	info = info[min(m.top, len(info)):]
	for i := range m.h - 1 {
		f := ""
		if i < len(info) {
			f = info[i]
		}
		switch s {
		case 0:
			lines = append(lines, widget.Row(t, f, m.w))
		case m.w - 1:
			lines = append(lines, widget.Row(t, pic[i], m.w))
		default:
			lines = append(lines, widget.Row2(t, pic[i], f, s, m.w))
		}
	}
	return joinLines(lines)
}

func (m *Model) which() string {
	if n := len(m.job.Outputs); n > 1 {
		return text.T("output %d of %d  ← →", m.out+1, n)
	}
	return act.Short(m.job.ID)
}

func (m *Model) infoWidth() int {
	if s := m.split(); s > 0 {
		return max(m.w-s-4, 1)
	}
	return max(m.w-4, 1)
}

// pictureLines is the picture, or a word about why there is none.
func (m *Model) pictureLines() []string {
	cols, rows := m.picture()
	if cols == 0 {
		return make([]string, m.h)
	}
	if lines, ok := m.env.Pics.Lines(m.slot, cols, rows); ok {
		return lines
	}
	return Instead(m.env, m.slot, cols, rows)
}
