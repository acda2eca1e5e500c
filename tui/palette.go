package tui

import (
	"strings"

	"charm.land/lipgloss/v2"

	tea "charm.land/bubbletea/v2"
	"github.com/sahilm/fuzzy"

	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// entry is one line of the palette.
type entry struct {
	title string
	keys  string
	why   string
	do    func(m *Model)
}

// palette finds any action by its name.
type palette struct {
	in      widget.Input
	entries []entry
	hits    []fuzzy.Match
	list    widget.List
	rows    int
}

// openPalette opens the palette over every action: those of the screen in front,
// the global ones, then those of the other screens, which are gone to first.
func (m *Model) openPalette() {
	p := &palette{rows: 12}
	add := func(prefix string, as []screen.Action, do func(a screen.Action) func(*Model)) {
		for _, a := range as {
			if a.Title == "" {
				continue
			}
			if prefix != "" {
				a.Why = ""
			}
			p.entries = append(p.entries, entry{title: prefix + a.Title, keys: a.Key.Help().Key, why: a.Why, do: do(a)})
		}
	}
	here := func(a screen.Action) func(*Model) { return func(m *Model) { m.run(a) } }
	add("", m.front().Actions(), here)
	add("", m.global(), here)
	for i, d := range m.doors {
		if d.view == nil || i == m.at {
			continue
		}
		add(d.name+": ", d.view.Actions(), func(a screen.Action) func(*Model) {
			return func(m *Model) { m.goTo(i); m.again(a) }
		})
	}
	p.search()
	m.over = p
}

// again runs an action of a screen that was just brought to the front: what it
// can do now may differ from what it could while it was hidden.
func (m *Model) again(a screen.Action) {
	for _, b := range m.front().Actions() {
		if b.Title == a.Title {
			m.run(b)
			return
		}
	}
}

// String and Len make the entries a fuzzy.Source.
func (p *palette) String(i int) string { return p.entries[i].title }

// Len is the number of entries.
func (p *palette) Len() int { return len(p.entries) }

func (p *palette) search() {
	p.list = widget.List{}
	if q := p.in.Value(); q != "" {
		p.hits = fuzzy.FindFrom(q, p)
		return
	}
	p.hits = make([]fuzzy.Match, len(p.entries))
	for i, e := range p.entries {
		p.hits[i] = fuzzy.Match{Str: e.title, Index: i}
	}
}

func (p *palette) paste(_ *Model, s string) { p.in.Insert(s); p.search() }

func (p *palette) key(m *Model, k tea.KeyPressMsg) {
	switch k.String() {
	case "esc", "ctrl+c":
		m.over = nil
	case "up", "ctrl+p", "shift+tab":
		p.list.Move(-1, len(p.hits), p.rows)
	case "down", "ctrl+n", "tab":
		p.list.Move(1, len(p.hits), p.rows)
	case "pgup":
		p.list.Move(-p.rows, len(p.hits), p.rows)
	case "pgdown":
		p.list.Move(p.rows, len(p.hits), p.rows)
	case "enter":
		p.choose(m)
	default:
		if p.in.Key(k) {
			p.search()
		}
	}
}

func (p *palette) choose(m *Model) {
	m.over = nil
	q := strings.TrimSpace(p.in.Value())
	if q == "q" {
		m.askLeave()
		return
	}
	for i, d := range m.doors {
		if q != "" && (strings.EqualFold(q, d.name) || strings.EqualFold(q, string(d.id))) {
			m.goTo(i)
			return
		}
	}
	if p.list.Cur < len(p.hits) {
		p.entries[p.hits[p.list.Cur].Index].do(m)
	}
}

func (p *palette) box(m *Model, w, h int) string {
	t := m.env.Theme
	width := min(w, 76)
	p.rows = max(min(h-4, 14), 1)
	p.list.Clamp(len(p.hits), p.rows)
	lines := []string{t.Key.Render(": ") + p.in.View(t, width-6)}
	for i := p.list.Top; i < len(p.hits) && i < p.list.Top+p.rows; i++ {
		lines = append(lines, p.line(m, i, width-4))
	}
	if len(p.hits) == 0 {
		lines = append(lines, t.Muted.Render(text.T("No action is called so.")))
	}
	lines = widget.Lines(lines, min(p.rows, max(len(p.entries), 1))+1)
	return widget.Box(t, t.Focus.Render(text.T("every action")), lines, width)
}

func (p *palette) line(m *Model, i, w int) string {
	t := m.env.Theme
	h := p.hits[i]
	e := p.entries[h.Index]
	style := t.Text
	if e.why != "" {
		style = t.Faint
	}
	left := "  " + marked(e.title, h.MatchedIndexes, style, t.Accent.Bold(true))
	if e.why != "" {
		left += "  " + t.Muted.Render(e.why)
	}
	line := widget.Spread(left, t.Key.Render(e.keys), w)
	if i == p.list.Cur {
		return widget.Select(t, strings.Replace(line, "  ", t.Focus.Render("▸")+" ", 1), w)
	}
	return line
}

// marked draws s with the bytes at hits in another style.
func marked(s string, hits []int, style, hit lipgloss.Style) string {
	if len(hits) == 0 {
		return style.Render(s)
	}
	on := map[int]bool{}
	for _, i := range hits {
		on[i] = true
	}
	var b strings.Builder
	var run []rune
	was := false
	flush := func() {
		if len(run) == 0 {
			return
		}
		st := style
		if was {
			st = hit
		}
		b.WriteString(st.Render(string(run)))
		run = run[:0]
	}
	for i, r := range s {
		if on[i] != was {
			flush()
			was = on[i]
		}
		run = append(run, r)
	}
	flush()
	return b.String()
}

// help lists the keys of the screen in front and the global ones; it is made from
// the bindings.
type help struct {
	lines []string
	list  widget.List
	rows  int
}

func (m *Model) openHelp() { m.over = &help{rows: 10} }

func (h *help) paste(*Model, string) {}

func (h *help) key(m *Model, k tea.KeyPressMsg) {
	top := len(h.lines) - h.rows
	switch k.String() {
	case "esc", "q", "?", "enter", "ctrl+c":
		m.over = nil
		return
	case "up", "k":
		h.list.Top--
	case "down", "j":
		h.list.Top++
	case "pgup", "ctrl+u":
		h.list.Top -= h.rows
	case "pgdown", "ctrl+d", "space":
		h.list.Top += h.rows
	case "g", "home":
		h.list.Top = 0
	case "G", "end":
		h.list.Top = top
	}
	h.list.Top = max(0, min(h.list.Top, top))
}

func (h *help) box(m *Model, w, height int) string {
	t := m.env.Theme
	width := min(w, 92)
	h.lines = m.helpLines(width - 4)
	h.rows = max(min(height-2, len(h.lines)), 1)
	h.list.Top = max(0, min(h.list.Top, len(h.lines)-h.rows))
	title := text.T("help: %s", m.doors[m.at].name)
	if h.rows < len(h.lines) {
		title += text.T("  (↑ ↓)")
	}
	return widget.Box(t, t.Focus.Render(title), h.lines[h.list.Top:h.list.Top+h.rows], width)
}

// helpLines is the keys in two columns.
func (m *Model) helpLines(w int) []string {
	t := m.env.Theme
	col := (w - 2) / 2
	table := func(as []screen.Action) []string {
		var cells []string
		for _, a := range as {
			h := a.Key.Help()
			if h.Key == "" || !a.Key.Enabled() {
				continue
			}
			cells = append(cells, widget.Fit(t.Key.Render(widget.FitRight(h.Key, 11))+"  "+t.Text.Render(h.Desc), col))
		}
		half := (len(cells) + 1) / 2
		var lines []string
		for i := range half {
			l := cells[i]
			if half+i < len(cells) {
				l += "  " + cells[half+i]
			}
			lines = append(lines, l)
		}
		return lines
	}
	lines := append([]string{t.Title.Render(text.T("on this screen"))}, table(m.front().Actions())...)
	lines = append(lines, "", t.Title.Render(text.T("everywhere")))
	lines = append(lines, table(m.global())...)
	return append(lines, "", t.Muted.Render(text.T("Mouse: click selects, a second click opens, the wheel scrolls. Paste a path to queue it.")))
}
