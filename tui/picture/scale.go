package picture

import (
	"image"

	"easel/backend/raster"
)

// Default size of a cell in pixels, when the terminal does not tell.
const (
	defaultCellW = 8
	defaultCellH = 16
)

// Fit is the number of columns and rows that a picture takes when it is as large as
// cols × rows allow and keeps its aspect. cellW and cellH are the size of a cell in
// pixels; 0 means unknown, 1:2 then. The result is at least 1×1 and at most cols ×
// rows; 0×0 when there is no room or no picture.
func Fit(imgW, imgH, cols, rows, cellW, cellH int) (int, int) {
	if imgW <= 0 || imgH <= 0 || cols <= 0 || rows <= 0 {
		return 0, 0
	}
	if cellW <= 0 || cellH <= 0 {
		cellW, cellH = defaultCellW, defaultCellH
	}
	// Floats: the sizes come from files and may be huge.
	aspect := float64(imgW) / float64(imgH) * float64(cellH) / float64(cellW) // columns per row
	c, r := cols, int(float64(cols)/aspect+0.5)
	if float64(cols)/aspect > float64(rows) {
		c, r = int(float64(rows)*aspect+0.5), rows
	}
	return min(max(c, 1), cols), min(max(r, 1), rows)
}

// Errors of Decode.
var (
	ErrTooLarge = raster.ErrTooLarge
	ErrFormat   = raster.ErrFormat
)

// Size reads the size of a picture without decoding it.
func Size(b []byte) (width, height int, err error) { return raster.Size(b) }

// Decode reads a PNG, JPEG, GIF or WebP from an untrusted file.
func Decode(b []byte) (image.Image, error) { return raster.Decode(b) }

// Scale makes a w×h picture of img.
func Scale(img image.Image, w, h int) *image.RGBA { return raster.Scale(img, w, h) }
