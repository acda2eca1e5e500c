package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// HistoryEntry is what ComfyUI remembers of a prompt that ended. It is kept in the
// server's memory only.
type HistoryEntry struct {
	PromptID  string
	Number    json.Number
	Prompt    json.RawMessage // the graph
	ExtraData json.RawMessage
	Targets   []string        // ids of the output nodes that were to run
	Outputs   json.RawMessage // by node id; read it with Files. Never empty: "{}"
	Meta      json.RawMessage
	Status    string // status_str: success or error. May be wrong: see Success
	Messages  []HistoryMessage

	// Success is decided by the messages: an execution_success and neither an
	// error nor an interruption. The status text alone is wrong for a cycle found at
	// run time.
	Success     bool
	Interrupted bool
	Error       *ExecutionError // why it failed, nil when it did not or nothing is told
	Started     time.Time       // of execution_start, zero when not told
	Ended       time.Time       // of the last message with a time, zero when not told
}

// HistoryMessage is one message that was kept with the history.
type HistoryMessage struct {
	Type string
	Data json.RawMessage
}

// UnmarshalJSON reads [type, data].
func (m *HistoryMessage) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil || len(parts) == 0 {
		return fmt.Errorf("a message of the history is not a pair: %.60s", b)
	}
	var name text
	if err := json.Unmarshal(parts[0], &name); err != nil {
		return err
	}
	*m = HistoryMessage{Type: string(name)}
	if len(parts) > 1 {
		m.Data = parts[1]
	}
	return nil
}

// History reads the entry of one prompt; found is false when it has not ended or is
// not known. It is written about 1 ms after execution_success is sent: ask
// after the Executing message without a node, or again.
func (c *Client) History(ctx context.Context, promptID string) (entry HistoryEntry, found bool, err error) {
	const op = "read the history of a prompt"
	if promptID == "" {
		return entry, false, fmt.Errorf("%s: no prompt id given", op)
	}
	var j map[string]json.RawMessage
	if err := c.get(ctx, op, "/history/"+url.PathEscape(promptID), &j); err != nil {
		return entry, false, err
	}
	raw, ok := j[promptID]
	if !ok {
		return entry, false, nil
	}
	entry, err = parseHistory(promptID, raw)
	if err != nil {
		return entry, false, fmt.Errorf("%s: %w", op, err)
	}
	return entry, true, nil
}

// Recent reads the last n entries, oldest first. Entries hold whole graphs, so keep n
// small.
func (c *Client) Recent(ctx context.Context, n int) ([]HistoryEntry, error) {
	const op = "read the history"
	b, err := c.do(ctx, call{op: op, method: http.MethodGet, path: "/history?max_items=" + strconv.Itoa(max(n, 1))}, nil)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(Sanitize(b)))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%s: ComfyUI's answer is not an object", op)
	}
	var out []HistoryEntry
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		id, _ := key.(string)
		entry, err := parseHistory(id, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		out = append(out, entry)
	}
	return out, nil
}

// DeleteHistory makes ComfyUI forget prompts that ended.
func (c *Client) DeleteHistory(ctx context.Context, promptIDs ...string) error {
	if len(promptIDs) == 0 {
		return nil
	}
	return c.send(ctx, "delete from ComfyUI's history", http.MethodPost, "/history", map[string]any{"delete": promptIDs})
}

// parseHistory reads one sanitised entry.
func parseHistory(id string, raw json.RawMessage) (HistoryEntry, error) {
	var j struct {
		Prompt  *QueueItem      `json:"prompt"`
		Outputs json.RawMessage `json:"outputs"`
		Meta    json.RawMessage `json:"meta"`
		Status  *struct {
			Text     text             `json:"status_str"`
			Messages []HistoryMessage `json:"messages"`
		} `json:"status"`
	}
	if err := json.Unmarshal(raw, &j); err != nil {
		return HistoryEntry{}, fmt.Errorf("entry %s: %w", Plain(id, 60), err)
	}
	e := HistoryEntry{PromptID: id, Outputs: j.Outputs, Meta: j.Meta}
	if isNull(e.Outputs) {
		e.Outputs = json.RawMessage("{}")
	}
	if p := j.Prompt; p != nil {
		e.Number, e.Prompt, e.ExtraData, e.Targets = p.Number, p.Prompt, p.ExtraData, p.Outputs
	}
	if j.Status != nil {
		e.Status, e.Messages = string(j.Status.Text), j.Status.Messages
	}
	e.judge()
	return e, nil
}

// judge reads from the messages how the prompt ended.
func (e *HistoryEntry) judge() {
	var succeeded, told bool
	for _, m := range e.Messages {
		at := timestamp(m.Data)
		if !at.IsZero() {
			e.Ended = at
		}
		switch m.Type {
		case "execution_start":
			e.Started = at
		case "execution_success":
			succeeded, told = true, true
		case "execution_interrupted":
			e.Interrupted, told = true, true
		case "execution_error":
			x, err := parseExecutionError(m.Data)
			if err != nil {
				x = ExecutionError{PromptID: e.PromptID, Message: "an error that cannot be read"}
			}
			if x.Terminal() {
				e.Error, told = &x, true
			}
		}
	}
	if !told { // an old or foreign server: its word is all there is
		succeeded = e.Status == "success"
	}
	e.Success = succeeded && !e.Interrupted && e.Error == nil
}

func timestamp(data json.RawMessage) time.Time {
	var j struct {
		At json.Number `json:"timestamp"`
	}
	if json.Unmarshal(data, &j) != nil {
		return time.Time{}
	}
	return millis(j.At)
}
