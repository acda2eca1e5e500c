package process

import (
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxLine is how much of one line is kept, in bytes; the rest of it is dropped.
const maxLine = 64 << 10

// Line is one line of a log, safe to show: valid UTF-8 without control characters
// and escape sequences.
type Line struct {
	Text string
	// Bar says that the line is not final: it was redrawn by \r or has no end yet,
	// and the next Line stands in its place.
	Bar bool
	// Offset is where to go on reading after this line.
	Offset int64
}

// splitter cuts a stream of bytes into lines. A line ends at \n or \r\n; at a
// lone \r it is a bar. Of several bars in one piece only the last is reported,
// since the others would be replaced at once.
type splitter struct {
	row     int64 // offset of the first byte of pending
	pos     int64 // offset after the last byte taken
	pending []byte
	dropped bool   // pending was cut at maxLine
	cr      bool   // the last byte taken was \r
	skip    bool   // drop everything up to the next \n: the head of a torn line
	redrawn bool   // the row had a lone \r
	last    string // what the row showed before the last lone \r
	shown   string // the bar that was reported last
	bar     *Line  // the bar to report at the end of the piece
}

func newSplitter(offset int64) *splitter { return &splitter{row: offset, pos: offset} }

// feed takes b and reports the lines that it ends.
func (s *splitter) feed(b []byte, fn func(Line)) {
	if s.cr && len(b) > 0 {
		if b[0] == '\n' { // \r\n over two pieces
			s.pos++
			b = b[1:]
			s.end(fn)
		} else {
			s.redraw()
		}
		s.cr = false
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		part := b
		if i >= 0 {
			part = b[:i]
		}
		s.take(part, i >= 0)
		if i < 0 {
			return
		}
		s.pos++
		s.end(fn)
		b = b[i+1:]
	}
}

// take adds a piece without \n. ended says that a \n follows it.
func (s *splitter) take(b []byte, ended bool) {
	for {
		i := bytes.IndexByte(b, '\r')
		if i < 0 {
			s.add(b)
			return
		}
		s.add(b[:i])
		s.pos++
		b = b[i+1:]
		if len(b) == 0 {
			s.cr = !ended // \r\n here is a plain end of line; at the end of a piece it is open
			return
		}
		s.redraw()
	}
}

func (s *splitter) add(b []byte) {
	s.pos += int64(len(b))
	if room := maxLine - len(s.pending); len(b) > room {
		b, s.dropped = b[:room], true
	}
	s.pending = append(s.pending, b...)
}

// redraw ends a row at a lone \r: its text is a bar.
func (s *splitter) redraw() {
	s.redrawn = true
	if len(s.pending) > 0 {
		s.last = s.text() // "" when blanks wiped the bar out
		if s.last != "" && !s.skip {
			s.bar = &Line{Text: s.last, Bar: true, Offset: s.pos}
		}
	}
	s.clear()
}

// end ends a line at \n.
func (s *splitter) end(fn func(Line)) {
	switch {
	case s.skip:
		s.skip = false
	case len(s.pending) == 0: // nothing was written over the bar: it stays
		fn(Line{Text: s.last, Offset: s.pos})
	default:
		text := s.text()
		if s.redrawn {
			if bar, rest, ok := stuck(text); ok {
				fn(Line{Text: bar, Offset: s.row})
				text = rest
			}
		}
		fn(Line{Text: text, Offset: s.pos})
	}
	s.bar, s.shown, s.last, s.redrawn = nil, "", "", false
	s.clear()
}

// tqdmEnd is how tqdm ends its bar: [00:01<00:03,  5.10it/s, loss=0.1].
var tqdmEnd = regexp.MustCompile(`\[(?:\d+:)?\d\d:\d\d(?:<[^,\]]*)?,[^\]]*(?:/s|s/[a-zA-Z]+)[^\]]*\]`)

// stuck cuts a row where a bar of tqdm ends and other text goes on: the next line
// of the log was written behind the bar, which ends without an end of line.
func stuck(text string) (bar, rest string, ok bool) {
	if !strings.Contains(text, "]") {
		return "", "", false
	}
	all := tqdmEnd.FindAllStringIndex(text, -1)
	if len(all) == 0 {
		return "", "", false
	}
	at := all[len(all)-1][1]
	rest = strings.TrimLeft(text[at:], " ")
	return text[:at], rest, rest != ""
}

// flush reports the bar that is current, and with rest also text that has no end
// yet.
func (s *splitter) flush(rest bool, fn func(Line)) {
	if (rest || s.cr || s.redrawn) && !s.skip && len(s.pending) > 0 {
		if text := s.text(); text != "" {
			s.bar = &Line{Text: text, Bar: true, Offset: s.row}
		}
	}
	if s.bar != nil && s.bar.Text != s.shown {
		s.shown = s.bar.Text
		fn(*s.bar)
	}
	s.bar = nil
}

func (s *splitter) clear() {
	s.pending, s.row, s.dropped = s.pending[:0], s.pos, false
	if cap(s.pending) > maxLine/2 {
		s.pending = nil
	}
}

func (s *splitter) text() string {
	t := Clean(s.pending)
	if s.dropped {
		t += "…"
	}
	return t
}

// jump goes on at another offset, in the middle of a line when torn is set.
func (s *splitter) jump(offset int64, torn bool) {
	s.pos = offset
	s.cr, s.skip, s.redrawn = false, torn, false
	s.bar, s.last, s.shown = nil, "", ""
	s.clear()
}

// Clean makes bytes of a log safe to show: valid UTF-8, no control characters, no
// escape sequences, no characters that turn the direction of text; a tab becomes
// four blanks, and blanks at the end are dropped.
func Clean(b []byte) string {
	plain := true
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return string(bytes.TrimRight(b, " "))
	}
	return cleanSlow(b)
}

func cleanSlow(b []byte) string {
	var out strings.Builder
	out.Grow(len(b))
	for len(b) > 0 {
		c := b[0]
		switch {
		case c == 0x1b:
			b = b[escape(b):]
			continue
		case c == '\t':
			out.WriteString("    ")
		case c < ' ' || c == 0x7f:
		case c < utf8.RuneSelf:
			out.WriteByte(c)
		default:
			r, n := utf8.DecodeRune(b)
			if shown(r) {
				out.WriteRune(r) // utf8.RuneError for a wrong byte
			}
			b = b[n:]
			continue
		}
		b = b[1:]
	}
	return strings.TrimRight(out.String(), " ")
}

// shown reports whether a rune beyond ASCII is one that people see.
func shown(r rune) bool {
	switch {
	case r >= 0x80 && r <= 0x9f: // C1 controls
		return false
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return false // direction
	case r == 0x2028, r == 0x2029, r == 0xfeff: // separators, byte order mark
		return false
	}
	return true
}

// escape is the length of the escape sequence that b begins with.
func escape(b []byte) int {
	if len(b) < 2 {
		return len(b)
	}
	switch b[1] {
	case '[': // CSI: parameters, then one final byte
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e {
				return i + 1
			}
		}
		return len(b)
	case ']', 'P', 'X', '^', '_': // a string, to BEL or ESC \
		for i := 2; i < len(b); i++ {
			if b[i] == 0x07 {
				return i + 1
			}
			if b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\' {
				return i + 2
			}
		}
		return len(b)
	case '(', ')', '*', '+', '#', ' ', '%': // one more byte
		return min(3, len(b))
	default:
		return 2
	}
}
