package logs

import (
	"regexp"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"easel/tui/text"
	"easel/tui/widget"
)

const (
	gutter      = 2  // cursor and level sign
	maxWrapRows = 20 // rows that one line may take
)

// View draws the screen, w×h cells.
func (m *Model) View() string {
	if m.cache.text != "" && m.cache.rev == m.rev && m.cache.envRev == m.env.Rev && m.cache.w == m.w && m.cache.h == m.h {
		return m.cache.text
	}
	t, h := m.env.Theme, m.height()
	lines := []string{widget.Row(t, m.title(m.w-4), m.w)}
	body := m.body(m.w-4, h)
	for i, l := range widget.Lines(body, h) {
		row := widget.Row(t, l, m.w)
		if widget.Scrollbar(i, h, m.count(), m.top) {
			row = strings.TrimSuffix(row, t.Border.Render("│")) + t.Accent.Render("┃")
		}
		lines = append(lines, row)
	}
	m.cache.rev, m.cache.envRev, m.cache.w, m.cache.h = m.rev, m.env.Rev, m.w, m.h
	m.cache.text = strings.Join(lines, "\n")
	return m.cache.text
}

func (m *Model) title(w int) string {
	t := m.env.Theme
	left := t.Title.Render(text.T("log of %s", orDash(widget.Clean(m.worker))))
	switch {
	case m.typing:
		left = t.Key.Render("/ ") + m.input.View(t, max(w/2, 10))
	case m.query != "":
		left += "  " + t.Match.Render("/ "+widget.Cut(m.query, 30)) + t.Muted.Render("  n N")
	case m.err != nil:
		left += "  " + t.Warn.Render(widget.Clean(m.err.Error()))
	}
	parts := []string{text.N(m.count(), "%d line", "%d lines")}
	if m.ring.errors > 0 {
		parts = append(parts, text.N(m.ring.errors, "%d error", "%d errors"))
	}
	if (m.query != "" || m.typing) && w < 110 {
		parts = nil
	}
	if m.dropped > 0 {
		parts = append(parts, text.T("%s skipped", widget.Number(m.dropped)))
	}
	parts = append(parts, m.levelName())
	if m.wrap {
		parts = append(parts, text.T("wrapped"))
	}
	right := t.Muted.Render(strings.Join(parts, " · ") + " · ")
	if m.follow {
		right += t.Good.Render(text.T("follows"))
	} else {
		right += t.Warn.Render(text.T("stands still"))
	}
	return widget.Spread(left, right, w)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (m *Model) levelName() string {
	switch m.level {
	case levelErrors:
		return text.T("errors")
	case levelWarnings:
		return text.T("warnings, errors")
	}
	return text.T("all levels")
}

// body is the visible lines.
func (m *Model) body(w, h int) []string {
	t := m.env.Theme
	if m.count() == 0 {
		say := text.T("Nothing has been logged yet.")
		switch {
		case m.worker == "":
			say = text.T("There is no worker whose log could be shown. w starts one.")
		case m.level != levelAll && m.ring.len() > 0:
			say = text.T("No line of this level. L shows others.")
		}
		lines := make([]string, h)
		say = widget.Cut(say, w)
		lines[h/2] = widget.Spaces((w-widget.Width(say))/2) + t.Muted.Render(say)
		return lines
	}
	var rows []string
	for i := m.top; i < m.count() && len(rows) < h; i++ {
		rows = append(rows, m.draw(m.get(i), i == m.cur && !m.follow, w)...)
	}
	return rows
}

// draw is one line as one row, or several when wrapped.
func (m *Model) draw(l *line, on bool, w int) []string {
	t := m.env.Theme
	mark := "  "
	switch l.level {
	case "error":
		mark = t.Danger.Render("✗ ")
	case "warning":
		mark = t.Warn.Render("! ")
	}
	if on {
		mark = t.Focus.Render("▸ ")
	}
	tw := max(w-gutter, 1)
	switch {
	case l.mark:
		return []string{t.Muted.Render(widget.Cut("── "+l.text+" "+l.at.In(m.env.Loc).Format("15:04:05")+" ──", w))}
	case l.bar:
		if b, ok := m.bar(l.text, tw); ok {
			return []string{mark + b}
		}
	}
	style := t.Text
	switch l.level {
	case "error":
		style = t.Danger
	case "warning":
		style = t.Warn
	}
	var rows []string
	for i, part := range m.parts(l.text, tw) {
		if i > 0 {
			mark = "  "
		}
		rows = append(rows, mark+m.highlight(part, style, on))
	}
	return rows
}

// parts is the text cut, or wrapped at cells.
func (m *Model) parts(s string, w int) []string {
	if !m.wrap {
		if m.left > 0 {
			s = ansi.TruncateLeft(s, m.left, "")
		}
		return []string{widget.Cut(s, w)}
	}
	parts := strings.Split(ansi.Hardwrap(widget.Cut(s, w*maxWrapRows), w, true), "\n")
	if len(parts) > maxWrapRows {
		parts = parts[:maxWrapRows]
	}
	return parts
}

// highlight marks what is searched for.
func (m *Model) highlight(s string, style lipgloss.Style, on bool) string {
	if m.query == "" || !has(s, m.query) {
		return style.Render(s)
	}
	hit := m.env.Theme.Match
	if on {
		hit = m.env.Theme.MatchOn
	}
	hay := s
	if low := strings.ToLower(m.query); low == m.query {
		// Lower case may change a rune's length; then nothing is highlighted
		// rather than the wrong thing.
		if hay = strings.ToLower(s); len(hay) != len(s) {
			return style.Render(s)
		}
	}
	var b strings.Builder
	for pos := 0; ; {
		i := strings.Index(hay[pos:], m.query)
		if i < 0 {
			b.WriteString(style.Render(s[pos:]))
			return b.String()
		}
		if i > 0 {
			b.WriteString(style.Render(s[pos : pos+i]))
		}
		end := pos + i + len(m.query)
		b.WriteString(hit.Render(s[pos+i : end]))
		pos = end
		if pos >= len(s) {
			return b.String()
		}
	}
}

// tqdm matches a progress bar of tqdm: label, percent, its bar, the rest.
var tqdm = regexp.MustCompile(`^(.*?)\s*(\d{1,3})%\|[^|]*\|\s*(.*)$`)

// bar draws tqdm's bar as ours.
func (m *Model) bar(s string, w int) (string, bool) {
	p := tqdm.FindStringSubmatch(s)
	if p == nil {
		return "", false
	}
	t := m.env.Theme
	n, err := strconv.Atoi(p[2])
	if err != nil || n > 100 {
		return "", false
	}
	label := strings.TrimSuffix(strings.TrimSpace(p[1]), ":")
	right := widget.FitRight(p[2], 3) + " %  " + p[3]
	room := min(w-widget.Width(right)-widget.Width(label)-3, 40)
	if room < 6 {
		return "", false
	}
	if label != "" {
		label = t.Text.Render(label) + " "
	}
	return widget.Cut(label+widget.Bar(float64(n)/100, room, t.Accent, t.Faint)+" "+t.Muted.Render(right), w), true
}
