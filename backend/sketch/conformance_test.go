package sketch

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

// The recordings under testdata are traffic of real ComfyUI servers, cut down
// to what the worker's nodes can serve. These tests send the requests again
// and compare the answers.

// masks hide what differs from run to run.
var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`"(timestamp|create_time)": \d+`), `"$1": 0`},
	{regexp.MustCompile(`"(modified|created)": [\d.e+]+`), `"$1": 0`},
	{regexp.MustCompile(`_temp_[a-z]{5}_\d+_`), "_temp_"},
	{regexp.MustCompile(`"number": -?\d+(\.\d+)?`), `"number": 0`},
	{regexp.MustCompile(`"prompt": \[\d+`), `"prompt": [0`},
	{regexp.MustCompile(`"sid": "[^"]*"`), `"sid": ""`},
}

func masked(v any) string {
	s := string(dumpJSON(withoutTraces(v)))
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	return s
}

// withoutTraces empties tracebacks and sorts lists of errors, which ComfyUI
// makes from sets.
func withoutTraces(v any) any {
	switch v := v.(type) {
	case *object:
		o := newObject()
		for _, k := range v.keys {
			x := withoutTraces(v.vals[k])
			if k == "traceback" {
				x = []any{}
			}
			if l, ok := x.([]any); ok && k == "errors" {
				sort.Slice(l, func(i, j int) bool { return bytes.Compare(dumpJSON(l[i]), dumpJSON(l[j])) < 0 })
			}
			o.set(k, x)
		}
		return o
	case []any:
		l := make([]any, len(v))
		for i := range v {
			l[i] = withoutTraces(v[i])
		}
		return l
	}
	return v
}

// shape is the types in a value, with the keys of objects.
func shape(v any) string {
	switch v := v.(type) {
	case *object:
		var b strings.Builder
		for _, k := range v.keys {
			fmt.Fprintf(&b, "%s:%s,", k, shape(v.vals[k]))
		}
		return "{" + b.String() + "}"
	case []any:
		if len(v) == 0 {
			return "[]"
		}
		return "[" + shape(v[0]) + "]"
	}
	return pyType(v)
}

func eachVersion(t *testing.T, fn func(t *testing.T, version string)) {
	for _, v := range Versions {
		t.Run(v, func(t *testing.T) { fn(t, v) })
	}
}

func header(o *object, name string) string {
	l, _ := o.at("headers").([]any)
	for _, h := range l {
		if p := h.([]any); p[0] == name {
			return p[1].(string)
		}
	}
	return ""
}

func TestConformanceOfGet(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		for _, e := range readTestdata(t, version, "get.json").([]any) {
			e := e.(*object)
			path := e.at("path").(string)
			if e.has("request") || strings.HasPrefix(path, "/userdata") && version == "0.8.0" || strings.HasPrefix(path, "/v2/") && version == "0.8.0" || path == "/settings" {
				continue // headers of their own, or state that earlier requests left there
			}
			method := "GET"
			if m, ok := e.at("method").(string); ok {
				method = m
			}
			res, body := c.do(method, path, "", nil)
			if int64(res.StatusCode) != e.at("status") {
				t.Errorf("%s %s: status %d, recorded %v", method, path, res.StatusCode, e.at("status"))
			}
			if got, want := res.Header.Get("Content-Type"), header(e, "Content-Type"); got != want {
				t.Errorf("%s %s: type %q, recorded %q", method, path, got, want)
			}
			if got, want := res.Header.Get("Allow"), header(e, "Allow"); got != want {
				t.Errorf("%s %s: Allow %q, recorded %q", method, path, got, want)
			}
			if want, ok := e.get("body_json"); ok && path != "/internal/files/output" {
				got, err := parseJSON(body)
				if err != nil || shape(got) != shape(want) {
					t.Errorf("%s %s:\n got %s\nwant %s", method, path, shape(got), shape(want))
				}
			}
			if want, ok := e.at("body_text").(string); ok && path != "/" && string(body) != want {
				t.Errorf("%s %s: %q, recorded %q", method, path, body, want)
			}
		}
	})
}

func TestObjectInfoIsAsRecorded(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		all := c.get("/object_info")
		want, order, err := loadClasses(version)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(all.keys, order) {
			t.Errorf("classes %v, want %v", all.keys, order)
		}
		for _, n := range order {
			if got := string(dumpJSON(all.at(n))); got != string(dumpJSON(want[n].spec)) {
				t.Errorf("%s: %s", n, got)
			}
		}
		if err := os.WriteFile(filepath.Join(c.dir, "input", "b.png"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := masked(c.get("/object_info/LoadImage")); !strings.Contains(got, `[["b.png"], {"image_upload": true}]`) {
			t.Errorf("LoadImage does not list the new file: %s", got)
		}
	})
}

func TestConformanceOfRefusedPrompts(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		all := readTestdata(t, version, "post_prompt_errors.json").(*object)
		for _, name := range all.keys {
			e := all.vals[name].(*object)
			q, want := e.at("request").(*object), e.at("response").(*object)
			body := dumpJSON(q.at("json"))
			if !q.has("json") {
				body = []byte(pyStr(q.at("body")))
			}
			switch name {
			case "invalid_utf8":
				body = []byte("{\"prompt\": \"\xff\"}")
			case "empty_body":
				body = nil
			}
			res, got := c.do("POST", "/prompt", "application/json", body)
			if int64(res.StatusCode) != want.at("status") {
				t.Errorf("%s: status %d, recorded %v", name, res.StatusCode, want.at("status"))
			}
			if w, ok := want.get("json"); ok {
				g, err := parseJSON(got)
				if err != nil || masked(g) != masked(w) {
					t.Errorf("%s:\n got %s\nwant %s", name, masked(g), masked(w))
				}
			} else if string(got) != want.at("text") {
				t.Errorf("%s: %q, recorded %q", name, got, want.at("text"))
			}
		}
	})
}

// transcript is a WebSocket recording in the form of compare.
func transcript(rec any) []string {
	var list []string
	for _, m := range rec.([]any) {
		m := m.(*object)
		switch {
		case m.has("text"):
			list = append(list, masked(m.at("text")))
		case m.has("binary"):
			b := m.at("binary").(*object)
			if b.at("event") != int64(3) { // texts of the fixture nodes
				list = append(list, "binary "+pyStr(b.at("event"))+" "+masked(b.at("metadata")))
			}
		}
	}
	return list
}

func heard(ms []received) []string {
	var list []string
	for _, m := range ms {
		if m.text != nil {
			list = append(list, masked(m.text))
			continue
		}
		meta := "null"
		if m.binary[3] == 4 {
			n := int(m.binary[4])<<24 | int(m.binary[5])<<16 | int(m.binary[6])<<8 | int(m.binary[7])
			v, _ := parseJSON(m.binary[8 : 8+n])
			meta = masked(v)
		}
		list = append(list, fmt.Sprintf("binary %d %s", m.binary[3], meta))
	}
	return list
}

func sameLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("%s, message %d:\n got %s\nwant %s", what, i+1, g, w)
			return
		}
	}
}

func TestConformanceOfRuns(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		open := map[string]*listener{}
		for _, name := range []string{"first_run", "second_identical_run", "batch_in_subfolder", "three_outputs", "partial_execution_targets", "save_prefix_traversal"} {
			r := readTestdata(t, version, name+".json").(*object)
			post := r.at("post").(*object)
			body := post.at("request").(*object).at("json").(*object)
			client := body.at("client_id").(string)
			l := open[client] // one for all: a second socket with the id would be deafened
			if l == nil {
				l = c.listen(client, "")
				open[client] = l
			}
			id := c.submit(dumpJSON(body))
			got := heard(l.until(promptEnded))
			want := transcript(r.at("ws"))[1:] // the first is the greeting
			hist, wantHist := masked(c.finished(id)), masked(r.at("history").(*object).at("json").(*object).at(r.at("prompt_id").(string)))
			// The order of branches and the numbers of files depend on what
			// was there; output folders differ.
			switch name {
			case "three_outputs":
				continue // its own test
			case "save_prefix_traversal":
				drop := regexp.MustCompile(`\*\*\*\* ERROR[^"]*"`)
				for i := range got {
					got[i] = drop.ReplaceAllString(got[i], `E"`)
				}
				for i := range want {
					want[i] = drop.ReplaceAllString(want[i], `E"`)
				}
				hist, wantHist = drop.ReplaceAllString(hist, `E"`), drop.ReplaceAllString(wantHist, `E"`)
			}
			sameLines(t, name, got, want)
			if hist != wantHist {
				t.Errorf("history of %s:\n got %s\nwant %s", name, hist, wantHist)
			}
		}
	})
}

// TestBranchesRunAsRecorded compares the messages of each node of a graph with
// three outputs; ComfyUI takes independent branches in no fixed order.
func TestBranchesRunAsRecorded(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		r := readTestdata(t, version, "three_outputs.json").(*object)
		body := r.at("post").(*object).at("request").(*object).at("json").(*object)
		l := c.listen(body.at("client_id").(string), "")
		c.submit(dumpJSON(body))
		number := regexp.MustCompile(`_\d{5}_`)
		per := func(list []string) []string {
			var out []string
			for _, m := range list {
				if strings.Contains(m, `"type": "executed"`) || strings.Contains(m, `"type": "executing"`) {
					out = append(out, number.ReplaceAllString(m, "_N_"))
				}
			}
			sort.Strings(out)
			return out
		}
		sameLines(t, "three_outputs", per(heard(l.until(promptEnded))), per(transcript(r.at("ws"))))
	})
}

// TestProgressIsAsRecorded runs EaselSketch in the place of the recording's
// sampler: three steps with previews, in both forms.
func TestProgressIsAsRecorded(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		for name, hello := range map[string]string{
			"progress_preview_metadata": `{"type": "feature_flags", "data": {"supports_preview_metadata": true}}`,
			"progress_jpeg_preview":     "",
		} {
			c := start(t, "--comfy-version", version)
			r := readTestdata(t, version, name+".json").(*object)
			l := c.listen("p", hello)
			warm := colour(1, "PreviewImage")
			warm["client_id"] = "other"
			c.finished(c.submit(warm))
			c.submit(map[string]any{"client_id": "p", "prompt": map[string]any{
				"1": warm["prompt"].(map[string]any)["1"],
				"2": node("EaselSketch", map[string]any{"text": "x", "seed": 1, "width": 32, "height": 32, "batch_size": 1, "steps": 3, "seconds": 0.0}),
				"3": node("PreviewImage", map[string]any{"images": from("2")}),
			}})
			got := heard(l.until(promptEnded))
			i := slices.IndexFunc(got, func(s string) bool { return strings.Contains(s, `"execution_cached"`) })
			want := transcript(r.at("ws"))
			k := slices.IndexFunc(want, func(s string) bool { return strings.Contains(s, `"execution_cached"`) })
			sameLines(t, name, got[i+1:], want[k+1:])
		}
	})
}

func smallPNG(c color.Color, w int) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, w, 8))
	for i := range w * 8 {
		img.Set(i%w, i/w, c)
	}
	var b bytes.Buffer
	_ = png.Encode(&b, img)
	return b.Bytes()
}

// TestConformanceOfFiles uploads what was uploaded, then views it.
func TestConformanceOfFiles(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		for i, e := range readTestdata(t, version, "uploads.json").([]any) {
			e := e.(*object)
			q, want := e.at("request").(*object), e.at("response").(*object)
			kind, body := "application/json", dumpJSON(q.at("json"))
			if files, ok := q.at("files").(*object); ok {
				kind, body = multipartBody(q, files)
			}
			if q.at("method") == "GET" {
				kind, body = "", nil
			}
			res, got := c.do(q.at("method").(string), q.at("path").(string), kind, body)
			check(t, fmt.Sprintf("upload %d (%v)", i, e.at("note")), want, res.StatusCode, res.Header.Get("Content-Type"), "", got)
		}
		for _, e := range readTestdata(t, version, "views.json").([]any) {
			e := e.(*object)
			path := e.at("request").(*object).at("path").(string)
			res, got := c.do("GET", strings.NewReplacer(" ", "%20").Replace(path), "", nil)
			check(t, path, e.at("response").(*object), res.StatusCode, res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition"), got)
		}
	})
}

func multipartBody(q, files *object) (string, []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields, _ := q.at("fields").(*object)
	for _, k := range fields.keys {
		_ = w.WriteField(k, fields.vals[k].(string))
	}
	for _, k := range files.keys {
		f := files.vals[k].(*object)
		h := textproto.MIMEHeader{}
		name := f.at("filename").(string)
		if name != "" {
			h.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"; filename="%s"`, k, strings.ReplaceAll(name, `\`, `\\`)))
		} else {
			h.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"; filename=""`, k))
		}
		p, _ := w.CreatePart(h)
		_, _ = p.Write(map[int64][]byte{
			75: smallPNG(color.White, 8), 76: smallPNG(color.Black, 8), 78: smallPNG(color.NRGBA{1, 2, 3, 9}, maskWidth(name)), 5: []byte("hello"), 2: []byte("xx"), 0: nil,
		}[f.at("length").(int64)])
	}
	_ = w.Close()
	return w.FormDataContentType(), b.Bytes()
}

// maskWidth makes the one mask that the recording calls too large too large.
func maskWidth(name string) int {
	if name == "fix_mask5.png" {
		return 16
	}
	return 8
}

func check(t *testing.T, what string, want *object, status int, kind, disposition string, got []byte) {
	t.Helper()
	if int64(status) != want.at("status") {
		t.Errorf("%s: status %d, recorded %v", what, status, want.at("status"))
	}
	if w := header(want, "Content-Type"); w != "" && kind != w {
		t.Errorf("%s: type %q, recorded %q", what, kind, w)
	}
	if w := header(want, "Content-Disposition"); disposition != w {
		t.Errorf("%s: disposition %q, recorded %q", what, disposition, w)
	}
	if w, ok := want.get("json"); ok {
		v, err := parseJSON(got)
		if err != nil || masked(v) != masked(w) {
			t.Errorf("%s:\n got %s\nwant %s", what, got, masked(w))
		}
	} else if w, ok := want.at("text").(string); ok && string(got) != w {
		t.Errorf("%s: %q, recorded %q", what, got, w)
	}
}

func TestConformanceOfUserdata(t *testing.T) {
	eachVersion(t, func(t *testing.T, version string) {
		c := start(t, "--comfy-version", version)
		for _, e := range readTestdata(t, version, "userdata_and_settings.json").([]any) {
			e := e.(*object)
			q, want := e.at("request").(*object), e.at("response").(*object)
			body := []byte(pyStr(q.at("body")))
			if q.has("json") {
				body = dumpJSON(q.at("json"))
			}
			path := q.at("path").(string)
			res, got := c.do(q.at("method").(string), path, "", body)
			if int64(res.StatusCode) != want.at("status") {
				t.Errorf("%v %s: status %d, recorded %v: %s", q.at("method"), path, res.StatusCode, want.at("status"), got)
			}
			if w, ok := want.get("json"); ok {
				v, err := parseJSON(got)
				if err != nil || shape(v) != shape(w) {
					t.Errorf("%s:\n got %s\nwant %s", path, shape(v), shape(w))
				}
			}
		}
	})
}

func TestJobsRefuseAsRecorded(t *testing.T) {
	c := start(t, "--comfy-version", "0.8.0")
	for _, e := range readTestdata(t, "0.8.0", "jobs_errors.json").([]any) {
		e := e.(*object)
		path := e.at("request").(*object).at("path").(string)
		res, got := c.do("GET", path, "", nil)
		check(t, path, e.at("response").(*object), res.StatusCode, res.Header.Get("Content-Type"), "", got)
	}
	p := sketchPrompt("c", 2, 0, "job")
	p["extra_data"] = map[string]any{"extra_pnginfo": map[string]any{"workflow": map[string]any{"id": "w1"}}}
	id := c.submit(p)
	c.finished(id)
	j := c.get("/api/jobs/" + url.PathEscape(id))
	want := "id,status,priority,create_time,execution_start_time,execution_end_time,outputs_count,preview_output,workflow_id,outputs,execution_status,workflow"
	if got := strings.Join(j.keys, ","); got != want || j.at("workflow_id") != "w1" || j.at("status") != "completed" {
		t.Errorf("job: %s", dumpJSON(j))
	}
	list := c.get("/api/jobs?status=completed&limit=1")
	if n := len(list.at("jobs").([]any)); n != 1 {
		t.Errorf("%d jobs", n)
	}
}
