package workflow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"easel/backend"
	"easel/backend/comfy"
)

// MaxSize is the largest workflow that is taken, in bytes. ComfyUI itself takes
// 100 MB with everything around the graph.
const MaxSize = 96 << 20

// Bounds of a graph that keep looking at it cheap. Real ones have some hundred
// nodes with some ten inputs; Python itself gives up at chains of about 1,000.
const (
	maxNodes  = 100_000
	maxInputs = 10_000
)

// Doc is a workflow that was read.
type Doc struct {
	// GraphJSON is the graph in API format: the bytes that were read, without
	// what a server had added (is_changed, _loop_*) and with null for NaN.
	GraphJSON json.RawMessage
	// Graph is GraphJSON taken apart. It belongs to the Doc and is made anew by
	// every edit.
	Graph Graph
	// Workflow is the UI form, if it came along; else nil.
	Workflow json.RawMessage
	// From says where the graph stood: "api" (the whole file), "prompt" (under
	// that key, as for POST /prompt) or "png".
	From string
}

// Graph is a workflow in API format.
type Graph struct {
	nodes []Node
	byID  map[string]int
}

// Nodes are the nodes in the order of the file. The slice belongs to the Graph.
func (g Graph) Nodes() []Node { return g.nodes }

// Node finds a node by its id.
func (g Graph) Node(id string) (Node, bool) {
	i, ok := g.byID[id]
	if !ok {
		return Node{}, false
	}
	return g.nodes[i], true
}

// Node is one node of a graph. Texts are as they stand in the file: control
// characters are not yet escaped.
type Node struct {
	ID       string
	Class    string // "" when the file names none
	Title    string // _meta.title, "" without
	Inputs   []Input
	noInputs bool // the key "inputs" is missing
}

// Input finds an input by name.
func (n Node) Input(name string) (Input, bool) {
	for _, in := range n.Inputs {
		if in.Name == name {
			return in, true
		}
	}
	return Input{}, false
}

// label is how messages name a node: node 4 "Load" (CheckpointLoaderSimple).
func (n Node) label() string {
	s := "node " + clip(n.ID, 60)
	if n.Title != "" && n.Title != n.Class {
		s += ` "` + clip(n.Title, 60) + `"`
	}
	if n.Class != "" {
		s += " (" + clip(n.Class, 80) + ")"
	}
	return s
}

// Input is one input of a node.
type Input struct {
	Name  string
	Value json.RawMessage // as it stands in the file
	Link  *Link           // where the value comes from; nil when it is a constant
	start int             // of Value in GraphJSON
	end   int
}

// Link is an output of another node.
type Link struct {
	Node string
	Slot int // from 0
}

// FormatError says that something is not a workflow in API format. It wraps a
// *backend.Failure of kind invalid (too-large when it is that) with a hint.
type FormatError struct {
	Format  string // what it is instead: ui, webp, json, … "" unknown
	Failure *backend.Failure
}

// Error is the failure's message.
func (e *FormatError) Error() string { return e.Failure.Message }

// Unwrap gives the failure.
func (e *FormatError) Unwrap() error { return e.Failure }

func formatError(format, message, hint string) *FormatError {
	return &FormatError{Format: format, Failure: backend.Fail(backend.FailInvalid, message, hint)}
}

const exportHint = "in ComfyUI's web page choose Workflow > Export (API) and use that file"

// ReadFrom is Read of what r gives; it keeps no more of it in memory than a
// workflow may have.
func ReadFrom(r io.Reader) (Doc, error) {
	buffered := bufio.NewReader(r)
	if magic, _ := buffered.Peek(len(pngSignature)); bytes.Equal(magic, pngSignature) {
		return readPNG(buffered)
	}
	b, err := io.ReadAll(io.LimitReader(buffered, MaxSize+1))
	if err != nil {
		return Doc{}, fmt.Errorf("read the workflow: %w", err)
	}
	return Read(b)
}

// Read takes a workflow in API format, bare or under "prompt" as it is posted,
// or a PNG that carries one. An error is a *FormatError that says what it is
// instead and what to do. The Doc does not keep b. MaxSize holds for the text,
// not for the picture around it.
func Read(b []byte) (Doc, error) {
	if bytes.HasPrefix(b, pngSignature) {
		return readPNG(bytes.NewReader(b))
	}
	if len(b) > MaxSize {
		e := formatError("", fmt.Sprintf("the workflow is larger than %d MiB, which no ComfyUI takes", MaxSize>>20),
			"a workflow has kilobytes; large data belongs into files that a Load node names")
		e.Failure.Kind = backend.FailTooLarge
		return Doc{}, e
	}
	return readJSON(b, "")
}

// readJSON reads JSON text; from is "" or what Doc.From becomes.
func readJSON(b []byte, from string) (Doc, error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	if err := foreign(b); err != nil {
		return Doc{}, err
	}
	b = comfy.Sanitize(b)
	start := skipSpace(b, 0)
	end, err := skipValue(b, start, maxDepth)
	if err == nil && skipSpace(b, end) < len(b) {
		end = skipSpace(b, end)
		err = unexpected(b, end)
	}
	if err != nil {
		return Doc{}, notJSON(b, err)
	}
	if b[start] != '{' {
		return Doc{}, formatError("json", "this is JSON, but no workflow: a workflow is an object of nodes", exportHint)
	}
	doc := Doc{From: from}
	graph, found, err := findGraph(b[start:end])
	if err != nil {
		return Doc{}, err
	}
	if doc.From == "" {
		doc.From = found
	}
	if found == "prompt" {
		doc.Workflow = bytes.Clone(field(field(field(b[start:end], "extra_data"), "extra_pnginfo"), "workflow"))
		if kindOf(doc.Workflow) != '{' {
			doc.Workflow = nil
		}
	}
	doc.GraphJSON = strip(graph)
	if doc.Graph, err = parseGraph(doc.GraphJSON); err != nil {
		return Doc{}, err
	}
	return doc, nil
}

// foreign names files that are not JSON text at all.
func foreign(b []byte) error {
	kinds := []struct{ format, magic, what string }{
		{"jpeg", "\xff\xd8\xff", "a JPEG picture: ComfyUI keeps workflows in PNG files"},
		{"gif", "GIF8", "a GIF picture: ComfyUI keeps workflows in PNG files"},
		{"flac", "fLaC", "a FLAC file: workflows are read from JSON and PNG"},
		{"zip", "PK\x03\x04", "a ZIP archive: unpack it first"},
		{"gzip", "\x1f\x8b", "a gzip file: unpack it first"},
		{"utf-16", "\xff\xfe", "text in UTF-16: save it as UTF-8"},
		{"utf-16", "\xfe\xff", "text in UTF-16: save it as UTF-8"},
	}
	for _, k := range kinds {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return formatError(k.format, "this is no workflow but "+k.what, exportHint)
		}
	}
	if len(b) > 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP" {
		return formatError("webp", "this is a WebP picture: workflows are read from JSON and PNG", exportHint)
	}
	if len(b) > 12 && string(b[4:8]) == "ftyp" {
		return formatError("mp4", "this is a video: workflows are read from JSON and PNG", exportHint)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return formatError("empty", "the workflow is empty", exportHint)
	}
	if !utf8.Valid(b) {
		return formatError("", "this is no workflow: it is not JSON text in UTF-8", exportHint)
	}
	return nil
}

func notJSON(b []byte, err error) error {
	var s *syntaxError
	if !errors.As(err, &s) {
		return err
	}
	line, column := position(b, s.offset)
	return formatError("", fmt.Sprintf("this is no workflow: not JSON at line %d, column %d: %s", line, column, s.what), exportHint)
}

// findGraph finds the graph in a valid object: the object itself ("api"), or
// what stands under "prompt" ("prompt").
func findGraph(b []byte) (graph []byte, from string, err error) {
	top := members(b)
	if isUI(b, top) {
		return nil, "", uiError("")
	}
	graph, from = b, "api"
	for _, m := range top {
		value := b[m.value:m.end]
		if m.key == "prompt" && kindOf(value) == '{' && field(value, "class_type") == nil {
			graph, from, top = value, "prompt", members(value)
			break
		}
	}
	if isUI(graph, top) {
		return nil, "", uiError("under \"prompt\" ")
	}
	if len(top) == 0 {
		return nil, "", formatError("empty", "the workflow has no nodes", exportHint)
	}
	for _, m := range top {
		if value := graph[m.value:m.end]; field(value, "class_type") != nil || field(value, "inputs") != nil {
			return graph, from, nil
		}
	}
	return nil, "", formatError("json", "this is JSON, but no workflow: nothing in it has a class_type", exportHint)
}

// isUI reports whether an object is a workflow in UI format: a list of nodes
// beside what only that format has.
func isUI(b []byte, top []member) bool {
	nodes, other := false, false
	for _, m := range top {
		switch m.key {
		case "nodes":
			nodes = b[m.value] == '['
		case "links", "last_node_id", "version", "groups", "state":
			other = true
		}
	}
	return nodes && other
}

func uiError(where string) error {
	return formatError("ui", "this is a workflow in UI format "+where+"(what the web page saves), and a worker takes the API format",
		exportHint+"; converting it here comes with `easel workflows`")
}

// strip removes what a server adds to the nodes of a graph it keeps. A stale
// is_changed would stop it from seeing that a file changed (contract §5.7).
func strip(graph []byte) []byte {
	var out []byte
	copied := 0
	for _, node := range members(graph) {
		value := graph[node.value:node.end]
		if kindOf(value) != '{' || !bytes.Contains(value, []byte(`"is_changed"`)) && !bytes.Contains(value, []byte(`"_loop_`)) {
			continue
		}
		kept := value[:0:0]
		for _, m := range members(value) {
			if m.key == "is_changed" || strings.HasPrefix(m.key, "_loop_") {
				continue
			}
			if len(kept) > 0 {
				kept = append(kept, ',', ' ')
			}
			kept = append(kept, value[m.start:m.end]...)
		}
		out = append(append(out, graph[copied:node.value]...), '{')
		out = append(append(out, kept...), '}')
		copied = node.end
	}
	return append(out, graph[copied:]...)
}

// parseGraph takes a valid object of nodes apart.
func parseGraph(graph []byte) (Graph, error) {
	top := members(graph)
	if len(top) > maxNodes {
		return Graph{}, formatError("api", fmt.Sprintf("the workflow has %d nodes, and more than %d are not taken", len(top), maxNodes), "split it")
	}
	g := Graph{nodes: make([]Node, 0, len(top)), byID: make(map[string]int, len(top))}
	for _, m := range top {
		n, err := parseNode(graph, m)
		if err != nil {
			return Graph{}, err
		}
		if _, twice := g.byID[n.ID]; twice {
			return Graph{}, formatError("api", "node "+clip(n.ID, 60)+" stands there twice, and only the last would be run", "give one of them another id")
		}
		g.byID[n.ID] = len(g.nodes)
		g.nodes = append(g.nodes, n)
	}
	if len(g.nodes) == 0 {
		return Graph{}, formatError("empty", "the workflow has no nodes", exportHint)
	}
	return g, nil
}

func parseNode(graph []byte, m member) (Node, error) {
	n := Node{ID: m.key, noInputs: true}
	if strings.ContainsFunc(n.ID, unfit) {
		return n, formatError("api", "the id of node "+clip(n.ID, 60)+" has control characters in it", "give the node another id")
	}
	if kindOf(graph[m.value:]) != '{' {
		return n, formatError("api", "node "+clip(n.ID, 60)+" is no node: a node is an object with class_type and inputs", exportHint)
	}
	for _, f := range members(graph[m.value:m.end]) {
		raw := graph[m.value+f.value : m.value+f.end]
		switch f.key {
		case "class_type":
			n.Class = text(raw)
			if strings.ContainsFunc(n.Class, unfit) {
				return n, formatError("api", "the class of "+Node{ID: n.ID, Class: n.Class}.label()+" has control characters in it", "no node is named like that")
			}
		case "_meta":
			n.Title = plain(field(raw, "title"))
		case "inputs":
			n.noInputs = false
			if err := n.addInputs(graph, m.value+f.value, m.value+f.end); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// addInputs fills n.Inputs from the object graph[start:end].
func (n *Node) addInputs(graph []byte, start, end int) error {
	if graph[start] != '{' {
		return formatError("api", n.label()+": its inputs are no object", exportHint)
	}
	list := members(graph[start:end])
	if len(list) > maxInputs {
		return formatError("api", fmt.Sprintf("%s has %d inputs, and more than %d are not taken", n.label(), len(list), maxInputs), exportHint)
	}
	n.Inputs = make([]Input, 0, len(list))
	seen := make(map[string]bool, len(list))
	for _, in := range list {
		if seen[in.key] {
			return formatError("api", n.label()+": the input "+clip(in.key, 60)+" stands there twice", "keep one of them")
		}
		seen[in.key] = true
		value := graph[start+in.value : start+in.end]
		n.Inputs = append(n.Inputs, Input{
			Name: in.key, Value: json.RawMessage(value), Link: parseLink(value), start: start + in.value, end: start + in.end,
		})
	}
	return nil
}

// parseLink reads ["4", 0]; nil when the value is no such thing.
func parseLink(raw []byte) *Link {
	if kindOf(raw) != '[' {
		return nil
	}
	pair := items(raw)
	if len(pair) != 2 || kindOf(pair[0]) != 's' {
		return nil
	}
	var slot int
	if json.Unmarshal(pair[1], &slot) != nil {
		return nil
	}
	return &Link{Node: text(pair[0]), Slot: slot}
}

// plain is a value as a person would write it: texts without quotes, the rest
// without line breaks.
func plain(raw json.RawMessage) string {
	switch kindOf(raw) {
	case 's':
		return text(raw)
	case '[', '{':
		var b bytes.Buffer
		if json.Compact(&b, raw) == nil {
			return b.String()
		}
	}
	return string(raw)
}
