package raster

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/gif"
	"math"
	"testing"
	"time"
)

var red, green, blue = color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}

func at(img image.Image, x, y int) color.RGBA {
	b := img.Bounds().Min
	return color.RGBAModel.Convert(img.At(b.X+x, b.Y+y)).(color.RGBA)
}

// movingGIF is red, then a green corner on it, which is taken away again, then a
// blue corner elsewhere.
func movingGIF(t *testing.T) []byte {
	t.Helper()
	p := color.Palette{color.Transparent, red, green, blue}
	part := func(r image.Rectangle, i uint8) *image.Paletted {
		m := image.NewPaletted(r, p)
		for k := range m.Pix {
			m.Pix[k] = i
		}
		return m
	}
	g := &gif.GIF{
		Image:    []*image.Paletted{part(image.Rect(0, 0, 8, 8), 1), part(image.Rect(0, 0, 4, 4), 2), part(image.Rect(4, 4, 8, 8), 3)},
		Delay:    []int{10, 20, 0},
		Disposal: []byte{gif.DisposalNone, gif.DisposalPrevious, gif.DisposalNone},
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFramesOfAGIFAreComposed(t *testing.T) {
	b := movingGIF(t)
	if !Animated(b) {
		t.Fatal("it moves")
	}
	fs, err := Frames(t.Context(), b, 10, 100, 100)
	if err != nil || len(fs) != 3 {
		t.Fatalf("%d frames, %v", len(fs), err)
	}
	want := [][2]color.RGBA{{red, red}, {green, red}, {red, blue}}
	for i, f := range fs {
		if got := [2]color.RGBA{at(f.Image, 1, 1), at(f.Image, 6, 6)}; got != want[i] {
			t.Errorf("frame %d is %v, want %v", i, got, want[i])
		}
	}
	if fs[0].Delay != 100*time.Millisecond || fs[1].Delay != 200*time.Millisecond || fs[2].Delay != usualDelay {
		t.Errorf("delays %v %v %v", fs[0].Delay, fs[1].Delay, fs[2].Delay)
	}
	two, err := Frames(t.Context(), b, 2, 4, 4)
	if err != nil || len(two) != 2 || two[0].Delay != 300*time.Millisecond || two[0].Image.Bounds().Dx() != 4 {
		t.Errorf("two frames: %v %v", two, err)
	}
}

func TestAPNGReadsBack(t *testing.T) {
	frame := func(c color.RGBA, d time.Duration) Frame {
		m := image.NewRGBA(image.Rect(0, 0, 5, 3))
		for i := 0; i < len(m.Pix); i += 4 {
			m.Pix[i], m.Pix[i+1], m.Pix[i+2], m.Pix[i+3] = c.R, c.G, c.B, c.A
		}
		return Frame{m, d}
	}
	b, err := APNG([]Frame{frame(red, 50*time.Millisecond), frame(green, time.Second), frame(blue, 90*time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	img, err := Decode(b) // a reader that knows no animation sees the first frame
	if err != nil || at(img, 2, 2) != red {
		t.Fatalf("as a still: %v", err)
	}
	fs, err := Frames(t.Context(), b, 10, 99, 99)
	if err != nil || len(fs) != 3 {
		t.Fatalf("%d frames, %v", len(fs), err)
	}
	for i, c := range []color.RGBA{red, green, blue} {
		if at(fs[i].Image, 4, 2) != c {
			t.Errorf("frame %d is %v", i, at(fs[i].Image, 4, 2))
		}
	}
	if fs[1].Delay != time.Second {
		t.Errorf("delay %v", fs[1].Delay)
	}
	if n := len(SplitPNGs(append(bytes.Clone(b), b...))); n != 2 {
		t.Errorf("split into %d", n)
	}
}

// vp8l is a lossless WebP chunk of one colour: every code has one symbol, so that
// the pixels take no bits.
func vp8l(w, h int, c color.RGBA) []byte {
	var acc uint64
	var n uint
	out := []byte{0x2f}
	put := func(v uint64, bits uint) {
		acc |= v << n
		n += bits
		for n >= 8 {
			out = append(out, byte(acc))
			acc, n = acc>>8, n-8
		}
	}
	put(uint64(w-1), 14)
	put(uint64(h-1), 14)
	put(1, 1)
	put(0, 3)
	put(0, 3) // no transform, no cache, no groups
	for _, v := range []uint8{c.G, c.R, c.B, c.A} {
		put(1, 1) // simple code
		put(0, 1) // one symbol
		put(1, 1) // of 8 bits
		put(uint64(v), 8)
	}
	put(1, 1)
	put(0, 1)
	put(0, 1)
	put(0, 1) // distances
	put(0, 16)
	return out
}

func riff(name string, d []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(name), uint32(len(d)))
	b = append(b, d...)
	if len(d)&1 == 1 {
		b = append(b, 0)
	}
	return b
}

func movingWebP() []byte {
	ext := []byte{2, 0, 0, 0, 7, 0, 0, 7, 0, 0}
	body := append([]byte("WEBP"), riff("VP8X", ext)...)
	body = append(body, riff("ANIM", make([]byte, 6))...)
	anmf := func(x, w int, c color.RGBA) []byte {
		d := []byte{byte(x / 2), 0, 0, 0, 0, 0, byte(w - 1), 0, 0, 7, 0, 0, 120, 0, 0, 0}
		return riff("ANMF", append(d, riff("VP8L", vp8l(w, 8, c))...))
	}
	body = append(append(body, anmf(0, 8, red)...), anmf(4, 4, blue)...)
	return riff("RIFF", body)
}

func TestAnimatedWebPPlays(t *testing.T) {
	b := movingWebP()
	img, err := Decode(b)
	if err != nil || at(img, 6, 6) != red {
		t.Fatalf("first frame: %v", err)
	}
	fs, err := Frames(t.Context(), b, 10, 99, 99)
	if err != nil || len(fs) != 2 {
		t.Fatalf("%d frames, %v", len(fs), err)
	}
	if at(fs[1].Image, 1, 1) != red || at(fs[1].Image, 6, 6) != blue || fs[1].Delay != 120*time.Millisecond {
		t.Errorf("second frame: %v %v %v", at(fs[1].Image, 1, 1), at(fs[1].Image, 6, 6), fs[1].Delay)
	}
}

func TestBrokenAnimationsAreErrorsOrShort(t *testing.T) {
	webp := movingWebP()
	apng, err := APNG([]Frame{{image.NewRGBA(image.Rect(0, 0, 9, 9)), 1}, {image.NewRGBA(image.Rect(0, 0, 9, 9)), 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, whole := range [][]byte{movingGIF(t), webp, apng} {
		for n := range whole {
			_, _ = Frames(t.Context(), whole[:n], 4, 16, 16) // no panic, no hang
			broken := bytes.Clone(whole)
			broken[n] ^= 0xff
			_, _ = Frames(t.Context(), broken, 4, 16, 16)
		}
	}
}

func TestCropKeepsInside(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 10, 10))
	m.SetRGBA(7, 8, red)
	c := Crop(m, image.Rect(7, 8, 50, 50))
	if c.Bounds().Size() != image.Pt(3, 2) || at(Scale(c, 3, 2), 0, 0) != red {
		t.Errorf("crop is %v, %v", c.Bounds(), at(c, 0, 0))
	}
	if Crop(m, image.Rect(90, 90, 99, 99)) != image.Image(m) {
		t.Error("a part outside is the whole")
	}
}

func sineWAV(bits int) []byte {
	const n = 8000
	form := binary.LittleEndian.AppendUint16(nil, 1)
	form = binary.LittleEndian.AppendUint16(form, 1)
	form = binary.LittleEndian.AppendUint32(form, n)
	form = binary.LittleEndian.AppendUint32(form, n*2)
	form = binary.LittleEndian.AppendUint16(form, 2)
	form = binary.LittleEndian.AppendUint16(form, uint16(bits))
	var data []byte
	for i := range 2 * n {
		v := 0.0
		if i >= n {
			v = 0.5 * math.Sin(float64(i))
		}
		data = binary.LittleEndian.AppendUint16(data, uint16(int16(v*32767)))
	}
	body := append([]byte("WAVE"), riff("fmt ", form)...)
	return riff("RIFF", append(body, riff("data", data)...))
}

func TestWAVIsDrawn(t *testing.T) {
	s, err := ReadSound(sineWAV(16), 100)
	if err != nil {
		t.Fatal(err)
	}
	if s.Length != 2*time.Second || s.Rate != 8000 || s.High[10] != 0 || math.Abs(float64(s.High[80])-0.5) > 0.01 {
		t.Errorf("%v %d %v %v", s.Length, s.Rate, s.High[10], s.High[80])
	}
	img := Wave(s, 100, 40)
	if at(img, 80, 12) != (color.RGBA{122, 162, 247, 255}) || at(img, 10, 12) == at(img, 80, 12) {
		t.Error("the wave is not where the sound is")
	}
	for _, b := range [][]byte{nil, []byte("RIFF"), []byte("ID3"), []byte("fLaC"), sineWAV(16)[:30]} {
		if _, err := ReadSound(b, 10); err == nil {
			t.Errorf("%q is a sound", b)
		}
	}
}

// bitWriter writes a FLAC for the test.
type bitWriter struct {
	out []byte
	n   uint
}

func (w *bitWriter) put(v uint64, bits uint) {
	for bits > 0 {
		bits--
		if w.n%8 == 0 {
			w.out = append(w.out, 0)
		}
		w.out[len(w.out)-1] |= byte(v>>bits&1) << (7 - w.n%8)
		w.n++
	}
}

// A FLAC of three frames: silence as a constant, samples as they are, and a ramp by
// the first fixed predictor, in left and side stereo.
func TestFLACIsDecoded(t *testing.T) {
	const size, bps = 192, 16
	w := &bitWriter{out: []byte("fLaC"), n: 32}
	w.put(0x80, 8)
	w.put(34, 24)
	w.put(0, 80)
	w.put(8000, 20)
	w.put(1, 3)
	w.put(bps-1, 5)
	w.put(3*size, 36)
	w.put(0, 128)
	frame := func(n int, sub func()) {
		w.put(0xfff8, 16)
		w.put(1, 4) // 192 samples
		w.put(0, 4)
		w.put(8, 4) // left, side
		w.put(4, 3)
		w.put(0, 1)
		w.put(uint64(n), 8)
		w.put(0, 8)
		sub()
		w.put(0, 1)
		w.put(0, 6)
		w.put(0, 1)
		w.put(0, bps+1) // the side: no difference
		for w.n%8 != 0 {
			w.put(0, 1)
		}
		w.put(0, 16)
	}
	frame(0, func() { w.put(0, 8); w.put(0, bps) })
	frame(1, func() {
		w.put(1<<1, 8)
		for i := range size {
			w.put(uint64(uint16(int16([2]int{16384, -8192}[i%2]))), bps)
		}
	})
	frame(2, func() {
		w.put(9<<1, 8)
		w.put(0, bps)
		w.put(0, 2)
		w.put(0, 4)
		w.put(6, 4)
		for range size - 1 { // each 100 more: folded 200 = 3·64 + 8
			w.put(1, 4)
			w.put(8, 6)
		}
	})
	s, err := ReadSound(w.out, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := [3][2]float32{{0, 0}, {-0.25, 0.5}, {0, 191 * 100 / 32768.0}}
	for i, c := range want {
		if s.Low[i] != c[0] || s.High[i] != c[1] {
			t.Errorf("frame %d is %v to %v, want %v", i, s.Low[i], s.High[i], c)
		}
	}
	if s.Chans != 2 || s.Length != 72*time.Millisecond {
		t.Errorf("%d channels, %v", s.Chans, s.Length)
	}
	for n := range w.out {
		broken := bytes.Clone(w.out)
		broken[n] ^= 0x55
		_, _ = ReadSound(broken, 5)
		_, _ = ReadSound(w.out[:n], 5)
	}
}
