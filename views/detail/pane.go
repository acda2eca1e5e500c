package detail

import (
	"charm.land/lipgloss/v2"

	"easel/backend"
	"easel/tui/text"
	"easel/tui/theme"
	"easel/tui/widget"
)

// labelWidth is the column of labels.
const labelWidth = 10

// pane collects lines of w cells.
type pane struct {
	t     *theme.Theme
	w     int
	lines []string
}

func (p *pane) add(styled string) { p.lines = append(p.lines, widget.Cut(styled, p.w)) }

// gap is one empty line, never two.
func (p *pane) gap() {
	if n := len(p.lines); n > 0 && p.lines[n-1] != "" {
		p.lines = append(p.lines, "")
	}
}

func (p *pane) title(s string, style lipgloss.Style) { p.add(style.Render(s)) }

// pair is a label and its value; nothing when there is no value.
func (p *pane) pair(label, value string) {
	if value == "" {
		return
	}
	for i, l := range widget.Wrap(value, max(p.w-labelWidth, 4), 3) {
		if i > 0 {
			label = ""
		}
		p.add(p.t.Muted.Render(widget.Fit(label, labelWidth-1)) + " " + p.t.Text.Render(l))
	}
}

func (p *pane) prose(style lipgloss.Style, s string) {
	for _, l := range widget.Wrap(s, p.w, 30) {
		p.add(style.Render(l))
	}
}

func (p *pane) indent(style lipgloss.Style, s string) {
	for _, l := range widget.Wrap(s, max(p.w-3, 1), 10) {
		p.add("   " + style.Render(l))
	}
}

// outcome is how an attempt stands, in a word with its colour.
func (p *pane) outcome(o backend.Outcome) string {
	switch o {
	case backend.OutcomeSent:
		return p.t.Muted.Render(text.T("inside the worker's queue"))
	case backend.OutcomeRunning:
		return p.t.Accent.Render(text.T("running"))
	case backend.OutcomeSucceeded:
		return p.t.Good.Render(text.T("done"))
	case backend.OutcomeFailed:
		return p.t.Danger.Render(text.T("failed"))
	case backend.OutcomeLost:
		return p.t.Warn.Render(text.T("lost with its worker"))
	}
	return p.t.Muted.Render(text.T("cancelled"))
}
