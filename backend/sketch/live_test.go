package sketch

import (
	"bytes"
	"encoding/json"
	"image"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"easel/assets"
)

// TestLiveHello runs hello.json on a real ComfyUI (EASEL_LIVE_COMFYUI, a
// checkout; EASEL_LIVE_PYTHON, its interpreter) and on the worker, and compares
// the pictures.
func TestLiveHello(t *testing.T) {
	dir, python := os.Getenv("EASEL_LIVE_COMFYUI"), os.Getenv("EASEL_LIVE_PYTHON")
	if dir == "" {
		t.Skip("set EASEL_LIVE_COMFYUI to a checkout of ComfyUI")
	}
	if python == "" {
		python = "python3"
	}
	hello, err := assets.Workflows.ReadFile("workflows/hello.json")
	if err != nil {
		t.Fatal(err)
	}
	real := livePicture(t, dir, python, hello)
	c := start(t)
	c.finished(c.submit([]byte(`{"prompt": ` + string(hello) + `}`)))
	ours := decodeFile(t, filepath.Join(c.dir, "output", "hello_00001_.png"))
	if real.Bounds() != ours.Bounds() {
		t.Fatalf("sizes: %v and %v", real.Bounds(), ours.Bounds())
	}
	var sum, worst float64
	b := ours.Bounds()
	for y := range b.Dy() {
		for x := range b.Dx() {
			r1, g1, b1, _ := real.At(x, y).RGBA()
			r2, g2, b2, _ := ours.At(x, y).RGBA()
			for _, d := range []float64{float64(r1) - float64(r2), float64(g1) - float64(g2), float64(b1) - float64(b2)} {
				d = math.Abs(d) / 257
				sum += d
				worst = max(worst, d)
			}
		}
	}
	mean := sum / float64(b.Dx()*b.Dy()*3)
	t.Logf("difference of a byte: %.4f on average, %.0f at most", mean, worst)
	if mean > 0.5 || worst > 16 {
		t.Errorf("the pictures differ: %.4f on average, %.0f at most", mean, worst)
	}
}

func decodeFile(t *testing.T, path string) image.Image {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func livePicture(t *testing.T, dir, python string, hello []byte) image.Image {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	work := t.TempDir()
	cmd := exec.Command(python, "main.py", "--cpu", "--port", port, "--disable-auto-launch", "--disable-all-custom-nodes", "--disable-api-nodes",
		"--output-directory", work, "--temp-directory", work, "--database-url", "sqlite:///"+filepath.Join(work, "db"))
	cmd.Dir = dir
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of ComfyUI:\n%s", log.String())
		}
	}()
	base := "http://127.0.0.1:" + port
	get := func(path string) []byte {
		res, err := http.Get(base + path) //nolint:noctx // a test
		if err != nil {
			return nil
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return b
	}
	wait := func(what string, ok func() bool) {
		for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: waited three minutes", what)
			}
		}
	}
	wait("start of ComfyUI", func() bool { return get("/system_stats") != nil })
	res, err := http.Post(base+"/prompt", "application/json", bytes.NewReader([]byte(`{"prompt": `+string(hello)+`}`))) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		ID     string          `json:"prompt_id"`
		Errors json.RawMessage `json:"node_errors"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.ID == "" {
		t.Fatalf("%v %s", err, answer.Errors)
	}
	wait("the picture", func() bool { return len(get("/history/"+answer.ID)) > 2 })
	return decodeFile(t, filepath.Join(work, "hello_00001_.png"))
}
