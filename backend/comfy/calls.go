package comfy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// SystemStats is the answer of /system_stats. Sizes are bytes.
type SystemStats struct {
	Version  string   // comfyui_version, "" when not told
	Python   string   // python_version
	PyTorch  string   // pytorch_version
	OS       string   // "posix" before 0.4.0, then sys.platform
	Argv     []string // the command line of the running server
	RAMTotal int64
	RAMFree  int64
	Devices  []Device
	Raw      json.RawMessage // the whole answer, sanitised
}

// Device is one device of SystemStats. Sizes are bytes. On the CPU the VRAM figures
// are those of the RAM.
type Device struct {
	Name           string `json:"name"`
	Type           string `json:"type"`  // cuda, cpu, mps …
	Index          *int   `json:"index"` // null on the CPU
	VRAMTotal      int64  `json:"vram_total"`
	VRAMFree       int64  `json:"vram_free"` // free for the driver, or cached by torch and unused
	TorchVRAMTotal int64  `json:"torch_vram_total"`
	TorchVRAMFree  int64  `json:"torch_vram_free"`
}

// SystemStats reads /system_stats. A 200 means that the server is ready. It touches
// the GPU, so it may fail with 500 when that is broken.
func (c *Client) SystemStats(ctx context.Context) (SystemStats, error) {
	b, err := c.do(ctx, call{op: "read the system stats", method: http.MethodGet, path: "/system_stats"}, nil)
	if err != nil {
		return SystemStats{}, err
	}
	b = Sanitize(b)
	var j struct {
		System struct {
			Version  string   `json:"comfyui_version"`
			Python   string   `json:"python_version"`
			PyTorch  string   `json:"pytorch_version"`
			OS       string   `json:"os"`
			Argv     []string `json:"argv"`
			RAMTotal int64    `json:"ram_total"`
			RAMFree  int64    `json:"ram_free"`
		} `json:"system"`
		Devices []Device `json:"devices"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return SystemStats{}, fmt.Errorf("read the system stats: %s does not answer like a ComfyUI: %w", c.base, err)
	}
	s := j.System
	c.version.Store(&s.Version)
	return SystemStats{
		Version: s.Version, Python: s.Python, PyTorch: s.PyTorch, OS: s.OS, Argv: s.Argv,
		RAMTotal: s.RAMTotal, RAMFree: s.RAMFree, Devices: j.Devices, Raw: b,
	}, nil
}

// Prompt reads /prompt: how many prompts run or wait inside ComfyUI.
func (c *Client) Prompt(ctx context.Context) (remaining int, err error) {
	var j queueInfo
	err = c.get(ctx, "read the length of ComfyUI's queue", "/prompt", &j)
	return j.Exec.Remaining, err
}

// Queue is what runs and what waits inside ComfyUI.
type Queue struct {
	Running []QueueItem
	Pending []QueueItem // in the order of execution
}

// QueueItem is one prompt in ComfyUI's queue.
type QueueItem struct {
	Number    json.Number // smaller runs sooner
	PromptID  string
	ClientID  string // who submitted it, "" when nobody said
	Prompt    json.RawMessage
	ExtraData json.RawMessage
	Outputs   []string // ids of the output nodes that will run
}

// Find reports whether the prompt runs or waits.
func (q Queue) Find(promptID string) (running, pending bool) {
	is := func(i QueueItem) bool { return i.PromptID == promptID }
	return slices.ContainsFunc(q.Running, is), slices.ContainsFunc(q.Pending, is)
}

// UnmarshalJSON reads [number, prompt_id, prompt, extra_data, [outputs], …].
func (i *QueueItem) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	if len(parts) < 2 {
		return fmt.Errorf("a queue item has %d parts, not 5", len(parts))
	}
	var number, id text
	if err := json.Unmarshal(parts[0], &number); err != nil {
		return err
	}
	if err := json.Unmarshal(parts[1], &id); err != nil {
		return err
	}
	*i = QueueItem{Number: json.Number(number), PromptID: string(id)}
	if len(parts) > 2 {
		i.Prompt = parts[2]
	}
	if len(parts) > 3 {
		i.ExtraData = parts[3]
		var extra struct {
			ClientID text `json:"client_id"`
		}
		if json.Unmarshal(parts[3], &extra) == nil {
			i.ClientID = string(extra.ClientID)
		}
	}
	if len(parts) > 4 {
		var outputs []text
		if json.Unmarshal(parts[4], &outputs) == nil {
			i.Outputs = texts(outputs)
		}
	}
	return nil
}

// Queue reads /queue, whole graphs included.
func (c *Client) Queue(ctx context.Context) (Queue, error) {
	var j struct {
		Running []QueueItem `json:"queue_running"`
		Pending []QueueItem `json:"queue_pending"`
	}
	if err := c.get(ctx, "read ComfyUI's queue", "/queue", &j); err != nil {
		return Queue{}, err
	}
	// The server sends its heap; it runs by number, then by the id's text.
	slices.SortStableFunc(j.Pending, func(a, b QueueItem) int {
		x, _ := a.Number.Float64()
		y, _ := b.Number.Float64()
		return cmp.Or(cmp.Compare(x, y), strings.Compare(a.PromptID, b.PromptID))
	})
	return Queue(j), nil
}

// DeletePending takes waiting prompts out of ComfyUI's queue. It succeeds for ids
// that do not wait too, and leaves a running prompt alone: read Queue afterwards.
// ComfyUI sends no message about it and writes no history.
func (c *Client) DeletePending(ctx context.Context, promptIDs ...string) error {
	if len(promptIDs) == 0 {
		return nil
	}
	return c.send(ctx, "take a prompt back from ComfyUI's queue", http.MethodPost, "/queue",
		map[string]any{"delete": promptIDs})
}

// ErrInterruptUnsupported says that the server is older than 0.3.57 and would
// interrupt whatever runs, not the prompt asked for.
var ErrInterruptUnsupported = errors.New("this ComfyUI (before 0.3.57) cannot interrupt one prompt by its id; let it finish, or restart the worker")

// Interrupt stops the prompt if it is the one that runs, between nodes or at a tick
// of a progress bar. It does nothing to any other prompt. Servers before 0.3.57
// get no request: ErrInterruptUnsupported.
func (c *Client) Interrupt(ctx context.Context, promptID string) error {
	if promptID == "" {
		return errors.New("interrupt: no prompt id given, and without one ComfyUI would stop whatever runs")
	}
	v := c.version.Load()
	if v == nil {
		s, err := c.SystemStats(ctx)
		if err != nil {
			return err
		}
		v = &s.Version
	}
	if olderThan(*v, 0, 3, 57) {
		return ErrInterruptUnsupported
	}
	return c.send(ctx, "interrupt a prompt", http.MethodPost, "/interrupt", map[string]string{"prompt_id": promptID})
}

// olderThan reports whether version, as "0.3.64" or "v0.3.64-3-gabc", is known
// and below the one given.
func olderThan(version string, want ...int) bool {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	for i, w := range want {
		if i >= len(parts) {
			return false
		}
		digits := parts[i]
		if cut := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); cut >= 0 {
			digits = digits[:cut]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return false
		}
		if n != w {
			return n < w
		}
	}
	return false
}

// Free asks ComfyUI to unload its models and, with memory set, to drop its caches of
// node results too. It acts when idle, or after the running prompt, but only after
// the next one when another waits.
func (c *Client) Free(ctx context.Context, unload, memory bool) error {
	return c.send(ctx, "free ComfyUI's memory", http.MethodPost, "/free",
		map[string]bool{"unload_models": unload, "free_memory": memory})
}

// ObjectInfo is the answer of /object_info: what every node class takes and gives.
type ObjectInfo struct {
	raw     json.RawMessage
	classes map[string]json.RawMessage
	names   []string
}

// NewObjectInfo reads an answer of /object_info, sanitising it. Only the names of the
// classes are parsed.
func NewObjectInfo(b []byte) (*ObjectInfo, error) {
	b = Sanitize(b)
	o := &ObjectInfo{raw: b}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("object_info is not a JSON object")
	}
	o.classes = map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("object_info: %w", err)
		}
		var info json.RawMessage
		if err := dec.Decode(&info); err != nil {
			return nil, fmt.Errorf("object_info of %v: %w", key, err)
		}
		name, _ := key.(string)
		if _, twice := o.classes[name]; !twice {
			o.names = append(o.names, name)
		}
		o.classes[name] = info
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("object_info is cut short: %w", err)
	}
	return o, nil
}

// Raw is the whole answer as valid JSON. It must not be changed.
func (o *ObjectInfo) Raw() json.RawMessage { return o.raw }

// Classes are the names in the server's order. The slice must not be changed.
func (o *ObjectInfo) Classes() []string { return o.names }

// Class is what the server says of one class, and whether it has it.
func (o *ObjectInfo) Class(name string) (json.RawMessage, bool) {
	info, ok := o.classes[name]
	return info, ok
}

// ObjectInfo reads /object_info, 1 to 20 MB. It stalls the server for up to
// seconds, so keep the answer as long as the process lives.
func (c *Client) ObjectInfo(ctx context.Context) (*ObjectInfo, error) {
	const op = "read the list of node classes"
	b, err := c.do(ctx, call{op: op, method: http.MethodGet, path: "/object_info"}, nil)
	if err != nil {
		return nil, err
	}
	o, err := NewObjectInfo(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return o, nil
}

// ObjectInfoClass reads what the server says of one class, and whether it has it.
func (c *Client) ObjectInfoClass(ctx context.Context, class string) (json.RawMessage, bool, error) {
	var j map[string]json.RawMessage
	if err := c.get(ctx, "read the node class "+class, "/object_info/"+url.PathEscape(class), &j); err != nil {
		return nil, false, err
	}
	info, ok := j[class]
	return info, ok, nil
}

// Features are what the server says it can do.
type Features struct {
	PreviewMetadata  bool            // previews may carry prompt and node
	ProgressTextMeta bool            // texts carry the id of their prompt
	MaxUpload        int64           // bytes of any request, 0 when not told
	Raw              json.RawMessage // the whole answer
}

// UnmarshalJSON reads the answer of /features and the data of the message
// feature_flags.
func (f *Features) UnmarshalJSON(b []byte) error {
	var j struct {
		Preview bool        `json:"supports_preview_metadata"`
		Text    bool        `json:"supports_progress_text_metadata"`
		Max     json.Number `json:"max_upload_size"`
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	size, _ := j.Max.Float64()
	*f = Features{PreviewMetadata: j.Preview, ProgressTextMeta: j.Text, MaxUpload: int64(size), Raw: bytes.Clone(b)}
	return nil
}

// Features reads /features (since 0.3.45; older servers answer 404, which is no
// error here: no features).
func (c *Client) Features(ctx context.Context) (Features, error) {
	var f Features
	err := c.get(ctx, "read ComfyUI's features", "/features", &f)
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound {
		return Features{}, nil
	}
	return f, err
}

// LogEntry is a piece of the server's own log: not always a line, it ends in "\n"
// when it is one.
type LogEntry struct {
	At   time.Time // the server's local clock, zero when it cannot be read
	Text string
}

// UnmarshalJSON reads {t, m}.
func (e *LogEntry) UnmarshalJSON(b []byte) error {
	var j struct{ T, M text }
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	at, err := time.ParseInLocation("2006-01-02T15:04:05.999999", string(j.T), time.Local)
	if err != nil {
		at = time.Time{}
	}
	*e = LogEntry{At: at, Text: string(j.M)}
	return nil
}

// Logs reads the last 300 entries of the server's log as one text.
func (c *Client) Logs(ctx context.Context) (string, error) {
	const op = "read ComfyUI's log"
	b, err := c.do(ctx, call{op: op, method: http.MethodGet, path: "/internal/logs"}, nil)
	if err != nil {
		return "", err
	}
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s, nil
	}
	return string(b), nil
}

// LogsRaw reads the last 300 entries of the server's log.
func (c *Client) LogsRaw(ctx context.Context) ([]LogEntry, error) {
	var j struct {
		Entries []LogEntry `json:"entries"`
	}
	err := c.get(ctx, "read ComfyUI's log", "/internal/logs/raw", &j)
	return j.Entries, err
}

// SubscribeLogs turns LogEntries messages for the socket of clientID on or off.
func (c *Client) SubscribeLogs(ctx context.Context, clientID string, enabled bool) error {
	return c.send(ctx, "subscribe to ComfyUI's log", http.MethodPatch, "/internal/logs/subscribe",
		map[string]any{"clientId": clientID, "enabled": enabled})
}
