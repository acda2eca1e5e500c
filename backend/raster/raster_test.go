package raster

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"testing"
)

// gradient is a smooth picture, with transparent parts if asked.
func gradient(w, h int, alpha bool) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			a := uint8(255)
			if alpha {
				a = uint8((x + y) % 256)
			}
			m.SetNRGBA(x, y, color.NRGBA{uint8(x * 255 / w), uint8(y * 255 / h), 128, a})
		}
	}
	return m
}

func TestInsideKeepsProportions(t *testing.T) {
	for _, c := range []struct{ w, h, mw, mh, ow, oh int }{
		{100, 100, 50, 80, 50, 50},
		{200, 100, 100, 100, 100, 50},
		{100, 4000, 10, 10, 1, 10},
		{10, 10, 50, 50, 10, 10},
		{4000, 1, 40, 40, 40, 1},
	} {
		if w, h := Inside(c.w, c.h, c.mw, c.mh); w != c.ow || h != c.oh {
			t.Errorf("Inside(%d,%d,%d,%d) = %d,%d, want %d,%d", c.w, c.h, c.mw, c.mh, w, h, c.ow, c.oh)
		}
	}
}

func TestScaleKeepsThePicture(t *testing.T) {
	src := gradient(640, 480, false)
	small := Scale(src, 64, 48)
	for _, p := range []image.Point{{0, 0}, {63, 47}, {32, 24}, {10, 40}} {
		want := src.NRGBAAt(p.X*10+5, p.Y*10+5)
		got := small.RGBAAt(p.X, p.Y)
		for _, d := range []int{int(got.R) - int(want.R), int(got.G) - int(want.G), int(got.B) - int(want.B)} {
			if d < -6 || d > 6 {
				t.Errorf("pixel %v: got %v, want about %v", p, got, want)
			}
		}
	}
	if big := Scale(src, 1280, 960); big.RGBAAt(1279, 959).A != 255 {
		t.Error("scaling up leaves holes")
	}
}

func TestDecodeReadsWhatItWrites(t *testing.T) {
	b, err := PNG(gradient(30, 20, false))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Decode(b)
	if err != nil || img.Bounds().Dx() != 30 {
		t.Fatalf("decode: %v %v", img, err)
	}
	var j bytes.Buffer
	if err := jpeg.Encode(&j, gradient(30, 20, false), nil); err != nil {
		t.Fatal(err)
	}
	if img, err = Decode(j.Bytes()); err != nil || Scale(img, 3, 2).Bounds().Dy() != 2 {
		t.Fatal("jpeg", err)
	}
}

func TestDecodeRefusesWhatIsTooLargeBeforeDecoding(t *testing.T) {
	b, err := PNG(image.NewGray(image.Rect(0, 0, 8, 8)))
	if err != nil {
		t.Fatal(err)
	}
	copy(b[16:24], []byte{0, 1, 0, 0, 0, 1, 0, 0}) // IHDR: 65536 × 65536, CRC now wrong too
	if _, err := Decode(b); err == nil {
		t.Fatal("decoded a picture of 4 gigapixels")
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := PNG(gradient(8, 8, false))
	f.Add(b)
	f.Add([]byte("GIF89a"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = Decode(b) })
}

func BenchmarkFit4096(b *testing.B) {
	src := gradient(4096, 4096, false)
	for b.Loop() {
		Fit(src, 512, 512)
	}
}

// photo is a picture with smooth parts and noise, as photographs have.
func photo(n int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, n, n))
	for y := range n {
		for x := range n {
			v := uint8((x*x/7 + y*3 + (x*y)%17) % 256)
			m.SetRGBA(x, y, color.RGBA{v, uint8(x * 255 / n), uint8(y * 255 / n), 255})
		}
	}
	return m
}
