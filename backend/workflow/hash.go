package workflow

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"lukechampine.com/blake3"
)

// Hash names a graph by content: 64 hexadecimal digits of BLAKE3. Two graphs
// with the same nodes and values have the same, whatever their order, white
// space and titles. A text that is no graph is hashed as it is.
func Hash(graph json.RawMessage) string { return hash(graph, false) }

// Shape is Hash without what changes from run to run and does not change the
// work: seeds, texts and file name prefixes. Runs of one shape take about the
// same time.
func Shape(graph json.RawMessage) string { return hash(graph, true) }

func hash(graph json.RawMessage, shape bool) string {
	var b []byte
	i := skipSpace(graph, 0)
	if end, err := skipValue(graph, i, maxDepth); err == nil && skipSpace(graph, end) == len(graph) {
		c := canon{shape: shape}
		c.value(graph[i:end], 0, "")
		b = c.out
	} else {
		b = graph
	}
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// canon writes a graph with sorted keys and without white space.
type canon struct {
	out   []byte
	shape bool
}

// value writes one value. depth counts from the graph (0) over nodes (1) and
// their members (2) to inputs (3); name is the key it stands under.
func (c *canon) value(raw []byte, depth int, name string) {
	switch kindOf(raw) {
	case '{':
		c.object(raw, depth)
	case '[':
		c.out = append(c.out, '[')
		for _, item := range items(raw) {
			c.value(item, depth+1, "")
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, ']')
	case 's':
		if c.shape && depth == 3 {
			if isSeedName(name) || strings.HasSuffix(name, "prefix") || strings.Contains(name, "text") || strings.Contains(name, "prompt") {
				return
			}
		}
		c.out = append(c.out, quote(text(raw))...)
	default:
		if !c.shape || depth != 3 || !isSeedName(name) {
			c.out = append(c.out, raw...)
		}
	}
}

func (c *canon) object(raw []byte, depth int) {
	list := members(raw)
	slices.SortStableFunc(list, func(a, b member) int { return strings.Compare(a.key, b.key) })
	c.out = append(c.out, '{')
	for _, m := range list {
		if depth == 1 && m.key == "_meta" {
			continue
		}
		c.out = append(append(c.out, quote(m.key)...), ':')
		c.value(raw[m.value:m.end], depth+1, m.key)
		c.out = append(c.out, ',')
	}
	c.out = append(c.out, '}')
}
