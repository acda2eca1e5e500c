package raster

import (
	"encoding/binary"
	"image"
	"image/color"
)

// maxSamples bounds how many pixels a side of a box are looked at. A picture 30 times
// as large as its screen image is told apart from its full average by nobody.
const maxSamples = 4

// Scale is img in w × h pixels, each the average of the pixels it covers (at most 16
// of them, evenly spread); where it is enlarged, the nearest. The result is never
// nil and has its own pixels.
func Scale(img image.Image, w, h int) *image.RGBA {
	w, h = max(w, 1), max(h, 1)
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	if !img.Bounds().Empty() {
		NewScaler(img, w, h).Lines(dst, 0, h)
	}
	return dst
}

// Scaler makes single lines of a scaled picture, for who does not need them all.
type Scaler struct {
	img    image.Image
	w, h   int
	xs, ys []int // source positions, kx and ky for each pixel
	kx, ky int
	row    []uint8
	// Sums of red and blue, and of green and alpha, in 16 bits each: 16 bytes add up
	// to less.
	rb, ga []uint32
}

// NewScaler prepares to scale img to w × h pixels.
func NewScaler(img image.Image, w, h int) *Scaler {
	b := img.Bounds()
	s := &Scaler{img: img, w: w, h: h, rb: make([]uint32, w), ga: make([]uint32, w)}
	s.xs, s.kx = samples(b.Min.X, b.Dx(), w)
	s.ys, s.ky = samples(b.Min.Y, b.Dy(), h)
	s.row = make([]uint8, 4*len(s.xs))
	return s
}

// Lines makes the lines from y0 up to y1 and writes them to dst from its first line
// on.
func (s *Scaler) Lines(dst *image.RGBA, y0, y1 int) {
	for y := y0; y < y1; y++ {
		clear(s.rb)
		clear(s.ga)
		for _, sy := range s.ys[y*s.ky : (y+1)*s.ky] {
			readRow(s.img, sy, s.xs, s.row)
			s.add()
		}
		out := dst.Pix[(y-y0)*dst.Stride:]
		n := uint32(s.kx * s.ky)
		for x := range s.w {
			rb, ga := s.rb[x], s.ga[x]
			q := out[4*x : 4*x+4 : 4*x+4]
			q[0], q[1] = uint8((rb&0xffff+n/2)/n), uint8((ga&0xffff+n/2)/n)
			q[2], q[3] = uint8((rb>>16+n/2)/n), uint8((ga>>16+n/2)/n)
		}
	}
}

// add adds the row that was read to the sums.
func (s *Scaler) add() {
	row := s.row
	for x := range s.rb {
		rb, ga := s.rb[x], s.ga[x]
		for range s.kx {
			v := binary.LittleEndian.Uint32(row)
			row = row[4:]
			rb += v & 0x00ff00ff
			ga += v >> 8 & 0x00ff00ff
		}
		s.rb[x], s.ga[x] = rb, ga
	}
}

// samples are the k source positions of each of n boxes that cover size from start.
func samples(start, size, n int) (at []int, k int) {
	k = min(max((size+n-1)/n, 1), maxSamples)
	at = make([]int, 0, n*k)
	for i := range n {
		for j := range k {
			// The middle of the j-th part of the i-th box.
			at = append(at, start+((i*k+j)*2+1)*size/(2*n*k))
		}
	}
	return at, k
}

// readRow reads the pixels xs of line y, premultiplied, four bytes each.
func readRow(img image.Image, y int, xs []int, out []uint8) {
	switch m := img.(type) {
	case *image.RGBA:
		line := m.Pix[m.PixOffset(m.Rect.Min.X, y):]
		for i, x := range xs {
			o := 4 * (x - m.Rect.Min.X)
			binary.LittleEndian.PutUint32(out[4*i:], binary.LittleEndian.Uint32(line[o:]))
		}
	case *image.NRGBA:
		line := m.Pix[m.PixOffset(m.Rect.Min.X, y):]
		for i, x := range xs {
			o := 4 * (x - m.Rect.Min.X)
			p, q := line[o:o+4:o+4], out[4*i:4*i+4:4*i+4]
			premultiply(q, p[0], p[1], p[2], p[3])
		}
	case *image.YCbCr:
		for i, x := range xs {
			yi, ci := m.YOffset(x, y), m.COffset(x, y)
			r, g, b := color.YCbCrToRGB(m.Y[yi], m.Cb[ci], m.Cr[ci])
			q := out[4*i : 4*i+4 : 4*i+4]
			q[0], q[1], q[2], q[3] = r, g, b, 255
		}
	case *image.Gray:
		line := m.Pix[m.PixOffset(m.Rect.Min.X, y):]
		for i, x := range xs {
			v, q := line[x-m.Rect.Min.X], out[4*i:4*i+4:4*i+4]
			q[0], q[1], q[2], q[3] = v, v, v, 255
		}
	default:
		for i, x := range xs {
			r, g, b, a := img.At(x, y).RGBA()
			q := out[4*i : 4*i+4 : 4*i+4]
			q[0], q[1], q[2], q[3] = uint8(r>>8), uint8(g>>8), uint8(b>>8), uint8(a>>8)
		}
	}
}

func premultiply(q []uint8, r, g, b, a uint8) {
	if a == 255 {
		q[0], q[1], q[2], q[3] = r, g, b, a
		return
	}
	mul := func(v uint8) uint8 { return uint8((uint32(v)*uint32(a) + 127) / 255) }
	q[0], q[1], q[2], q[3] = mul(r), mul(g), mul(b), a
}
