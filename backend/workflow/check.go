package workflow

import (
	"fmt"
	"slices"
	"strings"

	"easel/backend"
)

// Severities of a Problem. An error is what ComfyUI would refuse, or what is
// refused for safety; a warning is what it takes and will regret; a note is
// about nodes that will not run.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
	SeverityNote    = "note"
)

// Kinds of a Problem, each with ComfyUI's own name for it (contract §5.1).
const (
	KindUnknownClass   = "unknown-class"   // invalid_prompt, missing_node_type
	KindNoClass        = "no-class"        // invalid_prompt
	KindNoOutput       = "no-output"       // prompt_no_outputs
	KindMissingInput   = "missing-input"   // required_input_missing
	KindNoInputs       = "no-inputs"       // exception_during_validation
	KindBadLink        = "bad-link"        // bad_linked_input, exception_during_validation
	KindTypeMismatch   = "type-mismatch"   // return_type_mismatch
	KindBadValue       = "bad-value"       // invalid_input_type
	KindTooSmall       = "too-small"       // value_smaller_than_min
	KindTooBig         = "too-big"         // value_bigger_than_max
	KindNotInList      = "not-in-list"     // value_not_in_list
	KindMissingModel   = "missing-model"   // value_not_in_list, of a model file
	KindMissingFile    = "missing-file"    // custom_validation_failed
	KindUnsafePath     = "unsafe-path"     // refused by Easel: leads out of the input folder
	KindCycle          = "cycle"           // dependency_cycle; older ones name nothing
	KindUnknownInput   = "unknown-input"   // taken, then an unexpected keyword argument
	KindConstantSocket = "constant-socket" // taken, then an exception
)

// Check looks a workflow over with the eyes of a server. The problems come with
// errors first, then in the order of the file, a thousand at most. With info nil
// only what needs no server is looked at.
//
// As ComfyUI does, it asks for known classes everywhere, and for right inputs
// only in what an output needs. When some outputs can run and others cannot,
// ComfyUI takes the workflow and skips the latter; their faults are warnings
// then. A file that is missing in the input folder is a warning too, because it
// may have come after the server told its lists, unless info.Fresh is set.
// Nodes may check inputs themselves, which only the server can do.
func Check(doc Doc, info *ObjectInfo) []backend.Problem {
	c := &checker{graph: doc.Graph, info: info}
	c.faults = make([][]fault, len(c.graph.nodes))
	c.uses = make([][]int, len(c.graph.nodes))
	for i := range c.graph.nodes {
		c.node(i)
	}
	c.outputs()
	c.cycles()
	return c.collect()
}

// maxStale bounds the classes that are worth a second look.
const maxStale = 32

// Stale are the classes of problems that say a value is in none of a server's
// lists of files, each once: the file may have come after the lists were read. It
// is nil when there are none, or too many to ask for.
func Stale(problems []backend.Problem) []string {
	var classes []string
	for _, p := range problems {
		switch p.Kind {
		case KindMissingFile, KindMissingModel, KindNotInList:
			if !slices.Contains(classes, p.Class) {
				classes = append(classes, p.Class)
			}
		}
	}
	if len(classes) > maxStale {
		return nil
	}
	return classes
}

// fault is a finding before it is known how much it matters.
type fault struct {
	kind       string
	severity   string // at most
	fixed      bool   // the severity stays, whatever the node is for
	input      string
	value      string
	message    string
	candidates []string
	fix        string
}

type checker struct {
	graph  Graph
	info   *ObjectInfo
	faults [][]fault // by node
	uses   [][]int   // by node: the nodes that its declared inputs come from

	needed  []bool            // by an output
	anyGood bool              // some output can run
	general []backend.Problem // about the whole graph

	suggested int // times that candidates were looked for
	rings     int // cycles recorded
}

// Bounds of what is said about one workflow: more helps nobody.
const (
	maxProblems    = 1000
	maxSuggestions = 100
	maxRings       = 20
)

// suggest is similar, for the first faults only: it is the slow part.
func (c *checker) suggest(s string, names []string, n int) []string {
	if c.suggested++; c.suggested > maxSuggestions {
		return nil
	}
	return similar(s, names, n)
}

// add records a fault of a node.
func (c *checker) add(node int, f fault) {
	c.faults[node] = append(c.faults[node], f)
}

// node looks at one node by itself.
func (c *checker) node(i int) {
	n := c.graph.nodes[i]
	c.paths(i)
	if n.Class == "" {
		fix := "export the workflow again in API format"
		if _, exported := n.Input("UNKNOWN"); exported {
			fix = "the web page that exported it did not know the class: export it where the node is installed"
		}
		c.add(i, fault{kind: KindNoClass, severity: SeverityError, fixed: true, message: "has no class_type, so nobody knows what it is", fix: fix})
		return
	}
	if c.info == nil {
		c.bareLinks(i)
		return
	}
	class := c.info.Class(n.Class)
	if class == nil {
		c.unknownClass(i, n)
		return
	}
	if n.noInputs {
		c.add(i, fault{kind: KindNoInputs, severity: SeverityError, message: "has no \"inputs\"", fix: "write \"inputs\": {} when there are none"})
		return
	}
	specs, dynamic := c.expand(i, n, class.Inputs)
	for _, spec := range specs {
		c.input(i, n, spec)
	}
	c.undeclared(i, n, specs, dynamic)
}

func (c *checker) unknownClass(i int, n Node) {
	near := c.suggest(n.Class, c.info.names, 3)
	fix := "install the node pack that has it, and restart the worker; if it is installed, `easel worker logs` says why it did not load"
	if n.Class == "EaselSketch" {
		fix = "it is the built-in worker's own node: `easel use sketch` chooses that one"
	} else if len(near) > 0 {
		fix = "did you mean " + clip(strings.Join(near, " or "), 160) + "? Otherwise " + fix
	}
	c.add(i, fault{
		kind: KindUnknownClass, severity: SeverityError, fixed: true, value: n.Class, candidates: near,
		message: "this worker has no such node", fix: fix,
	})
}

// bareLinks looks at links when no server is known.
func (c *checker) bareLinks(i int) {
	for _, in := range c.graph.nodes[i].Inputs {
		if kindOf(in.Value) == '[' {
			c.link(i, in, SeverityWarning)
		}
	}
}

// link finds the node that an input's array names, or records why it cannot.
func (c *checker) link(i int, in Input, severity string) (source int, ok bool) {
	f := fault{
		kind: KindBadLink, severity: severity, input: in.Name, value: plain(in.Value),
		fix: "connect it again and export the workflow, or write [\"NODE\", SLOT]",
	}
	pair := items(in.Value)
	switch {
	case len(pair) != 2:
		f.message = "a link has two parts, a node and a slot, and this has " + fmt.Sprint(len(pair))
		f.fix += "; a list as a value is written {\"__value__\": […]}"
	case in.Link == nil && kindOf(pair[0]) == 'n' && c.has(string(pair[0])):
		f.message = "the node's id must be in quotes: [\"" + clip(string(pair[0]), 20) + "\", …]"
	case in.Link == nil && (kindOf(pair[0]) != 's' || !c.has(text(pair[0]))):
		f.message = "it links to node " + clip(plain(pair[0]), 60) + ", which is not in the workflow"
	case in.Link == nil:
		f.message = "the slot must be a whole number, without quotes, not " + clip(string(pair[1]), 40)
	case !c.has(in.Link.Node):
		f.message = "it links to node " + clip(in.Link.Node, 60) + ", which is not in the workflow"
	default:
		return c.graph.byID[in.Link.Node], true
	}
	c.add(i, f)
	return 0, false
}

func (c *checker) has(id string) bool {
	_, ok := c.graph.byID[id]
	return ok
}

// outputs finds which nodes an output needs, and whether some output can run.
func (c *checker) outputs() {
	c.needed = make([]bool, len(c.graph.nodes))
	if c.info == nil {
		for i := range c.needed {
			c.needed[i] = true
		}
		return
	}
	sound := make([]int8, len(c.graph.nodes)) // 0 not looked at, 1 being looked at or faulty, 2 sound
	found, unknown := false, false
	for i, n := range c.graph.nodes {
		class := c.info.Class(n.Class)
		unknown = unknown || class == nil
		if class != nil && class.OutputNode {
			found = true
			if c.sound(i, sound) {
				c.anyGood = true
			}
		}
	}
	if found || unknown {
		return
	}
	c.general = append(c.general, backend.Problem{
		Severity: SeverityError, Kind: KindNoOutput, Message: "the workflow has no output: nothing in it saves or shows a result",
		Candidates: []string{}, Fix: "add a node such as SaveImage or PreviewImage",
	})
}

// sound reports whether a node and all that it needs are without error. A ring
// counts as faulty.
func (c *checker) sound(i int, known []int8) bool {
	if known[i] != 0 {
		return known[i] == 2
	}
	known[i] = 1
	c.needed[i] = true
	good := !slices.ContainsFunc(c.faults[i], func(f fault) bool { return f.severity == SeverityError })
	for _, source := range c.uses[i] {
		if !c.sound(source, known) {
			good = false
		}
	}
	if good {
		known[i] = 2
	}
	return good
}

// cycles finds rings of links, each once.
func (c *checker) cycles() {
	state := make([]int8, len(c.graph.nodes)) // 0 new, 1 on the way, 2 done
	var way []int
	var visit func(int)
	visit = func(i int) {
		state[i] = 1
		way = append(way, i)
		for _, in := range c.graph.nodes[i].Inputs {
			if in.Link == nil {
				continue
			}
			source, ok := c.graph.byID[in.Link.Node]
			if !ok {
				continue
			}
			switch state[source] {
			case 0:
				visit(source)
			case 1:
				if c.rings++; c.rings > maxRings {
					continue
				}
				c.ring(way[slices.Index(way, source):], in.Name)
			}
		}
		way = way[:len(way)-1]
		state[i] = 2
	}
	for i := range c.graph.nodes {
		if state[i] == 0 {
			visit(i)
		}
	}
}

// ring records a cycle: each node of it takes from the next, the last from the
// first by the named input.
func (c *checker) ring(nodes []int, input string) {
	names := make([]string, 0, len(nodes)+1)
	for _, i := range slices.Backward(nodes) {
		names = append(names, clip(c.graph.nodes[i].ID, 30))
	}
	names = append(names, names[0])
	if len(names) > 12 {
		names = append(names[:6], append([]string{"…"}, names[len(names)-5:]...)...)
	}
	last := nodes[len(nodes)-1]
	needed := slices.ContainsFunc(nodes, func(i int) bool { return c.needed[i] })
	severity := SeverityError
	if !needed {
		severity = SeverityNote
	}
	c.add(last, fault{
		kind: KindCycle, severity: severity, fixed: true, input: input, value: strings.Join(names, " → "),
		message: "the nodes feed each other in a ring: " + strings.Join(names, " → "), fix: "remove one of these links",
	})
}

// collect turns the faults into problems.
func (c *checker) collect() []backend.Problem {
	problems := c.general
	for i, n := range c.graph.nodes {
		for _, f := range c.faults[i] {
			problems = append(problems, c.problem(i, n, f))
		}
	}
	rank := map[string]int{SeverityError: 0, SeverityWarning: 1, SeverityNote: 2}
	slices.SortStableFunc(problems, func(a, b backend.Problem) int { return rank[a.Severity] - rank[b.Severity] })
	return problems[:min(len(problems), maxProblems)]
}

func (c *checker) problem(i int, n Node, f fault) backend.Problem {
	message := n.label() + ": "
	if f.input != "" {
		message += clip(f.input, 60) + ": "
	}
	message += f.message
	severity := f.severity
	switch {
	case f.fixed:
	case !c.needed[i]:
		severity = SeverityNote
	case c.anyGood && severity == SeverityError:
		severity = SeverityWarning
		message += "; what needs it is left out, the rest runs"
	}
	candidates := make([]string, 0, len(f.candidates))
	for _, s := range f.candidates {
		candidates = append(candidates, clip(s, 200))
	}
	return backend.Problem{
		Severity: severity, Kind: f.kind, Node: clip(n.ID, 200), Title: clip(n.Title, 200), Class: clip(n.Class, 200),
		Input: clip(f.input, 200), Value: clip(f.value, 200), Message: message, Candidates: candidates, Fix: f.fix,
	}
}

// Outputs are the ids of the output nodes in the order of the file.
func Outputs(doc Doc, info *ObjectInfo) []string {
	var ids []string
	for _, n := range doc.Graph.nodes {
		if class := info.Class(n.Class); class != nil && class.OutputNode {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// Describe is each problem in one line: what, and after a dash what to do.
func Describe(problems []backend.Problem) []string {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Message
		if p.Fix != "" {
			lines[i] += " — " + p.Fix
		}
	}
	return lines
}

// Failure is what a refused workflow answers: kind invalid, the first errors
// with node and input, the remedy of the first as the hint, and all problems.
// It is nil when no problem is an error.
func Failure(problems []backend.Problem) *backend.Failure {
	const named = 3
	var messages []string
	hint, count := "", 0
	for _, p := range problems {
		if p.Severity != SeverityError {
			continue
		}
		if count++; count <= named {
			messages = append(messages, p.Message)
		}
		if hint == "" {
			hint = p.Fix
		}
	}
	if count == 0 {
		return nil
	}
	message := "the workflow cannot run: " + strings.Join(messages, "; ")
	if count > named {
		message += fmt.Sprintf("; and %d more", count-named)
	}
	f := backend.Fail(backend.FailInvalid, message, hint)
	f.Problems = problems
	return f
}
