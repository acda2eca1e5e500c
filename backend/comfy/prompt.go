package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"easel/backend"

	"github.com/google/uuid"
)

// PromptRequest is a prompt to run.
type PromptRequest struct {
	// Graph is the workflow in API format, a JSON object. It is sent as it is, so
	// that numbers stay exact.
	Graph json.RawMessage
	// PromptID is a UUIDv4 in lower case; "" makes a new one. Never use one twice: the
	// server does not check, and the later prompt overwrites the history of the first.
	PromptID string
	// ClientID is the id of the socket that gets the messages. It must not be empty:
	// without one nobody is told, and outputs of cached nodes are missing.
	ClientID string
	// Workflow is the graph as the page saves it; it is written into the files. May
	// be empty.
	Workflow json.RawMessage
	// Extra holds more of extra_data. Values that are null are left out, because the
	// server cannot bear them.
	Extra map[string]json.RawMessage
	// Front puts the prompt before all that wait.
	Front bool
	// Targets are ids of output nodes; only those run (since 0.3.48). Empty: all.
	Targets []string
}

// PromptResponse is the answer to a prompt that was accepted.
type PromptResponse struct {
	PromptID string // servers before 0.3.45 choose their own
	Number   json.Number
	// Warnings are faults of output nodes that will not run, while others do.
	Warnings []NodeError
}

// NodeError is one fault that the server found in a node.
type NodeError struct {
	Node    string // its id
	Class   string
	Type    string // required_input_missing, value_not_in_list, … (open set)
	Message string // ComfyUI's words, printable
	Details string // ComfyUI's words, printable
	Input   string // name of the input, "" when the fault is not in one
	// Value is what was received, as JSON; "" when not told.
	Value      string
	Dependents []string        // output nodes that do not run because of it
	Extra      json.RawMessage // extra_info; may hold paths and a traceback
}

// PromptError is a refusal of a prompt because of what is in it.
type PromptError struct {
	Status  int
	Type    string // no_prompt, invalid_prompt, prompt_outputs_failed_validation, … (open set)
	Message string
	Details string
	Node    string // id of the node that the top error names, often ""
	Nodes   []NodeError
}

// Error is a sentence for people, without tracebacks.
func (e *PromptError) Error() string {
	if len(e.Nodes) == 0 {
		return "ComfyUI refused the workflow: " + e.top()
	}
	words := "ComfyUI refused the workflow: " + e.Nodes[0].String()
	if n := len(e.Nodes) - 1; n > 0 {
		words += fmt.Sprintf(" (and %d more)", n)
	}
	return words
}

// top says in words what the top error means.
func (e *PromptError) top() string {
	switch {
	case e.Type == "prompt_no_outputs":
		return "it has no output node, such as SaveImage or PreviewImage"
	case e.Type == "prompt_outputs_failed_validation" && e.Details == "":
		return "an output depends on itself (a cycle), or an input cannot be checked; look for a loop of links"
	case e.Node != "":
		return fmt.Sprintf("node %s: %s", e.Node, strings.TrimPrefix(strings.TrimSuffix(e.Message, "."), "Cannot execute because "))
	case e.Details != "" && e.Details != e.Message:
		return e.Message + ": " + e.Details
	}
	return e.Message
}

// String is a sentence for people: the node, the input and what is wrong.
func (n NodeError) String() string {
	words := "node " + n.Node
	if n.Class != "" {
		words += " (" + n.Class + ")"
	}
	if n.Input != "" && n.Type != "required_input_missing" {
		words += " " + n.Input
	}
	return words + ": " + n.what()
}

// what says what is wrong, without node and input.
func (n NodeError) what() string {
	details := strings.TrimLeft(strings.TrimPrefix(n.Details, n.Input), ":, -")
	switch n.Type {
	case "required_input_missing":
		return fmt.Sprintf("the input %s is missing", n.Input)
	case "value_not_in_list":
		if value, list, ok := strings.Cut(details, " not in "); ok {
			if list == "[]" {
				return value + " is not there: the list is empty (are the files in ComfyUI's folders?)"
			}
			return value + " is not one of " + list
		}
	case "value_smaller_than_min", "value_bigger_than_max":
		return strings.ToLower(n.Message[:min(1, len(n.Message))]) + n.Message[min(1, len(n.Message)):]
	case "bad_linked_input":
		return "a link must be [node id, output number], not " + n.Value
	case "return_type_mismatch":
		return "the linked output has another type: " + details
	case "invalid_input_type":
		return details
	case "custom_validation_failed":
		return details
	case "exception_during_validation", "exception_during_inner_validation":
		return n.exception(details)
	}
	if details == "" {
		return n.Message
	}
	return n.Message + ": " + details
}

// exception puts words to what the server's check tripped over.
func (n NodeError) exception(details string) string {
	var extra struct {
		Type string `json:"exception_type"`
	}
	_ = json.Unmarshal(n.Extra, &extra)
	switch {
	case extra.Type == "KeyError" && details == "'inputs'":
		return "a node linked to it has no inputs"
	case extra.Type == "KeyError":
		return "it links to node " + strings.Trim(details, "'") + ", which is not in the workflow (ids are texts, not numbers)"
	case extra.Type == "IndexError":
		return "it links to an output number that the other node does not have"
	case strings.Contains(details, "indices must be integers"):
		return "the output number of a link must be a number, not a text"
	}
	return "ComfyUI could not check it: " + strings.TrimSpace(extra.Type+" "+details)
}

// Problems are the faults as findings of severity error.
func (e *PromptError) Problems() []backend.Problem {
	if len(e.Nodes) > 0 {
		return Problems("error", e.Nodes)
	}
	return []backend.Problem{{
		Severity: "error", Kind: strings.ReplaceAll(e.Type, "_", "-"), Node: e.Node,
		Message: e.top(), Candidates: []string{},
	}}
}

// Problems turns faults into findings of the given severity, for instance "warning"
// for those of a prompt that was accepted.
func Problems(severity string, faults []NodeError) []backend.Problem {
	out := make([]backend.Problem, 0, len(faults))
	for _, n := range faults {
		out = append(out, backend.Problem{
			Severity: severity, Kind: strings.ReplaceAll(n.Type, "_", "-"), Node: n.Node, Class: n.Class,
			Input: n.Input, Value: Plain(n.Value, 200), Message: n.what(), Candidates: []string{},
		})
	}
	return out
}

// Post submits a prompt. A refusal because of the workflow is a *PromptError. After
// an error for which Unreachable is true and NotSent is not, the prompt may have
// been accepted: look in Queue, then in History.
func (c *Client) Post(ctx context.Context, r PromptRequest) (PromptResponse, error) {
	if r.PromptID == "" {
		r.PromptID = uuid.NewString()
	}
	body, err := r.body()
	if err != nil {
		return PromptResponse{}, fmt.Errorf("submit the workflow: %w", err)
	}
	const op = "submit the workflow"
	b, err := c.do(ctx, call{op: op, method: http.MethodPost, path: "/prompt", body: body}, parsePromptError)
	if err != nil {
		return PromptResponse{}, err
	}
	var j struct {
		PromptID text            `json:"prompt_id"`
		Number   text            `json:"number"`
		Errors   json.RawMessage `json:"node_errors"`
	}
	if err := json.Unmarshal(Sanitize(b), &j); err != nil {
		return PromptResponse{}, fmt.Errorf("%s: ComfyUI's answer is not what was expected: %w", op, err)
	}
	if j.PromptID == "" {
		j.PromptID = text(r.PromptID)
	}
	return PromptResponse{PromptID: string(j.PromptID), Number: json.Number(j.Number), Warnings: parseNodeErrors(j.Errors)}, nil
}

// body is the request's JSON, the graph's bytes untouched.
func (r PromptRequest) body() ([]byte, error) {
	if id, err := uuid.Parse(r.PromptID); err != nil || id.String() != r.PromptID {
		return nil, fmt.Errorf("prompt id %.60q is not a UUID in lower case", r.PromptID)
	}
	if r.ClientID == "" {
		return nil, errors.New("no client id given, so nobody would hear of the prompt")
	}
	graph := bytes.TrimSpace(r.Graph)
	if len(graph) == 0 || graph[0] != '{' || !json.Valid(graph) {
		return nil, errors.New("the workflow is not a JSON object")
	}
	extra, err := r.extra()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(graph) + len(extra) + 256)
	b.WriteString(`{"client_id":`)
	b.Write(quote(r.ClientID))
	b.WriteString(`,"prompt_id":`)
	b.Write(quote(r.PromptID))
	if r.Front {
		b.WriteString(`,"front":true`)
	}
	if len(r.Targets) > 0 {
		targets, err := json.Marshal(r.Targets)
		if err != nil {
			return nil, err
		}
		b.WriteString(`,"partial_execution_targets":`)
		b.Write(targets)
	}
	b.WriteString(`,"extra_data":`)
	b.Write(extra)
	b.WriteString(`,"prompt":`)
	b.Write(graph)
	b.WriteByte('}')
	return b.Bytes(), nil
}

// extra is extra_data: an object, never null, and nothing in it that is null.
func (r PromptRequest) extra() ([]byte, error) {
	all := maps.Clone(r.Extra)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	info := map[string]json.RawMessage{}
	if raw := all["extra_pnginfo"]; !isNull(raw) {
		if err := json.Unmarshal(raw, &info); err != nil {
			return nil, errors.New("extra_pnginfo is not a JSON object")
		}
	}
	if !isNull(r.Workflow) {
		info["workflow"] = r.Workflow
	}
	delete(all, "extra_pnginfo")
	info = withoutNulls(info)
	if len(info) > 0 {
		raw, err := joined(info)
		if err != nil {
			return nil, err
		}
		all["extra_pnginfo"] = raw
	}
	return joined(withoutNulls(all))
}

func withoutNulls(m map[string]json.RawMessage) map[string]json.RawMessage {
	maps.DeleteFunc(m, func(_ string, raw json.RawMessage) bool { return isNull(raw) })
	return m
}

// joined is the object of m, keys sorted, the values' bytes untouched.
func joined(m map[string]json.RawMessage) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if !json.Valid(m[key]) {
			return nil, fmt.Errorf("%s in extra_data is not JSON", key)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(quote(key))
		b.WriteByte(':')
		b.Write(m[key])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// quote is s as JSON; a string can always be one.
func quote(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}

var nodeInDetails = regexp.MustCompile(`^Node ID '#(.+)'$`)

// parsePromptError makes a *PromptError of a body {error, node_errors}; nil when it
// is not one.
func parsePromptError(status int, body []byte) error {
	var j struct {
		Error *struct {
			Type    text            `json:"type"`
			Message text            `json:"message"`
			Details json.RawMessage `json:"details"`
			Extra   struct {
				Node text `json:"node_id"`
			} `json:"extra_info"`
		} `json:"error"`
		Errors json.RawMessage `json:"node_errors"`
	}
	if json.Unmarshal(Sanitize(body), &j) != nil || j.Error == nil || j.Error.Message == "" && j.Error.Type == "" {
		return nil
	}
	e := &PromptError{
		Status:  status,
		Type:    Plain(string(j.Error.Type), 100),
		Message: Plain(string(j.Error.Message), 500),
		Details: rawText(j.Error.Details, 2000),
		Node:    Plain(string(j.Error.Extra.Node), 100),
		Nodes:   parseNodeErrors(j.Errors),
	}
	if m := nodeInDetails.FindStringSubmatch(e.Details); m != nil && e.Node == "" {
		e.Node = m[1]
	}
	return e
}

// rawText is a JSON string's text, or the JSON itself, on one line.
func rawText(raw json.RawMessage, limit int) string {
	var s string
	if isNull(raw) {
		return ""
	}
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	return Plain(s, limit)
}

// parseNodeErrors reads node_errors, sorted by node; one and the same fault is told
// once (custom_validation_failed comes once per input of the node).
func parseNodeErrors(raw json.RawMessage) []NodeError {
	var j map[string]struct {
		Errors []struct {
			Type    text            `json:"type"`
			Message text            `json:"message"`
			Details json.RawMessage `json:"details"`
			Extra   json.RawMessage `json:"extra_info"`
		} `json:"errors"`
		Dependents []text `json:"dependent_outputs"`
		Class      text   `json:"class_type"`
	}
	if json.Unmarshal(raw, &j) != nil {
		return nil
	}
	var out []NodeError
	for _, id := range slices.SortedFunc(maps.Keys(j), CompareNodes) {
		seen := map[string]bool{}
		for _, e := range j[id].Errors {
			var extra struct {
				Input text            `json:"input_name"`
				Value json.RawMessage `json:"received_value"`
			}
			_ = json.Unmarshal(e.Extra, &extra)
			n := NodeError{
				Node: Plain(id, 100), Class: Plain(string(j[id].Class), 200), Type: Plain(string(e.Type), 100),
				Message: Plain(string(e.Message), 500), Details: rawText(e.Details, 2000),
				Input: Plain(string(extra.Input), 200), Value: string(extra.Value),
				Dependents: texts(j[id].Dependents), Extra: e.Extra,
			}
			key := n.Type + "\x00" + n.Input + "\x00" + n.Details
			if n.Type == "custom_validation_failed" {
				n.Input, n.Details = customFault(n.Input, n.Details)
				key = n.Type + "\x00" + n.Details
			}
			if !seen[key] {
				seen[key] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// customFault splits "input - reason" of a node's own check.
func customFault(input, details string) (string, string) {
	if name, reason, ok := strings.Cut(details, " - "); ok && (input == "" || name == input) {
		return name, reason
	}
	return input, details
}

// CompareNodes orders node ids as people count: 9 before 10, "10:2" before "10:11".
func CompareNodes(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na >= 0 && nb >= 0 {
			if na != nb {
				return compareInts(na, nb)
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return compareInts(int(a[0]), int(b[0]))
		}
		a, b = a[1:], b[1:]
	}
	return compareInts(len(a), len(b))
}

func compareInts(a, b int) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// leadingNumber is the number that s begins with and the rest, or -1.
func leadingNumber(s string) (int, string) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return -1, s
	}
	return n, s[end:]
}
