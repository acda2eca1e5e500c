package widget

import (
	"strings"

	"easel/tui/theme"
)

// List is the cursor and the scroll position of a list that is drawn elsewhere.
// The zero value stands on the first item.
type List struct {
	Cur int // the item under the cursor
	Top int // the first item drawn
}

// Clamp keeps cursor and scroll inside n items shown h at a time.
func (l *List) Clamp(n, h int) {
	l.Cur = max(0, min(l.Cur, n-1))
	if h < 1 {
		l.Top = l.Cur
		return
	}
	if l.Cur < l.Top {
		l.Top = l.Cur
	}
	if l.Cur >= l.Top+h {
		l.Top = l.Cur - h + 1
	}
	l.Top = max(0, min(l.Top, n-h))
}

// Move changes the cursor by d.
func (l *List) Move(d, n, h int) {
	l.Cur += d
	l.Clamp(n, h)
}

// Select draws a styled line as the one under the cursor, w cells wide: the
// background of the selection goes on under every styled part of it.
func Select(t *theme.Theme, line string, w int) string {
	line = Fit(line, w)
	on, off, ok := strings.Cut(t.Select.Render("\x00"), "\x00")
	if !ok {
		return line
	}
	line = strings.ReplaceAll(line, "\x1b[m", "\x1b[m"+on)
	line = strings.ReplaceAll(line, "\x1b[0m", "\x1b[0m"+on)
	return on + line + off
}
