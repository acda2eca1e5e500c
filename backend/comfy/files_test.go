package comfy

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	outputs := json.RawMessage(`{
		"10": {"images":[{"filename":"b.png","subfolder":"","type":"output"}]},
		"9": {"zeta":[{"filename":"a.flac","subfolder":"x","type":"temp","n":NaN}],"images":[{"filename":"v.mp4","subfolder":"","type":"output"},{"filename":"w.png"}],"animated":[true,false]},
		"9:2": {"text":["hello",["nested \u001b[1m"],3,""]},
		"11": {"result":["model.glb",null,null],"gifs":[{"filename":"clip.xyz","format":"video/x"}],"3d":[{"filename":"m.glb"}],"numbers":[NaN],"odd":{"filename":"no.png"},"nul":null},
		"12": null
	}`)
	want := []FileItem{
		{Node: "9", Key: "zeta", Kind: FileAudio, Filename: "a.flac", Subfolder: "x", Type: "temp", Animated: true},
		{Node: "9", Key: "images", Kind: FileVideo, Filename: "v.mp4", Type: "output", Animated: true},
		{Node: "9", Key: "images", Kind: FileImage, Filename: "w.png", Type: "output"},
		{Node: "9:2", Key: "text", Kind: FileText, Text: "hello"},
		{Node: "9:2", Key: "text", Kind: FileText, Text: "nested "},
		{Node: "10", Key: "images", Kind: FileImage, Filename: "b.png", Type: "output"},
		{Node: "11", Key: "gifs", Kind: FileVideo, Filename: "clip.xyz", Type: "output"},
		{Node: "11", Key: "3d", Kind: FileModel, Filename: "m.glb", Type: "output"},
	}
	if got := Files(outputs); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"", "null", "[]", `{"a":[]}`, `{"a":{"images":5}}`} {
		if got := Files(json.RawMessage(bad)); len(got) != 0 {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestCompareNodes(t *testing.T) {
	ids := []string{"b", "10:2", "9", "10", "10:11", "a", "2.0.0.1", "2", "99999999999999999999"}
	slices.SortFunc(ids, CompareNodes)
	if got := strings.Join(ids, " "); got != "2 2.0.0.1 9 10 10:2 10:11 99999999999999999999 a b" {
		t.Errorf("got %s", got)
	}
}

func TestFilePath(t *testing.T) {
	dirs := Dirs{Output: "/o", Temp: "/t"}
	got, err := FileItem{Filename: "a.png", Subfolder: "x/y", Type: "output"}.Path(dirs)
	if err != nil || got != filepath.FromSlash("/o/x/y/a.png") {
		t.Errorf("%s, %v", got, err)
	}
	for _, f := range []FileItem{
		{Filename: "../a.png", Type: "output"},
		{Filename: "a.png", Subfolder: "x/../..", Type: "output"},
		{Filename: "/etc/passwd", Type: "output"},
		{Filename: "a.png", Subfolder: "/etc", Type: "temp"},
		{Filename: "a\x00.png", Type: "output"},
		{Filename: "a.png", Type: "input"},
		{Text: "x"},
	} {
		p, err := f.Path(dirs)
		if err == nil && !strings.HasPrefix(p, "/o/") && !strings.HasPrefix(p, "/t/") {
			t.Errorf("%+v leads to %s", f, p)
		}
		if err == nil && f.Subfolder != "/etc" && f.Filename != "/etc/passwd" {
			t.Errorf("%+v was accepted as %s", f, p)
		}
	}
}
