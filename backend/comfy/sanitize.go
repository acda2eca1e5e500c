package comfy

import "bytes"

// Sanitize makes JSON of what Python's json module writes: the bare words NaN,
// Infinity and -Infinity become null, except inside strings, which are left
// alone. Input without such words comes back unchanged and uncopied; otherwise
// the result is a new slice and b is left as it was. Anything else that is not
// JSON stays as it is, for the decoder to refuse.
func Sanitize(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	var out []byte // nil until the first replacement
	copied := 0    // b[:copied] is in out
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '"':
			i = stringEnd(b, i)
		case isLetter(c):
			end := i
			for end < len(b) && (isLetter(b[end]) || b[end] >= '0' && b[end] <= '9') {
				end++
			}
			if start, ok := bareWord(b, i, end); ok {
				out = append(append(out, b[copied:start]...), "null"...)
				copied = end
			}
			i = end
		default:
			i++
		}
	}
	if out == nil {
		return b
	}
	return append(out, b[copied:]...)
}

// bareWord reports whether b[i:end] is one of Python's words, and where it
// starts, its sign included.
func bareWord(b []byte, i, end int) (start int, ok bool) {
	if i > 0 && (b[i-1] >= '0' && b[i-1] <= '9' || b[i-1] == '.' || b[i-1] == '+') {
		return 0, false // the tail of a malformed number
	}
	signed := i > 0 && b[i-1] == '-'
	switch string(b[i:end]) {
	case "NaN":
		return i, !signed
	case "Infinity":
		if signed {
			return i - 1, true
		}
		return i, true
	}
	return 0, false
}

// stringEnd is the index after the string that opens at b[i].
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}
