package sketch

import (
	"bytes"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func paint(text string, seed uint64, w, h int) *tensor {
	t := &tensor{b: 1, h: h, w: w, c: 3, pix: make([]float32, w*h*3)}
	newPicture(text, seed, float64(w)/float64(h)).render(t.pix, w, h)
	label(t.pix, w, h, text)
	return t
}

// TestGallery writes pictures to look at: EASEL_GALLERY=DIR.
func TestGallery(t *testing.T) {
	dir := os.Getenv("EASEL_GALLERY")
	if dir == "" {
		t.Skip("set EASEL_GALLERY to a folder to get pictures to look at")
	}
	texts := []string{"a quiet lake at dawn", "misty mountains in autumn", "aurora over a fjord", "a planet in a violet nebula", "bauhaus poster", "waves of silk, gold", "neon city in the rain", "sailing boat at sunset", "forest hills in spring", "space, gold rings", "paper clouds at night", "geometric desert"}
	sheet := &tensor{b: 1, w: 4 * 384, h: 3 * 384, c: 3, pix: make([]float32, 4*384*3*384*3)}
	for i, text := range texts {
		begin := time.Now()
		small, _ := paint(text, uint64(i)+1, 768, 768).scale("area", 384, 384, "")
		t.Log(text, time.Since(begin))
		for y := range 384 {
			copy(sheet.pix[((i/4*384+y)*sheet.w+i%4*384)*3:], small.pix[y*384*3:(y+1)*384*3])
		}
	}
	var b bytes.Buffer
	_ = png.Encode(&b, sheet.toImage(0))
	if err := os.WriteFile(filepath.Join(dir, "sheet.png"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPicture("aurora over a fjord", 4, 1)
	for i, done := range []float64{0.05, 0.3, 0.6, 1} {
		b.Reset()
		_ = png.Encode(&b, p.preview(done, 768, 768, 512))
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("preview%d.png", i)), b.Bytes(), 0o644)
	}
	for s := range 3 {
		b.Reset()
		_ = png.Encode(&b, paint("a small house by the old mill", uint64(s), 640, 400).toImage(0))
		_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("sweep%d.png", s)), b.Bytes(), 0o644)
	}
}

func TestPictures(t *testing.T) {
	a := paint("a quiet lake at dawn", 7, 160, 96)
	if !slices.Equal(a.pix, paint("a quiet lake at dawn", 7, 160, 96).pix) {
		t.Error("the same words, seed and size give two pictures")
	}
	for name, other := range map[string]*tensor{
		"another seed": paint("a quiet lake at dawn", 8, 160, 96),
		"other words":  paint("a quiet lake at dusk", 7, 160, 96),
	} {
		if slices.Equal(a.pix, other.pix) {
			t.Errorf("%s gives the same picture", name)
		}
	}
	for _, kind := range []string{"hills", "aurora", "sea", "cosmos", "geometric", "paper", "city", "", "x"} {
		if v := spread(paint(kind, 3, 128, 128)); v < 0.008 {
			t.Errorf("%q is nearly one colour: variance %v", kind, v)
		}
	}
}

func spread(t *tensor) float64 {
	var sum, sq float64
	for _, v := range t.pix {
		sum += float64(v)
		sq += float64(v) * float64(v)
	}
	n := float64(len(t.pix))
	return sq/n - sum/n*sum/n
}

func TestPreviewsGetFiner(t *testing.T) {
	p := newPicture("mountains", 1, 1)
	final := &tensor{b: 1, h: 128, w: 128, c: 3, pix: make([]float32, 128*128*3)}
	p.render(final.pix, 128, 128)
	last := 1e9
	for _, done := range []float64{0.1, 0.4, 0.7, 1} {
		img := p.preview(done, 128, 128, 128)
		var diff float64
		for y := range 128 {
			for x := range 128 {
				r, _, _, _ := img.At(x, y).RGBA()
				d := float64(r)/65535 - float64(final.pix[(y*128+x)*3])
				diff += d * d
			}
		}
		if diff >= last {
			t.Errorf("the preview at %v is no nearer to the picture than the one before: %v, was %v", done, diff, last)
		}
		last = diff
	}
}
