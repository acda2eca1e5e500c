package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"easel/backend"
)

// serve runs h on the control socket of a fresh state directory.
func serve(t *testing.T, h http.Handler) (stateDir string, c *Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "easel") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	c = Unix(dir)
	t.Cleanup(func() { _ = c.Close() })
	return dir, c
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// hangUp breaks the connection without an answer, as a kill -9 does.
func hangUp(t *testing.T, w http.ResponseWriter) {
	t.Helper()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.Close()
}

func TestCallsSendWhatTheEngineExpects(t *testing.T) {
	type seen struct{ method, uri, body string }
	var got seen
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.RequestURI, strings.TrimSpace(string(b))}
		if strings.HasSuffix(r.URL.Path, "/actions") && strings.HasPrefix(r.URL.Path, "/v1/jobs") {
			reply(w, 200, map[string]any{"jobs": []backend.Job{{ID: "a"}}})
			return
		}
		if r.Method == http.MethodGet && (strings.HasSuffix(r.URL.Path, "status") || strings.HasSuffix(r.URL.Path, "/abcd")) {
			reply(w, 200, map[string]any{})
			return
		}
		reply(w, 200, []any{})
	})
	_, c := serve(t, mux)
	ctx := t.Context()
	for _, tc := range []struct {
		name string
		do   func() error
		want seen
	}{
		{"status", func() error { _, err := c.Status(ctx); return err }, seen{"GET", "/v1/status", ""}},
		{"a filter", func() error {
			_, err := c.Jobs(ctx, backend.JobFilter{States: []backend.JobState{"queued", "held"}, Group: "a b", Limit: 5, Before: "cafe", Order: "queue", IDs: []string{"abcd", "ef01"}, Owner: "me"})
			return err
		}, seen{"GET", "/v1/jobs?before=cafe&group=a+b&ids=abcd%2Cef01&limit=5&order=queue&owner=me&state=queued%2Cheld", ""}},
		{"an id is escaped", func() error {
			_, err := c.Jobs(ctx, backend.JobFilter{})
			_ = err
			_, err = c.Job(ctx, "abcd")
			return err
		}, seen{"GET", "/v1/jobs/abcd", ""}},
		{"an action", func() error {
			_, err := c.Act(ctx, backend.JobAction{Verb: backend.VerbPriority, Delta: 2, Jobs: backend.JobFilter{IDs: []string{"abcd"}}})
			return err
		}, seen{"POST", "/v1/jobs/actions", `{"verb":"priority","jobs":{"ids":["abcd"]},"delta":2}`}},
		{"pause", func() error { return c.Pause(ctx, true, "me") }, seen{"POST", "/v1/queue/pause", `{"after_current":true,"by":"me"}`}},
		{"resume", func() error { return c.Resume(ctx, "") }, seen{"POST", "/v1/queue/resume", `{}`}},
		{"stop", func() error { return c.Stop(ctx, true) }, seen{"POST", "/v1/stop", `{"keep_worker":true}`}},
		{"worker", func() error {
			_, err := c.WorkerAct(ctx, backend.WorkerAction{Verb: backend.WorkerFree, ID: "gpu0"})
			return err
		}, seen{"POST", "/v1/workers/actions", `{"verb":"free","id":"gpu0"}`}},
		{"deaths", func() error { _, err := c.Deaths(ctx, 3); return err }, seen{"GET", "/v1/deaths?limit=3", ""}},
		{"a scaled picture", func() error { _, err := c.Picture(ctx, "abcd", 1, 80, 40); return err }, seen{"GET", "/v1/jobs/abcd/outputs/1?h=40&w=80", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.do(); err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("sent %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestSubmitTriesAgainUnderTheSameKey(t *testing.T) {
	var keys []string
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if len(keys) == 1 {
			hangUp(t, w)
			return
		}
		reply(w, http.StatusCreated, backend.Job{ID: "one", State: backend.JobQueued})
	}))
	job, created, err := c.Submit(t.Context(), backend.Submission{Graph: json.RawMessage(`{}`)})
	if err != nil || !created || job.ID != "one" {
		t.Fatalf("job %+v, created %v, err %v", job, created, err)
	}
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] {
		t.Errorf("keys %q: want the same one twice", keys)
	}
}

func TestRetryOfJobsIsNeverSentTwice(t *testing.T) {
	var calls atomic.Int32
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		hangUp(t, w)
	}))
	_, err := c.Act(t.Context(), backend.JobAction{Verb: backend.VerbRetry, Jobs: backend.JobFilter{Group: "g"}})
	if err == nil || !errors.Is(err, errBroken) {
		t.Fatalf("err %v: want a broken connection", err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the engine saw %d requests, want 1", n)
	}
}

func TestErrorsCarryKindAndHint(t *testing.T) {
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/status" {
			http.Error(w, "upstream is gone", http.StatusServiceUnavailable)
			return
		}
		reply(w, 404, map[string]any{"error": backend.Fail(backend.FailNotFound, "no job abcd", "look at `easel jobs ls`")})
	}))
	_, err := c.Job(t.Context(), "abcd")
	var f *backend.Failure
	if !errors.As(err, &f) || f.Kind != backend.FailNotFound || f.Hint == "" || f.Message != "no job abcd" {
		t.Errorf("failure %+v", f)
	}
	_, err = c.Status(t.Context())
	if !errors.As(err, &f) || f.Kind != backend.FailEngineDown || !strings.Contains(f.Message, "upstream is gone") {
		t.Errorf("an answer without our body: %+v", f)
	}
}

func TestNoEngineIsSaidSo(t *testing.T) {
	dir := t.TempDir()
	_, err := Unix(dir).Status(t.Context())
	if !IsNotRunning(err) {
		t.Fatalf("err %v: want not running", err)
	}
	if f := backend.FailureOf(err); f.Kind != backend.FailEngineDown || f.Hint == "" || !strings.Contains(f.Message, dir) {
		t.Errorf("failure %+v", f)
	}
	// A socket file that nobody listens on any more.
	short, _ := os.MkdirTemp("", "easel")
	defer os.RemoveAll(short)
	l, err := net.Listen("unix", filepath.Join(short, socketName))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := Unix(short).Status(t.Context()); !IsNotRunning(err) {
		t.Errorf("err %v: want not running", err)
	}
}

// frame writes one frame of the event stream.
func frame(w http.ResponseWriter, f backend.Frame) {
	b, _ := json.Marshal(f)
	if f.Seq > 0 {
		fmt.Fprintf(w, "id: %d\n", f.Seq)
	}
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", f.Kind, b)
	w.(http.Flusher).Flush()
}

func eventFrame(seq int64) backend.Frame {
	return backend.Frame{Kind: backend.FrameEvent, Seq: seq, Event: &backend.Event{Seq: seq, Kind: backend.EventState, JobID: "j"}}
}

// TestWatchResumes breaks the stream in the middle, twice, the second time inside
// a frame, and forgets the resume point once.
func TestWatchResumes(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.RawQuery)
		n := len(asked)
		mu.Unlock()
		fmt.Fprint(w, ": ping\n\n")
		switch n {
		case 1:
			frame(w, backend.Frame{Kind: backend.FrameSnapshot, Seq: 7, Snapshot: &backend.Snapshot{Seq: 7}})
			frame(w, eventFrame(8))
		case 2:
			frame(w, eventFrame(9))
			fmt.Fprint(w, "id: 10\nevent: event\ndata: {\"kind\":\"ev")
			w.(http.Flusher).Flush()
			hangUp(t, w)
		case 3:
			frame(w, backend.Frame{Kind: backend.FrameReset})
			frame(w, backend.Frame{Kind: backend.FrameSnapshot, Seq: 20, Snapshot: &backend.Snapshot{Seq: 20}})
		default:
			frame(w, eventFrame(21))
			frame(w, backend.Frame{Kind: backend.FrameStopping})
			<-r.Context().Done()
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	var states []bool
	done := errors.New("seen enough")
	err := c.Watch(ctx, EventsOptions{Previews: true}, func(f backend.Frame) error {
		got = append(got, fmt.Sprint(f.Kind, f.Seq))
		if f.Kind == backend.FrameStopping {
			return done
		}
		return nil
	}, func(connected bool, err error) {
		if connected != (err == nil) {
			t.Errorf("connected %v with %v", connected, err)
		}
		states = append(states, connected)
	})
	if !errors.Is(err, done) {
		t.Fatalf("Watch: %v", err)
	}
	if s := strings.Join(got, " "); s != "snapshot7 event8 event9 reset0 snapshot20 event21 stopping0" {
		t.Errorf("frames %s", s)
	}
	if s := strings.Join(asked, " "); s != "previews=1 after=8&previews=1 after=9&previews=1 after=20&previews=1" {
		t.Errorf("asked %s", s)
	}
	if s := fmt.Sprint(states); s != "[true false true false true false true]" {
		t.Errorf("states %s", s)
	}
}

func TestSilentStreamIsGivenUp(t *testing.T) {
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		frame(w, eventFrame(1))
		<-r.Context().Done()
	}))
	c.silent = 50 * time.Millisecond
	err := c.Events(t.Context(), EventsOptions{}, func(backend.Frame) error { return nil })
	if !errors.Is(err, errSilent) {
		t.Errorf("err %v", err)
	}
}

func TestEventsEndsWithTheContext(t *testing.T) {
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		frame(w, eventFrame(1))
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Events(ctx, EventsOptions{}, func(backend.Frame) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
}

func TestLogs(t *testing.T) {
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/v1/workers/gpu0/log?follow=1&launch=L&tail=-1" {
			t.Errorf("asked %s", r.URL.RequestURI())
		}
		fmt.Fprint(w, `{"n":1,"text":"one"}`+"\n{}\n\n"+`{"n":2,"text":" 50%","bar":true}`+"\n"+`{"n":2,"text":"100%","bar":true}`+"\n")
	}))
	var got []string
	err := c.Logs(t.Context(), backend.LogQuery{Worker: "gpu0", Launch: "L", Tail: -1, Follow: true}, func(l backend.LogLine) error {
		got = append(got, fmt.Sprint(l.N, l.Text, " ", l.Bar))
		return nil
	})
	if !errors.Is(err, io.EOF) {
		t.Errorf("a followed log that ends: %v", err)
	}
	if s := strings.Join(got, "|"); s != "1one false|2 50% true|2100% true" {
		t.Errorf("lines %s", s)
	}
}

func TestOutputFile(t *testing.T) {
	for _, tc := range []struct{ name, header, want string }{
		{"plain", `attachment; filename="a b.png"`, "a b.png"},
		{"utf-8", `attachment; filename*=UTF-8''%E5%9B%BE.png`, "图.png"},
		{"a path is cut", `attachment; filename="../../etc/passwd"`, "passwd"},
		{"backslashes too", `attachment; filename="..\\x\\y.png"`, "y.png"},
		{"nothing", "", "output-3"},
		{"dots", `attachment; filename=".."`, "output-3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tc.header != "" {
					w.Header().Set("Content-Disposition", tc.header)
				}
				fmt.Fprint(w, "bytes")
			}))
			rc, name, err := c.OutputFile(t.Context(), "abcd", 3)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			b, _ := io.ReadAll(rc)
			if name != tc.want || string(b) != "bytes" {
				t.Errorf("%q %q", name, b)
			}
		})
	}
}

func TestCutOffOutputIsAnError(t *testing.T) {
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "short")
	}))
	rc, _, err := c.OutputFile(t.Context(), "abcd", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadAll(rc); err == nil {
		t.Error("a short file was taken for a whole one")
	}
}

func TestUploadSendsSeekableBodyAgain(t *testing.T) {
	var calls atomic.Int32
	_, c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if calls.Add(1) == 1 {
			hangUp(t, w)
			return
		}
		if string(b) != "pixels" || r.URL.Query().Get("name") != "cat 1.png" {
			t.Errorf("second try sent %q as %q", b, r.URL.RawQuery)
		}
		reply(w, 200, Uploaded{Name: "cat 1.png", Subfolder: "sub", Type: "input"})
	}))
	file := filepath.Join(t.TempDir(), "cat.png")
	if err := os.WriteFile(file, []byte("pixels"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	up, err := c.Upload(t.Context(), "cat 1.png", f)
	if err != nil || up.Value() != "sub/cat 1.png" {
		t.Errorf("%+v, %v", up, err)
	}
}
