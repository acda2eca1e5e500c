package workflow

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/png"
	"strings"
	"testing"

	"easel/backend"
)

// picture is a real PNG with chunks put before its pixels, or after them.
func picture(t testing.TB, before, after [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 40, 30))); err != nil {
		t.Fatal(err)
	}
	raw := b.Bytes()
	const header = 8 + 25 // signature and IHDR
	end := len(raw) - 12  // IEND
	out := append([]byte{}, raw[:header]...)
	for _, c := range before {
		out = append(out, c...)
	}
	out = append(out, raw[header:end]...)
	for _, c := range after {
		out = append(out, c...)
	}
	return append(out, raw[end:]...)
}

func chunk(kind string, data []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	out = append(append(out, kind...), data...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

func deflate(s string) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.Bytes()
}

const promptText = `{"1": {"class_type": "EmptyImage", "inputs": {"width": 64}, "is_changed": NaN}}`

func TestReadPNG(t *testing.T) {
	plain := chunk("tEXt", []byte("prompt\x00"+promptText))
	ui := chunk("tEXt", []byte(`workflow`+"\x00"+`{"nodes": [], "links": []}`))
	tests := []struct {
		name          string
		before, after [][]byte
	}{
		{"tEXt", [][]byte{plain, ui}, nil},
		{"zTXt", [][]byte{ui, chunk("zTXt", append([]byte("prompt\x00\x00"), deflate(promptText)...))}, nil},
		{"iTXt", [][]byte{ui, chunk("iTXt", []byte("prompt\x00\x00\x00\x00\x00"+promptText))}, nil},
		{"iTXt, compressed", [][]byte{ui, chunk("iTXt", append([]byte("prompt\x00\x01\x00en\x00x\x00"), deflate(promptText)...))}, nil},
		{"after the pixels", nil, [][]byte{ui, plain}},
		{"comf of an animated one", nil, [][]byte{chunk("comf", []byte("workflow\x00{\"nodes\": [], \"links\": []}")), chunk("comf", []byte("prompt\x00"+promptText))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			doc, err := Read(picture(t, test.before, test.after))
			if err != nil {
				t.Fatal(err)
			}
			if want := `{"1": {"class_type": "EmptyImage", "inputs": {"width": 64}}}`; string(doc.GraphJSON) != want || doc.From != "png" {
				t.Errorf("%s: %s", doc.From, doc.GraphJSON)
			}
			if string(doc.Workflow) != `{"nodes": [], "links": []}` {
				t.Errorf("workflow %s", doc.Workflow)
			}
		})
	}
}

func TestReadPNGWithoutAGraph(t *testing.T) {
	broken := chunk("tEXt", []byte("prompt\x00{}"))
	broken[len(broken)-1] ^= 1
	whole := picture(t, [][]byte{chunk("tEXt", []byte("prompt\x00"+promptText))}, nil)
	tests := []struct {
		name, want string
		file       []byte
	}{
		{"no text", "this PNG carries no workflow", picture(t, nil, nil)},
		{"UI only", "this PNG carries a workflow in UI format only", picture(t, [][]byte{chunk("tEXt", []byte(`workflow`+"\x00{}"))}, nil)},
		{"wrong checksum", "a checksum in its metadata is wrong", picture(t, [][]byte{broken}, nil)},
		{"not packed", "cannot be unpacked", picture(t, [][]byte{chunk("zTXt", []byte("prompt\x00\x00abc"))}, nil)},
		{"not JSON", "the prompt in this PNG: this is no workflow: not JSON at line 1", picture(t, [][]byte{chunk("tEXt", []byte("prompt\x00{nope"))}, nil)},
		{"cut off in the text", "cut off in its metadata", whole[:60]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read(test.file)
			if err == nil || !strings.Contains(err.Error(), test.want) || backend.FailureOf(err).Kind != backend.FailInvalid {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadPNGThatIsCutOffInItsPixels(t *testing.T) {
	whole := picture(t, [][]byte{chunk("tEXt", []byte("prompt\x00"+promptText))}, nil)
	if _, err := Read(whole[:len(whole)-20]); err != nil {
		t.Error(err)
	}
}

func TestReadFromPNG(t *testing.T) {
	file := picture(t, [][]byte{chunk("tEXt", []byte("prompt\x00"+promptText))}, nil)
	if doc, err := ReadFrom(bytes.NewReader(file)); err != nil || doc.From != "png" {
		t.Errorf("%s, %v", doc.From, err)
	}
	if doc, err := ReadFrom(strings.NewReader(promptText)); err != nil || doc.From != "api" {
		t.Errorf("%s, %v", doc.From, err)
	}
}

func TestPNGText(t *testing.T) {
	file := picture(t, [][]byte{chunk("tEXt", []byte("easel\x00{\"prompt_id\":\"\xe4\"}"))}, nil)
	if got, err := PNGText(bytes.NewReader(file), "easel"); err != nil || got != `{"prompt_id":"ä"}` {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := PNGText(bytes.NewReader(file), "prompt"); err != nil || got != "" {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := PNGText(strings.NewReader("no"), "prompt"); err == nil {
		t.Error("no error for what is no PNG")
	}
}

func TestPNGBomb(t *testing.T) {
	bomb := deflate(strings.Repeat("\x00", MaxSize+1))
	_, err := Read(picture(t, [][]byte{chunk("zTXt", append([]byte("prompt\x00\x00"), bomb...))}, nil))
	if backend.FailureOf(err).Kind != backend.FailTooLarge {
		t.Errorf("got %v", err)
	}
}
