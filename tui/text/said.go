package text

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Bounds of said. A text that is longer is no sentence of the engine, and its
// arguments are sentences only so deep.
const (
	longest = 4096
	deepest = 4
	keep    = 4096 // answers that are kept
)

// said is Said.
func (c *catalogue) said(s string) string {
	c.mu.Lock()
	tr, ok := c.kept[s]
	c.mu.Unlock()
	if ok {
		return tr
	}
	tr = c.find(s, 0)
	c.mu.Lock()
	if c.kept == nil || len(c.kept) >= keep {
		c.kept = make(map[string]string, 64)
	}
	c.kept[s] = tr
	c.mu.Unlock()
	return tr
}

// find translates a sentence, depth sentences deep in another.
func (c *catalogue) find(s string, depth int) string {
	if len(s) > longest || depth > deepest {
		return s
	}
	if tr, ok := c.words[s]; ok {
		return unescaped(tr)
	}
	c.once.Do(func() { c.patterns = newIndex(c.words) })
	p, args := c.match(s)
	if p == nil || p.open {
		if head, tail, ok := c.tail(s, depth); ok {
			return c.find(head, depth) + tail
		}
	}
	if p == nil {
		return c.parts(s, depth)
	}
	return c.fill(p, args, depth)
}

// match finds the format that made s; nil when none is known.
func (c *catalogue) match(s string) (*pattern, []any) {
	for p := range c.patterns.candidates(s) {
		if args, ok := p.match(s); ok {
			return p, args
		}
	}
	return nil, nil
}

// fill is the translation of p with its arguments translated in turn.
func (c *catalogue) fill(p *pattern, args []any, depth int) string {
	for i, a := range args {
		args[i] = c.argument(a, depth+1)
	}
	return fmt.Sprintf(p.to, args...)
}

// comma begins a tail: what the engine appends to a sentence that it has made
// already (", 8.1s after its start").
const comma = ", "

// tail cuts the last tail off a sentence and translates it. It is tried before a
// format that ends with a verb, which would take the tail for its argument.
func (c *catalogue) tail(s string, depth int) (head, tail string, ok bool) {
	i := strings.LastIndex(s, comma)
	if i <= 0 {
		return "", "", false
	}
	head, tail = s[:i], s[i:]
	if tr, ok := c.words[tail]; ok {
		return head, unescaped(tr), true
	}
	p, args := c.match(tail)
	if p == nil || !strings.HasPrefix(p.from, comma) {
		return "", "", false
	}
	return head, c.fill(p, args, depth), true
}

// unescaped is a translation that is drawn as it is and not as a format.
func unescaped(s string) string { return strings.ReplaceAll(s, "%%", "%") }

// argument translates what stood for a verb: sentences, and the words for
// states. A single word else is a name, which stays.
func (c *catalogue) argument(arg any, depth int) any {
	s, ok := arg.(string)
	if !ok {
		return arg
	}
	if !strings.Contains(s, " ") {
		if slices.Contains(stateWords, s) {
			return T(s)
		}
		return s
	}
	return c.find(s, depth)
}

// stateWords are the words that the engine puts into sentences and that are no
// names.
var stateWords = []string{
	"queued", "held", "running", "succeeded", "failed", "cancelled", "cancelling",
	"stopped", "preparing", "starting", "ready", "busy", "stopping", "exited", "backoff",
}

// joints are what sentences are put together with, and how they look between
// translated ones.
var joints = []struct{ en, to string }{
	{"\n", "\n"}, {" · ", " · "}, {"; ", "；"}, {": ", "："},
}

// parts translates the parts of a sentence of several. When none is known s
// stays as it is.
func (c *catalogue) parts(s string, depth int) string {
	for _, j := range joints {
		if !strings.Contains(s, j.en) {
			continue
		}
		list := strings.Split(s, j.en)
		changed := false
		for i, part := range list {
			if !strings.Contains(part, " ") {
				continue // a name
			}
			tr := c.find(part, depth+1)
			changed = changed || tr != part
			list[i] = tr
		}
		if changed {
			return strings.Join(list, j.to)
		}
	}
	return s
}

// pattern is a format of the catalogue, turned around: it finds the arguments in
// a sentence that was made with it.
type pattern struct {
	from, to string
	literal  int    // bytes of from that are no verb
	longest  string // the longest piece between verbs
	verbs    []verb
	open     bool // it ends with a verb

	once sync.Once
	re   *regexp.Regexp
}

// match finds the arguments, all as text except where the translation needs to
// count them.
func (p *pattern) match(s string) ([]any, bool) {
	if !strings.Contains(s, p.longest) {
		return nil, false
	}
	p.once.Do(func() { p.re = compile(p.from) })
	m := p.re.FindStringSubmatch(s)
	if m == nil {
		return nil, false
	}
	args := make([]any, len(m)-1)
	for i, a := range m[1:] {
		args[i] = argText(a)
	}
	return args, true
}

// argText stands for an argument whose kind is not known any more: whatever verb
// prints it, it reads as it did in English.
type argText = string

// verb is one verb of a format.
type verb struct {
	start, end int  // in the format
	arg        int  // the argument it prints, from 0
	kind       byte // d, s, f, q, v …
}

var verbs = regexp.MustCompile(`%(?:\[(\d+)\])?[-+# 0]*(?:\d+)?(?:\.\d+)?(?:\[(\d+)\])?([a-zA-Z%])`)

// Verbs are the verbs of a format with the arguments they print, sorted by
// argument: "0s", "1d" …. The catalogue's test compares them.
func Verbs(format string) []string {
	var list []string
	for _, v := range verbsOf(format) {
		list = append(list, fmt.Sprintf("%d%c", v.arg, v.kind))
	}
	slices.Sort(list)
	return list
}

// verbsOf finds the verbs of a format; %% is none.
func verbsOf(format string) []verb {
	var list []verb
	next := 0
	for _, m := range verbs.FindAllStringSubmatchIndex(format, -1) {
		kind := format[m[6]]
		if kind == '%' || format[m[0]:m[1]][1] == ' ' && strings.HasPrefix(format[m[0]:], "% ") {
			continue
		}
		for _, g := range []int{2, 4} {
			if m[g] >= 0 {
				n := 0
				_, _ = fmt.Sscanf(format[m[g]:m[g+1]], "%d", &n)
				next = n - 1
			}
		}
		list = append(list, verb{start: m[0], end: m[1], arg: next, kind: kind})
		next++
	}
	return list
}

// shapes are what each verb prints.
var shapes = map[byte]string{
	'd': `([-+]?[0-9][0-9,.\x{202f}]*)`, 'f': `([-+]?[0-9][0-9.]*)`, 'q': `("(?:[^"\\]|\\.)*")`, 'x': `([0-9a-fA-F]+)`,
}

// compile makes the expression that finds the arguments of a format.
func compile(format string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	at := 0
	for _, v := range verbsOf(format) {
		b.WriteString(regexp.QuoteMeta(unescaped(format[at:v.start])))
		shape, ok := shapes[v.kind]
		if !ok {
			shape = `(.+?)`
		}
		b.WriteString(shape)
		at = v.end
	}
	b.WriteString(regexp.QuoteMeta(unescaped(format[at:])))
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// newPattern turns an entry of the catalogue around; false when it has no verb or
// says too little to be known again.
func newPattern(from, to string) (*pattern, bool) {
	vs := verbsOf(from)
	if len(vs) == 0 {
		return nil, false
	}
	p := &pattern{from: from, verbs: vs, open: vs[len(vs)-1].end == len(from)}
	at := 0
	for _, v := range append(slices.Clone(vs), verb{start: len(from), end: len(from)}) {
		piece := unescaped(from[at:v.start])
		p.literal += len(strings.TrimSpace(piece))
		if len(piece) > len(p.longest) {
			p.longest = piece
		}
		at = v.end
	}
	p.to = allText(to, vs)
	return p, letters(from, vs) >= 3
}

// letters counts the letters of a format outside its verbs.
func letters(format string, vs []verb) int {
	n, at := 0, 0
	for _, v := range append(slices.Clone(vs), verb{start: len(format), end: len(format)}) {
		for _, r := range format[at:v.start] {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
				n++
			}
		}
		at = v.end
	}
	return n
}

// allText is a translation whose verbs print the texts that were found: they are
// in the order of the English sentence.
func allText(to string, from []verb) string {
	place := map[int]int{} // argument → its place in the sentence
	for i, v := range from {
		place[v.arg] = i
	}
	var b strings.Builder
	at := 0
	for _, v := range verbsOf(to) {
		b.WriteString(to[at:v.start])
		fmt.Fprintf(&b, "%%[%d]s", place[v.arg]+1)
		at = v.end
	}
	b.WriteString(to[at:])
	return b.String()
}

// index finds the patterns that may have made a sentence.
type index struct {
	byHead map[string][]*pattern // by the first bytes of the format
	rest   []*pattern            // those that begin with a verb, or nearly
}

// headLength is how many bytes of a format's beginning it is found by.
const headLength = 4

func newIndex(words map[string]string) index {
	x := index{byHead: map[string][]*pattern{}}
	for from, to := range words {
		p, ok := newPattern(from, to)
		if !ok {
			continue
		}
		if head := p.verbs[0].start; head >= headLength && !strings.Contains(from[:headLength], "%") {
			x.byHead[from[:headLength]] = append(x.byHead[from[:headLength]], p)
		} else {
			x.rest = append(x.rest, p)
		}
	}
	for _, list := range x.byHead {
		slices.SortFunc(list, telling)
	}
	slices.SortFunc(x.rest, telling)
	return x
}

// telling puts the pattern first that says more by itself.
func telling(a, b *pattern) int {
	if a.literal != b.literal {
		return b.literal - a.literal
	}
	return strings.Compare(a.from, b.from)
}

// candidates are the patterns that may have made s, the most telling first.
func (x index) candidates(s string) func(func(*pattern) bool) {
	var head []*pattern
	if len(s) >= headLength {
		head = x.byHead[s[:headLength]]
	}
	rest := x.rest
	return func(yield func(*pattern) bool) {
		for len(head) > 0 || len(rest) > 0 {
			var p *pattern
			if len(rest) == 0 || len(head) > 0 && telling(head[0], rest[0]) <= 0 {
				p, head = head[0], head[1:]
			} else {
				p, rest = rest[0], rest[1:]
			}
			if !yield(p) {
				return
			}
		}
	}
}
