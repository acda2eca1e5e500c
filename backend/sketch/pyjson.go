package sketch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// ComfyUI is a Python program, and what its clients see of a prompt (in
// /queue, /history and inside PNG files) is what Python's json module makes of
// it: keys in the order they were sent, integers of any length, NaN and
// Infinity as bare words, everything else in ASCII. The types here keep that.
//
// A value is nil, bool, string, int64, *big.Int, float64, []any or *object.

// object is a JSON object that remembers the order of its keys.
type object struct {
	keys []string
	vals map[string]any
}

func newObject() *object { return &object{vals: map[string]any{}} }

// obj builds an object from alternating keys and values.
func obj(pairs ...any) *object {
	o := newObject()
	for i := 0; i+1 < len(pairs); i += 2 {
		o.set(pairs[i].(string), pairs[i+1])
	}
	return o
}

func (o *object) set(key string, v any) {
	if _, ok := o.vals[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.vals[key] = v
}

func (o *object) get(key string) (any, bool) {
	if o == nil {
		return nil, false
	}
	v, ok := o.vals[key]
	return v, ok
}

func (o *object) at(key string) any { v, _ := o.get(key); return v }

func (o *object) has(key string) bool { _, ok := o.get(key); return ok }

func (o *object) del(key string) {
	if !o.has(key) {
		return
	}
	delete(o.vals, key)
	for i, k := range o.keys {
		if k == key {
			o.keys = append(o.keys[:i:i], o.keys[i+1:]...)
			return
		}
	}
}

// clone copies the object and the objects and lists in it.
func clone(v any) any {
	switch v := v.(type) {
	case *object:
		if v == nil {
			return v
		}
		c := newObject()
		for _, k := range v.keys {
			c.set(k, clone(v.vals[k]))
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, x := range v {
			c[i] = clone(x)
		}
		return c
	}
	return v
}

// maxDepth is where Python's parser gives up (its recursion limit).
const maxDepth = 990

var errDepth = errors.New("maximum recursion depth exceeded while decoding a JSON object from a unicode string")

// parseJSON reads one JSON document as Python's json.loads does.
func parseJSON(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("'utf-8' codec can't decode the body")
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	p := &parser{s: string(b)}
	p.space()
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i != len(p.s) {
		return nil, p.fail("Extra data")
	}
	return v, nil
}

type parser struct {
	s string
	i int
}

func (p *parser) fail(what string) error { return fmt.Errorf("%s: char %d", what, p.i) }

func (p *parser) space() {
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.i]) >= 0 {
		p.i++
	}
}

var words = []struct {
	text string
	v    any
}{
	{"null", nil},
	{"true", true},
	{"false", false},
	{"NaN", math.NaN()},
	{"Infinity", math.Inf(1)},
	{"-Infinity", math.Inf(-1)},
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	if p.i >= len(p.s) {
		return nil, p.fail("Expecting value")
	}
	switch p.s[p.i] {
	case '{':
		return p.object(depth)
	case '[':
		return p.list(depth)
	case '"':
		return p.text()
	}
	for _, w := range words {
		if strings.HasPrefix(p.s[p.i:], w.text) {
			p.i += len(w.text)
			return w.v, nil
		}
	}
	return p.number()
}

func (p *parser) object(depth int) (any, error) {
	o := newObject()
	p.i++
	p.space()
	if p.i < len(p.s) && p.s[p.i] == '}' {
		p.i++
		return o, nil
	}
	for {
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != '"' {
			return nil, p.fail("Expecting property name enclosed in double quotes")
		}
		k, err := p.text()
		if err != nil {
			return nil, err
		}
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != ':' {
			return nil, p.fail("Expecting ':' delimiter")
		}
		p.i++
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.set(k, v)
		if done, err := p.next('}'); err != nil || done {
			return o, err
		}
	}
}

func (p *parser) list(depth int) (any, error) {
	l := []any{}
	p.i++
	p.space()
	if p.i < len(p.s) && p.s[p.i] == ']' {
		p.i++
		return l, nil
	}
	for {
		p.space()
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
		if done, err := p.next(']'); err != nil || done {
			return l, err
		}
	}
}

// next steps over a comma, or over the closing character.
func (p *parser) next(end byte) (done bool, err error) {
	p.space()
	if p.i < len(p.s) {
		switch p.s[p.i] {
		case ',':
			p.i++
			return false, nil
		case end:
			p.i++
			return true, nil
		}
	}
	return false, p.fail("Expecting ',' delimiter")
}

func (p *parser) text() (string, error) {
	p.i++
	start := p.i
	for p.i < len(p.s) && p.s[p.i] != '"' && p.s[p.i] != '\\' && p.s[p.i] >= 0x20 {
		p.i++
	}
	if p.i < len(p.s) && p.s[p.i] == '"' {
		s := p.s[start:p.i]
		p.i++
		return s, nil
	}
	var b strings.Builder
	b.WriteString(p.s[start:p.i])
	for p.i < len(p.s) {
		c := p.s[p.i]
		switch {
		case c == '"':
			p.i++
			return b.String(), nil
		case c < 0x20:
			return "", p.fail("Invalid control character")
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			p.i++
		}
	}
	return "", p.fail("Unterminated string")
}

func (p *parser) escape() (rune, error) {
	if p.i+1 >= len(p.s) {
		return 0, p.fail("Unterminated string")
	}
	c := p.s[p.i+1]
	p.i += 2
	if k := strings.IndexByte(`"\/bfnrt`, c); k >= 0 {
		return rune("\"\\/\b\f\n\r\t"[k]), nil
	}
	if c != 'u' {
		return 0, p.fail("Invalid \\escape")
	}
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if strings.HasPrefix(p.s[p.i:], `\u`) {
		save := p.i
		p.i += 2
		r2, err := p.hex4()
		if err != nil {
			return 0, err
		}
		if full := utf16.DecodeRune(r, r2); full != utf8.RuneError {
			return full, nil
		}
		p.i = save
	}
	return utf8.RuneError, nil
}

func (p *parser) hex4() (rune, error) {
	if p.i+4 > len(p.s) {
		return 0, p.fail("Invalid \\uXXXX escape")
	}
	n, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 32)
	if err != nil {
		return 0, p.fail("Invalid \\uXXXX escape")
	}
	p.i += 4
	return rune(n), nil
}

func (p *parser) number() (any, error) {
	start := p.i
	digits := func() int {
		n := 0
		for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
			p.i++
			n++
		}
		return n
	}
	if p.s[p.i] == '-' {
		p.i++
	}
	lead := p.i
	if n := digits(); n == 0 || (n > 1 && p.s[lead] == '0') {
		p.i = start
		return nil, p.fail("Expecting value")
	}
	whole := true
	if p.i+1 < len(p.s) && p.s[p.i] == '.' && p.s[p.i+1] >= '0' && p.s[p.i+1] <= '9' {
		whole = false
		p.i++
		digits()
	}
	if p.i < len(p.s) && (p.s[p.i] == 'e' || p.s[p.i] == 'E') {
		save := p.i
		p.i++
		if p.i < len(p.s) && (p.s[p.i] == '+' || p.s[p.i] == '-') {
			p.i++
		}
		if digits() == 0 {
			p.i = save
		} else {
			whole = false
		}
	}
	lit := p.s[start:p.i]
	if whole {
		if len(lit) > 4300 { // Python's limit for text to int
			return nil, p.fail("Exceeds the limit (4300 digits) for integer string conversion")
		}
		return parseInt(lit)
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, err
	}
	return f, nil
}

// parseInt makes an int64 where the number fits one, else a *big.Int.
func parseInt(s string) (any, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	b, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("invalid literal for int() with base 10: '%s'", s)
	}
	return b, nil
}

// dumpJSON writes a value as Python's json.dumps does: one line, ", " and
// ": " between the parts, ASCII only.
func dumpJSON(v any) []byte {
	var b bytes.Buffer
	writeJSON(&b, v)
	return b.Bytes()
}

func writeJSON(w *bytes.Buffer, v any) {
	switch v := v.(type) {
	case nil:
		w.WriteString("null")
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case string:
		writeText(w, v)
	case int:
		w.WriteString(strconv.Itoa(v))
	case int64:
		w.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		w.WriteString(v.String())
	case float64:
		w.WriteString(jsonFloat(v))
	case []string:
		writeList(w, len(v), func(i int) { writeText(w, v[i]) })
	case []any:
		writeList(w, len(v), func(i int) { writeJSON(w, v[i]) })
	case *object:
		writeObject(w, v)
	default:
		panic(fmt.Sprintf("sketch: a %T cannot be written as JSON", v))
	}
}

func writeList(w *bytes.Buffer, n int, each func(int)) {
	w.WriteByte('[')
	for i := range n {
		if i > 0 {
			w.WriteString(", ")
		}
		each(i)
	}
	w.WriteByte(']')
}

func writeObject(w *bytes.Buffer, o *object) {
	if o == nil {
		w.WriteString("null")
		return
	}
	w.WriteByte('{')
	for i, k := range o.keys {
		if i > 0 {
			w.WriteString(", ")
		}
		writeText(w, k)
		w.WriteString(": ")
		writeJSON(w, o.vals[k])
	}
	w.WriteByte('}')
}

func writeText(w *bytes.Buffer, s string) {
	w.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.WriteByte('\\')
			w.WriteRune(r)
		case r == '\n':
			w.WriteString(`\n`)
		case r == '\r':
			w.WriteString(`\r`)
		case r == '\t':
			w.WriteString(`\t`)
		case r == '\b':
			w.WriteString(`\b`)
		case r == '\f':
			w.WriteString(`\f`)
		case r < 0x20 || (r > 0x7e && r < 0x10000):
			fmt.Fprintf(w, `\u%04x`, r)
		case r >= 0x10000:
			a, b := utf16.EncodeRune(r)
			fmt.Fprintf(w, `\u%04x\u%04x`, a, b)
		default:
			w.WriteByte(byte(r))
		}
	}
	w.WriteByte('"')
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return reprFloat(f)
}

// reprFloat is Python's repr of a float: the shortest digits that read back,
// with an exponent below 1e-4 and from 1e16 on.
func reprFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case f == 0:
		if math.Signbit(f) {
			return "-0.0"
		}
		return "0.0"
	}
	a := math.Abs(f)
	if a < 1e-4 || a >= 1e16 {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// pyRepr is Python's repr of a value, as its error texts and logs show it.
func pyRepr(v any) string {
	var b strings.Builder
	writeRepr(&b, v)
	return b.String()
}

func writeRepr(w *strings.Builder, v any) {
	switch v := v.(type) {
	case string:
		reprText(w, v)
	case []any:
		w.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				w.WriteString(", ")
			}
			writeRepr(w, x)
		}
		w.WriteByte(']')
	case *object:
		if v == nil {
			w.WriteString("None")
			return
		}
		w.WriteByte('{')
		for i, k := range v.keys {
			if i > 0 {
				w.WriteString(", ")
			}
			reprText(w, k)
			w.WriteString(": ")
			writeRepr(w, v.vals[k])
		}
		w.WriteByte('}')
	default:
		w.WriteString(pyStr(v))
	}
}

func reprText(w *strings.Builder, s string) {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	w.WriteByte(q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			w.WriteByte('\\')
			w.WriteRune(r)
		case r == '\n':
			w.WriteString(`\n`)
		case r == '\r':
			w.WriteString(`\r`)
		case r == '\t':
			w.WriteString(`\t`)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(w, `\x%02x`, r)
		default:
			w.WriteRune(r)
		}
	}
	w.WriteByte(q)
}

// pyStr is Python's str of a value.
func pyStr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	case float64:
		return reprFloat(v)
	case *tensor:
		return v.String()
	}
	return pyRepr(v)
}

// truthy is Python's bool of a value.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	case *big.Int:
		return v.Sign() != 0
	case float64:
		return v != 0
	case []any:
		return len(v) > 0
	case *object:
		return v != nil && len(v.keys) > 0
	}
	return true
}

// indentJSON writes a value with indentation, as json.dumps(indent=4) does.
func indentJSON(w io.Writer, v any, pad string) {
	o, ok := v.(*object)
	if !ok || o == nil || len(o.keys) == 0 {
		_, _ = w.Write(dumpJSON(v))
		return
	}
	_, _ = io.WriteString(w, "{\n")
	for i, k := range o.keys {
		_, _ = fmt.Fprintf(w, "%s    %s: ", pad, dumpJSON(k))
		indentJSON(w, o.vals[k], pad+"    ")
		if i < len(o.keys)-1 {
			_, _ = io.WriteString(w, ",")
		}
		_, _ = io.WriteString(w, "\n")
	}
	_, _ = io.WriteString(w, pad+"}")
}
