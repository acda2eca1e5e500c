package raster

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/webp"
)

// Limits of a picture that is decoded.
const (
	maxPixels  = 64 << 20  // width × height
	maxDecoded = 256 << 20 // bytes of the decoded pixels
)

// ErrTooLarge says that a picture has more pixels than are decoded: 64 million, or
// 32 million with 16 bits a channel.
var ErrTooLarge = errors.New("the picture is too large to be shown")

// ErrFormat says that the bytes are no PNG, JPEG, GIF or WebP.
var ErrFormat = errors.New("not a picture that can be shown (PNG, JPEG, GIF or WebP)")

// format is one kind of file.
type format struct {
	name   string
	is     func([]byte) bool
	config func([]byte) (image.Config, error)
	decode func([]byte) (image.Image, error)
}

// formats are those that are decoded. The registry of package image is not used, so
// that no decoder gets at foreign bytes that is not named here.
var formats = []format{
	{
		"PNG", prefix("\x89PNG\r\n\x1a\n"),
		func(b []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) },
		decodePNG,
	},
	{
		"JPEG", prefix("\xff\xd8\xff"),
		func(b []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) },
		func(b []byte) (image.Image, error) { return jpeg.Decode(bytes.NewReader(b)) },
	},
	{
		"GIF", prefix("GIF8"),
		func(b []byte) (image.Config, error) { return gif.DecodeConfig(bytes.NewReader(b)) },
		func(b []byte) (image.Image, error) { return gif.Decode(bytes.NewReader(b)) },
	},
	{
		"WebP",
		isWebP,
		func(b []byte) (image.Config, error) { return webp.DecodeConfig(bytes.NewReader(b)) },
		decodeWebP,
	},
}

func prefix(magic string) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(b, []byte(magic)) }
}

// Size reads a picture's width and height without decoding it. Sizes that Decode
// would refuse are ErrTooLarge.
func Size(b []byte) (width, height int, err error) {
	_, c, err := sniff(b)
	return c.Width, c.Height, err
}

// Decode reads a PNG, JPEG, GIF (its first frame) or WebP (its first frame). The size
// is looked at before anything is allocated. Bytes that harm a decoder are an error,
// never a panic.
func Decode(b []byte) (img image.Image, err error) {
	defer rescue(&err)
	f, _, err := sniff(b)
	if err != nil {
		return nil, err
	}
	img, err = f.decode(b)
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", f.name, err)
	}
	if img.Bounds().Empty() {
		return nil, fmt.Errorf("read the %s: it has no pixels", f.name)
	}
	return img, nil
}

// sniff finds the format and the size.
func sniff(b []byte) (f format, c image.Config, err error) {
	defer rescue(&err)
	for _, f := range formats {
		if !f.is(b) {
			continue
		}
		c, err := f.config(b)
		if err != nil {
			return f, c, fmt.Errorf("read the %s: %w", f.name, err)
		}
		if c.Width <= 0 || c.Height <= 0 {
			return f, c, fmt.Errorf("read the %s: it has no pixels", f.name)
		}
		pixels := int64(c.Width) * int64(c.Height)
		if pixels > maxPixels || pixels*bytesPerPixel(c.ColorModel) > maxDecoded {
			return f, c, fmt.Errorf("%w: %d×%d pixels", ErrTooLarge, c.Width, c.Height)
		}
		return f, c, nil
	}
	return format{}, image.Config{}, ErrFormat
}

// rescue turns a decoder's panic into an error.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("read the picture: the file is broken (%v)", p)
	}
}

func bytesPerPixel(m color.Model) int64 {
	switch m {
	case color.RGBA64Model, color.NRGBA64Model:
		return 8
	case color.GrayModel, color.AlphaModel:
		return 1
	case color.Gray16Model, color.Alpha16Model:
		return 2
	}
	if _, ok := m.(color.Palette); ok {
		return 1
	}
	return 4
}
