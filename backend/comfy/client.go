package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits and waits. ComfyUI's event loop stalls for seconds while a model loads
// or /object_info is computed, hence the long timeout.
const (
	defaultTimeout = 60 * time.Second
	dialTimeout    = 10 * time.Second
	maxBody        = 256 << 20 // bytes of a JSON answer; object_info reaches 20 MB
	maxErrorBody   = 1 << 20   // bytes of an answer that tells an error
)

// Client speaks to one ComfyUI server. Make it with New, end it with Close.
type Client struct {
	base    string // without trailing slash
	http    *http.Client
	trans   *http.Transport
	timeout time.Duration
	log     *slog.Logger

	settle     time.Duration // between two sockets of one client id
	backoffMin time.Duration
	backoffMax time.Duration

	lastMessage atomic.Int64           // Unix nanoseconds of the last WebSocket message
	version     atomic.Pointer[string] // comfyui_version of the last SystemStats

	// mu guards the fields that follow.
	mu       sync.Mutex
	sessions map[string]*session // by client id
}

// Option changes a Client.
type Option func(*Client)

// WithTimeout sets how long a call may take when its context has no earlier
// deadline (default 60 s). For View and Upload it is how long nothing may move.
// Less than 30 s mistakes a ComfyUI that loads a model for a dead one: only a quick
// probe wants that.
func WithTimeout(d time.Duration) Option { return func(c *Client) { c.timeout = d } }

// WithLogger sets where ListenForever tells of lost and new sockets. The default
// is nowhere.
func WithLogger(l *slog.Logger) Option { return func(c *Client) { c.log = l } }

// WithReconnect sets the waits of the sockets: settle passes between the end of one
// and the next with the same client id (default 1 s; the server would deafen the
// new one if the old one ended after it), backoff grows from first to last while
// nothing answers (default 100 ms to 5 s).
func WithReconnect(settle, first, last time.Duration) Option {
	return func(c *Client) { c.settle, c.backoffMin, c.backoffMax = settle, first, last }
}

// New makes a Client for the server at baseURL, as "http://127.0.0.1:8188". It
// opens no connection. Proxies of the environment are used, except for loopback.
func New(baseURL string, opts ...Option) *Client {
	trans := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 4,
		// aiohttp closes idle connections after 75 s (15 s in some versions): being
		// first spares a POST the broken connection.
		IdleConnTimeout: 10 * time.Second,
	}
	c := &Client{
		base:       strings.TrimRight(baseURL, "/"),
		trans:      trans,
		timeout:    defaultTimeout,
		log:        slog.New(slog.DiscardHandler),
		settle:     time.Second,
		backoffMin: 100 * time.Millisecond,
		backoffMax: 5 * time.Second,
		sessions:   map[string]*session{},
	}
	c.http = &http.Client{Transport: trans, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	for _, o := range opts {
		o(c)
	}
	return c
}

// URL is the server's base URL, without a trailing slash.
func (c *Client) URL() string { return c.base }

// Close drops idle connections. Calls in progress are not ended: cancel their
// contexts.
func (c *Client) Close() { c.trans.CloseIdleConnections() }

// call is one exchange.
type call struct {
	op     string // for errors, as "read the queue"
	method string
	path   string // with its query
	body   []byte // JSON, or nil
	limit  int64  // of the answer, 0: maxBody
}

// do carries out a call and returns the body of a 200, not yet sanitised.
// Another status is a *StatusError; refuse, when not nil, may make a better error of
// it.
func (c *Client) do(ctx context.Context, k call, refuse func(status int, body []byte) error) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var body io.Reader
	if k.body != nil {
		body = bytes.NewReader(k.body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, c.base+k.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.op, err)
	}
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.connectError(ctx, k.op, err)
	}
	defer func() { _ = resp.Body.Close() }()
	limit := k.limit
	if limit == 0 {
		limit = maxBody
	}
	if resp.StatusCode != http.StatusOK {
		limit = maxErrorBody
	}
	b, err := readBody(resp, limit)
	if err != nil {
		if resp.StatusCode == http.StatusOK && errors.Is(err, errTooBig) {
			return nil, fmt.Errorf("%s: ComfyUI's answer is over %d MiB", k.op, limit>>20)
		}
		if !errors.Is(err, errTooBig) {
			return nil, c.connectError(ctx, k.op, err)
		}
	}
	if resp.StatusCode == http.StatusOK {
		return b, nil
	}
	if refuse != nil {
		if err := refuse(resp.StatusCode, b); err != nil {
			return nil, err
		}
	}
	return nil, statusError(k.op, resp.StatusCode, b)
}

var errTooBig = errors.New("answer too big")

// readBody reads at most limit bytes; what was read comes back with errTooBig too.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return buf.Bytes()[:limit], errTooBig
	}
	return buf.Bytes(), nil
}

func statusError(op string, status int, body []byte) error {
	text := string(body[:min(len(body), 2000)])
	var j struct {
		Error any `json:"error"`
	}
	if json.Unmarshal(body, &j) == nil {
		switch e := j.Error.(type) {
		case string:
			text = e
		case map[string]any:
			if m, ok := e["message"].(string); ok {
				text = m
			}
		}
	}
	return &StatusError{Op: op, Status: status, Text: Plain(text, 300)}
}

// connectError wraps err of a call that got no whole answer. The caller's own
// cancellation is passed on as it is.
func (c *Client) connectError(ctx context.Context, op string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: %w", op, context.Canceled)
	}
	return &ConnectError{Op: op, URL: c.base, Sent: !dialFailed(err), Err: err}
}

// get reads path and decodes the sanitised answer into v.
func (c *Client) get(ctx context.Context, op, path string, v any) error {
	b, err := c.do(ctx, call{op: op, method: http.MethodGet, path: path}, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(Sanitize(b), v); err != nil {
		return fmt.Errorf("%s: ComfyUI's answer is not what was expected: %w", op, err)
	}
	return nil
}

// send posts v as JSON and ignores the answer's body.
func (c *Client) send(ctx context.Context, op, method, path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	_, err = c.do(ctx, call{op: op, method: method, path: path, body: b}, nil)
	return err
}

// text decodes a JSON string, number or null into a string: node ids are text,
// but old servers and custom nodes send numbers.
type text string

// UnmarshalJSON accepts any scalar.
func (t *text) UnmarshalJSON(b []byte) error {
	switch {
	case bytes.Equal(b, []byte("null")):
		*t = ""
	case len(b) > 0 && b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = text(s)
	case len(b) > 0 && (b[0] == '[' || b[0] == '{'):
		return fmt.Errorf("a text was expected, not %.20s", b)
	default:
		*t = text(b)
	}
	return nil
}

// texts turns a list of texts into strings; never nil.
func texts(in []text) []string {
	out := make([]string, len(in))
	for i, t := range in {
		out[i] = string(t)
	}
	return out
}

// isNull reports whether raw is absent or null.
func isNull(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}

// millis is the moment ms milliseconds after 1970; 0 gives the zero time.
func millis(ms json.Number) time.Time {
	f, err := ms.Float64()
	if err != nil || f <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(f)).UTC()
}
