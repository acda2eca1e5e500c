package sketch

import (
	"image"
	"image/color"
	"math"
	"runtime"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// rgb is a colour with parts from 0 to 1, as the screen takes them.
type rgb [3]float64

func hexColor(n uint32) rgb {
	return rgb{float64(n>>16&255) / 255, float64(n>>8&255) / 255, float64(n&255) / 255}
}

func (a rgb) mix(b rgb, t float64) rgb {
	t = clamp(t)
	return rgb{a[0] + (b[0]-a[0])*t, a[1] + (b[1]-a[1])*t, a[2] + (b[2]-a[2])*t}
}

func (a rgb) scale(f float64) rgb { return rgb{a[0] * f, a[1] * f, a[2] * f} }

// add lightens as light does: it never passes white abruptly.
func (a rgb) add(b rgb, t float64) rgb {
	for i := range a {
		a[i] = 1 - (1-a[i])*(1-clamp(b[i]*t))
	}
	return a
}

func clamp(v float64) float64 { return min(max(v, 0), 1) }

// smooth rises from 0 at a to 1 at b without corners.
func smooth(a, b, v float64) float64 {
	t := clamp((v - a) / (b - a))
	return t * t * (3 - 2*t)
}

// random is a small generator that every platform repeats (splitmix64).
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	return mixBits(r.state)
}

func mixBits(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *random) float() float64 { return float64(r.next()>>11) / (1 << 53) }

func (r *random) between(a, b float64) float64 { return a + (b-a)*r.float() }

func (r *random) n(n int) int { return int(r.next() % uint64(n)) }

// lattice is the value of a noise at a point with whole coordinates.
func lattice(seed uint64, x, y int) float64 {
	return float64(mixBits(seed^uint64(int64(x))*0x9e3779b97f4a7c15^uint64(int64(y))*0xc2b2ae3d27d4eb4f)>>11) / (1 << 53)
}

// noise is smooth value noise from 0 to 1.
func noise(seed uint64, x, y float64) float64 {
	fx, fy := math.Floor(x), math.Floor(y)
	i, j := int(fx), int(fy)
	u, v := x-fx, y-fy
	u, v = u*u*u*(u*(u*6-15)+10), v*v*v*(v*(v*6-15)+10)
	a, b := lattice(seed, i, j), lattice(seed, i+1, j)
	c, d := lattice(seed, i, j+1), lattice(seed, i+1, j+1)
	return a + (b-a)*u + (c-a)*v + (a-b-c+d)*u*v
}

// fbm adds octaves of noise; the sum stays within 0 to 1.
func fbm(seed uint64, x, y float64, octaves int) float64 {
	var sum, amp, norm float64 = 0, 1, 0
	for o := range octaves {
		sum += amp * noise(seed+uint64(o)*7919, x, y)
		norm += amp
		amp *= 0.5
		x, y = x*2.03+17.1, y*2.03+9.7
	}
	return sum / norm
}

// palette is six colours from dark to light; the last is the light itself.
type palette [6]rgb

func paletteOf(c ...uint32) (p palette) {
	for i := range p {
		p[i] = hexColor(c[i])
	}
	return p
}

var palettes = map[string]palette{
	"dawn":    paletteOf(0x2b2a4c, 0x5b5f97, 0xb8a1c9, 0xf0b7a4, 0xfcd5b5, 0xfff3d6),
	"sunset":  paletteOf(0x1f1235, 0x5a1f5c, 0xb83b5e, 0xf08a5d, 0xf9c784, 0xfff1c9),
	"night":   paletteOf(0x050b1a, 0x0d1b3d, 0x17406d, 0x2a7f8e, 0x7fd1ae, 0xe9f7ef),
	"forest":  paletteOf(0x0d2420, 0x1d4a3c, 0x3f7d58, 0x8fb573, 0xd9dfa6, 0xfbf7dc),
	"desert":  paletteOf(0x3a1d1d, 0x7a3b2e, 0xc2703d, 0xe3a857, 0xf2d6a2, 0xfff6e3),
	"ocean":   paletteOf(0x04202f, 0x0b4a63, 0x1886a0, 0x5cc0c0, 0xbfe6dc, 0xfdfbea),
	"neon":    paletteOf(0x0d0221, 0x2d1b69, 0x8a1c7c, 0xf72585, 0x4cc9f0, 0xfef9ff),
	"pastel":  paletteOf(0x4a4e69, 0x8e9aaf, 0xcbc0d3, 0xefd3d7, 0xfeeafa, 0xffffff),
	"autumn":  paletteOf(0x2d1b1e, 0x6b2d2a, 0xb4552d, 0xdf9a3b, 0xf1d08a, 0xfff4d9),
	"ice":     paletteOf(0x10243e, 0x2f5d8a, 0x6fa3c8, 0xa9d0e3, 0xdcedf5, 0xffffff),
	"gold":    paletteOf(0x1a1423, 0x3d314a, 0x684756, 0xc89933, 0xf0d58c, 0xfffbe8),
	"poster":  paletteOf(0x1b2a41, 0x274690, 0xd7263d, 0xf5a623, 0xf4ead5, 0xfffaf0),
	"orchard": paletteOf(0x22333b, 0x3f5e5a, 0x7a9e7e, 0xe07a5f, 0xf2cc8f, 0xf4f1de),
	"violet":  paletteOf(0x14082b, 0x3c1b6e, 0x7b3fa0, 0xc77dc9, 0xf0c6e8, 0xfff2fb),
}

var paletteNames = []string{"dawn", "sunset", "night", "forest", "desert", "ocean", "neon", "pastel", "autumn", "ice", "gold", "poster", "orchard", "violet"}

// paletteWords leads words to palettes, subjectWords to scenes. Other words
// choose by their letters.
var paletteWords = index(map[string]string{
	"dawn":   "dawn morning sunrise misty mist fog soft quiet calm",
	"sunset": "sunset dusk evening red warm romantic",
	"night":  "night aurora northern dark midnight teal stars starry",
	"forest": "forest green wood woods jungle spring moss garden meadow grass",
	"desert": "desert sand dune dunes sahara clay savanna",
	"ocean":  "ocean sea blue water lake river turquoise underwater",
	"neon":   "neon cyberpunk electric synthwave laser arcade club",
	"pastel": "pastel pale baby dreamy spa porcelain",
	"autumn": "autumn fall october leaves copper rust",
	"ice":    "ice snow winter arctic frozen glacier polar cold",
	"gold":   "gold golden royal baroque honey brass",
	"poster": "poster bauhaus retro vintage print geometric",
	"violet": "violet purple lavender magic mystic nebula galaxy",
})

var subjectWords = index(map[string]string{
	"hills":    "hill hills mountain mountains valley landscape forest wood woods meadow field desert dune dunes canyon tree trees pine misty",
	"aurora":   "aurora northern lights arctic polar fjord night winter glacier",
	"sea":      "sea ocean lake water beach boat ship sail river harbour harbor island coast lighthouse sunset",
	"cosmos":   "space planet planets galaxy nebula moon universe cosmos cosmic astronaut star stars mars saturn",
	"geometry": "geometric geometry abstract bauhaus shape shapes pattern poster minimal square circle circles robot machine quilt",
	"paper":    "wave waves flow silk smoke marble dream dreams fire ink cloud clouds wind paper layers liquid music",
	"city":     "city street town skyline building buildings tokyo tower towers neon cyberpunk new york metropolis downtown rain",
})

func index(m map[string]string) map[string]string {
	out := map[string]string{}
	for name, words := range m {
		for _, w := range strings.Fields(words) {
			if old, ok := out[w]; !ok || name < old { // maps have no order
				out[w] = name
			}
		}
	}
	return out
}

// scene gives the colour of a point. y goes from 0 at the top to 1, x from 0
// to the aspect of the picture; px is the size of a pixel.
type scene interface {
	at(x, y, px float64) rgb
}

// picture is what a text, a seed and a shape make.
type picture struct {
	scene  scene
	aspect float64
	seed   uint64
}

// wordsOf cuts a text into lower-case words.
func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

func hashText(words []string) uint64 {
	h := uint64(14695981039346656037)
	for _, w := range words {
		for _, b := range []byte(w + " ") {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return mixBits(h)
}

var scenes = []string{"hills", "aurora", "sea", "cosmos", "geometry", "paper", "city"}

// newPicture plans a picture. The words choose the kind of scene and its
// colours; the seed places things; so the pictures of a sweep are kin.
func newPicture(text string, seed uint64, aspect float64) *picture {
	words := wordsOf(text)
	h := random{hashText(words)}
	kind, colours := scenes[h.n(len(scenes))], paletteNames[h.n(len(paletteNames))]
	for _, w := range words {
		if k, ok := subjectWords[w]; ok {
			kind = k
			break
		}
	}
	for _, w := range words {
		if k, ok := paletteWords[w]; ok {
			colours = k
			break
		}
	}
	p := palettes[colours].turned(h.between(-0.22, 0.22))
	r := &random{h.next() ^ mixBits(seed+0x51ed270b)}
	make := map[string]func(*random, palette, float64) scene{
		"hills": newHills, "aurora": newAurora, "sea": newSea, "cosmos": newCosmos,
		"geometry": newGeometry, "paper": newPaper, "city": newCity,
	}[kind]
	return &picture{scene: make(r, p, aspect), aspect: aspect, seed: r.next()}
}

// turned shifts the hue a little, so that two texts with the same key words
// still differ. The angle is in radians.
func (p palette) turned(angle float64) palette {
	s, c := math.Sincos(angle)
	k := (1 - c) / 3
	q := math.Sqrt(1.0/3) * s
	m := [3][3]float64{{c + k, k - q, k + q}, {k + q, c + k, k - q}, {k - q, k + q, c + k}}
	for i, v := range p {
		for j := range v {
			p[i][j] = clamp(m[j][0]*v[0] + m[j][1]*v[1] + m[j][2]*v[2])
		}
	}
	return p
}

// gradient takes a colour from a row of them.
func gradient(t float64, cs ...rgb) rgb {
	t = clamp(t) * float64(len(cs)-1)
	i := min(int(t), len(cs)-2)
	f := t - float64(i)
	return cs[i].mix(cs[i+1], f*f*(3-2*f))
}

// render fills pix (three values a pixel) with the picture, with a grain as
// fine as paper and a little darkness in the corners.
func (p *picture) render(pix []float32, w, h int) {
	workers := min(runtime.GOMAXPROCS(0), 4, h)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for y := k; y < h; y += workers {
				p.row(pix[y*w*3:(y+1)*w*3], y, w, h)
			}
		})
	}
	wg.Wait()
}

func (p *picture) row(line []float32, y, w, h int) {
	px := 1 / float64(h)
	fy := (float64(y) + 0.5) * px
	for x := range w {
		fx := (float64(x) + 0.5) / float64(w)
		c := p.scene.at(fx*p.aspect, fy, px)
		dx, dy := fx-0.5, fy-0.5
		shade := 1 - 0.32*smooth(0.18, 0.62, dx*dx+dy*dy)
		grain := (lattice(p.seed, x, y) - 0.5) * 0.022
		for i := range 3 {
			line[3*x+i] = float32(clamp(c[i]*shade + grain))
		}
	}
}

var labelFont = sync.OnceValues(func() (*opentype.Font, error) { return opentype.Parse(goregular.TTF) })

// label writes the text small into the lower left corner.
func label(pix []float32, w, h int, text string) {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)), " ")
	size := math.Max(float64(min(w, h))/40, 9)
	if text == "" || w < 96 || h < 64 {
		return
	}
	f, err := labelFont()
	if err != nil {
		return
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		return
	}
	defer face.Close()
	for font.MeasureString(face, text).Ceil() > w*9/10 {
		r := []rune(strings.TrimSuffix(text, "…"))
		text = strings.TrimRight(string(r[:len(r)-1]), " ") + "…"
	}
	mask := image.NewAlpha(image.Rect(0, 0, w, h))
	margin := int(size * 1.1)
	d := font.Drawer{Dst: mask, Src: image.NewUniform(color.Alpha{255}), Face: face, Dot: fixed.P(margin, h-margin)}
	d.DrawString(text)
	off := max(int(size/14), 1)
	for y := max(h-3*margin, 0); y < h; y++ {
		for x := range w {
			shadow := 0.0
			if x >= off && y >= off {
				shadow = float64(mask.AlphaAt(x-off, y-off).A) / 255 * 0.55
			}
			ink := float64(mask.AlphaAt(x, y).A) / 255 * 0.92
			for i := range 3 {
				v := &pix[(y*w+x)*3+i]
				c := float64(*v) * (1 - shadow)
				*v = float32(c + (0.98-c)*ink)
			}
		}
	}
}
