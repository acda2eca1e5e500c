package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"easel/backend"
)

// Ref names one input of one node.
type Ref struct {
	Node  string `json:"node"`
	Title string `json:"title"`
	Class string `json:"class"`
	Input string `json:"input"`
}

// String is "6.text", as Set takes it.
func (r Ref) String() string { return r.Node + "." + r.Input }

// SplitSet takes an argument of --set apart: "6.text=a cat" is the target
// "6.text" and the value "a cat". The value may hold further signs.
func SplitSet(argument string) (target, value string, err error) {
	target, value, found := strings.Cut(argument, "=")
	if target = strings.TrimSpace(target); !found || target == "" {
		return "", "", backend.Fail(backend.FailUsage, "--set "+clip(argument, 60)+": expected INPUT=VALUE",
			"for example --set 6.text='a cat' or --set seed=5")
	}
	return target, value, nil
}

// Set gives one input a new value. The target is NODE.INPUT, where NODE is an
// id, else a title, else a class, or INPUT alone when only one node has it. The
// value is read by the type of the old one: a text as it is, a number exactly,
// true or false; a list or an object as JSON. An input that comes from another
// node is not overwritten. The error is a *backend.Failure of kind usage that
// lists the candidates; doc is unchanged then.
func Set(doc *Doc, target, value string) error {
	refs, err := resolve(doc.Graph, target)
	if err != nil {
		return err
	}
	return replace(doc, refs, func(in Input) (string, error) {
		fresh, err := literal(in.Value, value)
		if err != nil {
			return "", backend.Fail(backend.FailUsage, "set "+clip(target, 60)+": "+err.Error(), "it is "+clip(plain(in.Value), 60)+" now")
		}
		return fresh, nil
	})
}

// place is an input by its indexes.
type place struct{ node, input int }

func (g Graph) ref(p place) Ref {
	n := g.nodes[p.node]
	return Ref{Node: n.ID, Title: n.Title, Class: n.Class, Input: n.Inputs[p.input].Name}
}

func (g Graph) at(p place) Input { return g.nodes[p.node].Inputs[p.input] }

// resolve finds the one input that a target means. Ids, titles and the names of
// inputs may have dots in them, so every way to cut the target is tried.
func resolve(g Graph, target string) ([]place, error) {
	var first error
	for i := range len(target) {
		if target[i] != '.' {
			continue
		}
		nodes := g.named(target[:i])
		if len(nodes) == 0 {
			continue
		}
		found, err := g.pick(target, nodes, target[i+1:])
		if err == nil {
			return found, nil
		}
		if first == nil {
			first = err
		}
	}
	all := make([]int, len(g.nodes))
	for i := range all {
		all[i] = i
	}
	found, err := g.pick(target, all, target)
	if err != nil && first != nil {
		return nil, first
	}
	return found, err
}

// named are the nodes that a word means: by id, else by title, else by class.
func (g Graph) named(word string) []int {
	if i, ok := g.byID[word]; ok {
		return []int{i}
	}
	var titled, classed []int
	for i, n := range g.nodes {
		if n.Title != "" && strings.EqualFold(n.Title, word) {
			titled = append(titled, i)
		}
		if strings.EqualFold(n.Class, word) {
			classed = append(classed, i)
		}
	}
	if len(titled) > 0 {
		return titled
	}
	return classed
}

// pick is the one input of that name in the nodes that is no link.
func (g Graph) pick(target string, nodes []int, name string) ([]place, error) {
	target = clip(target, 80)
	var found, linked []place
	for _, i := range nodes {
		for j, in := range g.nodes[i].Inputs {
			if in.Name != name {
				continue
			}
			if in.Link != nil {
				linked = append(linked, place{i, j})
			} else {
				found = append(found, place{i, j})
			}
		}
	}
	switch {
	case len(found) == 1:
		return found, nil
	case len(found) > 1:
		return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("set %s: %d nodes have that input", target, len(found)), "write one of "+g.list(found, 8))
	case len(linked) > 0:
		return nil, backend.Fail(backend.FailUsage, "set "+target+": its value comes from "+g.origin(linked[0]), g.originHint(linked[0]))
	}
	return nil, g.noInput(target, nodes, name)
}

// list names inputs as Set takes them: 3.seed (KSampler), 5.seed (KSampler).
func (g Graph) list(places []place, most int) string {
	words := make([]string, 0, len(places))
	for i, p := range places {
		if i == most {
			words = append(words, "…")
			break
		}
		r := g.ref(p)
		name := r.Title
		if name == "" {
			name = r.Class
		}
		words = append(words, clip(r.String(), 80)+" ("+clip(name, 40)+")")
	}
	return strings.Join(words, ", ")
}

func (g Graph) origin(p place) string {
	if n, ok := g.Node(g.at(p).Link.Node); ok {
		return n.label()
	}
	return "node " + clip(g.at(p).Link.Node, 60)
}

// originHint names the constants of the node that a link comes from.
func (g Graph) originHint(p place) string {
	i, ok := g.byID[g.at(p).Link.Node]
	if !ok {
		return "that node is missing"
	}
	if list := g.list(g.constants([]int{i}), 6); list != "" {
		return "set it there: " + list
	}
	return "set the value where it begins, in one of the nodes before"
}

// constants are the inputs of nodes that are no links.
func (g Graph) constants(nodes []int) []place {
	var list []place
	for _, i := range nodes {
		for j, in := range g.nodes[i].Inputs {
			if in.Link == nil {
				list = append(list, place{i, j})
			}
		}
	}
	return list
}

func (g Graph) noInput(target string, nodes []int, name string) error {
	settable := g.constants(nodes)
	names := make([]string, 0, len(settable))
	for _, p := range settable {
		names = append(names, g.at(p).Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	hint := "`easel workflows params` lists what can be set"
	if near := similar(name, names, 3); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	} else if len(nodes) == 1 && len(names) > 0 {
		hint = "it has " + clip(strings.Join(names, ", "), 200)
	}
	if len(nodes) == 1 {
		return backend.Fail(backend.FailUsage, "set "+target+": "+g.nodes[nodes[0]].label()+" has no such input", hint)
	}
	return backend.Fail(backend.FailUsage, "set "+target+": no node has such an input", hint)
}

// literal is value as JSON, of the type that old has.
func literal(old json.RawMessage, value string) (string, error) {
	switch kindOf(old) {
	case 's':
		return quote(value), nil
	case 'n':
		return number(value)
	case 'b':
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "true", "yes", "on", "1":
			return "true", nil
		case "false", "no", "off", "0":
			return "false", nil
		}
		return "", fmt.Errorf("%s is neither true nor false", clip(value, 40))
	case '0':
		if json.Valid([]byte(value)) {
			return value, nil
		}
		return quote(value), nil
	}
	if !json.Valid([]byte(value)) {
		return "", fmt.Errorf("%s is no JSON, and the input takes a list or an object", clip(value, 40))
	}
	return value, nil
}

// quote is s as a JSON string; characters stay as they are where JSON allows it.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

// number is value as a JSON number, digit by digit as it was written. What Go
// reads and JSON does not (+5, .5, 007) is written as JSON wants it.
func number(value string) (string, error) {
	s := strings.TrimSpace(value)
	if s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') {
		if end, err := skipNumber([]byte(s), 0); err == nil && end == len(s) {
			return s, nil
		}
	}
	if n, err := strconv.ParseUint(strings.TrimPrefix(s, "+"), 10, 64); err == nil {
		return strconv.FormatUint(n, 10), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f-f == 0 && !strings.ContainsAny(s, "xX_") {
		return strconv.FormatFloat(f, 'g', -1, 64), nil
	}
	return "", fmt.Errorf("%s is no number", clip(value, 40))
}

// replace gives inputs new values and takes the graph apart again.
func replace(doc *Doc, places []place, fresh func(Input) (string, error)) error {
	if len(places) == 0 {
		return nil
	}
	places = slices.Clone(places)
	slices.SortFunc(places, func(a, b place) int { return doc.Graph.at(a).start - doc.Graph.at(b).start })
	out := make([]byte, 0, len(doc.GraphJSON)+64)
	copied := 0
	for _, p := range places {
		in := doc.Graph.at(p)
		value, err := fresh(in)
		if err != nil {
			return err
		}
		out = append(append(out, doc.GraphJSON[copied:in.start]...), value...)
		copied = in.end
	}
	out = append(out, doc.GraphJSON[copied:]...)
	if len(out) > MaxSize {
		return backend.Fail(backend.FailTooLarge, fmt.Sprintf("with that value the workflow is larger than %d MiB", MaxSize>>20), "")
	}
	graph, err := parseGraph(out)
	if err != nil {
		return err
	}
	doc.GraphJSON, doc.Graph = out, graph
	return nil
}
