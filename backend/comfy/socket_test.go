package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// collect listens and hands messages on through a channel. stop ends it and waits.
func collect(t *testing.T, c *Client, id string) (messages <-chan Message, opened <-chan bool, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ch, up, done := make(chan Message, 1000), make(chan bool, 100), make(chan struct{})
	go func() {
		defer close(done)
		c.ListenForever(ctx, id, func(m Message) { ch <- m }, func(b bool) { up <- b })
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return ch, up, stop
}

// next waits for the next message, or fails.
func next[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("no %s within a minute", what)
		panic("unreachable")
	}
}

// TestReplayedRuns plays recorded runs through real sockets and looks at what comes
// out, message by message.
func TestReplayedRuns(t *testing.T) {
	for name, check := range map[string]func(*testing.T, []Message, HistoryEntry){
		"first_run":                      checkFirstRun,
		"progress_preview_metadata":      checkPreviews(true),
		"progress_jpeg_preview":          checkPreviews(false),
		"progress_png_preview":           checkPreviews(false),
		"nan_in_messages_and_history":    checkNaN,
		"text_output":                    checkText,
		"three_outputs":                  checkThree,
		"run_OutOfMemoryError":           checkOOM,
		"run_execution_blocker_message":  checkBlocked,
		"run_error_in_one_branch_of_two": checkBranch,
	} {
		for _, v := range versions {
			t.Run(name+" "+v, func(t *testing.T) {
				run := loadRun(t, v, name)
				s := newServer(t)
				s.replay(t, run)
				c := testClient(t, s.URL)
				ch, _, stop := collect(t, c, "client")
				got := []Message{next(t, ch, "status")}
				ctx := within(t, 10*time.Second)
				r, err := c.Post(ctx, PromptRequest{Graph: json.RawMessage(`{}`), ClientID: "client"})
				if err != nil || r.PromptID != run.PromptID {
					t.Fatalf("posted %q, %v", r.PromptID, err)
				}
				for !finished(got[len(got)-1], run.PromptID) {
					got = append(got, next(t, ch, "end of the prompt"))
				}
				stop()
				for _, m := range got {
					if o, ok := m.(Other); ok {
						t.Errorf("not understood: %s %.200s", o.Type, o.Raw)
					}
				}
				h, found, err := c.History(ctx, run.PromptID)
				if err != nil || !found {
					t.Fatalf("history: found %v, %v", found, err)
				}
				if h.Started.IsZero() || h.Ended.Before(h.Started) || len(h.Prompt) == 0 || len(h.Targets) == 0 {
					t.Errorf("history read wrongly: %+v", h)
				}
				check(t, got, h)
			})
		}
	}
}

func finished(m Message, id string) bool {
	e, ok := m.(Executing)
	return ok && e.Node == nil && e.PromptID == id
}

// only are the messages of one type.
func only[T Message](all []Message) []T {
	var out []T
	for _, m := range all {
		if v, ok := m.(T); ok {
			out = append(out, v)
		}
	}
	return out
}

func checkFirstRun(t *testing.T, got []Message, h HistoryEntry) {
	if s, ok := got[0].(Status); !ok || s.SID == "" {
		t.Errorf("the first message is %#v", got[0])
	}
	var kinds []string
	for _, m := range got {
		if k := m.Kind(); len(kinds) == 0 || kinds[len(kinds)-1] != k {
			kinds = append(kinds, k)
		}
	}
	if want := "status execution_start execution_cached"; !strings.HasPrefix(strings.Join(kinds, " "), want) {
		t.Errorf("order %v", kinds)
	}
	states := only[ProgressState](got)
	if n := states[len(states)-1].Nodes["3"]; n.State != "finished" || n.Max != 1 || n.Real != "3" {
		t.Errorf("node 3 is %+v", n)
	}
	if !h.Success || len(Files(h.Outputs)) != 1 || Files(h.Outputs)[0].Kind != FileImage {
		t.Errorf("history %+v", h)
	}
	executed := only[Executed](got)
	if got, want := NodeFiles(executed[0].Node, executed[0].Output), Files(h.Outputs); !reflect.DeepEqual(got, want) {
		t.Errorf("message says %+v, history says %+v", got, want)
	}
}

func checkPreviews(meta bool) func(*testing.T, []Message, HistoryEntry) {
	return func(t *testing.T, got []Message, h HistoryEntry) {
		previews := only[PreviewImage](got)
		if len(previews) == 0 {
			t.Fatal("no previews")
		}
		for _, p := range previews {
			if (p.PromptID == h.PromptID && p.Node == "2") != meta {
				t.Errorf("metadata %v: %q, node %q", meta, p.PromptID, p.Node)
			}
			if !bytes.HasPrefix(p.Data, []byte(map[string]string{"image/jpeg": "\xff\xd8\xff", "image/png": pngMagic}[p.MIME])) {
				t.Errorf("%s that begins with % x", p.MIME, p.Data[:8])
			}
		}
		progress := only[Progress](got)
		if last := progress[len(progress)-1]; last.Value != last.Max || last.Max != 3 || last.Node != "2" {
			t.Errorf("progress %+v", last)
		}
		if texts := only[Text](got); len(texts) != 3 || texts[2].Text != "step 3/3" || texts[2].Node != "2" {
			t.Errorf("texts %+v", texts)
		}
	}
}

func checkNaN(t *testing.T, got []Message, h HistoryEntry) {
	found := false
	for _, e := range only[Executed](got) {
		found = found || strings.Contains(string(e.Output), "[null, null, null, 0.0]")
	}
	if !found || !h.Success || !json.Valid(h.Outputs) || len(Files(h.Outputs)) != 1 {
		t.Errorf("NaN: message %v, history %s", found, h.Outputs)
	}
}

func checkText(t *testing.T, _ []Message, h HistoryEntry) {
	files := Files(h.Outputs)
	if len(files) == 0 || files[0].Kind != FileText || files[0].Text == "" {
		t.Errorf("texts %+v", files)
	}
}

func checkThree(t *testing.T, _ []Message, h HistoryEntry) {
	nodes := map[string]bool{}
	for _, f := range Files(h.Outputs) {
		nodes[f.Node] = true
	}
	if len(nodes) != 3 || len(h.Targets) != 3 {
		t.Errorf("outputs of nodes %v, targets %v", nodes, h.Targets)
	}
}

func checkOOM(t *testing.T, got []Message, h HistoryEntry) {
	errs := only[ExecutionError](got)
	if len(errs) != 1 || !errs[0].Terminal() || !errs[0].OutOfMemory() || errs[0].Class != "FixtureRaise" || len(errs[0].Traceback) == 0 {
		t.Errorf("errors %+v", errs)
	}
	if h.Success || h.Interrupted || !reflect.DeepEqual(*h.Error, errs[0]) {
		t.Errorf("history %+v", h)
	}
}

func checkBlocked(t *testing.T, got []Message, h HistoryEntry) {
	errs := only[ExecutionError](got)
	if len(errs) != 1 || errs[0].Terminal() || !h.Success || h.Error != nil {
		t.Errorf("a blocked execution ended the prompt: %+v, %+v", errs, h)
	}
}

func checkBranch(t *testing.T, got []Message, h HistoryEntry) {
	if h.Success || h.Error == nil || len(only[ExecutionSuccess](got)) != 0 {
		t.Errorf("history %+v", h)
	}
}

// registry is a server's map of sockets with ComfyUI's race: the handler of an old
// socket removes the id when it ends, whoever has it by then.
type registry struct {
	mu      sync.Mutex
	sockets map[string]*websocket.Conn
	firsts  []string
	// lag is how long the old handler takes to notice, unless a new socket comes first.
	lag   time.Duration
	fresh chan struct{}
}

func (r *registry) serve(ctx context.Context, conn *websocket.Conn, id, first string) {
	r.mu.Lock()
	r.sockets[id] = conn
	r.firsts = append(r.firsts, first)
	close(r.fresh)
	r.fresh = make(chan struct{})
	newer := r.fresh
	r.mu.Unlock()
	_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"status","data":{"sid":"`+id+`"}}`))
	<-ctx.Done()
	select {
	case <-newer:
	case <-time.After(r.lag):
	}
	r.mu.Lock()
	delete(r.sockets, id)
	r.mu.Unlock()
}

// tell sends to the socket that has the id, if one has.
func (r *registry) tell(id, message string) bool {
	r.mu.Lock()
	conn := r.sockets[id]
	r.mu.Unlock()
	return conn != nil && conn.Write(context.Background(), websocket.MessageText, []byte(message)) == nil
}

func TestReconnectDoesNotGoDeaf(t *testing.T) {
	for _, tc := range []struct {
		name   string
		settle time.Duration
		deaf   bool
	}{
		{"a new socket waits until the old one is gone", 300 * time.Millisecond, false},
		{"without the wait the race is lost, so this test bites", 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &registry{sockets: map[string]*websocket.Conn{}, lag: 50 * time.Millisecond, fresh: make(chan struct{})}
			s := newServer(t)
			s.socket = r.serve
			c := testClient(t, s.URL, WithReconnect(tc.settle, time.Millisecond, 10*time.Millisecond))
			ch, up, _ := collect(t, c, "me")
			for range 2 {
				if !next(t, up, "connection") {
					t.Fatal("the first news is of a lost connection")
				}
				next(t, ch, "status")
				if len(up) == 0 && len(r.first()) == 1 {
					c.Drop("me")
					if next(t, up, "end of the connection") {
						t.Fatal("connected twice")
					}
				}
			}
			time.Sleep(2 * r.lag) // the old handler has ended by now
			if heard := r.tell("me", `{"type":"hello","data":{}}`); heard == tc.deaf {
				t.Errorf("the server knows the socket: %v", heard)
			}
			if !tc.deaf && next(t, ch, "hello").Kind() != "hello" {
				t.Error("another message came")
			}
			for _, f := range r.first() {
				if f != featureFlags {
					t.Errorf("the first message is %s", f)
				}
			}
		})
	}
}

func (r *registry) first() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.firsts...)
}

func TestListenForeverOutlivesTheServer(t *testing.T) {
	s := newServer(t)
	var conns sync.Map
	s.socket = func(ctx context.Context, conn *websocket.Conn, _, _ string) {
		conns.Store("conn", conn)
		_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"status","data":{}}`))
		<-ctx.Done()
	}
	c := testClient(t, s.URL)
	ch, up, stop := collect(t, c, "me")
	for i := range 3 {
		if !next(t, up, "connection") {
			t.Fatal("not connected")
		}
		next(t, ch, "status")
		conn, _ := conns.Load("conn")
		if i < 2 { // killed, without a close frame
			_ = conn.(*websocket.Conn).CloseNow()
			if next(t, up, "end") {
				t.Fatal("connected twice")
			}
		}
	}
	if time.Since(c.LastMessage()) > 10*time.Second {
		t.Errorf("the last message came at %v", c.LastMessage())
	}
	stop()
	if next(t, up, "end") {
		t.Error("the end was not told")
	}
}

func TestListenEndsCleanly(t *testing.T) {
	s := newServer(t)
	closed, open := make(chan websocket.StatusCode, 1), make(chan bool, 1)
	s.Config.Handler = socketHandler(func(ctx context.Context, conn *websocket.Conn) {
		for {
			if _, _, err := conn.Read(ctx); err != nil {
				closed <- websocket.CloseStatus(err)
				return
			}
			open <- true
		}
	})
	c := testClient(t, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Listen(ctx, "me", func(Message) {}) }()
	next(t, open, "feature flags")
	if err := c.Listen(t.Context(), "me", nil); !errors.Is(err, errBusy) {
		t.Errorf("a second socket of the same id: %v", err)
	}
	cancel()
	if err := next(t, ended, "end"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if code := next(t, closed, "close frame"); code != websocket.StatusNormalClosure {
		t.Errorf("closed with %v", code)
	}
	if err := c.Listen(t.Context(), "", nil); err == nil {
		t.Error("listened without an id")
	}
}

func TestListenSaysWhyItCannot(t *testing.T) {
	s := newServer(t) // has no /ws
	err := testClient(t, s.URL).Listen(within(t, 5*time.Second), "me", nil)
	if !Refused(err) {
		t.Errorf("no /ws there: %v", err)
	}
	s.Close()
	err = testClient(t, s.URL).Listen(within(t, 5*time.Second), "me", nil)
	if !Unreachable(err) || !NotSent(err) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestBigMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 200 MB")
	}
	s := newServer(t)
	picture := append(bin(1, 2, pngMagic), make([]byte, 64<<20-16)...)
	text := append(append([]byte(`{"type":"executed","data":{"node":"1","output":{"text":["`), bytes.Repeat([]byte("x"), 60<<20)...), `"]}}}`...)
	s.socket = func(ctx context.Context, conn *websocket.Conn, _, _ string) {
		for _, m := range []struct {
			kind websocket.MessageType
			data []byte
		}{
			{websocket.MessageBinary, picture},
			{websocket.MessageBinary, append(picture, 0)}, // one byte too many
			{websocket.MessageText, text},
			{websocket.MessageText, []byte(`{"type":"status","data":{}}`)},
		} {
			if conn.Write(ctx, m.kind, m.data) != nil {
				return
			}
		}
		<-ctx.Done()
	}
	ch, _, _ := collect(t, testClient(t, s.URL), "me")
	if p, ok := next(t, ch, "picture").(PreviewImage); !ok || len(p.Data) != 64<<20-8 || p.MIME != "image/png" {
		t.Error("64 MiB did not survive")
	}
	if o, ok := next(t, ch, "report").(Other); !ok || o.Type != "too large" || !o.Binary {
		t.Error("more than 64 MiB is not told")
	}
	if e, ok := next(t, ch, "text").(Executed); !ok || len(e.Output) < 60<<20 {
		t.Error("a text of 60 MiB did not survive")
	}
	if _, ok := next(t, ch, "status").(Status); !ok {
		t.Error("the connection did not survive")
	}
}

func TestTextsFollowTheServersFlags(t *testing.T) {
	s := newServer(t)
	s.socket = func(ctx context.Context, conn *websocket.Conn, _, _ string) {
		_ = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"feature_flags","data":{"supports_progress_text_metadata":true,"max_upload_size":5}}`))
		_ = conn.Write(ctx, websocket.MessageBinary, bin(3, 2, "pp", 1, "7", "hi"))
		<-ctx.Done()
	}
	ch, _, _ := collect(t, testClient(t, s.URL), "me")
	if f, ok := next(t, ch, "flags").(FeatureFlags); !ok || f.Features.MaxUpload != 5 {
		t.Errorf("flags %+v", f)
	}
	if got := next(t, ch, "text"); got != (Text{PromptID: "pp", Node: "7", Text: "hi"}) {
		t.Errorf("got %+v", got)
	}
}
