package raster

import (
	"bytes"
	"image"
	"image/png"
	"reflect"
	"testing"
)

// TestPNGIsAsTheStandardLibrarysOwn compares with image/png, all filters included.
func TestPNGIsAsTheStandardLibrarysOwn(t *testing.T) {
	for name, img := range map[string]image.Image{
		"photo": photo(300), "gradient": gradient(700, 500, false), "alpha": gradient(701, 500, true),
		"one pixel": gradient(1, 1, false), "a line": gradient(1, 3000, true), "wide": gradient(3000, 1, false),
	} {
		for _, level := range []png.CompressionLevel{png.DefaultCompression, png.BestSpeed, png.NoCompression} {
			var b bytes.Buffer
			if err := (&png.Encoder{CompressionLevel: level}).Encode(&b, img); err != nil {
				t.Fatal(err)
			}
			p, ok := parsePNG(b.Bytes())
			if !ok {
				t.Fatalf("%s: not decoded here", name)
			}
			got, err := p.decode()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want, err := png.Decode(bytes.NewReader(b.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s differs", name)
			}
		}
	}
}

func TestUndoEveryFilter(t *testing.T) {
	above := []uint8{1, 2, 3, 250, 200, 100}
	want := []uint8{9, 8, 7, 100, 255, 0}
	for filter, line := range map[uint8][]uint8{
		0: {9, 8, 7, 100, 255, 0},
		1: {9, 8, 7, 91, 247, 249},
		2: {8, 6, 4, 106, 55, 156},
		3: {9, 7, 6, 227, 151, 203},
		4: {8, 6, 4, 106, 55, 156},
	} {
		line = bytes.Clone(line)
		if !undo(filter, line, above, 3) || filter != 4 && !bytes.Equal(line, want) {
			t.Errorf("filter %d gave %v", filter, line)
		}
	}
	if undo(5, bytes.Clone(want), above, 3) {
		t.Error("filter 5 exists")
	}
}

func TestBrokenPNGs(t *testing.T) {
	var b bytes.Buffer
	if err := png.Encode(&b, gradient(200, 300, false)); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	if _, ok := parsePNG(whole[:len(whole)-5]); ok {
		t.Error("cut short, and whole")
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	if _, err := Decode(flipped); err == nil {
		t.Error("a flipped bit was not noticed")
	}
	p, _ := parsePNG(whole)
	for name, broken := range map[string]rawPNG{
		"too few lines":  {w: p.w, h: p.h + 1, depth: 3, data: p.data},
		"too many lines": {w: p.w, h: p.h - 1, depth: 3, data: p.data},
		"other width":    {w: p.w - 1, h: p.h, depth: 3, data: p.data},
		"no stream":      {w: 5, h: 5, depth: 3, data: [][]byte{{1, 2, 3}}},
	} {
		if _, err := broken.decode(); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	split := rawPNG{w: p.w, h: p.h, depth: 3}
	for _, d := range p.data {
		split.data = append(split.data, d[:len(d)/3], nil, d[len(d)/3:])
	}
	if _, err := split.decode(); err != nil {
		t.Errorf("in several chunks: %v", err)
	}
}
