package picture

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/charmbracelet/colorprofile"
)

// photo is a picture with soft shapes and noise: as a PNG of 1024×1024 it has 1.9 MB,
// somewhat more than what ComfyUI paints.
func photo(n int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, n, n))
	r := rand.New(rand.NewPCG(1, 2))
	s := 1024 / float64(n)
	for y := range n {
		for x := range n {
			f := func(a, b float64) uint8 {
				v := 128 + 70*math.Sin(float64(x)*s/a) + 50*math.Cos(float64(y)*s/b) + float64(r.IntN(17)-8)
				return uint8(max(0, min(255, v)))
			}
			m.SetRGBA(x, y, color.RGBA{f(90, 60), f(40, 130), f(150, 33), 255})
		}
	}
	return m
}

// photoPNG is photo as a file, made once.
var photoPNG = func() func(n int) []byte {
	var mu sync.Mutex
	made := map[int][]byte{}
	return func(n int) []byte {
		mu.Lock()
		defer mu.Unlock()
		if made[n] == nil {
			var b bytes.Buffer
			if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, photo(n)); err != nil {
				panic(err)
			}
			made[n] = b.Bytes()
		}
		return made[n]
	}
}()

// show does all that it takes to show a file in an 80×24 terminal, and returns the
// bytes that go there.
func show(tb testing.TB, file []byte, p Protocol) int {
	img, err := Decode(file)
	if err != nil {
		tb.Fatal(err)
	}
	b := img.Bounds()
	cols, rows := Fit(b.Dx(), b.Dy(), 80, 23, 8, 16)
	if p == Blocks {
		return len(HalfBlocks(img, cols, rows, colorprofile.TrueColor))
	}
	seq, err := Transmit(img, Transmission{ID: 16, Cols: cols, Rows: rows, CellW: 8, CellH: 16})
	if err != nil {
		tb.Fatal(err)
	}
	return len(seq) + len(Placeholder(16, cols, rows))
}

func benchmarkShow(b *testing.B, n int, p Protocol) {
	file := photoPNG(n)
	sent := 0
	for b.Loop() {
		sent = show(b, file, p)
	}
	b.ReportMetric(float64(sent), "sent-B")
	b.ReportMetric(float64(len(file)), "file-B")
}

func BenchmarkShow1024Kitty(b *testing.B)  { benchmarkShow(b, 1024, Kitty) }
func BenchmarkShow1024Blocks(b *testing.B) { benchmarkShow(b, 1024, Blocks) }
func BenchmarkShow4096Kitty(b *testing.B)  { benchmarkShow(b, 4096, Kitty) }
func BenchmarkShow4096Blocks(b *testing.B) { benchmarkShow(b, 4096, Blocks) }

func BenchmarkParts1024(b *testing.B) {
	img := photo(1024)
	b.Run("decode", func(b *testing.B) {
		file := photoPNG(1024)
		for b.Loop() {
			if _, err := Decode(file); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("scale", func(b *testing.B) {
		for b.Loop() {
			Scale(img, 368, 368)
		}
	})
	b.Run("transmit", func(b *testing.B) {
		for b.Loop() {
			if _, err := Transmit(img, Transmission{ID: 16, Cols: 46, Rows: 23, CellW: 8, CellH: 16}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("transmit large", func(b *testing.B) {
		for b.Loop() {
			if _, err := Transmit(img, Transmission{ID: 16, Cols: 120, Rows: 55, CellW: 10, CellH: 20}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("blocks", func(b *testing.B) {
		for b.Loop() {
			HalfBlocks(img, 46, 23, colorprofile.TrueColor)
		}
	})
	b.Run("blocks 16 colours", func(b *testing.B) {
		for b.Loop() {
			HalfBlocks(img, 46, 23, colorprofile.ANSI)
		}
	})
}
