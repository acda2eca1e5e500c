package comfy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

const promptID = "3f1c9a52-7d0e-4a6b-9b1f-2f6f4be0d001"

func TestSystemStats(t *testing.T) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			var raw json.RawMessage
			load(t, v, "system_stats", &raw)
			s := newServer(t)
			s.answer("GET /system_stats", 200, raw)
			got, err := testClient(t, s.URL).SystemStats(within(t, 5*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if got.Version != v || len(got.Devices) != 1 || got.Devices[0].Type != "cpu" || got.Devices[0].Index != nil || got.RAMTotal == 0 {
				t.Errorf("read wrongly: %+v", got)
			}
		})
	}
}

func TestQueueAndPrompt(t *testing.T) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			s := newServer(t)
			run := loadRun(t, v, "queue_of_four")
			c := testClient(t, s.URL)
			first := true
			for _, step := range run.Steps {
				s.answer(step.Request.Method+" "+strings.SplitN(step.Request.Path, "?", 2)[0], step.Response.Status, step.Response.body())
				switch step.Request.Method + " " + step.Request.Path {
				case "GET /queue":
					q, err := c.Queue(within(t, 5*time.Second))
					if err != nil {
						t.Fatal(err)
					}
					if first && (len(q.Running) != 1 || len(q.Pending) != 3) {
						t.Errorf("%d run and %d wait", len(q.Running), len(q.Pending))
					}
					first = false
					for _, p := range q.Pending {
						if _, pending := q.Find(p.PromptID); !pending || p.ClientID == "" || len(p.Outputs) == 0 || len(p.Prompt) == 0 {
							t.Errorf("an item read wrongly: %+v", p)
						}
					}
					for i := 1; i < len(q.Pending); i++ {
						a, _ := q.Pending[i-1].Number.Float64()
						b, _ := q.Pending[i].Number.Float64()
						if a > b {
							t.Error("not in the order of execution")
						}
					}
				case "GET /prompt":
					if n, err := c.Prompt(within(t, 5*time.Second)); err != nil || n != 4 {
						t.Errorf("got %d, %v", n, err)
					}
				case "GET /history/" + run.Steps[6].Request.Path[len("/history/"):]:
					_, found, err := c.History(within(t, 5*time.Second), strings.TrimPrefix(step.Request.Path, "/history/"))
					if err != nil || found {
						t.Errorf("a running prompt has a history: %v, %v", found, err)
					}
				}
			}
		})
	}
}

func TestPostBody(t *testing.T) {
	graph := json.RawMessage(`{"3": {"class_type":"KSampler","inputs":{"seed":18446744073709551615,"cfg":1.0,"text":"<&>é"}}}`)
	body, err := PromptRequest{
		Graph: graph, PromptID: promptID, ClientID: "c", Workflow: json.RawMessage(`{"nodes":[]}`),
		Extra: map[string]json.RawMessage{"a": json.RawMessage(" null "), "preview_method": json.RawMessage(`"auto"`), "extra_pnginfo": json.RawMessage(`{"x":null,"y":1}`)},
		Front: true, Targets: []string{"9"},
	}.body()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"client_id":"c","prompt_id":"` + promptID + `","front":true,"partial_execution_targets":["9"],` +
		`"extra_data":{"extra_pnginfo":{"workflow":{"nodes":[]},"y":1},"preview_method":"auto"},"prompt":` + string(graph) + `}`
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	body, err = PromptRequest{Graph: graph, PromptID: promptID, ClientID: "c", Workflow: json.RawMessage("null")}.body()
	if err != nil || !strings.Contains(string(body), `"extra_data":{},`) {
		t.Errorf("extra_data must be an empty object: %s, %v", body, err)
	}
}

func TestPostRefusesWhatWouldHarm(t *testing.T) {
	good := PromptRequest{Graph: json.RawMessage(`{}`), PromptID: promptID, ClientID: "c"}
	for name, change := range map[string]func(*PromptRequest){
		"id in upper case":  func(r *PromptRequest) { r.PromptID = strings.ToUpper(promptID) },
		"id is no UUID":     func(r *PromptRequest) { r.PromptID = "1" },
		"no client":         func(r *PromptRequest) { r.ClientID = "" },
		"null graph":        func(r *PromptRequest) { r.Graph = json.RawMessage("null") },
		"list":              func(r *PromptRequest) { r.Graph = json.RawMessage("[]") },
		"broken graph":      func(r *PromptRequest) { r.Graph = json.RawMessage(`{"a":`) },
		"pnginfo is a list": func(r *PromptRequest) { r.Extra = map[string]json.RawMessage{"extra_pnginfo": json.RawMessage("[]")} },
		"broken extra":      func(r *PromptRequest) { r.Extra = map[string]json.RawMessage{"a": json.RawMessage("{")} },
	} {
		r := good
		change(&r)
		if _, err := r.body(); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestPostAnswersAsRecorded(t *testing.T) {
	// The sentences people read; none may hold a traceback or a path.
	want := map[string]string{
		"no_prompt":               "ComfyUI refused the workflow: No prompt provided",
		"prompt_empty":            "ComfyUI refused the workflow: it has no output node, such as SaveImage or PreviewImage",
		"unknown_class":           "ComfyUI refused the workflow: node 1: node NoSuchNode does not exist",
		"prompt_is_ui_workflow":   "ComfyUI refused the workflow: node id: a node is missing the class_type property",
		"no_inputs_key":           "node 1 (EmptyImage)",
		"missing_required_input":  "is missing (and 2 more)",
		"value_not_in_list_ckpt":  "node 1 (CheckpointLoaderSimple) ckpt_name: 'sd15.safetensors' is not there: the list is empty",
		"value_not_in_long_list":  "node 1 (FixtureCombo) choice: 'choice 99' is not one of (list of length 40)",
		"too_small_and_too_big":   "node 1 (EmptyImage) width: value 0 smaller than min of 1 (and 1 more)",
		"bad_link_length":         `node 2 (PreviewImage) images: a link must be [node id, output number], not ["1"]`,
		"link_to_missing_node":    "node 2 (PreviewImage): it links to node 99, which is not in the workflow",
		"link_to_missing_slot":    "node 2 (PreviewImage): it links to an output number that the other node does not have",
		"link_slot_is_string":     "the output number of a link must be a number, not a text",
		"link_node_id_is_number":  "it links to node 1, which is not in the workflow",
		"return_type_mismatch":    "node 2 (PreviewImage) images: the linked output has another type: received_type(LATENT) mismatch input_type(IMAGE)",
		"cycle":                   "an output depends on itself (a cycle)",
		"load_image_missing_file": "node 1 (LoadImage) image: Invalid image file: nosuch.png",
		"wrong_type":              "node 1 (EmptyImage) width: wide, invalid literal for int() with base 10: 'wide'",
	}
	for _, v := range versions {
		var all map[string]exchange
		load(t, v, "post_prompt_errors", &all)
		s := newServer(t)
		c := testClient(t, s.URL)
		seen := 0
		for name, x := range all {
			s.answer("POST /prompt", x.Response.Status, x.Response.body())
			got, err := c.Post(within(t, 5*time.Second), PromptRequest{Graph: json.RawMessage(`{}`), ClientID: "c"})
			if x.Response.Status == 200 {
				if err != nil || got.PromptID == "" || got.Number == "" {
					t.Errorf("%s %s: %+v, %v", v, name, got, err)
				}
				if name == "one_good_output_one_bad" && (len(got.Warnings) != 4 || got.Warnings[0].Node != "3") {
					t.Errorf("%s %s: warnings %+v", v, name, got.Warnings)
				}
				continue
			}
			if !Refused(err) || Unreachable(err) {
				t.Errorf("%s %s: %v is not a refusal", v, name, err)
			}
			var p *PromptError
			if isPrompt := errors.As(err, &p); isPrompt != (x.Response.Status == 400) {
				t.Errorf("%s %s: %v", v, name, err)
			}
			if strings.Contains(err.Error(), "/opt/") || strings.Contains(err.Error(), "Traceback") {
				t.Errorf("%s %s leaks: %v", v, name, err)
			}
			if p != nil && len(p.Problems()) == 0 {
				t.Errorf("%s %s: no problems", v, name)
			}
			if w, ok := want[name]; ok {
				seen++
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s %s:\n got %v\nwant %s", v, name, err, w)
				}
			}
		}
		if seen != len(want) {
			t.Errorf("%s: %d of %d sentences seen", v, seen, len(want))
		}
	}
}

func TestPostFoldsCopiesOfACustomFault(t *testing.T) {
	body := []byte(`{"error":{"type":"prompt_outputs_failed_validation","message":"m","details":"","extra_info":{}},"node_errors":{
		"10":{"errors":[{"type":"custom_validation_failed","message":"Custom validation failed for node","details":"image - Invalid\u001b[31m file","extra_info":{"input_name":"image"}},
			{"type":"custom_validation_failed","message":"Custom validation failed for node","details":"upload - Invalid\u001b[31m file","extra_info":{"input_name":"upload"}}],"dependent_outputs":["12"],"class_type":"LoadImage"},
		"9":{"errors":[{"type":"required_input_missing","message":"Required input is missing","details":"a","extra_info":{"input_name":"a"}}],"dependent_outputs":[],"class_type":"X"}}}`)
	var p *PromptError
	if err := parsePromptError(400, body); !errors.As(err, &p) {
		t.Fatalf("got %v", err)
	}
	if len(p.Nodes) != 2 || p.Nodes[0].Node != "9" || p.Nodes[1].Details != "Invalid file" || p.Nodes[1].Input != "image" {
		t.Errorf("got %+v", p.Nodes)
	}
}

func TestInterruptOnlyByID(t *testing.T) {
	s := newServer(t)
	s.answer("POST /interrupt", 200, nil)
	c := testClient(t, s.URL)
	ctx := within(t, 5*time.Second)
	if err := c.Interrupt(ctx, ""); err == nil {
		t.Error("an interrupt without id was sent")
	}
	s.answer("GET /system_stats", 200, []byte(`{"system":{"comfyui_version":"0.3.56"},"devices":[]}`))
	if err := c.Interrupt(ctx, promptID); !errors.Is(err, ErrInterruptUnsupported) {
		t.Errorf("an old server was asked: %v", err)
	}
	s.answer("GET /system_stats", 200, []byte(`{"system":{"comfyui_version":"v0.8.0-2-gabc"},"devices":[]}`))
	if _, err := c.SystemStats(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Interrupt(ctx, promptID); err != nil {
		t.Fatal(err)
	}
	if want := `POST /interrupt {"prompt_id":"` + promptID + `"}`; s.last() != want {
		t.Errorf("sent %s", s.last())
	}
}

func TestOlderThan(t *testing.T) {
	for v, want := range map[string]bool{
		"0.3.56": true, "0.3.57": false, "0.3.9": true, "0.4.0": false, "1.0": false, "0.2": true,
		"v0.3.40": true, "": false, "nightly": false, "0.3.56rc1": true, "0.3": false,
	} {
		if got := olderThan(v, 0, 3, 57); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}

func TestSmallCalls(t *testing.T) {
	s := newServer(t)
	c := testClient(t, s.URL)
	ctx := within(t, 5*time.Second)
	for _, p := range []string{"POST /queue", "POST /free", "POST /history", "PATCH /internal/logs/subscribe"} {
		s.answer(p, 200, nil)
	}
	for want, call := range map[string]func() error{
		`POST /queue {"delete":["a","b"]}`:                                func() error { return c.DeletePending(ctx, "a", "b") },
		`POST /free {"free_memory":true,"unload_models":true}`:            func() error { return c.Free(ctx, true, true) },
		`POST /history {"delete":["a"]}`:                                  func() error { return c.DeleteHistory(ctx, "a") },
		`PATCH /internal/logs/subscribe {"clientId":"me","enabled":true}`: func() error { return c.SubscribeLogs(ctx, "me", true) },
	} {
		if err := call(); err != nil || s.last() != want {
			t.Errorf("sent %s, want %s (%v)", s.last(), want, err)
		}
	}
	before := s.last()
	if err := c.DeletePending(ctx); err != nil || s.last() != before {
		t.Error("nothing to delete, and something was sent")
	}
}

func TestFeaturesLogsObjectInfo(t *testing.T) {
	for _, v := range versions {
		s := newServer(t)
		c := testClient(t, s.URL)
		ctx := within(t, 5*time.Second)
		if f, err := c.Features(ctx); err != nil || f.PreviewMetadata {
			t.Errorf("a server without /features: %+v, %v", f, err)
		}
		for path, name := range map[string]string{
			"/features": "features", "/internal/logs": "internal_logs", "/internal/logs/raw": "internal_logs_raw", "/object_info/KSampler": "object_info_KSampler",
		} {
			var raw json.RawMessage
			load(t, v, name, &raw)
			s.answer("GET "+path, 200, raw)
		}
		if f, err := c.Features(ctx); err != nil || !f.PreviewMetadata || f.MaxUpload != 100<<20 {
			t.Errorf("%s: %+v, %v", v, f, err)
		}
		if l, err := c.Logs(ctx); err != nil || !strings.Contains(l, "pytorch version") {
			t.Errorf("%s: %.60q, %v", v, l, err)
		}
		if l, err := c.LogsRaw(ctx); err != nil || len(l) == 0 || l[0].At.IsZero() || l[0].Text == "" {
			t.Errorf("%s: %v", v, err)
		}
		info, ok, err := c.ObjectInfoClass(ctx, "KSampler")
		if err != nil || !ok || !strings.Contains(string(info), "18446744073709551615") {
			t.Errorf("%s: the seed's limit is not exact (%v, %v)", v, ok, err)
		}
	}
}

func TestObjectInfo(t *testing.T) {
	s := newServer(t)
	s.answer("GET /object_info", 200, []byte(`{"B":{"max":Infinity},"A":{"note":"NaN"}}`))
	o, err := testClient(t, s.URL).ObjectInfo(within(t, 5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := o.Class("B")
	if !reflect.DeepEqual(o.Classes(), []string{"B", "A"}) || string(b) != `{"max":null}` || !json.Valid(o.Raw()) {
		t.Errorf("got %v, %s", o.Classes(), b)
	}
	for _, bad := range []string{"[]", `{"a":`, `{"a":{}`, ""} {
		if _, err := NewObjectInfo([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestErrorsSayWhoIsAtFault(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	ctx := within(t, 10*time.Second)
	_, err = testClient(t, "http://"+addr).Queue(ctx)
	if !Unreachable(err) || Refused(err) || !NotSent(err) || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("nobody there: %v", err)
	}

	s := newServer(t)
	s.handle("POST /prompt", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	_, err = testClient(t, s.URL).Post(ctx, PromptRequest{Graph: json.RawMessage("{}"), ClientID: "c"})
	if !Unreachable(err) || NotSent(err) {
		t.Errorf("broken while it was served: %v", err)
	}

	hang := make(chan struct{})
	s.handle("GET /queue", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	defer close(hang)
	_, err = testClient(t, s.URL, WithTimeout(30*time.Millisecond)).Queue(ctx)
	if !Unreachable(err) || NotSent(err) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("stalled: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = testClient(t, s.URL).Queue(gone)
	if Unreachable(err) || Refused(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled by the caller: %v", err)
	}

	s.answer("GET /queue", 502, []byte("<html>bad gateway"))
	if _, err = testClient(t, s.URL).Queue(ctx); !Unreachable(err) || Refused(err) {
		t.Errorf("a proxy's 502: %v", err)
	}
	s.answer("POST /free", 500, []byte("500 Internal Server Error\n\nServer got itself in trouble"))
	if err = testClient(t, s.URL).Free(ctx, true, false); !Refused(err) || !strings.Contains(err.Error(), "worker's log") {
		t.Errorf("a 500: %v", err)
	}
	s.answer("GET /queue", 200, []byte("<html>"))
	if _, err = testClient(t, s.URL).Queue(ctx); err == nil || Unreachable(err) {
		t.Errorf("not a ComfyUI: %v", err)
	}
}

func TestDefaultTimeoutBearsAStall(t *testing.T) {
	if New("http://127.0.0.1:1").timeout < 30*time.Second {
		t.Error("a model load stalls ComfyUI for longer")
	}
}

func TestViewAndUpload(t *testing.T) {
	s := newServer(t)
	ctx := within(t, 5*time.Second)
	c := testClient(t, s.URL)
	big := strings.Repeat("x", 3<<20)
	s.handle("GET /view", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("filename") != "a b&c.png" || r.URL.Query().Get("type") != "output" {
			http.Error(w, "", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "image/png")
		_, _ = io.WriteString(w, big)
	})
	f, err := c.View(ctx, FileItem{Filename: "a b&c.png"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil || string(b) != big || f.ContentType != "image/png" {
		t.Errorf("%d bytes, %s, %v", len(b), f.ContentType, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.View(ctx, FileItem{Filename: "nosuch"}); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("got %v", err)
	}
	s.handle("POST /upload/image", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(16 << 20); err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		file, head, err := r.FormFile("image")
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		got, _ := io.ReadAll(file)
		_, _ = fmt.Fprintf(w, `{"name":%q,"subfolder":%q,"type":%q,"asset":{"id":1}}`,
			fmt.Sprintf("%s-%d-%s", head.Filename, len(got), r.FormValue("overwrite")), r.FormValue("subfolder"), r.FormValue("type"))
	})
	u, err := c.Upload(ctx, "Ünï \"q\".png", "temp", "sub", true, strings.NewReader(big))
	if err != nil || u.Name != "Ünï \"q\".png-3145728-true" || u.Value() != `sub/Ünï "q".png-3145728-true [temp]` {
		t.Errorf("got %+v, %v", u, err)
	}
	if u, err := c.Upload(ctx, "a", "", "", false, strings.NewReader("")); err != nil || u.Name != "a-0-" || u.Value() != "a-0-" {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := c.Upload(ctx, "../a", "", "", false, strings.NewReader("")); err == nil {
		t.Error("a name with folders was sent")
	}
}

func TestViewThatStalls(t *testing.T) {
	s := newServer(t)
	s.handle("GET /view", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	f, err := testClient(t, s.URL, WithTimeout(50*time.Millisecond)).View(within(t, 5*time.Second), FileItem{Filename: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(f)
	if string(b) != "half" || !Unreachable(err) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestPlain(t *testing.T) {
	if got := Plain("a\x1b[31m\x1b]0;t\x07\u202eb\r\nc\x00\xff  d", 0); got != "ab c\uFFFD d" {
		t.Errorf("got %q", got)
	}
	if got := Plain("äöü", 2); got != "äö…" {
		t.Errorf("got %q", got)
	}
}
