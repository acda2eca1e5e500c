package raster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/png"
	"io"

	"github.com/klauspost/compress/zlib"
)

// decodePNG reads a PNG. What ComfyUI writes (8 bits, true colour, with or without
// alpha, not interlaced) is inflated by one goroutine while this one undoes the
// filters, which takes about half of the time of image/png. Everything else, and
// everything in which a fault is found, goes to image/png.
func decodePNG(b []byte) (image.Image, error) {
	if p, ok := parsePNG(b); ok {
		if img, err := p.decode(); err == nil {
			return img, nil
		}
	}
	return png.Decode(bytes.NewReader(b))
}

// rawPNG is a PNG that is about to be decoded.
type rawPNG struct {
	w, h  int
	depth int      // bytes a pixel: 3 or 4
	data  [][]byte // of the IDAT chunks
}

// parsePNG reads the chunks; ok is false for a PNG that this file does not decode.
func parsePNG(b []byte) (p rawPNG, ok bool) {
	const head = 8
	for b = b[head:]; len(b) >= 12; {
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-12) {
			return p, false
		}
		name, body := string(b[4:8]), b[8:8+n]
		if crc32.ChecksumIEEE(b[4:8+n]) != binary.BigEndian.Uint32(b[8+n:]) {
			return p, false
		}
		b = b[12+n:]
		switch name {
		case "IHDR":
			if n != 13 || p.depth != 0 || body[8] != 8 || body[10] != 0 || body[11] != 0 || body[12] != 0 {
				return p, false
			}
			p.w, p.h = int(binary.BigEndian.Uint32(body)), int(binary.BigEndian.Uint32(body[4:]))
			p.depth = map[byte]int{2: 3, 6: 4}[body[9]]
			if p.depth == 0 {
				return p, false
			}
		case "IDAT":
			p.data = append(p.data, body)
		case "tRNS":
			return p, false
		case "IEND":
			return p, p.depth != 0 && len(p.data) > 0 && p.w > 0 && p.h > 0
		}
	}
	return p, false
}

var errPNG = errors.New("broken PNG")

// batchBytes is about how many bytes of lines are handed over at once.
const batchBytes = 256 << 10

// decode inflates in one goroutine and undoes the filters in this one.
func (p rawPNG) decode() (image.Image, error) {
	stride := 1 + p.w*p.depth
	lines := min(max(1, batchBytes/stride), p.h)
	full, free := make(chan []byte), make(chan []byte, 2)
	free <- make([]byte, lines*stride)
	free <- make([]byte, lines*stride)
	stop, ended := make(chan struct{}), make(chan struct{})
	var failed error // of the goroutine, to be read when it has ended
	go func() {
		defer close(ended)
		defer close(full)
		failed = p.inflate(stride, free, full, stop)
	}()
	img, err := p.unfilter(stride, free, full)
	close(stop)
	<-ended
	if err == nil {
		err = failed
	}
	return img, err
}

// inflate fills buffers from free with whole lines and passes them to full.
func (p rawPNG) inflate(stride int, free, full chan []byte, stop <-chan struct{}) (err error) {
	defer rescue(&err)
	// In one piece, the decompressor need not look for the next part at every byte.
	data := p.data[0]
	if len(p.data) > 1 {
		data = bytes.Join(p.data, nil)
	}
	z, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	for left := p.h; left > 0; {
		var buf []byte
		select {
		case buf = <-free:
		case <-stop:
			return errPNG
		}
		n := min(left, cap(buf)/stride)
		buf = buf[:n*stride]
		if _, err := io.ReadFull(z, buf); err != nil {
			return err
		}
		select {
		case full <- buf:
		case <-stop:
			return errPNG
		}
		left -= n
	}
	// The end is read for its checksum.
	if n, err := z.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return errPNG
	}
	return nil
}

// unfilter makes pixels of the lines that come.
func (p rawPNG) unfilter(stride int, free, full chan []byte) (image.Image, error) {
	var img image.Image
	var pix []uint8
	r := image.Rect(0, 0, p.w, p.h)
	if p.depth == 3 {
		m := image.NewRGBA(r)
		img, pix = m, m.Pix
	} else {
		m := image.NewNRGBA(r)
		img, pix = m, m.Pix
	}
	above := make([]uint8, stride-1)
	y := 0
	for buf := range full {
		for i := 0; i < len(buf); i += stride {
			cur := buf[i+1 : i+stride : i+stride]
			if !undo(buf[i], cur, above, p.depth) {
				return nil, errPNG
			}
			out := pix[4*p.w*y : 4*p.w*(y+1)]
			if p.depth == 4 {
				copy(out, cur)
			} else {
				expand(out, cur)
			}
			above = cur
			y++
		}
		above = bytes.Clone(above) // the buffer is about to be overwritten
		free <- buf
	}
	if y != p.h {
		return nil, errPNG
	}
	return img, nil
}

// expand makes four bytes of three.
func expand(out, in []uint8) {
	for len(in) >= 3 && len(out) >= 4 {
		out[0], out[1], out[2], out[3] = in[0], in[1], in[2], 255
		in, out = in[3:], out[4:]
	}
}

// undo takes a line's filter off, in place. It reports whether the filter exists.
func undo(filter uint8, cur, above []uint8, depth int) bool {
	above = above[:len(cur)]
	switch filter {
	case 0:
	case 1:
		for i := depth; i < len(cur); i++ {
			cur[i] += cur[i-depth]
		}
	case 2:
		for i := range cur {
			cur[i] += above[i]
		}
	case 3:
		for i := range depth {
			cur[i] += above[i] / 2
		}
		for i := depth; i < len(cur); i++ {
			cur[i] += uint8((int(cur[i-depth]) + int(above[i])) / 2)
		}
	case 4:
		for ch := range depth {
			undoPaeth(cur[ch:], above[ch:], depth)
		}
	default:
		return false
	}
	return true
}

// undoPaeth takes the Paeth filter off one channel, which begins at cur[0].
func undoPaeth(cur, above []uint8, depth int) {
	above = above[:len(cur)]
	a, c := 0, 0 // left and above left
	for i := 0; i < len(cur); i += depth {
		b := int(above[i])
		pa, pb := b-c, a-c
		pc := pa + pb
		pa, pb, pc = max(pa, -pa), max(pb, -pb), max(pc, -pc)
		pred := c
		if pa <= pb && pa <= pc {
			pred = a
		} else if pb <= pc {
			pred = b
		}
		a = (pred + int(cur[i])) & 255
		cur[i] = uint8(a)
		c = b
	}
}
