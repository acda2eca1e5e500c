// Package raster decodes pictures from untrusted files and makes them smaller,
// fast: on the engine's side of a slow line, and for the terminal. It knows
// nothing of terminals.
package raster

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"

	_ "image/gif"  // decoder
	_ "image/jpeg" // decoder

	_ "golang.org/x/image/webp" // decoder
)

// MaxPixels is the largest picture that is decoded: 64 megapixels need 256 MB.
const MaxPixels = 64 << 20

// Decode reads a PNG, JPEG, GIF (first frame) or WebP. The size is looked at
// before anything is decoded. Hostile data gives an error, never a panic.
func Decode(b []byte) (img image.Image, err error) {
	defer func() {
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("the picture's data is broken: %v", p)
		}
	}()
	cfg, format, err := image.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("no picture that Easel can read (PNG, JPEG, GIF, WebP): %w", err)
	}
	if cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > MaxPixels/cfg.Height {
		return nil, fmt.Errorf("a %s of %d×%d pixels is too large to show", format, cfg.Width, cfg.Height)
	}
	img, _, err = image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("the %s is broken: %w", format, err)
	}
	return img, nil
}

// Inside is the largest size with the proportions of w×h that lies inside
// maxW×maxH, at least 1×1. A picture that fits already keeps its size.
func Inside(w, h, maxW, maxH int) (int, int) {
	if w <= maxW && h <= maxH {
		return w, h
	}
	if w*maxH > h*maxW {
		return maxW, max(1, (h*maxW+w/2)/w)
	}
	return max(1, (w*maxH+h/2)/h), maxH
}

// Fit makes img small enough for maxW×maxH and leaves a smaller one alone.
func Fit(img image.Image, maxW, maxH int) image.Image {
	b := img.Bounds()
	w, h := Inside(b.Dx(), b.Dy(), maxW, maxH)
	if w == b.Dx() && h == b.Dy() {
		return img
	}
	return Scale(img, w, h)
}

// RGBA is img as premultiplied RGBA with its origin at 0,0, without a copy when
// it is that already.
func RGBA(img image.Image) *image.RGBA {
	if r, ok := img.(*image.RGBA); ok && r.Rect.Min == (image.Point{}) {
		return r
	}
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(out, out.Rect, img, b.Min, draw.Src)
	return out
}

// samples is how many source pixels in each direction are averaged for one
// target pixel at most: more cannot be told apart.
const samples = 4

// Scale makes a w×h picture of img: each target pixel is the mean of up to 4×4
// samples spread evenly over the source pixels that it covers.
func Scale(img image.Image, w, h int) *image.RGBA {
	w, h = max(w, 1), max(h, 1)
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	b := img.Bounds()
	if b.Empty() {
		return out
	}
	at := sampler(img)
	xs, ys := grid(b.Dx(), w), grid(b.Dy(), h)
	for y := range h {
		row := out.Pix[y*out.Stride : y*out.Stride+4*w]
		for x := range w {
			var r, g, bl, a, n uint32
			for _, sy := range ys[y] {
				for _, sx := range xs[x] {
					c := at(b.Min.X+sx, b.Min.Y+sy)
					r, g, bl, a = r+uint32(c.R), g+uint32(c.G), bl+uint32(c.B), a+uint32(c.A)
					n++
				}
			}
			row[4*x], row[4*x+1], row[4*x+2], row[4*x+3] = uint8(r/n), uint8(g/n), uint8(bl/n), uint8(a/n)
		}
	}
	return out
}

// grid lists for each of to target positions the source positions to sample.
func grid(from, to int) [][]int {
	out := make([][]int, to)
	for i := range out {
		lo, hi := i*from/to, max((i+1)*from/to, i*from/to+1)
		n := min(hi-lo, samples)
		list := make([]int, n)
		for k := range list {
			list[k] = min(lo+(2*k+1)*(hi-lo)/(2*n), from-1)
		}
		out[i] = list
	}
	return out
}

// sampler reads premultiplied pixels of img quickly for the usual types.
func sampler(img image.Image) func(x, y int) color.RGBA {
	switch m := img.(type) {
	case *image.RGBA:
		return m.RGBAAt
	case *image.NRGBA:
		return func(x, y int) color.RGBA {
			p := m.Pix[m.PixOffset(x, y):]
			if p[3] == 255 {
				return color.RGBA{p[0], p[1], p[2], 255}
			}
			a := uint32(p[3])
			return color.RGBA{uint8(uint32(p[0]) * a / 255), uint8(uint32(p[1]) * a / 255), uint8(uint32(p[2]) * a / 255), p[3]}
		}
	case *image.YCbCr:
		return func(x, y int) color.RGBA {
			c := m.YCbCrAt(x, y)
			r, g, b := color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
			return color.RGBA{r, g, b, 255}
		}
	}
	return func(x, y int) color.RGBA {
		r, g, b, a := img.At(x, y).RGBA()
		return color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), uint8(a >> 8)}
	}
}

// PNG encodes img at the best speed: ten times faster than the smallest.
func PNG(img image.Image) ([]byte, error) {
	var buf bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(&buf, img); err != nil {
		return nil, fmt.Errorf("encode a picture: %w", err)
	}
	return buf.Bytes(), nil
}
