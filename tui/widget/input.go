package widget

import (
	"strings"

	tea "charm.land/bubbletea/v2"

	"easel/tui/theme"
	"github.com/charmbracelet/x/ansi"
)

// maxInput bounds a line of input, in runes: a paste of a whole file is not a
// line.
const maxInput = 4096

// Input is one line that a person edits. The zero value is empty and ready.
type Input struct {
	value []rune
	pos   int
}

// Set replaces the text and puts the cursor at its end.
func (in *Input) Set(s string) {
	in.value = []rune(clean(s, maxInput*4))
	if len(in.value) > maxInput {
		in.value = in.value[:maxInput]
	}
	in.pos = len(in.value)
}

// Value is the text.
func (in *Input) Value() string { return string(in.value) }

// Insert puts s, cleaned, at the cursor.
func (in *Input) Insert(s string) {
	add := []rune(clean(s, maxInput*4))
	if room := maxInput - len(in.value); len(add) > room {
		add = add[:max(room, 0)]
	}
	rest := append(add, in.value[in.pos:]...)
	in.value = append(in.value[:in.pos:in.pos], rest...)
	in.pos += len(add)
}

// Key edits by one key press and reports whether the key meant something.
func (in *Input) Key(k tea.KeyPressMsg) bool {
	switch k.String() {
	case "left", "ctrl+b":
		in.pos = max(in.pos-1, 0)
	case "right", "ctrl+f":
		in.pos = min(in.pos+1, len(in.value))
	case "home", "ctrl+a":
		in.pos = 0
	case "end", "ctrl+e":
		in.pos = len(in.value)
	case "backspace", "ctrl+h":
		in.cut(max(in.pos-1, 0), in.pos)
	case "delete":
		in.cut(in.pos, min(in.pos+1, len(in.value)))
	case "ctrl+u":
		in.cut(0, in.pos)
	case "ctrl+w", "alt+backspace":
		in.cut(in.wordStart(), in.pos)
	default:
		if k.Text == "" || k.Mod.Contains(tea.ModCtrl) || k.Mod.Contains(tea.ModAlt) {
			return false
		}
		in.Insert(k.Text)
	}
	return true
}

func (in *Input) cut(from, to int) {
	in.value = append(in.value[:from:from], in.value[to:]...)
	in.pos = from
}

// wordStart is where the word (or path element) before the cursor begins.
func (in *Input) wordStart() int {
	i := in.pos
	sep := func(r rune) bool { return r == ' ' || r == '/' }
	for i > 0 && sep(in.value[i-1]) {
		i--
	}
	for i > 0 && !sep(in.value[i-1]) {
		i--
	}
	return i
}

// View is the line in w cells with its cursor, scrolled so that the cursor is
// seen.
func (in *Input) View(t *theme.Theme, w int) string {
	if w < 2 {
		return Spaces(w)
	}
	before := string(in.value[:in.pos])
	if over := Width(before) - (w - 1); over > 0 {
		before = ansi.TruncateLeft(before, over, "")
	}
	under, after := " ", ""
	if in.pos < len(in.value) {
		under, after = string(in.value[in.pos]), string(in.value[in.pos+1:])
	}
	return Fit(before+t.Cursor.Render(under)+Cut(after, w-Width(before)-Width(under)), w)
}

// Common is the longest common beginning of names, for completion.
func Common(names []string) string {
	if len(names) == 0 {
		return ""
	}
	p := names[0]
	for _, n := range names[1:] {
		for !strings.HasPrefix(n, p) {
			p = p[:len(p)-1]
		}
	}
	return strings.ToValidUTF8(p, "")
}
