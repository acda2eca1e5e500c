//go:build linux

package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"easel/backend"
)

// liveBox is a box whose worker is a real ComfyUI.
func liveBox(t testing.TB) *box {
	t.Helper()
	dir := os.Getenv("EASEL_LIVE_COMFYUI")
	if dir == "" {
		t.Skip("EASEL_LIVE_COMFYUI names no checkout: the test against a real ComfyUI is left out")
	}
	b := newBox(t)
	for i, kv := range b.env {
		if strings.HasPrefix(kv, "EASEL_WORKER_BUILTIN=") {
			b.env[i] = "EASEL_WORKER_BUILTIN=false"
		}
	}
	data := filepath.Join(b.home, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[worker]\ncomfyui = %q\npython = %q\nargs = [\"--cpu\"]\ndata = %q\n", dir, os.Getenv("EASEL_LIVE_PYTHON"), data)
	if err := os.WriteFile(filepath.Join(b.home, "config.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// slow is a model-free workflow that keeps a CPU busy for a while.
func (b *box) slow(name string, n int) string {
	b.t.Helper()
	file := filepath.Join(b.home, name+".json")
	body := fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":1024,"height":1024,"batch_size":%d,"color":%d}},
"2":{"class_type":"ImageBlur","inputs":{"image":["1",0],"blur_radius":20,"sigma":5.0}},
"3":{"class_type":"ImageBlur","inputs":{"image":["2",0],"blur_radius":20,"sigma":6.0}},
"4":{"class_type":"ImageScale","inputs":{"image":["3",0],"upscale_method":"nearest-exact","width":64,"height":64,"crop":"disabled"}},
"5":{"class_type":"SaveImage","inputs":{"images":["4",0],"filename_prefix":"%s"}}}`, n, time.Now().UnixNano()%0xffffff, name)
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

func TestLiveComfyUI(t *testing.T) {
	b := liveBox(t)
	out := filepath.Join(b.home, "pictures")
	from := time.Now()
	printed := strings.Fields(b.must("run", repoFile(t, "assets/workflows/hello.json"), "--out", out))
	if len(printed) == 0 {
		t.Fatal("run printed no path")
	}
	t.Logf("from nothing to the picture: %v", time.Since(from))
	st := b.status()
	if w := st.Workers[0]; w.Builtin || w.ComfyUI == nil || w.ComfyUI.Version == "" {
		t.Errorf("worker %+v", w)
	}

	t.Run("a missing node is refused with its name", func(t *testing.T) {
		file := filepath.Join(b.home, "missing.json")
		writeFile(t, file, `{"7":{"class_type":"NoSuchNode","inputs":{},"_meta":{"title":"my node"}}}`)
		r := b.easel("run", file)
		if r.code != 5 || !strings.Contains(r.err, "NoSuchNode") || !strings.Contains(r.err, "7") || strings.Contains(r.err, "Traceback") {
			t.Errorf("exit %d: %s", r.code, r.err)
		}
	})
	t.Run("a bad value is refused with node and input", func(t *testing.T) {
		file := filepath.Join(b.home, "bad.json")
		writeFile(t, file, `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},
"2":{"class_type":"ImageScale","inputs":{"image":["1",0],"upscale_method":"magic","width":64,"height":64,"crop":"disabled"}},
"3":{"class_type":"SaveImage","inputs":{"images":["2",0],"filename_prefix":"x"}}}`)
		r := b.easel("run", file)
		if r.code != 5 || !strings.Contains(r.err, "upscale_method") || !strings.Contains(r.err, "magic") || strings.Contains(r.err, "Traceback") {
			t.Errorf("exit %d: %s", r.code, r.err)
		}
	})
	t.Run("without our check ComfyUI's own refusal is told as well", func(t *testing.T) {
		r := b.easel("run", filepath.Join(b.home, "bad.json"), "--no-check")
		if r.code != 5 || !strings.Contains(r.err, "upscale_method") || strings.Contains(r.err, "Traceback") {
			t.Errorf("exit %d: %s", r.code, r.err)
		}
	})
	t.Run("an engine that dies adopts", func(t *testing.T) {
		id := b.submit(b.slow("adopt", 2))
		b.waitState(id, backend.JobRunning)
		pid := b.workerPID()
		killEngine(b)
		if j := b.waitState(id, backend.JobSucceeded); len(j.Attempts) != 1 || b.workerPID() != pid {
			t.Errorf("attempts %+v, worker %d then %d", j.Attempts, pid, b.workerPID())
		}
	})
	t.Run("a killed worker runs the job again", func(t *testing.T) {
		id := b.submit(b.slow("killed", 2))
		b.waitState(id, backend.JobRunning)
		kill(t, b.workerPID())
		if j := b.waitState(id, backend.JobSucceeded); len(j.Attempts) != 2 {
			t.Errorf("attempts %+v", j.Attempts)
		}
	})
	t.Run("restart and stop", func(t *testing.T) {
		pid := b.workerPID()
		b.must("worker", "restart", "--wait", "2m")
		if now := b.workerPID(); now == pid {
			t.Error("the same process after a restart")
		}
		b.must("worker", "stop", "--wait", "1m")
		if st := b.status(); st.Workers[0].State != backend.WorkerStopped {
			t.Errorf("worker %+v", st.Workers[0])
		}
	})
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
