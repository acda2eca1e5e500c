package picture

import (
	"image"
	"strconv"
	"strings"

	"github.com/charmbracelet/colorprofile"
)

// bytesPerCell is the budget of HalfBlocks: 80×24 cells with a square picture, 46×23
// of them, stay under 30 KB.
const bytesPerCell = 27

// ramp is a scale of darkness for terminals without colour, dark to bright.
const ramp = " .,:-=+*oxOX#%@"

// HalfBlocks is img as rows lines of cols cells, joined by newlines: each cell shows
// two pixels one above the other, with the colours of the profile. With 16 colours it
// is dithered, without colour it is a ramp of characters. Colours that differ so
// little that nobody sees it are made equal where the text would get too long.
// Transparent parts are mixed with black.
func HalfBlocks(img image.Image, cols, rows int, profile colorprofile.Profile) string {
	if cols < 1 || rows < 1 || img.Bounds().Empty() {
		return ""
	}
	if profile <= colorprofile.Ascii {
		return characters(Scale(img, cols, rows))
	}
	small := Scale(img, cols, 2*rows)
	switch profile {
	case colorprofile.TrueColor:
		limit := bytesPerCell*cols*rows + 256
		text := ""
		for _, tolerance := range []int{0, 2, 4, 7, 12, 18, 26} {
			text = blocks(small, truePalette{}, tolerance)
			if len(text) <= limit {
				break
			}
		}
		return text
	case colorprofile.ANSI256:
		return blocks(small, palette256{}, 0)
	default:
		dither16(small)
		return blocks(small, palette16{}, 0)
	}
}

// characters is one character a pixel.
func characters(m *image.RGBA) string {
	var b strings.Builder
	for y := range m.Rect.Dy() {
		if y > 0 {
			b.WriteByte('\n')
		}
		for x := range m.Rect.Dx() {
			p := m.Pix[y*m.Stride+4*x:]
			b.WriteByte(ramp[luminance(p)*len(ramp)/256])
		}
	}
	return b.String()
}

// luminance is the brightness of a pixel, 0–255.
func luminance(p []uint8) int {
	return (2126*int(p[0]) + 7152*int(p[1]) + 722*int(p[2])) / 10000
}

// rgb is a colour.
type rgb struct{ r, g, b uint8 }

// near reports whether no channel differs by more than d.
func (c rgb) near(o rgb, d int) bool {
	diff := func(a, b uint8) bool { return int(a)-int(b) <= d && int(b)-int(a) <= d }
	return diff(c.r, o.r) && diff(c.g, o.g) && diff(c.b, o.b)
}

// colours is a set of colours that a terminal has.
type colours interface {
	// nearest is the colour of the set that is most like c.
	nearest(c rgb) rgb
	// foreground and background append the parameters of SGR for a colour of the set.
	foreground(b []byte, c rgb) []byte
	background(b []byte, c rgb) []byte
}

// pen is what the terminal draws with at the moment; ok false is the default colour.
type pen struct {
	fg, bg     rgb
	fgOK, bgOK bool
}

// blocks draws two lines of m as one of cells. A colour within tolerance of the one
// in use is not changed.
func blocks(m *image.RGBA, set colours, tolerance int) string {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	out := make([]byte, 0, w*h/2*bytesPerCell+256)
	for y := 0; y+1 < h; y += 2 {
		if y > 0 {
			out = append(out, '\n')
		}
		var p pen
		upper, lower := m.Pix[y*m.Stride:], m.Pix[(y+1)*m.Stride:]
		for x := range w {
			top := set.nearest(rgb{upper[4*x], upper[4*x+1], upper[4*x+2]})
			bottom := set.nearest(rgb{lower[4*x], lower[4*x+1], lower[4*x+2]})
			out = p.cell(out, set, top, bottom, tolerance)
		}
		out = append(out, "\x1b[m"...)
	}
	return string(out)
}

// cell draws one cell with as few changes of colour as there are: a space where both
// halves are the background, else the upper or the lower block.
func (p *pen) cell(out []byte, set colours, top, bottom rgb, tolerance int) []byte {
	if top.near(bottom, tolerance) {
		if !p.bgOK || !(p.bg.near(top, tolerance) && p.bg.near(bottom, tolerance)) {
			out = p.change(out, set, nil, &bottom)
		}
		return append(out, ' ')
	}
	isFG := func(c rgb) bool { return p.fgOK && p.fg.near(c, tolerance) }
	isBG := func(c rgb) bool { return p.bgOK && p.bg.near(c, tolerance) }
	upper := b2i(isFG(top)) + b2i(isBG(bottom)) // colours in use that ▀ needs
	lower := b2i(isFG(bottom)) + b2i(isBG(top))
	glyph := "▀"
	if lower > upper {
		glyph, top, bottom = "▄", bottom, top
	}
	var fg, bg *rgb
	if !isFG(top) {
		fg = &top
	}
	if !isBG(bottom) {
		bg = &bottom
	}
	return append(p.change(out, set, fg, bg), glyph...)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// change sets colours; nil leaves one as it is.
func (p *pen) change(out []byte, set colours, fg, bg *rgb) []byte {
	if fg == nil && bg == nil {
		return out
	}
	out = append(out, "\x1b["...)
	if fg != nil {
		out = set.foreground(out, *fg)
		p.fg, p.fgOK = *fg, true
	}
	if bg != nil {
		if fg != nil {
			out = append(out, ';')
		}
		out = set.background(out, *bg)
		p.bg, p.bgOK = *bg, true
	}
	return append(out, 'm')
}

// truePalette has all colours.
type truePalette struct{}

func (truePalette) nearest(c rgb) rgb { return c }

func (truePalette) foreground(b []byte, c rgb) []byte { return appendRGB(append(b, "38;2;"...), c) }

func (truePalette) background(b []byte, c rgb) []byte { return appendRGB(append(b, "48;2;"...), c) }

func appendRGB(b []byte, c rgb) []byte {
	b = append(strconv.AppendUint(b, uint64(c.r), 10), ';')
	b = append(strconv.AppendUint(b, uint64(c.g), 10), ';')
	return strconv.AppendUint(b, uint64(c.b), 10)
}

// palette256 is the cube of 6×6×6 colours and the 24 greys of xterm.
type palette256 struct{}

// level is the step of the cube nearest to v, and its value.
func level(v uint8) (step int, value uint8) {
	switch {
	case v < 48:
		return 0, 0
	case v < 115:
		return 1, 95
	}
	step = (int(v) - 35) / 40
	return step, uint8(55 + 40*step)
}

// index is the number of the nearest colour, and that colour.
func (palette256) index(c rgb) (int, rgb) {
	r, rv := level(c.r)
	g, gv := level(c.g)
	b, bv := level(c.b)
	cube := rgb{rv, gv, bv}
	mean := (int(c.r) + int(c.g) + int(c.b)) / 3
	step := min(max((mean-3)/10, 0), 23)
	v := uint8(8 + 10*step)
	grey := rgb{v, v, v}
	if distance(c, grey) < distance(c, cube) {
		return 232 + step, grey
	}
	return 16 + 36*r + 6*g + b, cube
}

func (p palette256) nearest(c rgb) rgb {
	_, n := p.index(c)
	return n
}

func (p palette256) foreground(b []byte, c rgb) []byte {
	i, _ := p.index(c)
	return strconv.AppendInt(append(b, "38;5;"...), int64(i), 10)
}

func (p palette256) background(b []byte, c rgb) []byte {
	i, _ := p.index(c)
	return strconv.AppendInt(append(b, "48;5;"...), int64(i), 10)
}

// distance weighs the channels about as the eye does.
func distance(a, b rgb) int {
	r, g, bl := int(a.r)-int(b.r), int(a.g)-int(b.g), int(a.b)-int(b.b)
	return 3*r*r + 6*g*g + bl*bl
}

// basic are the 16 colours as xterm shows them; other terminals are near.
var basic = [16]rgb{
	{0, 0, 0},
	{205, 0, 0},
	{0, 205, 0},
	{205, 205, 0},
	{0, 0, 238},
	{205, 0, 205},
	{0, 205, 205},
	{229, 229, 229},
	{127, 127, 127},
	{255, 0, 0},
	{0, 255, 0},
	{255, 255, 0},
	{92, 92, 255},
	{255, 0, 255},
	{0, 255, 255},
	{255, 255, 255},
}

// palette16 is the 16 basic colours.
type palette16 struct{}

func (palette16) index(c rgb) int {
	best := 0
	for i := range basic {
		if distance(c, basic[i]) < distance(c, basic[best]) {
			best = i
		}
	}
	return best
}

func (p palette16) nearest(c rgb) rgb { return basic[p.index(c)] }

func (p palette16) foreground(b []byte, c rgb) []byte {
	i := p.index(c)
	return strconv.AppendInt(b, int64(30+i+b2i(i >= 8)*52), 10)
}

func (p palette16) background(b []byte, c rgb) []byte {
	i := p.index(c)
	return strconv.AppendInt(b, int64(40+i+b2i(i >= 8)*52), 10)
}

// dither16 turns m into the 16 colours, spreading the error of each pixel over its
// neighbours (Floyd and Steinberg).
func dither16(m *image.RGBA) {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	cur, next := make([][3]int, w+2), make([][3]int, w+2) // error × 16, one aside at each end
	for y := range h {
		for x := range w {
			p := m.Pix[y*m.Stride+4*x : y*m.Stride+4*x+3]
			var want [3]int
			for i := range 3 {
				want[i] = min(max(int(p[i])+cur[x+1][i]/16, 0), 255)
			}
			c := palette16{}.nearest(rgb{uint8(want[0]), uint8(want[1]), uint8(want[2])})
			p[0], p[1], p[2] = c.r, c.g, c.b
			for i := range 3 {
				e := want[i] - int(p[i])
				cur[x+2][i] += 7 * e
				next[x][i] += 3 * e
				next[x+1][i] += 5 * e
				next[x+2][i] += e
			}
		}
		cur, next = next, cur
		clear(next)
	}
}
