package widget

import (
	"strings"

	"easel/tui/theme"
)

// Joint says where a vertical line meets a rule: At is its column, Up and Down
// whether it goes on above and below.
type Joint struct {
	At       int
	Up, Down bool
}

// Label is a word set into a rule, beginning at column At (counted from the
// left; a negative one counts from the right end to the label's end). Text is
// styled by the caller and cut to what is free.
type Label struct {
	At   int
	Text string
}

// ruleRune is the box-drawing character of a horizontal line with what joins it.
func ruleRune(up, down bool) rune {
	switch {
	case up && down:
		return '┼'
	case up:
		return '┴'
	case down:
		return '┬'
	}
	return '─'
}

// Rule draws a horizontal line of w cells between left and right corners, with
// joints and labels. Labels are drawn in order; one that would run into the end
// or into a label before it is cut.
func Rule(t *theme.Theme, w int, left, right string, joints []Joint, labels ...Label) string {
	if w < 2 {
		return Spaces(w)
	}
	line := make([]rune, w-2)
	for i := range line {
		line[i] = '─'
	}
	for _, j := range joints {
		if i := j.At - 1; i >= 0 && i < len(line) {
			line[i] = ruleRune(j.Up, j.Down)
		}
	}
	var b strings.Builder
	pos := 0 // in line
	put := func(to int) {
		if to > pos {
			b.WriteString(t.Border.Render(string(line[pos:to])))
			pos = to
		}
	}
	b.WriteString(t.Border.Render(left))
	for _, l := range labels {
		text := " " + l.Text + " "
		n := Width(text)
		at := l.At - 1
		if l.At < 0 {
			at = len(line) + l.At + 1 - n
		}
		if at < pos {
			at = pos
		}
		if room := len(line) - at; n > room {
			if room < 4 {
				continue
			}
			text = " " + Cut(l.Text, room-2) + " "
			n = Width(text)
		}
		put(at)
		b.WriteString(text)
		pos = at + n
	}
	put(len(line))
	b.WriteString(t.Border.Render(right))
	return b.String()
}

// Row is one line inside a frame: border, a space, content fitted, a space,
// border; w cells in all.
func Row(t *theme.Theme, content string, w int) string {
	side := t.Border.Render("│")
	return side + " " + Fit(content, w-4) + " " + side
}

// Row2 is a line with two panes: the first has its left border at 0 and its right
// one at column at.
func Row2(t *theme.Theme, left, right string, at, w int) string {
	side := t.Border.Render("│")
	return side + " " + Fit(left, at-3) + " " + side + " " + Fit(right, w-at-4) + " " + side
}

// Box draws lines in a rounded frame of w cells with a title; used for dialogs.
func Box(t *theme.Theme, title string, lines []string, w int) string {
	var b strings.Builder
	b.WriteString(Rule(t, w, "╭", "╮", nil, Label{At: 2, Text: title}))
	for _, l := range lines {
		b.WriteByte('\n')
		b.WriteString(Row(t, l, w))
	}
	b.WriteByte('\n')
	b.WriteString(Rule(t, w, "╰", "╯", nil))
	return b.String()
}

// Lines cuts or fills lines to exactly h, so that a pane never grows the frame.
func Lines(lines []string, h int) []string {
	if h < 0 {
		h = 0
	}
	if len(lines) > h {
		return lines[:h]
	}
	for len(lines) < h {
		lines = append(lines, "")
	}
	return lines
}

// Scrollbar says for row i of h whether the thumb of a list of n items that
// shows items from top on is drawn there. It is always false when all fit.
func Scrollbar(i, h, n, top int) bool {
	if n <= h || h < 1 {
		return false
	}
	size := max(1, h*h/n)
	at := 0
	if n > h {
		at = top * (h - size) / (n - h)
	}
	return i >= at && i < at+size
}
