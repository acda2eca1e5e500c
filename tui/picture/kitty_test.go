package picture

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"strconv"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/kitty"
)

// unwrapTmux takes off tmux's pass-through, as tmux does.
func unwrapTmux(t *testing.T, seq string) string {
	t.Helper()
	var out strings.Builder
	for seq != "" {
		rest, ok := strings.CutPrefix(seq, "\x1bPtmux;")
		if !ok {
			t.Fatalf("not wrapped: %.30q", seq)
		}
		for i := 0; ; i++ {
			if i+1 >= len(rest) {
				t.Fatal("the wrapping has no end")
			}
			if rest[i] == 0x1b {
				if rest[i+1] == '\\' {
					seq = rest[i+2:]
					break
				}
				if rest[i+1] != 0x1b {
					t.Fatalf("an escape that is not doubled: %.30q", rest[i:])
				}
				i++
			}
			out.WriteByte(rest[i])
		}
	}
	return out.String()
}

// receive does what a terminal does with graphics sequences: it joins the chunks and
// decodes the picture.
func receive(t *testing.T, seq string) (options map[string]string, img image.Image) {
	t.Helper()
	var data strings.Builder
	for n := 0; seq != ""; n++ {
		body, ok := strings.CutPrefix(seq, "\x1b_G")
		if !ok {
			t.Fatalf("not a graphics sequence: %.30q", seq)
		}
		body, seq, ok = strings.Cut(body, "\x1b\\")
		if !ok {
			t.Fatal("a sequence without end")
		}
		control, payload, _ := strings.Cut(body, ";")
		opts := map[string]string{}
		for _, o := range strings.Split(control, ",") {
			k, v, _ := strings.Cut(o, "=")
			if _, twice := opts[k]; twice {
				t.Errorf("%s twice in %s", k, control)
			}
			opts[k] = v
		}
		if n == 0 {
			options = opts
		} else if len(opts) != 2 || opts["q"] != "2" {
			t.Errorf("options of a later chunk: %s", control)
		}
		if len(payload) > kitty.MaxChunkSize || seq != "" && len(payload)%4 != 0 {
			t.Errorf("a chunk of %d bytes", len(payload))
		}
		if (opts["m"] == "1") != (seq != "") {
			t.Errorf("m=%s, and %d bytes follow", opts["m"], len(seq))
		}
		data.WriteString(payload)
	}
	raw, err := base64.StdEncoding.DecodeString(data.String())
	if err != nil {
		t.Fatal(err)
	}
	img, err = png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return options, img
}

// difference is the mean difference of the channels of two pictures of one size.
func difference(t *testing.T, a, b image.Image) float64 {
	t.Helper()
	if a.Bounds().Size() != b.Bounds().Size() {
		t.Fatalf("sizes %v and %v", a.Bounds(), b.Bounds())
	}
	sum, n := 0, 0
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			p := color.NRGBAModel.Convert(a.At(a.Bounds().Min.X+x, a.Bounds().Min.Y+y)).(color.NRGBA)
			q := color.NRGBAModel.Convert(b.At(b.Bounds().Min.X+x, b.Bounds().Min.Y+y)).(color.NRGBA)
			for _, d := range []int{int(p.R) - int(q.R), int(p.G) - int(q.G), int(p.B) - int(q.B), int(p.A) - int(q.A)} {
				sum += max(d, -d)
				n++
			}
		}
	}
	return float64(sum) / float64(n)
}

// gradient is a picture that compresses well, with transparent corners if asked.
func gradient(w, h int, alpha bool) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			a := uint8(255)
			if alpha && x < w/3 && y < h/3 {
				a = uint8(3 * 255 * x / w)
			}
			m.SetNRGBA(x, y, color.NRGBA{uint8(255 * x / w), uint8(255 * y / h), uint8(128 + x*y%3), a})
		}
	}
	return m
}

func TestTransmitDecodesToThePicture(t *testing.T) {
	for _, tc := range []struct {
		name      string
		img       image.Image
		max       int
		size      image.Point // "" unknown when the budget decides
		tolerance float64
	}{
		{"a gradient, exact", gradient(300, 200, false), 0, image.Pt(300, 200), 0},
		{"with transparency", gradient(300, 200, true), 0, image.Pt(300, 200), 1},
		{"larger than the screen", gradient(1600, 800, false), 0, image.Pt(320, 160), 0},
		{"smaller than the screen is not enlarged", gradient(5, 3, false), 0, image.Pt(5, 3), 0},
		{"a photo within the default budget", photo(1024), 0, image.Point{}, 12},
		{"a photo in 20 KB", photo(1024), 20_000, image.Point{}, 16},
		{"transparency in 4 KB", gradient(500, 400, true), 4_000, image.Point{}, 24},
		{"one pixel", gradient(1, 1, false), 0, image.Pt(1, 1), 0},
		{"a thread", gradient(4000, 1, false), 0, image.Pt(320, 1), 0},
	} {
		for _, tmux := range []bool{false, true} {
			t.Run(tc.name+" tmux="+strconv.FormatBool(tmux), func(t *testing.T) {
				seq, err := Transmit(tc.img, Transmission{ID: 77, Cols: 40, Rows: 20, CellW: 8, CellH: 16, Tmux: tmux, MaxBytes: tc.max})
				if err != nil {
					t.Fatal(err)
				}
				limit := tc.max
				if limit == 0 {
					limit = DefaultMaxBytes
				}
				if len(seq) > limit {
					t.Errorf("%d bytes, %d allowed", len(seq), limit)
				}
				if tmux {
					seq = unwrapTmux(t, seq)
				}
				opts, img := receive(t, seq)
				for k, want := range map[string]string{"a": "T", "f": "100", "i": "77", "U": "1", "c": "40", "r": "20", "q": "2"} {
					if opts[k] != want {
						t.Errorf("%s=%s, want %s", k, opts[k], want)
					}
				}
				got := img.Bounds().Size()
				if tc.size != (image.Point{}) && got != tc.size {
					t.Errorf("%v pixels, want %v", got, tc.size)
				}
				if d := difference(t, img, Scale(tc.img, got.X, got.Y)); d > tc.tolerance {
					t.Errorf("differs by %.1f on average", d)
				}
				if tc.max > 0 && len(seq) < tc.max/3 {
					t.Errorf("only %d of %d bytes used", len(seq), tc.max)
				}
			})
		}
	}
}

func TestTransmitRefuses(t *testing.T) {
	img := gradient(4, 4, false)
	for name, tr := range map[string]Transmission{
		"id 0": {Cols: 1, Rows: 1}, "id 256": {ID: 256, Cols: 1, Rows: 1}, "no cells": {ID: 1}, "too many cells": {ID: 1, Cols: 298, Rows: 1},
	} {
		if _, err := Transmit(img, tr); err == nil {
			t.Errorf("%s was sent", name)
		}
	}
	if _, err := Transmit(image.NewRGBA(image.Rectangle{}), Transmission{ID: 1, Cols: 1, Rows: 1}); err == nil {
		t.Error("nothing was sent")
	}
	seq, err := Transmit(photo(256), Transmission{ID: 1, Cols: 20, Rows: 10, MaxBytes: 1})
	if _, got := receive(t, seq); err != nil || got.Bounds().Dx() != 1 {
		t.Error("a hopeless budget gives the smallest picture")
	}
}

func TestDelete(t *testing.T) {
	want := "\x1b_Ga=d,d=I,q=2,i=9\x1b\\"
	if got := Delete(9, false); got != want {
		t.Errorf("%q", got)
	}
	if got := unwrapTmux(t, Delete(9, true)); got != want {
		t.Errorf("%q", got)
	}
}

func TestPlaceholder(t *testing.T) {
	const id, cols, rows = 201, 7, 3
	lines := strings.Split(Placeholder(id, cols, rows), "\n")
	if len(lines) != rows {
		t.Fatalf("%d lines", len(lines))
	}
	for r, line := range lines {
		if w := ansi.StringWidth(line); w != cols {
			t.Errorf("line %d is %d cells wide", r, w)
		}
		line, ok := strings.CutPrefix(line, "\x1b[38;5;201m")
		if !ok {
			t.Fatalf("the colour is not the id: %q", line)
		}
		line = strings.TrimSuffix(line, "\x1b[39m")
		runes := []rune(line)
		for c := range cols {
			if got := runes[3*c : 3*c+3]; got[0] != kitty.Placeholder || got[1] != kitty.Diacritic(r) || got[2] != kitty.Diacritic(c) {
				t.Errorf("cell %d,%d is %x", c, r, got)
			}
		}
	}
	if Placeholder(1, 0, 5) != "" {
		t.Error("no cells gave text")
	}
	if kitty.Diacritic(MaxCells-1) == kitty.Diacritic(0) || kitty.Diacritic(MaxCells) != kitty.Diacritic(0) {
		t.Error("MaxCells is not the length of kitty's table")
	}
}

func TestPalettedKeepsFewColours(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for i := range m.Pix {
		m.Pix[i] = 255
	}
	for y := range 32 {
		for x := range 64 {
			m.SetRGBA(x, y, color.RGBA{200, 30, 10, 255})
		}
	}
	c := paletted(m)
	if len(c.palette) != 6 {
		t.Fatalf("%d colours", len(c.palette)/3)
	}
	img, err := png.Decode(bytes.NewReader(c.png()))
	if err != nil || difference(t, img, m) != 0 {
		t.Errorf("not the same (%v)", err)
	}
	if c := paletted(image.NewRGBA(image.Rect(0, 0, 2, 2))); len(c.palette) != 3 || !c.clear {
		t.Error("all transparent")
	}
}
