package workflow

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func FuzzRead(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"prompt":{"1":{"class_type":"LoadImage","inputs":{"image":"../x"},"is_changed":[NaN]}},"extra_data":{}}`))
	f.Add([]byte(`{"nodes":[],"links":[]}`))
	f.Add(picture(f, [][]byte{chunk("tEXt", []byte("prompt\x00"+promptText))}, nil))
	info := infoOf(f, "0.8.0")
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := Read(b)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unfit) {
				t.Errorf("message %q", err)
			}
			return
		}
		if !json.Valid(doc.GraphJSON) {
			t.Fatalf("not JSON: %s", doc.GraphJSON)
		}
		for _, p := range Check(doc, info) {
			if strings.ContainsFunc(p.Message+p.Fix+p.Title+p.Value+p.Node+p.Class+p.Input, unfit) {
				t.Errorf("message %q", p)
			}
		}
		again, err := Read(doc.GraphJSON)
		if err != nil || !bytes.Equal(again.GraphJSON, doc.GraphJSON) {
			t.Errorf("read again: %v", err)
		}
		if Hash(doc.GraphJSON) != Hash(again.GraphJSON) {
			t.Error("hash")
		}
		n := doc.Graph.Nodes()[0]
		if len(n.Inputs) == 0 {
			return
		}
		if err := Set(&doc, n.ID+"."+n.Inputs[0].Name, "5"); err == nil && !json.Valid(doc.GraphJSON) {
			t.Errorf("set: %s", doc.GraphJSON)
		}
	})
}

func FuzzFromPNG(f *testing.F) {
	f.Add(picture(f, [][]byte{chunk("tEXt", []byte("prompt\x00{}")), chunk("zTXt", append([]byte("prompt\x00\x00"), deflate("{}")...))}, nil))
	f.Add(picture(f, [][]byte{chunk("iTXt", append([]byte("workflow\x00\x01\x00en\x00x\x00"), deflate("{}")...))}, [][]byte{chunk("comf", []byte("prompt\x00{}"))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := FromPNG(bytes.NewReader(b))
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func FuzzParseObjectInfo(f *testing.F) {
	f.Add([]byte(`{"A":{"input":{"required":{"x":["COMFY_DYNAMICCOMBO_V3",{"options":[{"key":"a","inputs":{"required":{"y":["INT",{"min":1}]}}}]}]}},"output":["IMAGE"],"output_node":true}}`))
	f.Add([]byte(`{"A":{"input":{"required":{"x":["COMFY_AUTOGROW_V3",{"template":{"input":{"required":{"i":["IMAGE",{}]}},"prefix":"i","min":2,"max":5}}]}}}}`))
	f.Add([]byte(`{"A":{"input":{"optional":{"x":[["a",1,true],{"max":1e999}]}},"output":[["a"]]}}`))
	doc := read(f, `{"1":{"class_type":"A","inputs":{"x":"a","x.y":0,"x.i0":["1",0]}}}`)
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := ParseObjectInfo(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, name := range info.Names() {
			if info.Class(name) == nil {
				t.Errorf("lost %q", name)
			}
		}
		Check(doc, info)
	})
}
