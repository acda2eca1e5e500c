package raster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"time"

	"github.com/klauspost/compress/zlib"
)

// APNG encodes frames of one size as an animated PNG that plays for ever, fast
// rather than small. One frame makes a plain PNG.
func APNG(frames []Frame) ([]byte, error) {
	if len(frames) == 0 {
		return nil, fmt.Errorf("encode an animation: it has no frames")
	}
	if len(frames) == 1 {
		return PNG(frames[0].Image)
	}
	size := frames[0].Image.Bounds().Size()
	out := []byte(pngMagic)
	head := binary.BigEndian.AppendUint32(nil, uint32(size.X))
	head = binary.BigEndian.AppendUint32(head, uint32(size.Y))
	out = appendChunk(out, "IHDR", append(head, 8, 6, 0, 0, 0))
	out = appendChunk(out, "acTL", binary.BigEndian.AppendUint64(nil, uint64(len(frames))<<32))
	seq := uint32(0)
	for i, f := range frames {
		if f.Image.Bounds().Size() != size {
			return nil, fmt.Errorf("encode an animation: frame %d has another size than the first", i+1)
		}
		ctl := binary.BigEndian.AppendUint32(nil, seq)
		seq++
		ctl = append(ctl, head...)
		ctl = append(ctl, 0, 0, 0, 0, 0, 0, 0, 0)
		ctl = binary.BigEndian.AppendUint16(ctl, uint16(min(f.Delay/time.Millisecond, 65535)))
		ctl = append(binary.BigEndian.AppendUint16(ctl, 1000), 0, 0)
		out = appendChunk(out, "fcTL", ctl)
		data, err := deflate(Scale(f.Image, size.X, size.Y))
		if err != nil {
			return nil, fmt.Errorf("encode an animation: %w", err)
		}
		if i == 0 {
			out = appendChunk(out, "IDAT", data)
			continue
		}
		out = appendChunk(out, "fdAT", append(binary.BigEndian.AppendUint32(nil, seq), data...))
		seq++
	}
	return appendChunk(out, "IEND", nil), nil
}

// deflate is m as the filtered and compressed lines of a PNG in true colour with
// alpha: each line less the one above.
func deflate(m *image.RGBA) ([]byte, error) {
	var b bytes.Buffer
	z, err := zlib.NewWriterLevel(&b, zlib.BestSpeed)
	if err != nil {
		return nil, err
	}
	w, h := m.Rect.Dx(), m.Rect.Dy()
	line, above, cur := make([]byte, 1+4*w), make([]byte, 4*w), make([]byte, 4*w)
	line[0] = 2
	for y := range h {
		unpremultiply(cur, m.Pix[y*m.Stride:y*m.Stride+4*w])
		for i, v := range cur {
			line[1+i] = v - above[i]
		}
		if _, err := z.Write(line); err != nil {
			return nil, err
		}
		above, cur = cur, above
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func unpremultiply(out, in []byte) {
	for i := 0; i < len(in); i += 4 {
		p, q := in[i:i+4:i+4], out[i:i+4:i+4]
		switch a := uint32(p[3]); a {
		case 255:
			copy(q, p)
		case 0:
			q[0], q[1], q[2], q[3] = 0, 0, 0, 0
		default:
			for k := range 3 {
				q[k] = uint8(min(255, (uint32(p[k])*255+a/2)/a))
			}
			q[3] = p[3]
		}
	}
}

// Crop is the part r of img, counted from its top left corner and kept inside it;
// never empty. It shares the pixels where the format allows.
func Crop(img image.Image, r image.Rectangle) image.Image {
	b := img.Bounds()
	r = r.Add(b.Min).Intersect(b)
	if r.Empty() || r == b {
		return img
	}
	if s, ok := img.(interface {
		SubImage(r image.Rectangle) image.Image
	}); ok {
		return s.SubImage(r)
	}
	return img
}

// SplitPNGs takes PNGs apart that were written one after the other.
func SplitPNGs(b []byte) [][]byte {
	var out [][]byte
	for bytes.HasPrefix(b, []byte(pngMagic)) {
		n, whole := len(pngMagic), false
		pngChunks(b, func(name string, data []byte) bool {
			n += 12 + len(data)
			whole = name == "IEND"
			return !whole
		})
		if !whole {
			break
		}
		out, b = append(out, b[:n]), b[n:]
	}
	return out
}
