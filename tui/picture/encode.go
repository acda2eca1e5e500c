package picture

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"

	"github.com/klauspost/compress/zlib"
)

// canvas is a picture about to become a PNG: 3 or 4 bytes a pixel, or one and a
// palette.
type canvas struct {
	w, h    int
	depth   int // bytes a pixel: 1, 3 or 4
	pix     []uint8
	palette []uint8 // 3 bytes a colour, for depth 1
	clear   bool    // colour 0 of the palette is transparent
}

// plain takes the pixels of m as they are, dropping an alpha that is full everywhere.
func plain(m *image.RGBA) canvas {
	c := canvas{w: m.Rect.Dx(), h: m.Rect.Dy(), depth: 3}
	if !m.Opaque() {
		c.depth = 4
	}
	c.pix = make([]uint8, c.w*c.h*c.depth)
	o := 0
	for y := range c.h {
		line := m.Pix[y*m.Stride : y*m.Stride+4*c.w]
		for i := 0; i < len(line); i += 4 {
			p := line[i : i+4 : i+4]
			q := c.pix[o : o+c.depth]
			q[0], q[1], q[2] = p[0], p[1], p[2]
			if c.depth == 4 {
				unmultiply(q, p)
			}
			o += c.depth
		}
	}
	return c
}

func unmultiply(q, p []uint8) {
	a := uint32(p[3])
	if a == 0 {
		q[0], q[1], q[2], q[3] = 0, 0, 0, 0
		return
	}
	for i := range 3 {
		q[i] = uint8(min(255, (uint32(p[i])*255+a/2)/a))
	}
	q[3] = p[3]
}

// png writes c as a PNG with little compression: speed matters more than size, and
// the line is usually fast. Lines are filtered with Paeth in true colour, which suits
// photographs and gradients, and not at all with a palette.
func (c canvas) png() []byte {
	var b bytes.Buffer
	b.Grow(c.w*c.h*c.depth/2 + 2048)
	b.WriteString("\x89PNG\r\n\x1a\n")
	head := binary.BigEndian.AppendUint32(nil, uint32(c.w))
	head = binary.BigEndian.AppendUint32(head, uint32(c.h))
	chunk(&b, "IHDR", append(head, 8, [5]uint8{1: 3, 3: 2, 4: 6}[c.depth], 0, 0, 0))
	if c.depth == 1 {
		chunk(&b, "PLTE", c.palette)
		if c.clear {
			chunk(&b, "tRNS", []byte{0})
		}
	}
	chunk(&b, "IDAT", c.deflate())
	chunk(&b, "IEND", nil)
	return b.Bytes()
}

func chunk(b *bytes.Buffer, name string, data []byte) {
	_ = binary.Write(b, binary.BigEndian, uint32(len(data)))
	start := b.Len()
	b.WriteString(name)
	b.Write(data)
	_ = binary.Write(b, binary.BigEndian, crc32.ChecksumIEEE(b.Bytes()[start:]))
}

// deflate filters and compresses the lines.
func (c canvas) deflate() []byte {
	var b bytes.Buffer
	z, err := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant that exists
	}
	n := c.w * c.depth
	line := make([]uint8, 1+n)
	above := make([]uint8, n)
	for y := range c.h {
		cur := c.pix[y*n : (y+1)*n]
		if c.depth == 1 {
			copy(line[1:], cur)
		} else {
			line[0] = 4
			paeth(line[1:], cur, above, c.depth)
			above = cur
		}
		_, _ = z.Write(line) // a bytes.Buffer takes everything
	}
	_ = z.Close()
	return b.Bytes()
}

// paeth writes cur less its prediction from left, above and above left.
func paeth(out, cur, above []uint8, depth int) {
	for i := range depth {
		out[i] = cur[i] - above[i]
	}
	for i := depth; i < len(cur); i++ {
		a, b, c := int(cur[i-depth]), int(above[i]), int(above[i-depth])
		pa, pb, pc := b-c, a-c, a+b-2*c
		if pa < 0 {
			pa = -pa
		}
		if pb < 0 {
			pb = -pb
		}
		if pc < 0 {
			pc = -pc
		}
		p := c
		if pa <= pb && pa <= pc {
			p = a
		} else if pb <= pc {
			p = b
		}
		out[i] = cur[i] - uint8(p)
	}
}

// bin is a colour of 15 bits, and the sum of the pixels that have it.
type bin struct {
	n, r, g, b uint32
	key        uint16
}

// paletted is m in at most 256 colours, chosen by median cut over its colours of 15
// bits. Pixels that are more than half transparent become fully so.
func paletted(m *image.RGBA) canvas {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	c := canvas{w: w, h: h, depth: 1, pix: make([]uint8, w*h), clear: !m.Opaque()}
	hist := make([]bin, 1<<15)
	for y := range h {
		line := m.Pix[y*m.Stride : y*m.Stride+4*w]
		for i := 0; i < len(line); i += 4 {
			p := line[i : i+4 : i+4]
			if p[3] < 128 {
				continue
			}
			e := &hist[key15(p)]
			e.n++
			e.r += uint32(p[0])
			e.g += uint32(p[1])
			e.b += uint32(p[2])
		}
	}
	bins := make([]bin, 0, 4096)
	for k := range hist {
		if hist[k].n > 0 {
			hist[k].key = uint16(k)
			bins = append(bins, hist[k])
		}
	}
	colours := 256
	if c.clear {
		colours = 255
		c.palette = append(c.palette, 0, 0, 0)
	}
	table := make([]uint16, 1<<15) // 1 + number of the colour of a key, 0: none yet
	for _, box := range medianCut(bins, colours) {
		var sum bin
		for _, e := range box {
			sum.n, sum.r, sum.g, sum.b = sum.n+e.n, sum.r+e.r, sum.g+e.g, sum.b+e.b
			table[e.key] = uint16(len(c.palette)/3) + 1
		}
		c.palette = append(c.palette, uint8(sum.r/sum.n), uint8(sum.g/sum.n), uint8(sum.b/sum.n))
	}
	if len(c.palette) == 0 { // no pixel at all
		c.palette = []uint8{0, 0, 0}
	}
	c.dither(m, table)
	return c
}

// bayer is a pattern of thresholds that spreads the rounding of colours evenly; unlike
// a diffusion of the error it repeats, and so it compresses.
var bayer = [4][4]int{{-15, 1, -11, 5}, {9, -7, 13, -3}, {-9, 7, -13, 3}, {15, -1, 11, -5}}

// dither sets the pixels: each is moved a little by the pattern, about as far as the
// colours of a palette of that size lie apart, and gets the colour of its key. Where no
// pixel has that key (0 in table, for colours start at 1) it is not moved.
func (c canvas) dither(m *image.RGBA, table []uint16) {
	spread := 16
	if len(c.palette)/3 < 250 { // these are all the colours there are
		spread = 0
	}
	for y := range c.h {
		line, out := m.Pix[y*m.Stride:y*m.Stride+4*c.w], c.pix[y*c.w:(y+1)*c.w]
		for x := range out {
			p := line[4*x : 4*x+4 : 4*x+4]
			if p[3] < 128 {
				continue
			}
			d := bayer[y&3][x&3] * spread / 32
			q := [3]uint8{shift(p[0], d), shift(p[1], d), shift(p[2], d)}
			k := key15(q[:])
			if table[k] == 0 {
				k = key15(p)
			}
			out[x] = uint8(table[k] - 1)
		}
	}
}

func shift(v uint8, d int) uint8 { return uint8(min(max(int(v)+d, 0), 255)) }

func key15(p []uint8) int { return int(p[0]>>3)<<10 | int(p[1]>>3)<<5 | int(p[2]>>3) }

// medianCut divides bins into at most n boxes: the one with most pixels times extent
// is cut at the median of its longest side, again and again. It reorders bins.
func medianCut(bins []bin, n int) [][]bin {
	if len(bins) == 0 {
		return nil
	}
	type box struct {
		bins  []bin
		axis  int // bit shift of the longest side in key
		score int
	}
	measure := func(bins []bin) box {
		lo, hi := [3]int{31, 31, 31}, [3]int{}
		pixels := 0
		for _, e := range bins {
			pixels += int(e.n)
			for i := range 3 {
				v := int(e.key>>(5*i)) & 31
				lo[i], hi[i] = min(lo[i], v), max(hi[i], v)
			}
		}
		b := box{bins: bins}
		extent := 0
		for i := range 3 {
			if d := hi[i] - lo[i]; d > extent {
				extent, b.axis = d, 5*i
			}
		}
		b.score = extent * extent * pixels
		return b
	}
	boxes := []box{measure(bins)}
	for len(boxes) < n {
		best := 0
		for i := range boxes {
			if boxes[i].score > boxes[best].score {
				best = i
			}
		}
		b := boxes[best]
		if b.score == 0 {
			break
		}
		left, right := cut(b.bins, b.axis)
		boxes[best] = measure(left)
		boxes = append(boxes, measure(right))
	}
	out := make([][]bin, len(boxes))
	for i, b := range boxes {
		out[i] = b.bins
	}
	return out
}

// cut splits bins by the side where half of the pixels are passed; neither part is
// empty, because the side has an extent. It reorders bins.
func cut(bins []bin, axis int) (left, right []bin) {
	var pixels [32]uint32
	var total, sum uint32
	last := 0 // the largest value of the side
	for _, e := range bins {
		v := int(e.key>>axis) & 31
		pixels[v] += e.n
		total += e.n
		last = max(last, v)
	}
	at := 0 // values up to this go left
	for v := range last {
		if sum += pixels[v]; sum > 0 {
			at = v
		}
		if sum > 0 && sum >= total/2 {
			break
		}
	}
	n := 0
	for i := range bins {
		if int(bins[i].key>>axis)&31 <= at {
			bins[i], bins[n] = bins[n], bins[i]
			n++
		}
	}
	return bins[:n], bins[n:]
}
