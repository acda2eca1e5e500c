package sketch

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/assets"
)

func status(e *object) *object { return e.at("status").(*object) }

// lastMessage is the last event of a history entry and its data.
func lastMessage(e *object) (string, *object) {
	l := status(e).at("messages").([]any)
	m := l[len(l)-1].([]any)
	return m[0].(string), m[1].(*object)
}

func TestHelloRunsAndCarriesItsPrompt(t *testing.T) {
	c := start(t)
	hello, err := assets.Workflows.ReadFile("workflows/hello.json")
	if err != nil {
		t.Fatal(err)
	}
	e := c.finished(c.submit([]byte(`{"prompt": ` + string(hello) + `}`)))
	if status(e).at("status_str") != "success" {
		t.Fatalf("%s", dumpJSON(status(e)))
	}
	b, err := os.ReadFile(filepath.Join(c.dir, "output", "hello_00001_.png"))
	if err != nil {
		t.Fatal(err)
	}
	texts := pngTexts(b)
	want, _ := parseJSON(hello)
	if len(texts) != 1 || texts[0].key != "prompt" || texts[0].text != string(dumpJSON(want)) {
		t.Errorf("the file's prompt is %v", texts)
	}
}

func TestSketchWorkflowIsValid(t *testing.T) {
	b, err := assets.Workflows.ReadFile("workflows/sketch.json")
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorker(Options{Version: "0.3.64"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := w.validate(v, nil); err != nil || res.err != nil || len(res.nodes.keys) > 0 {
		t.Errorf("%v %s %s", err, dumpJSON(res.err), dumpJSON(res.nodes))
	}
}

func TestQueueOrder(t *testing.T) {
	c := start(t)
	l := c.listen("c", "")
	post := func(extra map[string]any) string {
		p := sketchPrompt("c", 1, 0, "q")
		p["prompt"].(map[string]any)["2"] = node("PreviewAny", map[string]any{"source": len(extra)})
		for k, v := range extra {
			p[k] = v
		}
		return c.submit(p)
	}
	first := c.submit(sketchPrompt("c", 3, 1.5, "slow"))
	l.until(isType("executing"))
	b := post(map[string]any{"prompt_id": "b"})
	front := post(map[string]any{"prompt_id": "front", "front": true})
	gone := post(map[string]any{"prompt_id": "gone"})
	early := post(map[string]any{"prompt_id": "early", "number": -100})
	c.do("POST", "/queue", "", []byte(`{"delete": ["gone"]}`))
	q := c.get("/queue")
	if n, m := len(q.at("queue_running").([]any)), len(q.at("queue_pending").([]any)); n != 1 || m != 3 {
		t.Fatalf("running %d, pending %d", n, m)
	}
	c.finished(b)
	order := c.get("/history").keys
	if want := []string{first, early, front, b}; strings.Join(order, " ") != strings.Join(want, " ") {
		t.Errorf("order %v, want %v", order, want)
	}
	if e := c.get("/history/" + gone); len(e.keys) != 0 {
		t.Error("a deleted prompt has a history")
	}
	if got := c.get("/history?max_items=2").keys; strings.Join(got, " ") != front+" "+b {
		t.Errorf("the last two: %v", got)
	}
	if got := c.get("/history?max_items=1&offset=1").keys; strings.Join(got, " ") != early {
		t.Errorf("the second: %v", got)
	}
	c.do("POST", "/history", "", []byte(`{"delete": ["early"]}`))
	if c.get("/history").has("early") {
		t.Error("a deleted entry is still in the history")
	}
}

func TestInterruptByID(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		l := c.listen("c", "")
		p := sketchPrompt("c", 15, 3, "never")
		id := c.submit(p)
		l.until(isType("executing"))
		c.do("POST", "/interrupt", "", []byte(`{"prompt_id": "another"}`))
		c.do("POST", "/interrupt", "", []byte(`{"prompt_id": "`+id+`"}`))
		// The flag is read at the next tick.
		got := l.until(promptEnded)
		kind, data := lastMessage(c.finished(id))
		if kind != "execution_interrupted" || data.at("node_id") != "1" || data.at("node_type") != "EaselSketch" {
			t.Errorf("%s %s", kind, dumpJSON(data))
		}
		r := readTestdata(t, version, "interrupt_by_id.json").(*object)
		want := transcript(r.at("ws"))
		empty := strings.NewReplacer("[str]", "[]")
		if a, b := shapeOf(heard(got)[len(got)-3]), shapeOf(want[len(want)-3]); a != empty.Replace(b) {
			t.Errorf("interrupted: %s, recorded %s", a, b)
		}
		if !strings.Contains(c.text(), "Processing interrupted") {
			t.Error("the log does not tell")
		}
	})
}

func shapeOf(s string) string {
	v, _ := parseJSON([]byte(s))
	return shape(v)
}

func TestSignals(t *testing.T) {
	t.Run("SIGINT stops cleanly", func(t *testing.T) {
		c := start(t)
		c.finished(c.submit(colour(1, "PreviewImage")))
		_ = c.cmd.Process.Signal(os.Interrupt)
		if st := c.wait(); !st.Exited() || st.ExitStatus() != 0 {
			t.Errorf("status %v", st)
		}
		if _, err := os.Stat(filepath.Join(c.dir, "temp")); !os.IsNotExist(err) {
			t.Error("temporary files are left")
		}
		if !strings.HasSuffix(c.text(), "\nStopped server\n") {
			t.Error("the log does not say so")
		}
	})
	t.Run("SIGTERM kills, and the next start clears up", func(t *testing.T) {
		c := start(t)
		c.finished(c.submit(colour(1, "PreviewImage")))
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		if st := c.wait(); !st.Signaled() || st.Signal() != syscall.SIGTERM {
			t.Errorf("status %v", st)
		}
		old, _ := filepath.Glob(filepath.Join(c.dir, "temp", "*.png"))
		if len(old) != 1 {
			t.Fatalf("temporary files: %v", old)
		}
		start(t, "--temp-directory", c.dir)
		if _, err := os.Stat(old[0]); !os.IsNotExist(err) {
			t.Error("the next start left the old temporary file")
		}
	})
	t.Run("ignored SIGINT", func(t *testing.T) {
		c := start(t, "--fault", "ignore-int", "--fault", "ignore-term")
		_ = c.cmd.Process.Signal(os.Interrupt)
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		c.finished(c.submit(colour(1, "PreviewImage")))
	})
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := start(t, "--port", port)
	if st := c.wait(); st.ExitStatus() != 1 {
		t.Errorf("status %v", st)
	}
	if want := "error while attempting to bind on address ('127.0.0.1', " + port + "): address already in use"; !strings.Contains(c.text(), want) {
		t.Errorf("the log lacks %q", want)
	}
}

func TestFaultsAtTheStart(t *testing.T) {
	t.Run("exit at import", func(t *testing.T) {
		if st := start(t, "--fault", "exit-at-import=3").wait(); st.ExitStatus() != 3 {
			t.Errorf("status %v", st)
		}
	})
	t.Run("import failure", func(t *testing.T) {
		c := start(t, "--fault", "import-failure=my_pack")
		for _, want := range []string{"Cannot import " + c.dir + "/custom_nodes/my_pack module for custom nodes: ", " seconds (IMPORT FAILED): " + c.dir + "/custom_nodes/my_pack\n"} {
			if !strings.Contains(c.text(), want) {
				t.Errorf("the log lacks %q", want)
			}
		}
	})
	t.Run("slow start", func(t *testing.T) {
		begin := time.Now()
		c := start(t, "--fault", "slow-start=300ms", "--fault", "silent-start=200ms")
		if d := time.Since(begin); d < 500*time.Millisecond {
			t.Errorf("started after %v", d)
		}
		if !strings.Contains(c.text(), "seconds to go") {
			t.Error("the log did not move")
		}
	})
}

func TestFaultsInANode(t *testing.T) {
	t.Run("exit", func(t *testing.T) {
		c := start(t, "--fault", "exit=7@2")
		c.finished(c.submit(colour(1, "SaveImage")))
		c.submit(colour(2, "SaveImage"))
		if st := c.wait(); st.ExitStatus() != 7 {
			t.Errorf("status %v", st)
		}
	})
	for n, text := range map[string]string{"9": "", "11": "Fatal Python error: Segmentation fault", "6": "Fatal Python error: Aborted"} {
		t.Run("signal "+n, func(t *testing.T) {
			c := start(t, "--fault", "signal="+n)
			c.submit(sketchPrompt("c", 4, 0, "x"))
			if st := c.wait(); !st.Signaled() || int(st.Signal()) != map[string]int{"9": 9, "11": 11, "6": 6}[n] {
				t.Errorf("status %v", st)
			}
			if !strings.Contains(c.text(), text) {
				t.Errorf("the log lacks %q", text)
			}
		})
	}
	t.Run("cuda-oom once, over restarts too", func(t *testing.T) {
		state := filepath.Join(t.TempDir(), "count")
		c := start(t, "--fault", "cuda-oom@1", "--fault-state", state)
		kind, data := lastMessage(c.finished(c.submit(sketchPrompt("c", 4, 0, "x"))))
		if kind != "execution_error" || data.at("exception_type") != "torch.OutOfMemoryError" || !strings.Contains(data.at("exception_message").(string), "TIPS:") {
			t.Errorf("%s %s", kind, dumpJSON(data))
		}
		if !strings.Contains(c.text(), "Got an OOM, unloading all loaded models.\n") {
			t.Error("the log does not tell")
		}
		_ = c.cmd.Process.Kill()
		c.wait()
		c = start(t, "--fault", "cuda-oom@1", "--fault-state", state)
		if kind, _ := lastMessage(c.finished(c.submit(sketchPrompt("c", 4, 0, "x")))); kind != "execution_success" {
			t.Errorf("after the restart: %s", kind)
		}
	})
	t.Run("dead worker", func(t *testing.T) {
		c := start(t, "--fault", "dead-worker@1")
		l := c.listen("c", "")
		c.submit(sketchPrompt("c", 4, 0, "x"))
		l.until(isType("progress"))
		c.submit(colour(1, "SaveImage"))
		for end := time.Now().Add(patience); !strings.Contains(c.text(), "Exception in thread"); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the worker thread did not die")
			}
		}
		if q := c.get("/queue"); len(q.at("queue_running").([]any)) != 1 || len(q.at("queue_pending").([]any)) != 1 {
			t.Errorf("queue: %s", dumpJSON(q))
		}
	})
	t.Run("nan", func(t *testing.T) {
		c := start(t, "--fault", "nan")
		id := c.submit(colour(1, "SaveImage"))
		c.finished(id)
		if _, b := c.do("GET", "/history/"+id, "", nil); !bytes.Contains(b, []byte(`"value": [NaN]`)) {
			t.Errorf("history: %s", b)
		}
	})
	t.Run("disk-full", func(t *testing.T) {
		c := start(t, "--fault", "disk-full")
		kind, data := lastMessage(c.finished(c.submit(colour(1, "SaveImage"))))
		if kind != "execution_error" || data.at("exception_type") != "OSError" || data.at("exception_message") != "[Errno 28] No space left on device\n" {
			t.Errorf("%s %s", kind, dumpJSON(data))
		}
		if st, err := os.Stat(filepath.Join(c.dir, "output", "x_00001_.png")); err != nil || st.Size() == 0 {
			t.Errorf("no file that is cut short: %v", err)
		}
	})
	t.Run("alloc", func(t *testing.T) {
		c := start(t, "--fault", "alloc=64MiB@1")
		before := residentKB(t, c.cmd.Process.Pid)
		c.finished(c.submit(colour(1, "SaveImage")))
		if grown := residentKB(t, c.cmd.Process.Pid) - before; grown < 60<<10 {
			t.Errorf("grew by %d KiB", grown)
		}
		c.do("POST", "/free", "", []byte(`{"free_memory": true, "unload_models": true}`))
		for end := time.Now().Add(patience); residentKB(t, c.cmd.Process.Pid)-before > 30<<10; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("/free did not give the memory back")
			}
		}
	})
	t.Run("blocked loop", func(t *testing.T) {
		c := start(t, "--fault", "blocked-loop=400ms@1")
		l := c.listen("c", "")
		c.submit(sketchPrompt("c", 2, 0.1, "x"))
		l.until(promptEnded)
		c.get("/queue")
	})
	t.Run("deaf socket", func(t *testing.T) {
		c := start(t, "--fault", "deaf-socket@2")
		l := c.listen("c1", "")
		c.submit(colour(1, "SaveImage"))
		l.until(promptEnded)
		c.finished(c.submit(colour(2, "SaveImage")))
		select {
		case m := <-l.in:
			if m.text == nil || m.text.at("type") != "status" { // told before the prompt began
				t.Errorf("heard %v", m)
			}
		default:
		}
	})
	t.Run("slow node", func(t *testing.T) {
		c := start(t, "--fault", "slow-node=150ms")
		begin := time.Now()
		c.finished(c.submit(colour(1, "SaveImage")))
		if d := time.Since(begin); d < 300*time.Millisecond {
			t.Errorf("two nodes took %v", d)
		}
	})
}

func residentKB(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pyStr(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return meminfo(b, "VmRSS:") >> 10
}

func TestCacheAndNewSeed(t *testing.T) {
	c := start(t)
	l := c.listen("c", "")
	cached := func(p map[string]any) string {
		c.submit(p)
		for _, m := range l.until(promptEnded) {
			if isType("execution_cached")(m) {
				return string(dumpJSON(m.text.at("data").(*object).at("nodes")))
			}
		}
		return "none"
	}
	if got := cached(sketchPrompt("c", 2, 0, "x")); got != "[]" {
		t.Errorf("first: %s", got)
	}
	if got := cached(sketchPrompt("c", 2, 0, "x")); got != `["1", "2"]` {
		t.Errorf("again: %s", got)
	}
	if got := cached(sketchPrompt("c", 2, 0, "other")); got != `["1"]` {
		t.Errorf("another prefix: %s", got)
	}
	if got := cached(sketchPrompt("c", 3, 0, "other")); got != `[]` {
		t.Errorf("another seed: %s", got)
	}
}

func TestCycleAndMismatchAreRefused(t *testing.T) {
	c := start(t)
	post := func(nodes map[string]any) *object {
		res, out := c.do("POST", "/prompt", "", mustJSON(t, map[string]any{"prompt": nodes}))
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d", res.StatusCode)
		}
		v, _ := parseJSON(out)
		return v.(*object)
	}
	cycle := post(map[string]any{
		"1": node("ImageInvert", map[string]any{"image": from("2")}), "2": node("ImageInvert", map[string]any{"image": from("1")}),
		"3": node("PreviewImage", map[string]any{"images": from("1")}),
	})
	if got := string(dumpJSON(cycle)); got != `{"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": "", "extra_info": {}}, "node_errors": {}}` {
		t.Errorf("cycle: %s", got)
	}
	mismatch := post(map[string]any{
		"1": node("SolidMask", map[string]any{"value": 1, "width": 8, "height": 8}),
		"2": node("PreviewImage", map[string]any{"images": from("1")}),
	})
	if got := string(dumpJSON(mismatch)); !strings.Contains(got, `"details": "images, received_type(MASK) mismatch input_type(IMAGE)"`) {
		t.Errorf("mismatch: %s", got)
	}
}

func TestParseArgs(t *testing.T) {
	for args, want := range map[string]string{
		"--nosuch":                      "unrecognized arguments: --nosuch",
		"--port abc":                    "argument --port: invalid int value: 'abc'",
		"--port":                        "argument --port: expected one argument",
		"--cpu=1":                       "argument --cpu: ignored explicit argument '1'",
		"--preview-method x":            "argument --preview-method: invalid choice: 'x' (choose from 'none', 'auto', 'latent2rgb', 'taesd')",
		"--user-directory /no/such/dir": "argument --user-directory: /no/such/dir does not exist. Please check the path.",
		"--fault exit":                  "argument --fault: exit needs a value: exit=CODE",
		"--fault exit=1@0":              "argument --fault: exit: @0 does not name a prompt (they count from 1; faults of the start take none)",
	} {
		_, err := ParseArgs(strings.Fields(args))
		var usage *UsageError
		if !errors.As(err, &usage) || usage.Msg != want || usage.ExitCode() != 2 {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
	o, err := ParseArgs(strings.Fields("--listen --port 1234 --base-directory /b --output-directory=/o --lowvram --verbose --log-stdout --fault alloc=1.5G@3"))
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Listen) != 2 || o.Port != 1234 || o.OutputDir != "/o" || o.InputDir != "/b/input" || o.Level != "DEBUG" || o.Faults[0].size != 3<<29 || o.Faults[0].Prompt != 3 {
		t.Errorf("%+v", o)
	}
	for _, f := range flags() {
		if !strings.Contains(Usage(), "\n  "+f.name) {
			t.Errorf("--help does not list %s", f.name)
		}
	}
}

func TestLogLooksLikeComfyUI(t *testing.T) {
	c := start(t)
	l := c.listen("c", "")
	c.do("PATCH", "/internal/logs/subscribe", "", []byte(`{"clientId": "c", "enabled": true}`))
	c.submit(sketchPrompt("c", 5, 0.6, "x"))
	var logged strings.Builder
	for !strings.Contains(logged.String(), "Prompt executed in ") {
		for _, m := range l.until(isType("logs")) {
			if !isType("logs")(m) {
				continue
			}
			for _, e := range m.text.at("data").(*object).at("entries").([]any) {
				logged.WriteString(e.(*object).at("m").(string))
			}
		}
	}
	for _, want := range []string{"got prompt\n", "\r  0%|          | 0/5 [00:00<?, ?it/s]", "\r100%|██████████| 5/5 [00:00<00:00, ", "it/s]\n"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("the log lacks %q:\n%q", want, logged.String())
		}
	}
	if got := barText(7, 20, 2*time.Second); got != " 35%|███▌      | 7/20 [00:02<00:03,  3.50it/s]" {
		t.Errorf("bar: %q", got)
	}
}
