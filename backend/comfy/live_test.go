//go:build unix

package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestLive speaks to a real ComfyUI: EASEL_LIVE_COMFYUI is its checkout, and
// EASEL_LIVE_PYTHON the interpreter that can run it (default python3).
func TestLive(t *testing.T) {
	dir := os.Getenv("EASEL_LIVE_COMFYUI")
	if dir == "" {
		t.Skip("EASEL_LIVE_COMFYUI names no checkout of ComfyUI")
	}
	base, url := startComfyUI(t, dir)
	c := testClient(t, url)
	id := "live-" + uuid.NewString()
	ch, _, _ := collect(t, c, id)
	ctx := within(t, 3*time.Minute)
	if s, ok := next(t, ch, "status").(Status); !ok || s.SID != id {
		t.Fatalf("the first message is %+v", s)
	}
	t.Run("paint", func(t *testing.T) { livePaint(ctx, t, c, id, base, ch) })
	t.Run("refuse", func(t *testing.T) { liveRefuse(ctx, t, c, id) })
	t.Run("take back and interrupt", func(t *testing.T) { liveInterrupt(ctx, t, c, id, ch) })
	t.Run("look around", func(t *testing.T) { liveLook(ctx, t, c) })
	t.Run("reconnect", func(t *testing.T) {
		c.Drop(id)
		for {
			if s, ok := next(t, ch, "status").(Status); ok && s.SID == id {
				break
			}
		}
		livePaint(ctx, t, c, id, base, ch)
	})
}

// startComfyUI runs a ComfyUI on a free port with folders of its own, and waits until
// it is ready.
func startComfyUI(t *testing.T, dir string) (base, url string) {
	t.Helper()
	base = t.TempDir()
	for _, d := range []string{"custom_nodes", "models", "user", "input", "output"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	python := os.Getenv("EASEL_LIVE_PYTHON")
	if python == "" {
		python = "python3"
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, python, filepath.Join(dir, "main.py"), "--cpu", "--listen", "127.0.0.1",
		"--port", fmt.Sprint(port), "--base-directory", base, "--user-directory", filepath.Join(base, "user"),
		"--database-url", "sqlite:///"+filepath.Join(base, "comfy.db"), "--disable-auto-launch", "--disable-api-nodes")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("ComfyUI's log:\n%s", log.String())
		}
	})
	url = fmt.Sprintf("http://127.0.0.1:%d", port)
	c := testClient(t, url)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, err := c.SystemStats(t.Context())
		if err == nil {
			return base, url
		}
		select {
		case <-ended:
			t.Fatal("ComfyUI ended at start")
		default:
		}
		if !Unreachable(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// liveGraph makes one picture; color sets it apart from what is cached.
func liveGraph(color int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{
		"1": {"class_type":"EmptyImage","inputs":{"width":64,"height":48,"batch_size":1,"color":%d}},
		"2": {"class_type":"ImageInvert","inputs":{"image":["1",0]}},
		"3": {"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"live/pic"}}}`, color))
}

func livePaint(ctx context.Context, t *testing.T, c *Client, client, base string, ch <-chan Message) {
	r, err := c.Post(ctx, PromptRequest{Graph: liveGraph(int(time.Now().UnixNano()) & 0xffffff), ClientID: client, Workflow: json.RawMessage(`{"nodes":[],"n":18446744073709551615}`)})
	if err != nil {
		t.Fatal(err)
	}
	succeeded := false
	for m := next(t, ch, "message"); !finished(m, r.PromptID); m = next(t, ch, "message") {
		if s, ok := m.(ExecutionSuccess); ok && s.PromptID == r.PromptID {
			succeeded = true
		}
	}
	h, found, err := c.History(ctx, r.PromptID)
	if err != nil || !found || !h.Success || !succeeded {
		t.Fatalf("found %v, %+v, %v", found, h, err)
	}
	files := Files(h.Outputs)
	if len(files) != 1 || files[0].Subfolder != "live" {
		t.Fatalf("files %+v", files)
	}
	p, err := files[0].Path(Dirs{Output: filepath.Join(base, "output")})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.View(ctx, files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var got bytes.Buffer
	if _, err := got.ReadFrom(f); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("/view gives %d bytes, the file has %d (%v)", got.Len(), len(want), err)
	}
	img, err := png.Decode(&got)
	if err != nil || img.Bounds().Dx() != 64 || img.Bounds().Dy() != 48 {
		t.Errorf("the picture: %v", err)
	}
	if !bytes.Contains(want, []byte("18446744073709551615")) {
		t.Error("the number in the workflow did not stay exact")
	}
}

func liveRefuse(ctx context.Context, t *testing.T, c *Client, client string) {
	for graph, want := range map[string]string{
		`{"1":{"class_type":"NoSuchNode","inputs":{}}}`: "NoSuchNode does not exist",
		`{"1":{"class_type":"EmptyImage","inputs":{"width":0,"height":1,"batch_size":1,"color":0}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`: "smaller than min",
		`{"1":{"class_type":"LoadImage","inputs":{"image":"nosuch.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`:                           "Invalid image file: nosuch.png",
	} {
		_, err := c.Post(ctx, PromptRequest{Graph: json.RawMessage(graph), ClientID: client})
		var p *PromptError
		if !errors.As(err, &p) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func liveInterrupt(ctx context.Context, t *testing.T, c *Client, client string, ch <-chan Message) {
	// Scaling up and blurring takes a CPU several seconds, with pauses between nodes.
	slow := `{"1":{"class_type":"EmptyImage","inputs":{"width":1024,"height":1024,"batch_size":8,"color":%d}},` +
		`"2":{"class_type":"ImageScale","inputs":{"image":["1",0],"upscale_method":"lanczos","width":2048,"height":2048,"crop":"disabled"}},` +
		`"3":{"class_type":"ImageBlur","inputs":{"image":["2",0],"blur_radius":31,"sigma":3.0}},` +
		`"4":{"class_type":"ImageInvert","inputs":{"image":["3",0]}},"5":{"class_type":"SaveImage","inputs":{"images":["4",0],"filename_prefix":"slow"}}}`
	first, err := c.Post(ctx, PromptRequest{Graph: json.RawMessage(fmt.Sprintf(slow, 1)), ClientID: client})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if s, ok := next(t, ch, "start").(ExecutionStart); ok && s.PromptID == first.PromptID {
			break
		}
	}
	second, err := c.Post(ctx, PromptRequest{Graph: liveGraph(7), ClientID: client})
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Queue(ctx)
	running, _ := q.Find(first.PromptID)
	_, pending := q.Find(second.PromptID)
	if err != nil || !running || !pending {
		t.Fatalf("running %v, pending %v, %v", running, pending, err)
	}
	if err := c.Interrupt(ctx, second.PromptID); err != nil { // waits: no effect
		t.Fatal(err)
	}
	if err := c.DeletePending(ctx, second.PromptID); err != nil {
		t.Fatal(err)
	}
	if q, err = c.Queue(ctx); err != nil || len(q.Pending) != 0 || len(q.Running) != 1 {
		t.Fatalf("not taken back: %+v, %v", q, err)
	}
	if err := c.Interrupt(ctx, first.PromptID); err != nil {
		t.Fatal(err)
	}
	stopped := false
	for deadline := time.Now().Add(time.Minute); ; {
		if time.Now().After(deadline) {
			t.Fatal("not interrupted within a minute")
		}
		m := next(t, ch, "end")
		if i, ok := m.(ExecutionInterrupted); ok && i.PromptID == first.PromptID {
			stopped = true
		}
		if finished(m, first.PromptID) {
			break
		}
	}
	h, found, err := c.History(ctx, first.PromptID)
	if err != nil || !found || !h.Interrupted || h.Success || !stopped {
		t.Errorf("found %v, %+v, %v", found, h, err)
	}
	if _, found, _ := c.History(ctx, second.PromptID); found {
		t.Error("the prompt that was taken back ran")
	}
}

func liveLook(ctx context.Context, t *testing.T, c *Client) {
	info, err := c.ObjectInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := info.Class("KSampler"); !ok || len(info.Classes()) < 100 {
		t.Errorf("%d classes", len(info.Classes()))
	}
	if _, ok, err := c.ObjectInfoClass(ctx, "No/Such Node"); ok || err != nil {
		t.Errorf("an unknown class: %v, %v", ok, err)
	}
	u, err := c.Upload(ctx, "up.png", "", "sub", false, bytes.NewReader([]byte("not a picture")))
	if err != nil || u != (Uploaded{"up.png", "sub", "input"}) {
		t.Errorf("upload: %+v, %v", u, err)
	}
	u, err = c.Upload(ctx, "up.png", "input", "sub", false, bytes.NewReader([]byte("another")))
	if err != nil || u.Name != "up (1).png" {
		t.Errorf("upload of another file of that name: %+v, %v", u, err)
	}
	if f, err := c.Features(ctx); err != nil || !f.PreviewMetadata {
		t.Errorf("features %+v, %v", f, err)
	}
	if n, err := c.Prompt(ctx); err != nil || n != 0 {
		t.Errorf("%d remain, %v", n, err)
	}
	if err := c.Free(ctx, true, true); err != nil {
		t.Error(err)
	}
	if l, err := c.LogsRaw(ctx); err != nil || len(l) == 0 {
		t.Errorf("log: %v", err)
	}
	if e, err := c.Recent(ctx, 1); err != nil || len(e) != 1 {
		t.Errorf("recent: %d, %v", len(e), err)
	}
}
