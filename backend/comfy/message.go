package comfy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Message is one thing that ComfyUI said over the WebSocket. It is one of the
// types below; what is not known, or cannot be read, is Other.
type Message interface {
	// Kind is the type as ComfyUI names it, for instance "execution_start".
	Kind() string
}

// Guards: these are the messages.
var (
	_ Message = Status{}
	_ Message = ExecutionStart{}
	_ Message = ExecutionCached{}
	_ Message = Executing{}
	_ Message = Progress{}
	_ Message = ProgressState{}
	_ Message = Executed{}
	_ Message = ExecutionSuccess{}
	_ Message = ExecutionError{}
	_ Message = ExecutionInterrupted{}
	_ Message = PreviewImage{}
	_ Message = Text{}
	_ Message = LogEntries{}
	_ Message = FeatureFlags{}
	_ Message = Other{}
)

// Status tells every socket how many prompts run and wait.
type Status struct {
	Remaining int
	SID       string // the socket's client id, only in the first Status of a session
}

// ExecutionStart opens a prompt.
type ExecutionStart struct {
	PromptID string
	At       time.Time
}

// ExecutionCached names the nodes that will not run because their results are kept.
type ExecutionCached struct {
	PromptID string
	Nodes    []string
	At       time.Time
}

// Executing says which node runs. Node nil means that the prompt has ended and its
// history is written.
type Executing struct {
	PromptID string // "" in the one that is sent upon connecting
	Node     *string
	Display  string // the node to highlight: Node may be made by an expansion
}

// Progress is the progress of one node.
type Progress struct {
	PromptID   string
	Node       string
	Value, Max float64
}

// NodeProgress is the state of one node within ProgressState.
type NodeProgress struct {
	Node       string
	Display    string // the node to highlight
	Parent     string
	Real       string // the id that was submitted
	State      string // running, finished, error
	Value, Max float64
}

// ProgressState is the state of all nodes of a prompt that have begun (since 0.3.45).
type ProgressState struct {
	PromptID string
	Nodes    map[string]NodeProgress // by node id
}

// Executed is what a node shows: files, texts. Output is null for a cached node
// that shows nothing.
type Executed struct {
	PromptID string
	Node     string
	Display  string
	Output   json.RawMessage
}

// ExecutionSuccess says that all ran. The history is written about 1 ms later.
type ExecutionSuccess struct {
	PromptID string
	At       time.Time
}

// ExecutionError says that a node failed.
type ExecutionError struct {
	PromptID  string
	Node      string // the id that was submitted
	Class     string
	Message   string   // printable, may have several lines
	Type      string   // the exception, as "torch.OutOfMemoryError" or "ValueError"
	Traceback []string // holds paths: not for everybody's eyes
	Executed  []string
	Inputs    json.RawMessage // current_inputs: an object, or an empty list. Holds prompt texts
	At        time.Time       // zero in the variant that does not end the prompt
}

// Terminal reports whether the prompt ends with it. A blocked execution
// (ExecutionBlocked) is told as an error while the prompt goes on.
func (e ExecutionError) Terminal() bool { return e.Type != "ExecutionBlocked" || !e.At.IsZero() }

// OutOfMemory reports whether the GPU's memory was full.
func (e ExecutionError) OutOfMemory() bool {
	if strings.HasSuffix(e.Type, "OutOfMemoryError") {
		return true
	}
	m := strings.ToLower(e.Message)
	return strings.HasSuffix(e.Type, "AcceleratorError") && strings.Contains(m, "out of memory") ||
		strings.Contains(m, "cublas_status_alloc_failed") || strings.Contains(m, "cudnn_status_alloc_failed")
}

// HostOutOfMemory reports whether the machine's memory was full, and the process
// lived on.
func (e ExecutionError) HostOutOfMemory() bool {
	m := strings.ToLower(e.Message)
	return e.Type == "MemoryError" || strings.Contains(m, "defaultcpuallocator") ||
		strings.Contains(m, "not enough memory") || strings.Contains(m, "can't allocate memory")
}

// CUDAFault reports whether the GPU's context is broken, so that every later prompt
// fails too until the process is restarted.
func (e ExecutionError) CUDAFault() bool {
	return strings.Contains(e.Message, "CUDA error:") && !strings.Contains(strings.ToLower(e.Message), "out of memory")
}

// ExecutionInterrupted says that the prompt was stopped.
type ExecutionInterrupted struct {
	PromptID string
	Node     string
	Class    string
	Executed []string
	At       time.Time
}

// PreviewImage is a picture while a node works, or one of SaveImageWebsocket.
type PreviewImage struct {
	PromptID string // "" unless the server sends metadata
	Node     string // the id that was submitted; "" unless the server sends metadata
	Display  string
	MIME     string // image/jpeg or image/png
	Data     []byte
}

// Text is a progress text of a node. It goes to all sockets; PromptID is "" unless
// the server says that it can tell.
type Text struct {
	PromptID string
	Node     string
	Text     string // printable
}

// LogEntries are new pieces of the server's log, after SubscribeLogs.
type LogEntries struct{ Entries []LogEntry }

// FeatureFlags answers the client's own.
type FeatureFlags struct{ Features Features }

// Other is a message of a type that this package does not know, or that it could
// not read.
type Other struct {
	Type   string // "binary 7" for a binary one
	Raw    []byte // the data of a text message as JSON, or all of a binary message
	Binary bool
}

// Kind is "status".
func (Status) Kind() string { return "status" }

// Kind is "execution_start".
func (ExecutionStart) Kind() string { return "execution_start" }

// Kind is "execution_cached".
func (ExecutionCached) Kind() string { return "execution_cached" }

// Kind is "executing".
func (Executing) Kind() string { return "executing" }

// Kind is "progress".
func (Progress) Kind() string { return "progress" }

// Kind is "progress_state".
func (ProgressState) Kind() string { return "progress_state" }

// Kind is "executed".
func (Executed) Kind() string { return "executed" }

// Kind is "execution_success".
func (ExecutionSuccess) Kind() string { return "execution_success" }

// Kind is "execution_error".
func (ExecutionError) Kind() string { return "execution_error" }

// Kind is "execution_interrupted".
func (ExecutionInterrupted) Kind() string { return "execution_interrupted" }

// Kind is "preview": ComfyUI sends it as binary 1 or 4.
func (PreviewImage) Kind() string { return "preview" }

// Kind is "text": ComfyUI sends it as binary 3.
func (Text) Kind() string { return "text" }

// Kind is "logs".
func (LogEntries) Kind() string { return "logs" }

// Kind is "feature_flags".
func (FeatureFlags) Kind() string { return "feature_flags" }

// Kind is the unknown type.
func (o Other) Kind() string { return o.Type }

// ParseText reads a text message. It never fails: what it cannot read is Other. The
// result shares no memory with b.
func ParseText(b []byte) Message {
	var j struct {
		Type text            `json:"type"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(Sanitize(b), &j); err != nil {
		return Other{Type: "unreadable", Raw: bytes.Clone(b)}
	}
	m, err := parseData(string(j.Type), j.Data)
	if err != nil || m == nil {
		return Other{Type: Plain(string(j.Type), 100), Raw: j.Data}
	}
	return m
}

// parseData reads the data of a message; nil for a type that is not known.
func parseData(kind string, data json.RawMessage) (Message, error) {
	if !isNull(data) && bytes.TrimSpace(data)[0] != '{' {
		return nil, errors.New("the data is not an object")
	}
	var d messageData
	switch kind {
	case "status", "execution_start", "execution_cached", "executing", "progress", "executed",
		"execution_success", "execution_interrupted":
		if err := json.Unmarshal(data, &d); err != nil {
			return nil, err
		}
	}
	switch kind {
	case "status":
		return Status{Remaining: d.Status.Exec.Remaining, SID: string(d.SID)}, nil
	case "execution_start":
		return ExecutionStart{PromptID: string(d.PromptID), At: millis(d.At)}, nil
	case "execution_cached":
		return ExecutionCached{PromptID: string(d.PromptID), Nodes: texts(d.Nodes), At: millis(d.At)}, nil
	case "executing":
		m := Executing{PromptID: string(d.PromptID), Display: string(d.Display)}
		if d.Node != nil {
			node := string(*d.Node)
			m.Node = &node
			if m.Display == "" {
				m.Display = node
			}
		}
		return m, nil
	case "progress":
		return Progress{PromptID: string(d.PromptID), Node: d.node(), Value: d.Value, Max: d.Max}, nil
	case "progress_state":
		return parseProgressState(data)
	case "executed":
		return Executed{PromptID: string(d.PromptID), Node: d.node(), Display: string(d.Display), Output: d.Output}, nil
	case "execution_success":
		return ExecutionSuccess{PromptID: string(d.PromptID), At: millis(d.At)}, nil
	case "execution_error":
		return parseExecutionError(data)
	case "execution_interrupted":
		return ExecutionInterrupted{
			PromptID: string(d.PromptID), Node: string(d.NodeID), Class: string(d.NodeType),
			Executed: texts(d.Executed), At: millis(d.At),
		}, nil
	case "logs":
		var j struct {
			Entries []LogEntry `json:"entries"`
		}
		err := json.Unmarshal(data, &j)
		return LogEntries{Entries: j.Entries}, err
	case "feature_flags":
		var f Features
		err := json.Unmarshal(data, &f)
		return FeatureFlags{Features: f}, err
	}
	return nil, nil
}

// queueInfo is in GET /prompt and in status messages.
type queueInfo struct {
	Exec struct {
		Remaining int `json:"queue_remaining"`
	} `json:"exec_info"`
}

// messageData holds the fields that the simple messages share.
type messageData struct {
	PromptID text            `json:"prompt_id"`
	Node     *text           `json:"node"`
	Display  text            `json:"display_node"`
	NodeID   text            `json:"node_id"`
	NodeType text            `json:"node_type"`
	Nodes    []text          `json:"nodes"`
	Executed []text          `json:"executed"`
	Output   json.RawMessage `json:"output"`
	Value    float64         `json:"value"`
	Max      float64         `json:"max"`
	At       json.Number     `json:"timestamp"`
	SID      text            `json:"sid"`
	Status   queueInfo       `json:"status"`
}

func (d messageData) node() string {
	if d.Node == nil {
		return ""
	}
	return string(*d.Node)
}

func parseProgressState(data json.RawMessage) (Message, error) {
	var j struct {
		PromptID text `json:"prompt_id"`
		Nodes    map[string]struct {
			Display text    `json:"display_node_id"`
			Parent  text    `json:"parent_node_id"`
			Real    text    `json:"real_node_id"`
			State   text    `json:"state"`
			Value   float64 `json:"value"`
			Max     float64 `json:"max"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, err
	}
	m := ProgressState{PromptID: string(j.PromptID), Nodes: make(map[string]NodeProgress, len(j.Nodes))}
	for id, n := range j.Nodes {
		p := NodeProgress{
			Node: id, Display: string(n.Display), Parent: string(n.Parent), Real: string(n.Real),
			State: string(n.State), Value: n.Value, Max: n.Max,
		}
		if p.Display == "" {
			p.Display = id
		}
		if p.Real == "" {
			p.Real = id
		}
		m.Nodes[id] = p
	}
	return m, nil
}

func parseExecutionError(data json.RawMessage) (ExecutionError, error) {
	var j struct {
		PromptID  text            `json:"prompt_id"`
		Node      text            `json:"node_id"`
		Class     text            `json:"node_type"`
		Message   text            `json:"exception_message"`
		Type      text            `json:"exception_type"`
		Traceback json.RawMessage `json:"traceback"`
		Executed  []text          `json:"executed"`
		Inputs    json.RawMessage `json:"current_inputs"`
		At        json.Number     `json:"timestamp"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return ExecutionError{}, err
	}
	e := ExecutionError{
		PromptID: string(j.PromptID), Node: string(j.Node), Class: string(j.Class),
		Message: strings.TrimSpace(printable(string(j.Message))), Type: Plain(string(j.Type), 200),
		Executed: texts(j.Executed), Inputs: j.Inputs, At: millis(j.At),
	}
	var lines []text
	if json.Unmarshal(j.Traceback, &lines) == nil {
		e.Traceback = texts(lines)
	}
	return e, nil
}

// Binary event numbers that are understood.
const (
	binaryPreview     = 1
	binaryText        = 3
	binaryPreviewMeta = 4
)

var errShort = errors.New("binary message too short")

// ParseBinary reads a binary message: textMeta says that the server announced that
// texts carry the id of their prompt. It never fails: what it cannot read is Other.
// The result shares no memory with b.
func ParseBinary(b []byte, textMeta bool) Message {
	kind := "binary"
	if len(b) >= 4 {
		event := binary.BigEndian.Uint32(b)
		kind = fmt.Sprintf("binary %d", event)
		var m Message
		var err error
		switch event {
		case binaryPreview:
			m, err = parsePreview(b[4:])
		case binaryText:
			m, err = parseBinaryText(b[4:], textMeta)
		case binaryPreviewMeta:
			m, err = parsePreviewMeta(b[4:])
		}
		if m != nil && err == nil {
			return m
		}
	}
	return Other{Type: kind, Raw: bytes.Clone(b), Binary: true}
}

func parsePreview(b []byte) (Message, error) {
	if len(b) < 4 {
		return nil, errShort
	}
	data := bytes.Clone(b[4:])
	return PreviewImage{MIME: imageType("", data), Data: data}, nil
}

func parsePreviewMeta(b []byte) (Message, error) {
	head, data, err := counted(b)
	if err != nil {
		return nil, err
	}
	var j struct {
		PromptID text `json:"prompt_id"`
		Node     text `json:"node_id"`
		Display  text `json:"display_node_id"`
		Real     text `json:"real_node_id"`
		MIME     text `json:"image_type"`
	}
	if err := json.Unmarshal(Sanitize(head), &j); err != nil {
		return nil, err
	}
	m := PreviewImage{
		PromptID: string(j.PromptID), Node: string(j.Real), Display: string(j.Display),
		MIME: imageType(string(j.MIME), data), Data: bytes.Clone(data),
	}
	if m.Node == "" {
		m.Node = string(j.Node)
	}
	return m, nil
}

// imageType is what the bytes are, or else what was said, or else JPEG.
func imageType(said string, data []byte) string {
	if t := http.DetectContentType(data); strings.HasPrefix(t, "image/") {
		return t
	}
	if strings.HasPrefix(said, "image/") {
		return Plain(said, 60)
	}
	return "image/jpeg"
}

func parseBinaryText(b []byte, meta bool) (Message, error) {
	var m Text
	if meta {
		id, rest, err := counted(b)
		if err != nil {
			return nil, err
		}
		m.PromptID, b = Plain(string(id), 100), rest
	}
	node, rest, err := counted(b)
	if err != nil {
		return nil, err
	}
	m.Node, m.Text = Plain(string(node), 200), printable(string(rest))
	return m, nil
}

// counted splits b, which begins with a length and as many bytes.
func counted(b []byte) (head, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errShort
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, errShort
	}
	return b[:n], b[n:], nil
}
