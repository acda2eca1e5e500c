package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"easel/backend"
	"easel/tui/live"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// View is the frame. It is drawn anew only after a message; screens keep what has
// not changed.
func (m *Model) View() tea.View {
	if m.dirty {
		m.drawn = m.render()
		m.dirty = false
	}
	v := tea.NewView(m.drawn)
	v.AltScreen = true
	v.MouseMode = tea.MouseModeCellMotion
	v.WindowTitle = "easel"
	if b := m.env.State.Box; b != "" {
		v.WindowTitle = "easel · " + b
	}
	return v
}

// render draws everything. Before the size is known it draws for 80×24.
func (m *Model) render() string {
	w, h := m.size()
	if m.tooSmall() {
		return small(w, h)
	}
	lines := []string{m.topLine(w)}
	for _, b := range m.banners {
		s := tone(m, b.tone)
		lines = append(lines, widget.Row(m.env.Theme, s.Render(widget.Cut(sign(b.tone)+" "+b.text, w-4)), w))
	}
	lines = append(lines, m.front().View(), m.hintLine(w), m.bottomLine(w))
	frame := strings.Join(lines, "\n")
	if m.over != nil {
		frame = overlayAt(frame, m.over.box(m, w-4, h-4), w, h)
	}
	return frame
}

// small says that the window is too small, in whatever room there is.
func small(w, h int) string {
	lines := widget.Wrap(text.T("Easel needs %d×%d cells; this window has %d×%d. Make it larger, or q leaves.", minWidth, minHeight, w, h), max(w, 1), 0)
	return strings.Join(widget.Lines(lines, h), "\n")
}

// tone is the style of a tone.
func tone(m *Model, t screen.Tone) lipgloss.Style {
	switch t {
	case screen.Good:
		return m.env.Theme.Good
	case screen.Warn:
		return m.env.Theme.Warn
	case screen.Bad:
		return m.env.Theme.Danger
	}
	return m.env.Theme.Accent
}

// sign is the symbol of a tone, for screens without colour.
func sign(t screen.Tone) string {
	switch t {
	case screen.Good:
		return "✓"
	case screen.Warn:
		return "!"
	case screen.Bad:
		return "✗"
	}
	return "·"
}

// topLine is the upper border: the box, the edition, the worker in a word.
func (m *Model) topLine(w int) string {
	t, s := m.env.Theme, m.env.State
	name := t.Strong.Render("easel")
	if s.Box != "" {
		name += t.Muted.Render(" · ") + t.Title.Render(widget.CutMiddle(s.Box, 40))
	}
	labels := []widget.Label{{At: 2, Text: name}}
	right := m.health()
	if e := widget.Clean(s.Status.Edition); e != "" {
		right = t.Muted.Render(e) + t.Border.Render(" ─ ") + right
	}
	return widget.Rule(t, w, "╭", "╮", nil, append(labels, widget.Label{At: -2, Text: right})...)
}

// health is the worker, or the link when that is worse, in a word.
func (m *Model) health() string {
	t, s := m.env.Theme, m.env.State
	switch s.Link {
	case live.Looking:
		return t.Warn.Render(text.T("◌ looking for the engine"))
	case live.Lost:
		return t.Danger.Render(text.T("✗ engine unreachable"))
	case live.Down:
		return t.Danger.Render(text.T("✗ no engine"))
	case live.Stopping:
		return t.Warn.Render(text.T("◌ engine stops"))
	}
	w, ok := s.Worker("")
	if !ok {
		return t.Muted.Render(text.T("○ no worker"))
	}
	up := ""
	if !w.Started.IsZero() && w.PID != nil {
		up = " " + widget.Uptime(m.env.Now.Sub(w.Started.Time))
	}
	switch w.State {
	case backend.WorkerReady:
		return t.Good.Render(text.T("● ready") + up)
	case backend.WorkerBusy:
		return t.Accent.Render(text.T("● busy") + up)
	case backend.WorkerFailed:
		return t.Danger.Render(text.T("✗ worker failed"))
	case backend.WorkerStopped:
		return t.Muted.Render(text.T("○ worker stopped"))
	}
	return t.Warn.Render(text.T("◐ worker %s", string(w.State)))
}

// hintLine is the last line inside the frame: a toast, else the keys that matter
// here.
func (m *Model) hintLine(w int) string {
	t := m.env.Theme
	if m.toast.text != "" {
		s := tone(m, m.toast.tone).Render(widget.Cut(sign(m.toast.tone)+" "+m.toast.text, w-4))
		return widget.Row(t, s, w)
	}
	var parts []string
	room := w - 4
	for _, a := range append(m.front().Actions(), m.global()...) {
		if !a.Hint || a.Why != "" {
			continue
		}
		h := a.Key.Help()
		k, _, _ := strings.Cut(h.Key, " ")
		p := t.Key.Render(k) + " " + t.Muted.Render(h.Desc)
		n := widget.Width(p)
		if n > room {
			break
		}
		room -= n + 3
		parts = append(parts, p)
	}
	return widget.Row(t, strings.Join(parts, "   "), w)
}

// bottomLine is the lower border with the doors.
func (m *Model) bottomLine(w int) string {
	t := m.env.Theme
	right := t.Key.Render("?") + t.Muted.Render(" "+text.T("help")) + "  " + t.Key.Render("q") + t.Muted.Render(" "+text.T("leave"))
	return widget.Rule(t, w, "╰", "╯", nil,
		widget.Label{At: 2, Text: m.doorLine(w - 8 - widget.Width(right))},
		widget.Label{At: -2, Text: right})
}

// doorLine is the screens with their digits: all of them where there is room,
// else those that are built.
func (m *Model) doorLine(w int) string {
	t := m.env.Theme
	line := func(all bool) string {
		var parts []string
		for i, d := range m.doors {
			if d.view == nil && !all {
				continue
			}
			k, name := t.Key, t.Muted
			switch {
			case i == m.at:
				name = t.Focus
			case d.view == nil:
				k, name = t.Faint, t.Faint
			}
			parts = append(parts, k.Render(d.key.Help().Key)+" "+name.Render(d.name))
		}
		return strings.Join(append(parts, t.Key.Render("0")+" "+t.Muted.Render(text.T("all"))), "  ")
	}
	if l := line(true); widget.Width(l) <= w {
		return l
	}
	return line(false)
}

// overlayAt draws box over the middle of a frame of w×h cells.
func overlayAt(frame, box string, w, h int) string {
	lines := strings.Split(frame, "\n")
	over := strings.Split(box, "\n")
	bw := 0
	for _, l := range over {
		bw = max(bw, widget.Width(l))
	}
	x, y := max((w-bw)/2, 0), max((h-len(over))/2, 0)
	for i, l := range over {
		if y+i >= len(lines) {
			break
		}
		base := lines[y+i]
		left := widget.Fit(ansi.Truncate(base, x, ""), x)
		right := ansi.TruncateLeft(base, x+bw, "")
		lines[y+i] = left + "\x1b[m" + widget.Fit(l, bw) + "\x1b[m" + widget.FitRight(right, w-x-bw)
	}
	return strings.Join(lines, "\n")
}
