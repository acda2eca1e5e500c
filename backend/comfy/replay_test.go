package comfy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// versions are the folders of testdata.
var versions = []string{"0.3.64", "0.8.0"}

// recording is a run, or a list of exchanges, as recorded.
type recording struct {
	PromptID string          `json:"prompt_id"`
	Post     exchange        `json:"post"`
	WS       []frame         `json:"ws"`
	History  json.RawMessage `json:"history"`
	Steps    []exchange      `json:"steps"`
}

type exchange struct {
	Note    string `json:"note"`
	Request struct {
		Method string          `json:"method"`
		Path   string          `json:"path"`
		JSON   json.RawMessage `json:"json"`
	} `json:"request"`
	Response answer `json:"response"`
}

type answer struct {
	Status  int             `json:"status"`
	JSON    json.RawMessage `json:"json"`
	Text    *string         `json:"text"`
	NotJSON *string         `json:"not_strict_json"`
}

// body is the answer's bytes as they were on the wire, but for white space.
func (a answer) body() []byte {
	switch {
	case a.NotJSON != nil:
		return []byte(*a.NotJSON)
	case a.Text != nil:
		return []byte(*a.Text)
	}
	return a.JSON
}

type frame struct {
	Text    json.RawMessage `json:"text"`
	NotJSON *string         `json:"text_not_strict_json"`
	Binary  *struct {
		Base64 string `json:"base64"`
	} `json:"binary"`
}

// load reads a file of testdata.
func load(t *testing.T, version, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", version, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// loadRun reads a recorded run.
func loadRun(t *testing.T, version, name string) recording {
	t.Helper()
	var r recording
	load(t, version, name, &r)
	return r
}

// empty reports whether the server sent nothing: the client did, or it is the end.
func (f frame) empty() bool { return f.Binary == nil && f.NotJSON == nil && f.Text == nil }

// send writes one recorded message.
func (f frame) send(ctx context.Context, conn *websocket.Conn) error {
	switch {
	case f.Binary != nil:
		b, err := base64.StdEncoding.DecodeString(f.Binary.Base64)
		if err != nil {
			return err
		}
		return conn.Write(ctx, websocket.MessageBinary, b)
	case f.NotJSON != nil:
		return conn.Write(ctx, websocket.MessageText, []byte(*f.NotJSON))
	case f.Text != nil:
		return conn.Write(ctx, websocket.MessageText, f.Text)
	}
	return nil
}

// server is a ComfyUI made of what a test gives it. Handlers are by "METHOD /path".
type server struct {
	*httptest.Server
	// socket, when set, has every connection of /ws after its first message came.
	socket func(ctx context.Context, conn *websocket.Conn, clientID, first string)

	// mu guards the fields that follow.
	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	requests []string // "METHOD /path?query body"
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{handlers: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP finds the handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ws" && s.socket != nil {
		s.serveSocket(w, r)
		return
	}
	s.mu.Lock()
	h, ok := s.handlers[r.Method+" "+r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "404: Not Found", http.StatusNotFound)
		return
	}
	h(w, r)
}

func (s *server) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	_, first, err := conn.Read(ctx)
	if err != nil {
		return
	}
	s.socket(conn.CloseRead(ctx), conn, r.URL.Query().Get("clientId"), string(first))
}

// handle sets a handler.
func (s *server) handle(pattern string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[pattern] = h
}

// answer makes the server answer so.
func (s *server) answer(pattern string, status int, body []byte) {
	s.handle(pattern, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 0, 512)
		if r.Body != nil {
			buf := make([]byte, 1<<20)
			n, _ := r.Body.Read(buf)
			b = append(b, buf[:n]...)
		}
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI()+" "+string(b))
		s.mu.Unlock()
		w.WriteHeader(status)
		_, _ = w.Write(body)
	})
}

// last is the last request that answer saw.
func (s *server) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == 0 {
		return ""
	}
	return s.requests[len(s.requests)-1]
}

// replay makes the server send a run's messages after POST /prompt, and answer its
// history.
func (s *server) replay(t *testing.T, run recording) {
	t.Helper()
	posted := make(chan struct{})
	s.socket = func(ctx context.Context, conn *websocket.Conn, _, _ string) {
		sent := 0
		for _, f := range run.WS {
			if f.empty() {
				continue
			}
			if sent++; sent == 2 { // all but the first status answers the prompt
				select {
				case <-posted:
				case <-ctx.Done():
					return
				}
			}
			if err := f.send(ctx, conn); err != nil {
				return
			}
		}
		<-ctx.Done()
	}
	s.handle("POST /prompt", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(run.Post.Response.Status)
		_, _ = w.Write(run.Post.Response.body())
		close(posted)
	})
	var h answer
	if err := json.Unmarshal(run.History, &h); err != nil {
		t.Fatal(err)
	}
	s.answer("GET /history/"+run.PromptID, h.Status, h.body())
}

// within is a context for one test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// testClient is a Client with short waits.
func testClient(t *testing.T, url string, opts ...Option) *Client {
	t.Helper()
	opts = append([]Option{WithReconnect(30*time.Millisecond, 5*time.Millisecond, 40*time.Millisecond)}, opts...)
	c := New(url, opts...)
	t.Cleanup(c.Close)
	return c
}

// socketHandler accepts a WebSocket and hands it on.
func socketHandler(fn func(ctx context.Context, conn *websocket.Conn)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		fn(context.WithoutCancel(r.Context()), conn)
	})
}
