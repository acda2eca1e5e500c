// Package raster decodes pictures from untrusted files and makes them smaller,
// fast: on the engine's side of a slow line, and for the terminal. It knows
// nothing of terminals.
package raster

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
)

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

// PNG encodes img at the best speed: ten times faster than the smallest.
func PNG(img image.Image) ([]byte, error) {
	var buf bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(&buf, img); err != nil {
		return nil, fmt.Errorf("encode a picture: %w", err)
	}
	return buf.Bytes(), nil
}
