package raster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/draw"
	"image/gif"
	"image/png"
	"time"

	"golang.org/x/image/webp"
)

// Limits of an animation.
const (
	maxFrames     = 2000                  // that are walked through
	maxAnimPixels = 512 << 20             // of all of them together
	leastDelay    = 20 * time.Millisecond // browsers play faster ones at 100 ms
	usualDelay    = 100 * time.Millisecond
)

// Frame is one picture of an animation, complete, and how long it is shown.
type Frame struct {
	Image image.Image
	Delay time.Duration
}

// errStill says that there is nothing to play.
var errStill = errors.New("the picture does not move")

// Animated reports whether b is a GIF, APNG or WebP that may move; Frames knows
// for certain.
func Animated(b []byte) bool {
	switch {
	case bytes.HasPrefix(b, []byte("GIF8")):
		return gifFrames(b) > 1
	case bytes.HasPrefix(b, []byte(pngMagic)):
		head := b[:min(len(b), 64<<10)] // acTL stands before the pixels
		return bytes.Contains(head, []byte("acTL"))
	case isWebP(b):
		return len(b) > 20 && string(b[12:16]) == "VP8X" && b[20]&2 != 0
	}
	return false
}

// Frames reads an animation from an untrusted file: at most limit frames, spread
// evenly over all of it with their times added up, each composed as a player
// shows it and made to fit into maxW×maxH. A picture that does not move gives one
// frame with Delay 0. It gives up between two frames when ctx ends.
func Frames(ctx context.Context, b []byte, limit, maxW, maxH int) (frames []Frame, err error) {
	defer rescue(&err)
	if !Animated(b) {
		return still(b, maxW, maxH)
	}
	var list []piece
	switch {
	case bytes.HasPrefix(b, []byte("GIF8")):
		list, err = gifPieces(b)
	case isWebP(b):
		list, err = webpPieces(b)
	default:
		list, err = apngPieces(b)
	}
	if err != nil || len(list) < 2 {
		return still(b, maxW, maxH)
	}
	w, h, err := Size(b)
	if err != nil {
		return nil, err
	}
	return compose(ctx, list, w, h, max(limit, 1), maxW, maxH)
}

func still(b []byte, maxW, maxH int) ([]Frame, error) {
	img, err := Decode(b)
	if err != nil {
		return nil, err
	}
	return []Frame{{Image: Fit(img, maxW, maxH)}}, nil
}

// What becomes of a piece's place before the next one is drawn.
const (
	keep = iota
	erase
	restore
)

// piece is a frame as the file has it: a part of the canvas.
type piece struct {
	at     image.Rectangle
	delay  time.Duration
	after  int  // keep, erase, restore
	over   bool // mixed with what is there, not put in its place
	pixels func() (image.Image, error)
}

// compose plays the pieces on a canvas and keeps limit of the results.
func compose(ctx context.Context, list []piece, w, h, limit, maxW, maxH int) ([]Frame, error) {
	if int64(w)*int64(h)*int64(len(list)) > maxAnimPixels {
		list = list[:max(int(maxAnimPixels/(int64(w)*int64(h))), 1)]
	}
	canvas := image.NewRGBA(image.Rect(0, 0, w, h))
	var saved *image.RGBA
	var out []Frame
	step := (len(list) + limit - 1) / limit
	for i, p := range list {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		img, err := p.pixels()
		if err != nil {
			if len(out) > 0 { // what came so far is worth seeing
				break
			}
			return nil, fmt.Errorf("read frame %d: %w", i+1, err)
		}
		if p.after == restore {
			saved = image.NewRGBA(canvas.Rect)
			copy(saved.Pix, canvas.Pix)
		}
		op := draw.Src
		if p.over {
			op = draw.Over
		}
		draw.Draw(canvas, p.at, img, img.Bounds().Min, op)
		if i%step == 0 {
			fw, fh := Inside(w, h, maxW, maxH)
			out = append(out, Frame{Image: Scale(canvas, fw, fh)})
		}
		out[len(out)-1].Delay += p.delay
		switch p.after {
		case erase:
			draw.Draw(canvas, p.at, image.Transparent, image.Point{}, draw.Src)
		case restore:
			copy(canvas.Pix, saved.Pix)
		}
	}
	return out, nil
}

func delayOf(d time.Duration) time.Duration {
	if d < leastDelay {
		return usualDelay
	}
	return min(d, time.Minute)
}

// gifPieces reads a GIF.
func gifPieces(b []byte) ([]piece, error) {
	w, h, err := Size(b)
	if err != nil {
		return nil, err
	}
	if n := gifFrames(b); n > maxFrames || int64(w)*int64(h)*int64(n) > maxAnimPixels {
		return nil, fmt.Errorf("%w: %d frames of %d×%d pixels", ErrTooLarge, n, w, h)
	}
	g, err := gif.DecodeAll(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	out := make([]piece, len(g.Image))
	for i, img := range g.Image {
		out[i] = piece{
			at: img.Rect, over: true, delay: delayOf(time.Duration(g.Delay[i]) * 10 * time.Millisecond),
			pixels: func() (image.Image, error) { return img, nil },
		}
		switch g.Disposal[i] {
		case gif.DisposalBackground:
			out[i].after = erase
		case gif.DisposalPrevious:
			out[i].after = restore
		}
	}
	return out, nil
}

// gifFrames counts the pictures of a GIF without decoding them.
func gifFrames(b []byte) int {
	if len(b) < 13 {
		return 0
	}
	i, n := 13, 0
	if b[10]&0x80 != 0 {
		i += 3 << (b[10]&7 + 1)
	}
	skip := func() { // sub-blocks up to the empty one
		for i < len(b) && b[i] != 0 {
			i += 1 + int(b[i])
		}
		i++
	}
	for i < len(b) {
		switch b[i] {
		case 0x21:
			i += 2
			skip()
		case 0x2c:
			if i+10 >= len(b) {
				return n
			}
			n++
			table := 0
			if b[i+9]&0x80 != 0 {
				table = 3 << (b[i+9]&7 + 1)
			}
			i += 11 + table
			skip()
		default:
			return n
		}
	}
	return n
}

const pngMagic = "\x89PNG\r\n\x1a\n"

// pngChunks calls fn for every chunk whose length is sound; false ends the walk.
func pngChunks(b []byte, fn func(name string, data []byte) bool) {
	b = b[len(pngMagic):]
	for len(b) >= 12 {
		n := int64(binary.BigEndian.Uint32(b))
		if n > int64(len(b)-12) {
			return
		}
		if !fn(string(b[4:8]), b[8:8+n]) {
			return
		}
		b = b[12+n:]
	}
}

// apng gathers the frames of an APNG.
type apng struct {
	head   []byte // IHDR
	colour []byte // PLTE and tRNS as chunks
	list   []piece
	data   [][]byte // pixels of the frame that is being read
	open   bool     // a frame control came, its pixels follow
}

// apngPieces walks over the chunks of an APNG. Each frame is made a PNG of its own.
func apngPieces(b []byte) ([]piece, error) {
	a := &apng{}
	pngChunks(b, func(name string, data []byte) bool {
		switch name {
		case "IHDR":
			a.head = data
		case "PLTE", "tRNS":
			a.colour = appendChunk(a.colour, name, data)
		case "fcTL":
			a.close()
			a.start(data)
		case "IDAT":
			if a.open { // else the still picture is not part of the animation
				a.data = append(a.data, data)
			}
		case "fdAT":
			if a.open && len(data) > 4 {
				a.data = append(a.data, data[4:])
			}
		}
		return len(a.list) < maxFrames && name != "IEND"
	})
	a.close()
	if len(a.head) != 13 || len(a.list) == 0 {
		return nil, errStill
	}
	return a.list, nil
}

// start takes a frame control chunk.
func (a *apng) start(d []byte) {
	a.open = false
	if len(d) != 26 || len(a.head) != 13 {
		return
	}
	u32 := func(i int) int { return int(binary.BigEndian.Uint32(d[i:])) }
	w, h, x, y := u32(4), u32(8), u32(12), u32(16)
	full := image.Rect(0, 0, int(binary.BigEndian.Uint32(a.head)), int(binary.BigEndian.Uint32(a.head[4:])))
	at := image.Rect(x, y, x+w, y+h)
	if at.Empty() || !at.In(full) {
		return
	}
	num, den := int(binary.BigEndian.Uint16(d[20:])), int(binary.BigEndian.Uint16(d[22:]))
	if den == 0 {
		den = 100
	}
	p := piece{at: at, delay: delayOf(time.Duration(num) * time.Second / time.Duration(den)), over: d[25] == 1}
	switch d[24] {
	case 1:
		p.after = erase
	case 2:
		p.after = restore
		if len(a.list) == 0 {
			p.after = erase
		}
	}
	a.list, a.data, a.open = append(a.list, p), nil, true
}

// close makes the pixels of the frame that was read.
func (a *apng) close() {
	if !a.open {
		return
	}
	a.open = false
	p := &a.list[len(a.list)-1]
	if len(a.data) == 0 {
		a.list = a.list[:len(a.list)-1]
		return
	}
	head := bytes.Clone(a.head)
	binary.BigEndian.PutUint32(head, uint32(p.at.Dx()))
	binary.BigEndian.PutUint32(head[4:], uint32(p.at.Dy()))
	colour, data := a.colour, a.data
	p.pixels = func() (image.Image, error) {
		file := appendChunk([]byte(pngMagic), "IHDR", head)
		file = append(file, colour...)
		for _, d := range data {
			file = appendChunk(file, "IDAT", d)
		}
		return png.Decode(bytes.NewReader(appendChunk(file, "IEND", nil)))
	}
}

func appendChunk(b []byte, name string, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	start := len(b)
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

func isWebP(b []byte) bool {
	return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP"
}

// riffChunks calls fn for every chunk whose length is sound; false ends the walk.
func riffChunks(b []byte, fn func(name string, data []byte) bool) {
	for len(b) >= 8 {
		n := int64(binary.LittleEndian.Uint32(b[4:]))
		if n > int64(len(b)-8) {
			return
		}
		if !fn(string(b[:4]), b[8:8+n]) {
			return
		}
		b = b[min(8+n+n&1, int64(len(b))):]
	}
}

// webpPieces reads an animated WebP: the pixels of each frame are made a still
// WebP, which package webp can read.
func webpPieces(b []byte) ([]piece, error) {
	var list []piece
	riffChunks(b[12:], func(name string, d []byte) bool {
		if name != "ANMF" || len(d) < 24 {
			return true
		}
		u24 := func(i int) int { return int(d[i]) | int(d[i+1])<<8 | int(d[i+2])<<16 }
		x, y, w, h := 2*u24(0), 2*u24(3), u24(6)+1, u24(9)+1
		p := piece{at: image.Rect(x, y, x+w, y+h), delay: delayOf(time.Duration(u24(12)) * time.Millisecond), over: d[15]&2 == 0}
		if d[15]&1 != 0 {
			p.after = erase
		}
		data := d[16:]
		p.pixels = func() (image.Image, error) {
			if int64(w)*int64(h) > maxPixels {
				return nil, ErrTooLarge
			}
			return webp.Decode(bytes.NewReader(rewrap(data, w, h)))
		}
		list = append(list, p)
		return len(list) < maxFrames
	})
	if len(list) == 0 {
		return nil, errStill
	}
	return list, nil
}

// rewrap makes a still WebP of the chunks of one frame.
func rewrap(data []byte, w, h int) []byte {
	var body []byte
	add := func(name string, d []byte) {
		body = append(body, name...)
		body = binary.LittleEndian.AppendUint32(body, uint32(len(d)))
		body = append(body, d...)
		if len(d)&1 == 1 {
			body = append(body, 0)
		}
	}
	riffChunks(data, func(name string, d []byte) bool {
		switch name {
		case "ALPH":
			ext := make([]byte, 10)
			ext[0] = 0x10 // has alpha
			put := func(i, v int) { ext[i], ext[i+1], ext[i+2] = byte(v), byte(v>>8), byte(v>>16) }
			put(4, w-1)
			put(7, h-1)
			add("VP8X", ext)
			add(name, d)
		case "VP8 ", "VP8L":
			add(name, d)
		}
		return true
	})
	out := append([]byte("RIFF"), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(out[4:], uint32(4+len(body)))
	return append(append(out, "WEBP"...), body...)
}

// decodeWebP reads a WebP; of an animated one the first frame on its canvas.
func decodeWebP(b []byte) (image.Image, error) {
	if !Animated(b) {
		return webp.Decode(bytes.NewReader(b))
	}
	list, err := webpPieces(b)
	if err != nil {
		return nil, err
	}
	c, err := webp.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	frames, err := compose(context.Background(), list[:1], c.Width, c.Height, 1, c.Width, c.Height)
	if err != nil {
		return nil, err
	}
	return frames[0].Image, nil
}
