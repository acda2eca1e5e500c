package workflow

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep arrays and objects may nest. Python's own reader
// gives up at about 1,000; real graphs nest four deep.
const maxDepth = 200

// syntaxError says where a text stops being JSON. Offset counts bytes.
type syntaxError struct {
	offset int
	what   string
}

func (e *syntaxError) Error() string { return e.what }

// member is one "key": value of an object, by place: b[value:end] is the value
// and b[start] the quote that opens the key.
type member struct {
	key               string
	start, value, end int
}

// skipSpace is the offset of the first byte at or after i that is no white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue checks the JSON value that begins at b[i] and gives the offset after
// it.
func skipValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, &syntaxError{i, "it ends in the middle"}
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '{':
		return eachMember(b, i, depth, nil)
	case c == '[':
		return eachItem(b, i, depth, nil)
	case c == '-' || c >= '0' && c <= '9':
		return skipNumber(b, i)
	case c == 't':
		return skipWord(b, i, "true")
	case c == 'f':
		return skipWord(b, i, "false")
	case c == 'n':
		return skipWord(b, i, "null")
	}
	return i, unexpected(b, i)
}

func unexpected(b []byte, i int) error {
	if i >= len(b) {
		return &syntaxError{i, "it ends in the middle"}
	}
	r, _ := utf8.DecodeRune(b[i:])
	return &syntaxError{i, fmt.Sprintf("unexpected %q", r)}
}

func skipWord(b []byte, i int, word string) (int, error) {
	end := i + len(word)
	if end > len(b) || string(b[i:end]) != word {
		return i, unexpected(b, i)
	}
	return end, nil
}

// skipString checks the string whose opening quote is b[i].
func skipString(b []byte, i int) (int, error) {
	for j := i + 1; j < len(b); j++ {
		switch c := b[j]; {
		case c == '"':
			return j + 1, nil
		case c == '\\':
			j++
			if j >= len(b) {
				break
			}
			if b[j] == 'u' {
				if j+4 >= len(b) || !isHex(b[j+1:j+5]) {
					return j, &syntaxError{j - 1, `a \u without four hexadecimal digits`}
				}
				j += 4
			} else if strings.IndexByte(`"\/bfnrt`, b[j]) < 0 {
				return j, &syntaxError{j - 1, fmt.Sprintf(`unknown escape \%s`, escape(string(rune(b[j]))))}
			}
		case c < 0x20:
			return j, &syntaxError{j, "a control character inside a text"}
		}
	}
	return len(b), &syntaxError{i, "a text is not closed"}
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// skipNumber checks the number that begins at b[i].
func skipNumber(b []byte, i int) (int, error) {
	j := i
	digits := func() bool {
		from := j
		for j < len(b) && b[j] >= '0' && b[j] <= '9' {
			j++
		}
		return j > from
	}
	if b[j] == '-' {
		j++
	}
	if j < len(b) && b[j] == '0' {
		j++
	} else if !digits() {
		return i, unexpected(b, j)
	}
	if j < len(b) && b[j] == '.' {
		j++
		if !digits() {
			return i, unexpected(b, j)
		}
	}
	if j < len(b) && (b[j] == 'e' || b[j] == 'E') {
		j++
		if j < len(b) && (b[j] == '+' || b[j] == '-') {
			j++
		}
		if !digits() {
			return i, unexpected(b, j)
		}
	}
	return j, nil
}

// eachMember checks the object whose brace is b[i] and calls fn (which may be
// nil) for each member in its order; it gives the offset after the object.
func eachMember(b []byte, i, depth int, fn func(member) error) (int, error) {
	if depth <= 0 {
		return i, &syntaxError{i, fmt.Sprintf("it nests deeper than %d levels", maxDepth)}
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1, nil
	}
	for {
		var m member
		m.start = i
		if i >= len(b) || b[i] != '"' {
			return i, unexpected(b, i)
		}
		end, err := skipString(b, i)
		if err != nil {
			return i, err
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			return i, unexpected(b, i)
		}
		m.value = skipSpace(b, i+1)
		if m.end, err = skipValue(b, m.value, depth-1); err != nil {
			return i, err
		}
		if fn != nil {
			m.key = text(b[m.start:end])
			if err := fn(m); err != nil {
				return i, err
			}
		}
		i = skipSpace(b, m.end)
		if i >= len(b) || b[i] != ',' && b[i] != '}' {
			return i, unexpected(b, i)
		}
		if b[i] == '}' {
			return i + 1, nil
		}
		i = skipSpace(b, i+1)
	}
}

// eachItem is eachMember for the array whose bracket is b[i]; fn gets the
// offsets of the item.
func eachItem(b []byte, i, depth int, fn func(start, end int) error) (int, error) {
	if depth <= 0 {
		return i, &syntaxError{i, fmt.Sprintf("it nests deeper than %d levels", maxDepth)}
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := skipValue(b, i, depth-1)
		if err != nil {
			return i, err
		}
		if fn != nil {
			if err := fn(i, end); err != nil {
				return i, err
			}
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ',' && b[i] != ']' {
			return i, unexpected(b, i)
		}
		if b[i] == ']' {
			return i + 1, nil
		}
		i = skipSpace(b, i+1)
	}
}

// members are the members of an object that is known to be valid JSON, by place
// in b; nil when b is no object.
func members(b []byte) []member {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil
	}
	var list []member
	_, _ = eachMember(b, i, maxDepth, func(m member) error {
		list = append(list, m)
		return nil
	})
	return list
}

// items are the items of an array that is known to be valid JSON; nil when b is
// no array.
func items(b []byte) []json.RawMessage {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '[' {
		return nil
	}
	list := []json.RawMessage{}
	_, _ = eachItem(b, i, maxDepth, func(start, end int) error {
		list = append(list, json.RawMessage(b[start:end]))
		return nil
	})
	return list
}

// field is the value of the first member of that name, nil when there is none.
func field(b []byte, name string) json.RawMessage {
	for _, m := range members(b) {
		if m.key == name {
			return json.RawMessage(b[m.value:m.end])
		}
	}
	return nil
}

// text is the Go string of a JSON string, quotes included; "" for anything else.
// A lone surrogate becomes U+FFFD.
func text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			var s string
			_ = json.Unmarshal(raw, &s)
			return s
		}
	}
	return string(inner)
}

// kindOf names the type of a JSON value: 's' text, 'n' number, 'b' true or
// false, '0' null, '[' array, '{' object.
func kindOf(raw []byte) byte {
	if len(raw) == 0 {
		return '0'
	}
	switch c := raw[0]; c {
	case '"':
		return 's'
	case 't', 'f':
		return 'b'
	case 'n':
		return '0'
	case '[', '{':
		return c
	}
	return 'n'
}

// position is an offset as line and column, from 1.
func position(b []byte, offset int) (line, column int) {
	offset = min(offset, len(b))
	line, column = 1, 1
	for _, c := range b[:offset] {
		if c == '\n' {
			line, column = line+1, 0
		}
		column++
	}
	return line, column
}
