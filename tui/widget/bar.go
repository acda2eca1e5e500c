package widget

import (
	"strings"

	"charm.land/lipgloss/v2"
)

var eighths = []string{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}

// Bar is a progress bar of w cells filled to f (0–1), in eighths of a cell.
func Bar(f float64, w int, full, empty lipgloss.Style) string {
	if w <= 0 {
		return ""
	}
	if !(f > 0) {
		f = 0
	}
	if f > 1 {
		f = 1
	}
	n := int(f*float64(w)*8 + 0.5)
	whole, part := n/8, n%8
	fill := strings.Repeat("█", whole)
	rest := w - whole
	if part > 0 && rest > 0 {
		fill += eighths[part]
		rest--
	}
	return full.Render(fill) + empty.Render(strings.Repeat("░", rest))
}

var sparks = []rune("▁▂▃▄▅▆▇█")

// Spark draws values (0–1, NaN or negative: no value) as one line of w cells,
// the newest on the right. It is not styled.
func Spark(values []float64, w int) string {
	if w <= 0 {
		return ""
	}
	if len(values) > w {
		values = values[len(values)-w:]
	}
	var b strings.Builder
	b.WriteString(Spaces(w - len(values)))
	for _, v := range values {
		if !(v >= 0) {
			b.WriteByte(' ')
			continue
		}
		i := int(v * float64(len(sparks)))
		b.WriteRune(sparks[min(max(i, 0), len(sparks)-1)])
	}
	return b.String()
}
