package tui

import (
	"context"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// overlay is what lies over the screen and has the keyboard.
type overlay interface {
	key(m *Model, k tea.KeyPressMsg)
	paste(m *Model, s string)
	// box draws it, at most w×h cells.
	box(m *Model, w, h int) string
}

// dialog is a question with its answers.
type dialog struct {
	d       screen.Dialog
	cur     int
	checked bool
	opened  time.Time
}

// ask opens a dialog over whatever is open.
func (m *Model) ask(d screen.Dialog) {
	if len(d.Choices) == 0 {
		d.Choices = []screen.Choice{{Label: text.T("close")}}
	}
	o := &dialog{d: d, cur: len(d.Choices) - 1, opened: m.env.Now}
	for i, c := range d.Choices {
		if c.Default {
			o.cur = i
		}
	}
	m.over = o
}

func (o *dialog) paste(*Model, string) {}

func (o *dialog) key(m *Model, k tea.KeyPressMsg) {
	if o.d.Own && m.env.Now.Sub(o.opened) < deafTime {
		return
	}
	n, name := len(o.d.Choices), k.String()
	if i := o.letter(name); i >= 0 { // a choice's own letter comes first
		o.choose(m, i)
		return
	}
	switch name {
	case "esc", "q", "ctrl+c":
		m.over = nil
	case "up", "k", "shift+tab", "left", "h":
		o.cur = (o.cur + n - 1) % n
	case "down", "j", "tab", "right", "l":
		o.cur = (o.cur + 1) % n
	case "enter":
		o.choose(m, o.cur)
	case "space":
		if o.d.Check != "" {
			o.checked = !o.checked
		}
	}
}

func (o *dialog) letter(name string) int {
	for i, c := range o.d.Choices {
		if c.Key != "" && c.Key == name {
			return i
		}
	}
	return -1
}

func (o *dialog) choose(m *Model, i int) {
	c := o.d.Choices[i]
	if c.Why != "" {
		o.cur = i
		m.say(screen.Info, c.Why)
		return
	}
	m.over = nil
	if c.Do != nil {
		m.do(c.Do(o.checked))
	}
}

func (o *dialog) box(m *Model, w, h int) string {
	t := m.env.Theme
	width := min(w, o.width())
	var lines []string
	for _, b := range o.d.Body {
		for _, l := range widget.Wrap(widget.Clean(b), width-4, 12) {
			lines = append(lines, t.Text.Render(l))
		}
	}
	if len(lines) > 0 {
		lines = append(lines, "")
	}
	if room := h - 2 - len(o.d.Choices) - 2; len(lines) > room {
		lines = lines[:max(room, 0)]
	}
	for i, c := range o.d.Choices {
		lines = append(lines, o.choice(m, i, c, width-4))
	}
	if o.d.Check != "" {
		box := "[ ] "
		if o.checked {
			box = "[x] "
		}
		lines = append(lines, "", t.Muted.Render(box+o.d.Check+"  ")+t.Key.Render(text.T("space")))
	}
	return widget.Box(t, tone(m, o.d.Tone).Bold(true).Render(o.d.Title), lines, width)
}

// width is as wide as the longest choice, within what reads well.
func (o *dialog) width() int {
	n := 44
	for _, c := range o.d.Choices {
		n = max(n, widget.Width(c.Label)+widget.Width(c.Note)+14)
	}
	for _, b := range o.d.Body {
		n = max(n, min(widget.Width(b)+6, 72))
	}
	return min(n, 100)
}

func (o *dialog) choice(m *Model, i int, c screen.Choice, w int) string {
	t := m.env.Theme
	label := t.Text.Render(c.Label)
	note := c.Note
	if c.Why != "" {
		label = t.Faint.Render(c.Label)
		if note == "" {
			note = c.Why
		}
	}
	k := "  "
	if c.Key != "" {
		k = t.Key.Render(c.Key) + " "
	}
	line := "  " + k + label
	if note != "" {
		line += "  " + t.Muted.Render(note)
	}
	if i == o.cur {
		return widget.Select(t, strings.Replace(line, "  ", t.Focus.Render("▸")+" ", 1), w)
	}
	return line
}

// prompt is a line of input.
type prompt struct {
	p     screen.Prompt
	in    widget.Input
	offer []string // completions that are shown
	gen   int
}

// completedMsg answers a completion.
type completedMsg struct {
	gen   int
	text  string
	names []string
}

// prompt opens a line of input.
func (m *Model) prompt(p screen.Prompt) {
	o := &prompt{p: p}
	o.in.Set(p.Value)
	m.over = o
}

func (o *prompt) paste(m *Model, s string) {
	s = strings.TrimSpace(s)
	if len(s) > 1 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	o.in.Insert(strings.TrimPrefix(s, "file://"))
	o.offer = nil
}

func (o *prompt) key(m *Model, k tea.KeyPressMsg) {
	switch k.String() {
	case "esc", "ctrl+c":
		m.over = nil
	case "enter":
		m.over = nil
		if o.p.Done != nil {
			m.do(o.p.Done(o.in.Value()))
		}
	case "tab":
		o.complete(m)
	default:
		if o.in.Key(k) {
			o.offer = nil
		}
	}
}

// complete asks, in a command, what the text could become.
func (o *prompt) complete(m *Model) {
	if o.p.Complete == nil {
		return
	}
	o.gen++
	gen, fn, now := o.gen, o.p.Complete, o.in.Value()
	parent := m.env
	m.do(parent.Call(func(ctx context.Context) tea.Msg { return completedMsg{gen: gen, text: now, names: fn(ctx, now)} }))
}

// onCompleted puts the completion in, unless the text has changed meanwhile.
func (m *Model) onCompleted(msg completedMsg) {
	o, ok := m.over.(*prompt)
	if !ok || o.gen != msg.gen || o.in.Value() != msg.text {
		return
	}
	if c := widget.Common(msg.names); len(c) > len(msg.text) {
		o.in.Set(c)
	}
	o.offer = nil
	switch len(msg.names) {
	case 0:
		m.say(screen.Info, text.T("no workflow or directory begins like this"))
	case 1:
	default:
		o.offer = msg.names
	}
}

func (o *prompt) box(m *Model, w, h int) string {
	t := m.env.Theme
	width := min(w, 84)
	lines := []string{t.Muted.Render(o.p.Label+" ") + o.in.View(t, width-5-widget.Width(o.p.Label))}
	room := max(min(h-6, 8), 1)
	for i, n := range o.offer {
		if i == room-1 && len(o.offer) > room {
			lines = append(lines, t.Muted.Render(text.T("  … %d more", len(o.offer)-i)))
			break
		}
		lines = append(lines, "  "+t.Text.Render(widget.CutMiddle(widget.Clean(n), width-6)))
	}
	if o.p.Hint != "" {
		lines = append(lines, "", t.Muted.Render(o.p.Hint))
	}
	return widget.Box(t, t.Focus.Render(o.p.Title), lines, width)
}
