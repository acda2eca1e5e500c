// Package logs is the screen of a worker's log: the last lines in bounded memory,
// followed as they come, searched, filtered by level, with progress bars drawn as
// bars and a key that jumps to the next error.
package logs

import (
	"context"
	"strings"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// Service is what the screen asks of the engine, in commands only.
type Service interface {
	Logs(ctx context.Context, q backend.LogQuery, fn func(backend.LogLine) error) error
}

// level is which lines are shown.
type level int

const (
	levelAll level = iota
	levelWarnings
	levelErrors
	levels
)

// Model is the screen.
type Model struct {
	env *screen.Env
	svc Service

	w, h  int
	front bool

	ring    ring
	dropped int
	err     error
	worker  string
	gen     int
	ctx     context.Context // of the stream
	cancel  context.CancelFunc
	stream  *stream

	level  level
	vis    []int64 // seqs of lines shown, when level is not all
	top    int     // index of the first line drawn, among those shown
	cur    int     // index of the cursor, among those shown
	left   int     // cells scrolled to the right, when lines are not wrapped
	follow bool
	wrap   bool

	typing bool
	input  widget.Input
	query  string

	rev   int
	cache struct {
		rev, envRev, w, h int
		text              string
	}
}

// New makes the screen, following the log.
func New(env *screen.Env, svc Service) *Model {
	return &Model{env: env, svc: svc, follow: true}
}

// Show starts reading.
func (m *Model) Show() tea.Cmd {
	m.front = true
	return m.start()
}

// Hide stops reading; what was read stays.
func (m *Model) Hide() tea.Cmd {
	m.front, m.typing = false, false
	m.stop()
	return nil
}

func (m *Model) stop() {
	if m.cancel != nil {
		m.cancel()
		m.cancel = nil
	}
	m.gen++
}

// start reads the log of the worker in view.
func (m *Model) start() tea.Cmd {
	m.stop()
	m.rev++
	if m.worker == "" {
		if w, ok := m.env.State.Worker(""); ok {
			m.worker = w.ID
		}
	}
	if m.worker == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(m.env.Ctx)
	m.ctx, m.cancel, m.stream = ctx, cancel, newStream(m.svc)
	st, worker := m.stream, m.worker
	return tea.Batch(func() tea.Msg { st.run(ctx, worker); return nil }, st.wait(ctx, m.gen))
}

// SetSize gives the size.
func (m *Model) SetSize(w, h int) tea.Cmd {
	m.w, m.h = w, h
	m.rev++
	m.settle()
	return nil
}

// Update takes lines and mouse messages.
func (m *Model) Update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case linesMsg:
		return m.took(msg)
	case tea.MouseWheelMsg:
		switch msg.Mouse().Button {
		case tea.MouseWheelUp:
			return m.move(-3)()
		case tea.MouseWheelDown:
			return m.move(3)()
		}
	case tea.MouseClickMsg:
		m.click(msg.Mouse())
	}
	if m.front && m.cancel == nil && len(m.env.State.Workers) > 0 {
		return m.start()
	}
	return nil
}

func (m *Model) took(msg linesMsg) tea.Cmd {
	if msg.gen != m.gen || msg.ended {
		return nil
	}
	m.rev++
	m.dropped += msg.dropped
	m.err = msg.err
	mark := text.T("a new worker process")
	for _, l := range msg.lines {
		before, first := m.ring.next, m.ring.first()
		m.ring.add(l, mark)
		m.note(before, first)
	}
	m.settle()
	return m.stream.wait(m.ctx, m.gen)
}

// note keeps the list of shown lines, the scroll and the cursor right after lines
// were added from seq before on and dropped from first on.
func (m *Model) note(before, first int64) {
	gone := int(m.ring.first() - first)
	if m.level == levelAll {
		m.top, m.cur = m.top-gone, m.cur-gone
		return
	}
	for s := before; s < m.ring.next; s++ {
		if m.shows(m.ring.at(s)) {
			m.vis = append(m.vis, s)
		}
	}
	n := 0
	for n < len(m.vis) && m.vis[n] < m.ring.first() {
		n++
	}
	if n > 0 {
		m.vis = m.vis[n:]
		m.top, m.cur = m.top-n, m.cur-n
	}
}

func (m *Model) shows(l *line) bool {
	switch m.level {
	case levelErrors:
		return l.level == "error" || l.mark
	case levelWarnings:
		return l.level == "error" || l.level == "warning" || l.mark
	}
	return true
}

// count is the number of lines shown, get one of them.
func (m *Model) count() int {
	if m.level == levelAll {
		return m.ring.len()
	}
	return len(m.vis)
}

func (m *Model) get(i int) *line {
	if m.level == levelAll {
		return m.ring.at(m.ring.first() + int64(i))
	}
	return m.ring.at(m.vis[i])
}

// height is the number of rows for lines.
func (m *Model) height() int { return max(m.h-1, 1) }

// settle puts cursor and scroll where they belong: at the end while following.
func (m *Model) settle() {
	n := m.count()
	if m.follow {
		m.cur = n - 1
	}
	m.cur = max(0, min(m.cur, n-1))
	m.top = max(0, min(m.top, m.cur))
	// The cursor must be inside: count rows back from it.
	rows, i := 0, m.cur
	for ; i >= 0 && i >= m.top; i-- {
		rows += m.rowsOf(i)
		if rows > m.height() {
			break
		}
	}
	if i >= m.top {
		m.top = min(i+1, m.cur)
	}
	m.fill(n)
}

// fill scrolls back when there would be empty rows below the last line.
func (m *Model) fill(n int) {
	rows := 0
	for i := m.top; i < n && rows < m.height(); i++ {
		rows += m.rowsOf(i)
	}
	for m.top > 0 && rows+m.rowsOf(m.top-1) <= m.height() {
		m.top--
		rows += m.rowsOf(m.top)
	}
}

// rowsOf is how many rows line i takes.
func (m *Model) rowsOf(i int) int {
	if !m.wrap || i >= m.count() {
		return 1
	}
	l := m.get(i)
	if l.bar {
		return 1
	}
	w := m.textWidth()
	return max(1, min((widget.Width(l.text)+w-1)/w, maxWrapRows))
}

func (m *Model) textWidth() int { return max(m.w-4-gutter, 1) }

// move moves the cursor; moving up stops following, reaching the end follows.
func (m *Model) move(d int) func() tea.Cmd {
	return func() tea.Cmd {
		n := m.count()
		m.rev++
		m.cur = max(0, min(m.cur+d, n-1))
		m.follow = d > 0 && m.cur == n-1
		m.settle()
		return nil
	}
}

func (m *Model) side(d int) func() tea.Cmd {
	return func() tea.Cmd {
		m.rev++
		if !m.wrap {
			m.left = max(0, min(m.left+d, maxLineText))
		}
		return nil
	}
}

func (m *Model) click(at tea.Mouse) {
	if at.Y < 1 || m.wrap {
		return
	}
	if i := m.top + at.Y - 1; i < m.count() {
		m.rev++
		m.cur, m.follow = i, false
		m.settle()
	}
}

// setLevel changes which lines are shown and stays near the line under the
// cursor.
func (m *Model) setLevel(l level) tea.Cmd {
	m.rev++
	var at int64 = -1
	if m.cur < m.count() {
		at = m.get(m.cur).seq
	}
	m.level, m.vis = l, nil
	if l != levelAll {
		for s := m.ring.first(); s < m.ring.next; s++ {
			if m.shows(m.ring.at(s)) {
				m.vis = append(m.vis, s)
			}
		}
	}
	m.cur = 0
	for i := range m.count() {
		if m.get(i).seq > at {
			break
		}
		m.cur = i
	}
	m.top = m.cur
	m.settle()
	return nil
}

// find goes to the next line (d 1) or the previous one (d -1) for which ok holds,
// around the ends once.
func (m *Model) find(d int, ok func(*line) bool, none string) tea.Cmd {
	n := m.count()
	m.rev++
	for k := 1; k <= n; k++ {
		i := ((m.cur+d*k)%n + n) % n
		if ok(m.get(i)) {
			m.cur, m.follow = i, false
			m.top = max(0, i-m.height()/3)
			m.settle()
			return nil
		}
	}
	m.env.Shell.Toast(screen.Info, none)
	return nil
}

func (m *Model) findText(d int) func() tea.Cmd {
	return func() tea.Cmd {
		if m.query == "" {
			m.env.Shell.Toast(screen.Info, text.T("nothing is searched for yet: /"))
			return nil
		}
		return m.find(d, func(l *line) bool { return has(l.text, m.query) }, text.T("no line has %s", m.query))
	}
}

func (m *Model) nextError() tea.Cmd {
	return m.find(1, func(l *line) bool { return l.level == "error" }, text.T("no error in the lines kept"))
}

// has reports whether s contains q; upper case in q makes it matter.
func has(s, q string) bool {
	if strings.ToLower(q) == q {
		s = strings.ToLower(s)
	}
	return strings.Contains(s, q)
}

// nextWorker shows the log of another worker.
func (m *Model) nextWorker(d int) func() tea.Cmd {
	return func() tea.Cmd {
		ws := m.env.State.Workers
		if len(ws) < 2 {
			m.env.Shell.Toast(screen.Info, text.T("there is one worker only"))
			return nil
		}
		at := 0
		for i, w := range ws {
			if w.ID == m.worker {
				at = i
			}
		}
		m.worker = ws[((at+d)%len(ws)+len(ws))%len(ws)].ID
		m.ring, m.vis, m.dropped, m.top, m.cur, m.follow = ring{}, nil, 0, 0, 0, true
		return m.start()
	}
}

// Typing reports whether the search is being typed.
func (m *Model) Typing() bool { return m.typing }

// Type edits the search; what is typed is highlighted at once.
func (m *Model) Type(k tea.KeyPressMsg) tea.Cmd {
	m.rev++
	switch k.String() {
	case "enter":
		m.typing = false
		if m.query != "" && (m.cur >= m.count() || !has(m.get(m.cur).text, m.query)) {
			return m.findText(-1)()
		}
		return nil
	case "esc":
		m.typing = false
		m.input.Set("")
	default:
		m.input.Key(k)
	}
	m.query = m.input.Value()
	return nil
}

// Paste puts text into the search.
func (m *Model) Paste(s string) tea.Cmd {
	m.rev++
	m.input.Insert(s)
	m.query = m.input.Value()
	return nil
}

// Copies is the line under the cursor.
func (m *Model) Copies() []screen.Copy {
	if m.cur >= m.count() {
		return nil
	}
	return []screen.Copy{{Name: text.T("line"), Text: m.get(m.cur).text}}
}

// Actions are what the screen can do now.
func (m *Model) Actions() []screen.Action {
	k := m.env.Keys
	page := max(m.height()-1, 1)
	flip := func(b *bool) func() tea.Cmd {
		return func() tea.Cmd { m.rev++; *b = !*b; m.left = 0; m.settle(); return nil }
	}
	return []screen.Action{
		{Key: k.Back, Do: func() tea.Cmd { m.rev++; m.query = ""; m.input.Set(""); return nil }},
		{Key: k.Up, Do: m.move(-1)},
		{Key: k.Down, Do: m.move(1)},
		{Key: k.Left, Do: m.side(-20)},
		{Key: k.Right, Do: m.side(20)},
		{Key: k.PageUp, Do: m.move(-page)},
		{Key: k.PageDown, Do: m.move(page)},
		{Key: k.Top, Do: m.move(-1 << 30)},
		{Key: k.Bottom, Do: m.move(1 << 30)},
		{Key: k.Filter, Hint: true, Title: text.T("Search the log"), Do: func() tea.Cmd { m.rev++; m.typing = true; return nil }},
		{Key: k.Next, Title: text.T("Next match in the log"), Do: m.findText(1)},
		{Key: k.Prev, Title: text.T("Previous match in the log"), Do: m.findText(-1)},
		{Key: k.NextError, Hint: true, Title: text.T("Go to the next error"), Do: m.nextError},
		{Key: k.Level, Hint: true, Title: text.T("Show other levels of the log"), Do: func() tea.Cmd { return m.setLevel((m.level + 1) % levels) }},
		{Key: k.Follow, Hint: true, Title: text.T("Follow the log, or stand still"), Do: flip(&m.follow)},
		{Key: k.Wrap, Hint: true, Title: text.T("Wrap long lines, or cut them"), Do: flip(&m.wrap)},
		{Key: k.NextTab, Title: text.T("The next worker's log"), Do: m.nextWorker(1)},
		{Key: k.PrevTab, Title: text.T("The previous worker's log"), Do: m.nextWorker(-1)},
	}
}
