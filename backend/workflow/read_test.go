package workflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"easel/backend"
)

func TestReadKeepsTheBytes(t *testing.T) {
	const graph = `{
  "10": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "cfg": 8.0, "x": 1e-7, "text": "\ud83d\u00fc", "model": ["2", 0]}},
  "2": {"inputs": {}, "class_type": "A", "_meta": {"title": "T"}},
  "01": {"inputs": {"a": [1, 2, 3]}, "class_type": "B"}
}`
	for name, file := range map[string]string{
		"bare": graph, "with a BOM": "\ufeff" + graph, "as posted": `{"client_id":"x","prompt": ` + graph + `,"extra_data":{"extra_pnginfo":{"workflow":{"nodes":[]}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			doc := read(t, file)
			if string(doc.GraphJSON) != graph {
				t.Errorf("got %s", doc.GraphJSON)
			}
			var ids []string
			for _, n := range doc.Graph.Nodes() {
				ids = append(ids, n.ID)
			}
			if strings.Join(ids, " ") != "10 2 01" {
				t.Errorf("order %v", ids)
			}
			if name == "as posted" && (doc.From != "prompt" || string(doc.Workflow) != `{"nodes":[]}`) {
				t.Errorf("from %s, workflow %s", doc.From, doc.Workflow)
			}
			n, _ := doc.Graph.Node("10")
			if in, ok := n.Input("model"); !ok || in.Link == nil || *in.Link != (Link{"2", 0}) {
				t.Errorf("model: %+v", in)
			}
			if in, _ := n.Input("seed"); string(in.Value) != "18446744073709551615" || in.Link != nil {
				t.Errorf("seed: %+v", in)
			}
		})
	}
}

func TestReadStripsWhatAServerAdded(t *testing.T) {
	doc := read(t, `{"1": {"is_changed": [NaN], "class_type": "A", "inputs": {"x": NaN, "t": "NaN is_changed"}}, "2": {"class_type": "B", "_loop_id": {"a": 1}, "inputs": {}, "is_changed": "ab"}}`)
	if want := `{"1": {"class_type": "A", "inputs": {"x": null, "t": "NaN is_changed"}}, "2": {"class_type": "B", "inputs": {}}}`; string(doc.GraphJSON) != want {
		t.Errorf("got %s", doc.GraphJSON)
	}
}

func TestReadSaysWhatItIsInstead(t *testing.T) {
	deep := `{"1":{"class_type":"A","inputs":{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}}`
	tests := []struct{ name, file, format, message, hint string }{
		{"UI format", `{"last_node_id":3,"nodes":[{"id":1,"type":"A"}],"links":[],"version":0.4}`, "ui", "this is a workflow in UI format", "Workflow > Export (API)"},
		{"UI format, schema 1", `{"version":1,"state":{"lastNodeId":1},"nodes":[]}`, "ui", "this is a workflow in UI format", "converting it here comes with `easel workflows`"},
		{"UI format, posted", `{"prompt":{"nodes":[],"links":[]}}`, "ui", "this is a workflow in UI format under", "Export (API)"},
		{"not JSON", "{\n  \"1\": {oops}}", "", "this is no workflow: not JSON at line 2, column 9: unexpected 'o'", "Export (API)"},
		{"cut off", `{"1":{"class_type":"A","inputs":{`, "", "not JSON at line 1, column 34: it ends in the middle", ""},
		{"two documents", `{"1":{"class_type":"A"}} {}`, "", "not JSON at line 1, column 26: unexpected '{'", ""},
		{"list", `[1]`, "json", "this is JSON, but no workflow: a workflow is an object of nodes", ""},
		{"another object", `{"a":1,"b":{"c":2}}`, "json", "this is JSON, but no workflow: nothing in it has a class_type", ""},
		{"nothing", " \n", "empty", "the workflow is empty", ""},
		{"no nodes", `{}`, "empty", "the workflow has no nodes", ""},
		{"a node that is none", `{"1":{"class_type":"A","inputs":{}},"version":"2"}`, "api", "node version is no node", ""},
		{"inputs that are none", `{"1":{"class_type":"A","inputs":[]}}`, "api", "node 1 (A): its inputs are no object", ""},
		{"node twice", `{"1":{"class_type":"A","inputs":{}},"1":{"class_type":"B","inputs":{}}}`, "api", "node 1 stands there twice", ""},
		{"input twice", `{"1":{"class_type":"A","inputs":{"x":1,"x":2}}}`, "api", "node 1 (A): the input x stands there twice", ""},
		{"control character in an id", `{"1\u001b[2J":{"class_type":"A","inputs":{}}}`, "api", `the id of node 1\x1b[2J has control characters`, ""},
		{"control character in a class", `{"1":{"class_type":"A\u0007","inputs":{}}}`, "api", `the class of node 1 (A\x07) has control characters`, ""},
		{"raw control character", "{\"1\":{\"class_type\":\"A\x07\",\"inputs\":{}}}", "", "a control character inside a text", ""},
		{"deep", deep, "", "it nests deeper than 200 levels", ""},
		{"JPEG", "\xff\xd8\xff\xe0abc", "jpeg", "this is no workflow but a JPEG picture", ""},
		{"WebP", "RIFF\x10\x00\x00\x00WEBPVP8 ", "webp", "this is a WebP picture", ""},
		{"MP4", "\x00\x00\x00\x20ftypisom....", "mp4", "this is a video", ""},
		{"gzip", "\x1f\x8b\x08\x00", "gzip", "a gzip file: unpack it first", ""},
		{"UTF-16", "\xff\xfe{\x00", "utf-16", "text in UTF-16", "Export"},
		{"Latin-1", "{\"1\":{\"class_type\":\"\xe4\"}}", "", "not JSON text in UTF-8", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read([]byte(test.file))
			var f *FormatError
			if !errors.As(err, &f) {
				t.Fatalf("got %v", err)
			}
			if f.Format != test.format || !strings.Contains(err.Error(), test.message) || !strings.Contains(f.Failure.Hint, test.hint) {
				t.Errorf("got %s: %s (%s)", f.Format, err, f.Failure.Hint)
			}
			if got := backend.FailureOf(err); got.Kind != backend.FailInvalid || got.Message != err.Error() {
				t.Errorf("as a failure: %+v", got)
			}
		})
	}
}

func TestReadRefusesAHugeGraphAtOnce(t *testing.T) {
	huge := append([]byte(`{"1":{"class_type":"A","inputs":{"x":"`), bytes.Repeat([]byte("a"), 100<<20)...)
	start := time.Now()
	_, err := Read(huge)
	if f := backend.FailureOf(err); f.Kind != backend.FailTooLarge || !strings.Contains(f.Message, "larger than 96 MiB") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := ReadFrom(bytes.NewReader(huge)); backend.FailureOf(err).Kind != backend.FailTooLarge {
		t.Errorf("from a reader: %v", err)
	}
}

func TestHash(t *testing.T) {
	a := json.RawMessage(`{"1":{"class_type":"A","inputs":{"seed":1,"text":"x","n":2}},"2":{"class_type":"B","inputs":{"i":["1",0]}}}`)
	b := json.RawMessage(`{ "2": {"inputs":{"i":["1", 0]},"class_type":"B","_meta":{"title":"T"}}, "1":{"class_type":"A","inputs":{"n":2,"seed":1,"text":"\u0078"}} }`)
	c := json.RawMessage(`{"1":{"class_type":"A","inputs":{"seed":7,"text":"other","n":2}},"2":{"class_type":"B","inputs":{"i":["1",0]}}}`)
	d := json.RawMessage(`{"1":{"class_type":"A","inputs":{"seed":1,"text":"x","n":3}},"2":{"class_type":"B","inputs":{"i":["1",0]}}}`)
	if Hash(a) != Hash(b) {
		t.Error("order, space and titles change the hash")
	}
	if Hash(a) == Hash(c) || Shape(a) != Shape(c) {
		t.Error("seed and text must change the hash and leave the shape")
	}
	if Shape(a) == Shape(d) {
		t.Error("another number is another shape")
	}
	if len(Hash(json.RawMessage("{"))) != 64 {
		t.Error("no hash of a broken graph")
	}
}
