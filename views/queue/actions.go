package queue

import (
	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
)

// Actions are what the screen can do now.
func (m *Model) Actions() []screen.Action {
	if m.detail.IsOpen() {
		return m.detail.Actions()
	}
	k := m.env.Keys
	page := max(m.height()-1, 1)
	as := []screen.Action{
		{Key: k.Open, Hint: true, Title: text.T("Open the job under the cursor"), Do: m.open},
		{Key: k.Back, Do: m.back},
		{Key: k.Up, Do: m.move(-1)},
		{Key: k.Down, Do: m.move(1)},
		{Key: k.PageUp, Do: m.move(-page)},
		{Key: k.PageDown, Do: m.move(page)},
		{Key: k.Top, Do: m.move(-1 << 20)},
		{Key: k.Bottom, Do: m.move(1 << 20)},
	}
	return append(append(as, m.verbs()...), m.listActions()...)
}

// verbs are the actions on the selected jobs.
func (m *Model) verbs() []screen.Action {
	k, a, sel := m.env.Keys, m.acts, m.selected()
	why := func(v backend.Verb) string { return a.Why(v, sel) }
	return []screen.Action{
		{Key: k.Add, Hint: true, Title: text.T("Add a workflow to the queue"), Do: func() tea.Cmd { return a.Add("") }},
		{Key: k.Cancel, Hint: true, Title: text.T("Cancel the selected jobs"), Why: why(backend.VerbCancel), Do: func() tea.Cmd { return a.Cancel(sel) }},
		{Key: k.Retry, Hint: true, Title: text.T("Try the selected jobs again"), Why: why(backend.VerbRetry), Do: func() tea.Cmd { return a.Retry(sel) }},
		{Key: k.MoveUp, Hint: true, Title: text.T("Move the selected jobs up"), Why: m.whyMove(backend.VerbUp), Do: m.moveJobs(true)},
		{Key: k.MoveDown, Title: text.T("Move the selected jobs down"), Why: m.whyMove(backend.VerbDown), Do: m.moveJobs(false)},
		{Key: k.More, Title: text.T("Raise the priority of the selected jobs"), Why: why(backend.VerbPriority), Do: func() tea.Cmd { return a.Priority(1, sel) }},
		{Key: k.Less, Title: text.T("Lower the priority of the selected jobs"), Why: why(backend.VerbPriority), Do: func() tea.Cmd { return a.Priority(-1, sel) }},
		{Key: k.Hold, Hint: true, Title: text.T("Hold or release the selected jobs"), Why: why(backend.VerbHold), Do: func() tea.Cmd { return a.Hold(sel) }},
		{Key: k.Pause, Hint: true, Title: text.T("Pause the queue, or let it go on"), Do: a.Pause},
		{Key: k.Trash, Title: text.T("Clear finished jobs from the list"), Do: func() tea.Cmd { return a.Clear(m.marked()) }},
	}
}

// listActions are the actions on the list itself.
func (m *Model) listActions() []screen.Action {
	k := m.env.Keys
	return []screen.Action{
		{Key: k.Mark, Title: text.T("Mark the job under the cursor"), Do: m.mark},
		{Key: k.Range, Title: text.T("Mark a range of jobs"), Do: m.markFrom},
		{Key: k.Filter, Hint: true, Title: text.T("Filter the jobs"), Do: func() tea.Cmd { m.typing = true; return nil }},
		{Key: k.Sort, Title: text.T("Sort the jobs"), Do: m.nextSort},
		{Key: k.Refresh, Title: text.T("Ask for the order of the queue again"), Do: func() tea.Cmd {
			m.env.State.OrderRev++
			return m.reload()
		}},
	}
}
