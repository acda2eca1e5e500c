package picture

import (
	"fmt"
	"image"
	"image/color"
	"strconv"
	"strings"
	"testing"

	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
)

// read draws half blocks as a terminal does, two pixels to a cell.
func read(t *testing.T, text string) *image.RGBA {
	t.Helper()
	lines := strings.Split(text, "\n")
	w := ansi.StringWidth(lines[0])
	m := image.NewRGBA(image.Rect(0, 0, w, 2*len(lines)))
	for row, line := range lines {
		fg, bg := color.RGBA{255, 0, 255, 255}, color.RGBA{255, 0, 255, 255} // the default colours must not be seen
		x := 0
		for line != "" {
			if rest, ok := strings.CutPrefix(line, "\x1b["); ok {
				params, rest, _ := strings.Cut(rest, "m")
				line = rest
				sgr(t, params, &fg, &bg)
				continue
			}
			r := []rune(line)[0]
			line = line[len(string(r)):]
			top, bottom := fg, bg
			switch r {
			case '▀':
			case '▄':
				top, bottom = bg, fg
			case ' ':
				top = bg
			default:
				t.Fatalf("a cell holds %q", r)
			}
			m.SetRGBA(x, 2*row, top)
			m.SetRGBA(x, 2*row+1, bottom)
			x++
		}
		if x != w {
			t.Fatalf("line %d has %d cells, the first has %d", row, x, w)
		}
	}
	return m
}

// sgr applies the parameters of one colour sequence.
func sgr(t *testing.T, params string, fg, bg *color.RGBA) {
	t.Helper()
	p := strings.Split(params, ";")
	num := func(i int) int {
		n, err := strconv.Atoi(p[i])
		if err != nil {
			t.Fatalf("SGR %q", params)
		}
		return n
	}
	for i := 0; i < len(p) && p[i] != ""; i++ {
		n := num(i)
		target := fg
		if n >= 40 && n < 50 || n >= 100 {
			target = bg
		}
		switch {
		case (n == 38 || n == 48) && num(i+1) == 2:
			*target = color.RGBA{uint8(num(i + 2)), uint8(num(i + 3)), uint8(num(i + 4)), 255}
			i += 4
		case n == 38 || n == 48:
			r, g, b, _ := ansi.IndexedColor(num(i + 2)).RGBA()
			*target = color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
			i += 2
		case n >= 90:
			c := basic[8+n%10]
			*target = color.RGBA{c.r, c.g, c.b, 255}
		default:
			c := basic[n%10]
			*target = color.RGBA{c.r, c.g, c.b, 255}
		}
	}
}

func TestHalfBlocksAreThePicture(t *testing.T) {
	for _, tc := range []struct {
		profile colorprofile.Profile
		limit   float64 // mean difference
	}{{colorprofile.TrueColor, 4}, {colorprofile.ANSI256, 16}} {
		for name, img := range map[string]image.Image{"gradient": gradient(300, 200, false), "photo": photo(512)} {
			t.Run(fmt.Sprint(tc.profile, " ", name), func(t *testing.T) {
				text := HalfBlocks(img, 46, 23, tc.profile)
				if len(text) > 30_000 {
					t.Errorf("%d bytes", len(text))
				}
				got := read(t, text)
				if d := difference(t, got, Scale(img, 46, 46)); d > tc.limit {
					t.Errorf("differs by %.1f on average", d)
				}
			})
		}
	}
}

func TestHalfBlocksSmallAreExact(t *testing.T) {
	img := gradient(6, 4, false)
	if d := difference(t, read(t, HalfBlocks(img, 6, 2, colorprofile.TrueColor)), img); d != 0 {
		// The colours differ by more than the budget asks to give up.
		t.Errorf("differs by %.2f", d)
	}
}

func TestHalfBlocksIn16Colours(t *testing.T) {
	img := gradient(320, 320, false)
	got := read(t, HalfBlocks(img, 64, 32, colorprofile.ANSI))
	// Dithering is right on average: compare boxes of 8×8 pixels.
	if d := difference(t, Scale(Scale(got, 16, 16), 8, 8), Scale(img, 8, 8)); d > 24 {
		t.Errorf("differs by %.1f on average", d)
	}
	seen := map[color.RGBA]bool{}
	for y := range 64 {
		for x := range 64 {
			seen[got.RGBAAt(x, y)] = true
		}
	}
	if len(seen) < 8 || len(seen) > 16 {
		t.Errorf("%d colours", len(seen))
	}
}

func TestHalfBlocksWithoutColour(t *testing.T) {
	m := image.NewGray(image.Rect(0, 0, 256, 16))
	for x := range 256 {
		for y := range 16 {
			m.SetGray(x, y, color.Gray{uint8(x)})
		}
	}
	for _, p := range []colorprofile.Profile{colorprofile.Ascii, colorprofile.NoTTY} {
		text := HalfBlocks(m, 30, 2, p)
		lines := strings.Split(text, "\n")
		if len(lines) != 2 || lines[0] != lines[1] || len(lines[0]) != 30 || strings.ContainsRune(text, 0x1b) {
			t.Fatalf("got %q", text)
		}
		for i := 1; i < 30; i++ {
			if strings.IndexByte(ramp, lines[0][i]) < strings.IndexByte(ramp, lines[0][i-1]) {
				t.Errorf("gets darker at %d: %q", i, lines[0])
			}
		}
		if lines[0][0] != ' ' || lines[0][29] != '@' {
			t.Errorf("got %q", lines[0])
		}
	}
}

func TestHalfBlocksOfNothing(t *testing.T) {
	if HalfBlocks(image.NewRGBA(image.Rectangle{}), 5, 5, colorprofile.TrueColor) != "" || HalfBlocks(gradient(3, 3, false), 0, 5, colorprofile.TrueColor) != "" {
		t.Error("nothing gave text")
	}
}

func TestPalette256IsXterms(t *testing.T) {
	for _, c := range []rgb{{0, 0, 0}, {255, 255, 255}, {95, 135, 175}, {8, 8, 8}, {238, 238, 238}, {128, 128, 128}, {200, 10, 99}} {
		i, got := palette256{}.index(c)
		r, g, b, _ := ansi.IndexedColor(i).RGBA()
		if want := (rgb{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8)}); got != want {
			t.Errorf("%v: colour %d is %v, not %v", c, i, want, got)
		}
	}
}
