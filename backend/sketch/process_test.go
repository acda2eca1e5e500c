package sketch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const patience = 20 * time.Second

// child is a worker in a process of its own.
type child struct {
	t    testing.TB
	cmd  *exec.Cmd
	url  string
	dir  string
	done chan struct{} // closed when the process has ended

	mu  sync.Mutex
	log strings.Builder
}

// start runs the worker in a new process and waits for its port, unless the
// process ends before.
func start(t testing.TB, args ...string) *child {
	t.Helper()
	c := &child{t: t, dir: t.TempDir(), done: make(chan struct{})}
	c.cmd = exec.Command("/proc/self/exe", append([]string{"--port", "0", "--base-directory", c.dir}, args...)...)
	c.cmd.Env = append(os.Environ(), "EASEL_SKETCH_CHILD=1")
	r, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go c.read(r, ready)
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.done
		if t.Failed() {
			t.Logf("log of the worker:\n%s", c.text())
		}
	})
	select {
	case c.url = <-ready:
	case <-c.done:
	case <-time.After(patience):
		t.Fatal("the worker did not start")
	}
	return c
}

func (c *child) read(r io.Reader, ready chan<- string) {
	defer close(c.done)
	s := bufio.NewReader(r)
	for {
		line, err := s.ReadString('\n')
		c.mu.Lock()
		c.log.WriteString(line)
		c.mu.Unlock()
		if _, url, ok := strings.Cut(strings.TrimSpace(line), "To see the GUI go to: "); ok {
			ready <- url
		}
		if err != nil {
			break
		}
	}
	_ = c.cmd.Wait()
}

func (c *child) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// wait waits for the end of the process.
func (c *child) wait() syscall.WaitStatus {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.t.Fatal("the worker did not end")
	}
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (c *child) do(method, path, contentType string, body []byte) (*http.Response, []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, b
}

func (c *child) get(path string) *object {
	c.t.Helper()
	_, b := c.do("GET", path, "", nil)
	v, err := parseJSON(b)
	o, ok := v.(*object)
	if err != nil || !ok {
		c.t.Fatalf("GET %s: not a JSON object: %s", path, b)
	}
	return o
}

// submit posts a body and returns the prompt's id.
func (c *child) submit(body any) string {
	c.t.Helper()
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			c.t.Fatal(err)
		}
	}
	res, out := c.do("POST", "/prompt", "application/json", b)
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("POST /prompt: %s: %s", res.Status, out)
	}
	v, _ := parseJSON(out)
	return v.(*object).at("prompt_id").(string)
}

// finished waits for the history of a prompt.
func (c *child) finished(id string) *object {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if e, ok := c.get("/history/" + id).get(id); ok {
			return e.(*object)
		}
	}
	c.t.Fatalf("prompt %s did not end", id)
	return nil
}

// received is one message of a WebSocket.
type received struct {
	text   *object
	binary []byte
}

// listener is a WebSocket and what came over it.
type listener struct {
	c    *child
	conn *websocket.Conn
	in   chan received
}

// listen opens a WebSocket, sends the first message if there is one (feature
// flags), and waits for the greeting.
func (c *child) listen(client, first string) *listener {
	c.t.Helper()
	conn, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(c.url, "http")+"/ws?clientId="+client, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	conn.SetReadLimit(64 << 20)
	if first != "" {
		if err := conn.Write(context.Background(), websocket.MessageText, []byte(first)); err != nil {
			c.t.Fatal(err)
		}
	}
	l := &listener{c: c, conn: conn, in: make(chan received, 4096)}
	go func() {
		defer close(l.in)
		for {
			kind, b, err := conn.Read(context.Background())
			if err != nil {
				return
			}
			if kind == websocket.MessageBinary {
				l.in <- received{binary: b}
				continue
			}
			v, _ := parseJSON(b)
			l.in <- received{text: v.(*object)}
		}
	}()
	c.t.Cleanup(func() { _ = conn.CloseNow() })
	if first == "" {
		l.until(isType("status"))
	} else {
		l.until(isType("feature_flags"))
	}
	return l
}

// until collects messages up to the one that stop knows.
func (l *listener) until(stop func(received) bool) []received {
	l.c.t.Helper()
	var list []received
	for {
		select {
		case m, ok := <-l.in:
			if !ok {
				l.c.t.Fatalf("the socket closed after %d messages", len(list))
			}
			list = append(list, m)
			if stop(m) {
				return list
			}
		case <-time.After(patience):
			l.c.t.Fatalf("no end after %d messages", len(list))
		}
	}
}

func isType(kind string) func(received) bool {
	return func(m received) bool { return m.text != nil && m.text.at("type") == kind }
}

func promptEnded(m received) bool {
	if !isType("executing")(m) {
		return false
	}
	return m.text.at("data").(*object).at("node") == nil
}

func node(class string, inputs map[string]any) map[string]any {
	return map[string]any{"class_type": class, "inputs": inputs}
}

func from(id string) []any { return []any{id, 0} }

func sketchPrompt(client string, steps int, seconds float64, prefix string) map[string]any {
	return map[string]any{"client_id": client, "prompt": map[string]any{
		"1": node("EaselSketch", map[string]any{"text": "sea", "seed": steps, "width": 64, "height": 64, "batch_size": 1, "steps": steps, "seconds": seconds}),
		"2": node("SaveImage", map[string]any{"images": from("1"), "filename_prefix": prefix}),
	}}
}

func colour(color int, class string) map[string]any {
	return map[string]any{"client_id": "c1", "prompt": map[string]any{
		"1": node("EmptyImage", map[string]any{"width": 32, "height": 32, "batch_size": 1, "color": color}),
		"2": node(class, map[string]any{"images": from("1"), "filename_prefix": "x"}),
	}}
}

func readTestdata(t *testing.T, path ...string) any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
