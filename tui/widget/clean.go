// Package widget draws the parts that screens share: frames with titles, bars,
// sparklines, tables, a line of input, and figures in the units of the house.
// Everything is a pure function of its arguments (or a small value) and returns
// text that is exactly as wide as was asked; nothing here knows a job.
package widget

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// maxClean bounds what one cell of a screen is made of, in bytes: a 1 MB name is
// cut before it is measured.
const maxClean = 4096

// Clean makes s safe to draw on one line: escape sequences and control
// characters are gone, tabs and line breaks are spaces, invalid UTF-8 is U+FFFD,
// and marks that reorder or hide text (bidi controls, zero width) are dropped.
// At most 4096 bytes of s are looked at.
func Clean(s string) string { return clean(s, maxClean) }

// CleanLong is Clean for a line that may be long (a log): it looks at up to max
// bytes.
func CleanLong(s string, max int) string { return clean(s, max) }

func clean(s string, max int) string {
	if len(s) > max {
		s = s[:max]
	}
	if plain(s) {
		return s
	}
	if strings.ContainsRune(s, 0x1b) || strings.ContainsRune(s, 0x9b) || strings.ContainsRune(s, 0x9d) || strings.ContainsRune(s, 0x90) {
		s = ansi.Strip(s)
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case r == utf8.RuneError && n <= 1:
			b.WriteRune('�')
		case r == '\t' || r == '\n' || r == '\r':
			b.WriteByte(' ')
		case hidden(r):
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// plain reports whether s is printable ASCII, by far the most common case.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// hidden reports whether r is a control or a mark that changes what is seen
// without being seen. The kitty placeholder is among them: only we may draw it.
func hidden(r rune) bool {
	switch {
	case unicode.IsControl(r), r == 0x10EEEE, r == 0xFEFF, r == 0x00AD:
		return true
	case r >= 0x200B && r <= 0x200F, r >= 0x202A && r <= 0x202E, r >= 0x2060 && r <= 0x206F, r == 0x061C, r == 0x180E:
		return true
	case r >= 0xE0000 && r <= 0xE0FFF, r >= 0xFFF9 && r <= 0xFFFB:
		return true
	case r == 0x2028 || r == 0x2029:
		return true
	case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
		// Combining marks may be stacked without end; terminals and we disagree
		// about their width. Names are readable without them.
		return r != 0xFE0F
	}
	return false
}

// Width is the number of cells that s (styled or not) takes.
func Width(s string) int {
	if plain(s) {
		return len(s)
	}
	return ansi.StringWidth(s)
}

// Cut shortens s to w cells, with … where something was lost.
func Cut(s string, w int) string {
	if w <= 0 {
		return ""
	}
	if Width(s) <= w {
		return s
	}
	return ansi.Truncate(s, w, "…")
}

// CutMiddle shortens s, which is not styled, to w cells by leaving out its
// middle, so that a file keeps its number and its extension.
func CutMiddle(s string, w int) string {
	if Width(s) <= w {
		return s
	}
	if w < 8 {
		return Cut(s, w)
	}
	tail := (w - 1) / 2
	head := w - 1 - tail
	return ansi.Truncate(s, head, "") + "…" + ansi.TruncateLeft(s, Width(s)-tail, "")
}

// Fit makes s exactly w cells wide: cut, or filled with spaces on the right.
func Fit(s string, w int) string {
	if w <= 0 {
		return ""
	}
	n := Width(s)
	if n > w {
		s = Cut(s, w)
		n = Width(s)
	}
	return s + Spaces(w-n)
}

// FitRight is Fit with the text on the right.
func FitRight(s string, w int) string {
	if w <= 0 {
		return ""
	}
	n := Width(s)
	if n > w {
		s = Cut(s, w)
		n = Width(s)
	}
	return Spaces(w-n) + s
}

const manySpaces = "                                                                                                                                                                                                        "

// Spaces is n spaces; none for n < 1.
func Spaces(n int) string {
	if n <= 0 {
		return ""
	}
	if n <= len(manySpaces) {
		return manySpaces[:n]
	}
	return strings.Repeat(" ", n)
}

// Wrap breaks s, which is clean and not styled, into lines of at most w cells,
// at spaces where it can. It returns at least one line and at most max of them
// (0: all); a text that goes on ends in ….
func Wrap(s string, w, max int) []string {
	if w < 1 {
		return []string{""}
	}
	lines := strings.Split(ansi.Wrap(s, w, " /,;"), "\n")
	if max > 0 && len(lines) > max {
		lines = lines[:max]
		lines[max-1] = Cut(lines[max-1]+" ……", w)
		if !strings.HasSuffix(lines[max-1], "…") {
			lines[max-1] = Cut(lines[max-1], w-1) + "…"
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
		if Width(lines[i]) > w {
			lines[i] = Cut(lines[i], w)
		}
	}
	return lines
}

// Spread puts left and right at the ends of a line of w cells; left gives way.
func Spread(left, right string, w int) string {
	rw := Width(right)
	if rw >= w {
		return Fit(right, w)
	}
	if rw == 0 {
		return Fit(left, w)
	}
	return Fit(left, w-rw-1) + " " + right
}
