// Package queue is the screen of jobs: what runs, what waits in its order, what
// has ended, and everything that can be done to them one by one or marked
// together.
package queue

import (
	"context"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
	"easel/views/detail"
)

// Service is what the screen asks of the engine, in commands only.
type Service interface {
	detail.Service
	Jobs(ctx context.Context, f backend.JobFilter) ([]backend.Job, error)
}

// step is how many more waiting jobs are asked for at the end of the list, and
// maxWindow the most that are kept.
const (
	step      = 500
	maxWindow = 5000
)

// column is what the table is sorted by.
type column int

const (
	byQueue column = iota
	byName
	byState
	byPriority
	byAge
	columns
)

// Model is the screen.
type Model struct {
	env    *screen.Env
	svc    Service
	acts   *act.Jobs
	detail *detail.Model

	w, h  int
	front bool

	list   widget.List
	cur    string // id under the cursor: it stays on its job when the list moves
	rows   []backend.Job
	built  built // what rows was made from
	sort   column
	filter widget.Input
	typing bool
	marks  map[string]bool
	anchor int // where a range began, -1 for none

	asked  int // OrderRev of the last reload
	busy   bool
	cacheR render
	own    int
}

// built is the key of rows.
type built struct {
	rev    int
	sort   column
	filter string
}

// render is the frame as last drawn with what it was drawn from.
type render struct {
	rev, envRev, picRev, own int
	second                   int64
	text                     string
}

// New makes the screen.
func New(env *screen.Env, svc Service, acts *act.Jobs) *Model {
	return &Model{
		env: env, svc: svc, acts: acts, anchor: -1, marks: map[string]bool{}, asked: -1,
		detail: detail.New(env, svc, acts, "queue/detail"),
	}
}

// orderMsg answers reload.
type orderMsg struct {
	jobs []backend.Job
	err  error
}

// Show brings the screen to the front.
func (m *Model) Show() tea.Cmd {
	m.front = true
	m.build()
	return m.reload()
}

// Hide closes what is open and frees its picture.
func (m *Model) Hide() tea.Cmd {
	m.front, m.typing = false, false
	if m.detail.IsOpen() {
		return m.detail.Close()
	}
	return nil
}

// SetSize lays the screen out.
func (m *Model) SetSize(w, h int) tea.Cmd {
	m.w, m.h = w, h
	m.build()
	return m.detail.SetSize(w, h-1)
}

// Update takes data and mouse messages. The order of the waiting jobs is asked
// for whenever the State says that it may be stale, also while another screen is
// in front: Home draws it too.
func (m *Model) Update(msg tea.Msg) tea.Cmd {
	m.own++
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case orderMsg:
		m.busy = false
		if msg.err == nil {
			m.env.State.SetWaiting(msg.jobs)
		}
	case tea.MouseClickMsg:
		cmd = m.click(msg.Mouse())
	case tea.MouseWheelMsg:
		cmd = m.wheel(msg.Mouse())
	}
	if m.front {
		m.build()
		cmd = tea.Batch(cmd, m.detail.Update(msg))
	}
	return tea.Batch(cmd, m.reload())
}

// reload asks for the order of the waiting jobs when it may have changed; one
// question at a time.
func (m *Model) reload() tea.Cmd {
	s := m.env.State
	if m.busy || !s.Have || s.OrderRev == m.asked {
		return nil
	}
	m.busy, m.asked = true, s.OrderRev
	svc, limit := m.svc, s.Window
	return m.env.Call(func(ctx context.Context) tea.Msg {
		jobs, err := svc.Jobs(ctx, backend.JobFilter{
			States: []backend.JobState{backend.JobQueued, backend.JobHeld}, Order: "queue", Limit: limit,
		})
		return orderMsg{jobs: jobs, err: err}
	})
}

// build makes the rows anew when the State, the filter or the sort changed.
func (m *Model) build() {
	s := m.env.State
	key := built{rev: s.Rev, sort: m.sort, filter: m.filter.Value()}
	if key == m.built && m.rows != nil {
		m.list.Clamp(len(m.rows), m.height())
		return
	}
	m.built = key
	rows := make([]backend.Job, 0, len(s.Running)+len(s.Waiting)+len(s.Recent))
	for _, l := range [][]backend.Job{s.Running, s.Waiting, s.Recent} {
		for _, j := range l {
			if matches(j, key.filter) {
				rows = append(rows, j)
			}
		}
	}
	sortBy(rows, m.sort)
	m.rows = rows
	if i := slices.IndexFunc(rows, func(j backend.Job) bool { return j.ID == m.cur }); i >= 0 {
		m.list.Cur = i
	}
	m.list.Clamp(len(rows), m.height())
	m.remember()
	for id := range m.marks {
		if _, ok := s.Job(id); !ok {
			delete(m.marks, id)
		}
	}
}

// matches reports whether every word of the filter is in the job.
func matches(j backend.Job, filter string) bool {
	if filter == "" {
		return true
	}
	hay := strings.ToLower(strings.Join([]string{j.Name, j.ID, j.Owner, string(j.State), j.Group, act.Word(j), j.WaitReason}, "\x00"))
	for _, w := range strings.Fields(strings.ToLower(filter)) {
		if !strings.Contains(hay, w) {
			return false
		}
	}
	return true
}

// sortBy sorts rows by a column; rows of one value stay in the queue's order.
func sortBy(rows []backend.Job, c column) {
	switch c {
	case byName:
		slices.SortStableFunc(rows, func(a, b backend.Job) int {
			return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
		})
	case byState:
		slices.SortStableFunc(rows, func(a, b backend.Job) int { return strings.Compare(act.Word(a), act.Word(b)) })
	case byPriority:
		slices.SortStableFunc(rows, func(a, b backend.Job) int { return b.Priority - a.Priority })
	case byAge:
		slices.SortStableFunc(rows, func(a, b backend.Job) int { return b.Created.Compare(a.Created.Time) })
	}
}

func (m *Model) remember() {
	m.cur = ""
	if m.list.Cur < len(m.rows) {
		m.cur = m.rows[m.list.Cur].ID
	}
}

// height is the number of rows of the table.
func (m *Model) height() int { return max(m.h-2, 1) }

// selected is the marked jobs, else the one under the cursor.
func (m *Model) selected() []backend.Job {
	if len(m.marks) > 0 {
		var out []backend.Job
		for _, j := range m.rows {
			if m.marks[j.ID] {
				out = append(out, j)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	if m.list.Cur < len(m.rows) {
		return m.rows[m.list.Cur : m.list.Cur+1]
	}
	return nil
}

func (m *Model) marked() []backend.Job {
	if len(m.marks) == 0 {
		return nil
	}
	return m.selected()
}

// move moves the cursor; at the end of the list more waiting jobs are asked for.
func (m *Model) move(d int) func() tea.Cmd {
	return func() tea.Cmd {
		m.list.Move(d, len(m.rows), m.height())
		m.remember()
		if m.anchor >= 0 {
			m.markRange()
		}
		return m.more()
	}
}

func (m *Model) more() tea.Cmd {
	s := m.env.State
	if total := s.Queue.Queued + s.Queue.Held; m.list.Cur < len(s.Running)+len(s.Waiting)-m.height() || len(s.Waiting) >= total || s.Window >= maxWindow {
		return nil
	}
	if s.Window <= len(s.Waiting)+step/2 {
		s.Window = min(s.Window+step, maxWindow)
		s.OrderRev++
	}
	return m.reload()
}

// markRange marks everything between the anchor and the cursor.
func (m *Model) markRange() {
	from, to := min(m.anchor, m.list.Cur), max(m.anchor, m.list.Cur)
	for i := max(from, 0); i <= to && i < len(m.rows); i++ {
		m.marks[m.rows[i].ID] = true
	}
}

func (m *Model) mark() tea.Cmd {
	if m.list.Cur >= len(m.rows) {
		return nil
	}
	if id := m.rows[m.list.Cur].ID; m.marks[id] {
		delete(m.marks, id)
	} else {
		m.marks[id] = true
	}
	return m.move(1)()
}

func (m *Model) markFrom() tea.Cmd {
	if m.anchor >= 0 {
		m.anchor = -1
		return nil
	}
	m.anchor = m.list.Cur
	m.markRange()
	return nil
}

// back goes one level back: range, marks, filter.
func (m *Model) back() tea.Cmd {
	switch {
	case m.anchor >= 0 || len(m.marks) > 0:
		m.anchor = -1
		clear(m.marks)
	case m.filter.Value() != "":
		m.filter.Set("")
		m.build()
	}
	return nil
}

func (m *Model) open() tea.Cmd {
	if m.list.Cur >= len(m.rows) {
		m.env.Shell.Toast(screen.Info, text.T("there is no job to open"))
		return nil
	}
	m.detail.SetSize(m.w, m.h-1)
	return m.detail.Open(m.rows[m.list.Cur])
}

// whyMove says why jobs cannot be moved now.
func (m *Model) whyMove(v backend.Verb) string {
	if m.sort != byQueue {
		return text.T("the list is sorted by %s; s until it is in the queue's order", m.sortName())
	}
	return m.acts.Why(v, m.selected())
}

func (m *Model) moveJobs(up bool) func() tea.Cmd {
	return func() tea.Cmd { return m.acts.Move(up, m.selected()) }
}

func (m *Model) nextSort() tea.Cmd {
	m.sort = (m.sort + 1) % columns
	m.build()
	return nil
}

// Typing reports whether the filter is being typed.
func (m *Model) Typing() bool { return m.typing && !m.detail.IsOpen() }

// Type edits the filter.
func (m *Model) Type(k tea.KeyPressMsg) tea.Cmd {
	m.own++
	switch k.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing = false
		m.filter.Set("")
	case "up":
		return m.move(-1)()
	case "down":
		return m.move(1)()
	default:
		m.filter.Key(k)
	}
	m.build()
	return nil
}

// Paste puts text into the filter.
func (m *Model) Paste(s string) tea.Cmd {
	m.own++
	m.filter.Insert(s)
	m.build()
	return nil
}

// Copies is what can be copied of the job under the cursor.
func (m *Model) Copies() []screen.Copy {
	if m.detail.IsOpen() {
		return m.detail.Copies()
	}
	if m.list.Cur >= len(m.rows) {
		return nil
	}
	j := m.rows[m.list.Cur]
	return act.Copies(j, act.Image(j))
}

// click selects a row, opens it at the second click, or sorts by a column.
func (m *Model) click(at tea.Mouse) tea.Cmd {
	if m.detail.IsOpen() || at.Button != tea.MouseLeft {
		return nil
	}
	if at.Y == 1 {
		return m.nextSort()
	}
	i := m.list.Top + at.Y - 2
	if at.Y < 2 || i >= len(m.rows) {
		return nil
	}
	if i == m.list.Cur {
		return m.open()
	}
	return m.move(i - m.list.Cur)()
}

func (m *Model) wheel(at tea.Mouse) tea.Cmd {
	if m.detail.IsOpen() {
		return nil
	}
	switch at.Button {
	case tea.MouseWheelUp:
		return m.move(-3)()
	case tea.MouseWheelDown:
		return m.move(3)()
	}
	return nil
}
