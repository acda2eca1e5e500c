package sketch

import (
	"crypto/sha256"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
)

// result is what a node gave: its outputs and, if it has any, what clients
// are shown, with where it came from.
type result struct {
	outputs []any
	ui      *object
	meta    *object
}

// cache keeps the results of the last prompt, by what the nodes compute: the
// class, the constant inputs, and the same of all ancestors. The id of a node
// plays no part.
type cache struct {
	results  map[string]*result
	keys     map[string]string // node id to key, of the current prompt
	prefixes map[string]string // per node id and class: the name of temp files
}

func newCache() *cache {
	return &cache{results: map[string]*result{}, keys: map[string]string{}, prefixes: map[string]string{}}
}

// begin computes the keys of a prompt and drops every result it has no use for.
func (c *cache) begin(w *Worker, prompt *object) {
	c.keys = map[string]string{}
	for _, id := range prompt.keys {
		c.key(w, prompt, id, map[string]bool{})
	}
	used := map[string]bool{}
	for _, k := range c.keys {
		used[k] = true
	}
	for k := range c.results {
		if !used[k] {
			delete(c.results, k)
		}
	}
	for k := range c.prefixes {
		id, class, _ := strings.Cut(k, "\x00")
		if n, ok := prompt.at(id).(*object); !ok || n.at("class_type") != class {
			delete(c.prefixes, k)
		}
	}
}

func (c *cache) key(w *Worker, prompt *object, id string, path map[string]bool) string {
	if k, ok := c.keys[id]; ok {
		return k
	}
	n, ok := prompt.at(id).(*object)
	if !ok || path[id] {
		return "missing " + id
	}
	path[id] = true
	defer delete(path, id)
	inputs, _ := n.at("inputs").(*object)
	name, _ := n.at("class_type").(string)
	var b strings.Builder
	b.WriteString(name)
	if cl := w.classes[name]; cl != nil && cl.changed != nil {
		mark, err := cl.changed(w, inputs)
		if err != nil {
			w.log.warn("WARNING: %v", err)
			mark = "never equal " + strconv.FormatUint(rand.Uint64(), 16)
		}
		b.WriteString("\x00" + mark)
	}
	if inputs != nil {
		names := append([]string(nil), inputs.keys...)
		sort.Strings(names)
		for _, k := range names {
			b.WriteString("\x00" + k + "=")
			if from, slot, ok := link(inputs.vals[k]); ok {
				b.WriteString("node " + c.key(w, prompt, from, path) + "/" + strconv.Itoa(slot))
			} else {
				b.Write(dumpJSON(inputs.vals[k]))
			}
		}
	}
	sum := sha256.Sum256([]byte(b.String()))
	c.keys[id] = string(sum[:])
	return c.keys[id]
}

func (c *cache) get(id string) *result { return c.results[c.keys[id]] }

func (c *cache) put(id string, r *result) { c.results[c.keys[id]] = r }

// prefix is the random part of the names of a node's temporary files. It stays
// while prompts name the node.
func (c *cache) prefix(id, class string) string {
	k := id + "\x00" + class
	if c.prefixes[k] == "" {
		const letters = "abcdefghijklmnopqrstupvxyz"
		p := []byte("_temp_")
		for range 5 {
			p = append(p, letters[rand.IntN(len(letters))])
		}
		c.prefixes[k] = string(p)
	}
	return c.prefixes[k]
}

// link reads an input that comes from another node: [id, slot].
func link(v any) (id string, slot int, ok bool) {
	l, isList := v.([]any)
	if !isList || len(l) != 2 {
		return "", 0, false
	}
	id, ok = l[0].(string)
	if !ok {
		return "", 0, false
	}
	switch n := l[1].(type) {
	case int64:
		return id, int(n), true
	case float64:
		return id, int(n), true
	}
	return "", 0, false
}
