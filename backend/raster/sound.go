package raster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"time"
)

// ErrSound says that the bytes are no WAV or FLAC.
var ErrSound = errors.New("not a sound that can be drawn (WAV or FLAC)")

// Sound is a recording as far as a picture of it needs: the loudness over time.
type Sound struct {
	Length time.Duration
	Rate   int // samples a second
	Chans  int
	// Low and High are the extremes of each of the columns, -1 to 1.
	Low, High []float32
}

// ReadSound reads a WAV (PCM or float) or FLAC from an untrusted file into n
// columns.
func ReadSound(b []byte, n int) (s *Sound, err error) {
	defer rescue(&err)
	n = min(max(n, 1), 8192)
	switch {
	case len(b) > 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WAVE":
		return readWAV(b, n)
	case bytes.HasPrefix(b, []byte("fLaC")):
		return readFLAC(b, n)
	}
	return nil, ErrSound
}

// add takes sample i of total, of any channel.
func (s *Sound) add(i, total int64, v float32) {
	c := min(int(i*int64(len(s.Low))/max(total, 1)), len(s.Low)-1)
	s.Low[c], s.High[c] = min(s.Low[c], v), max(s.High[c], v)
}

func newSound(rate, chans int, total int64, n int) (*Sound, error) {
	if rate < 1 || chans < 1 || chans > 64 || total < 0 {
		return nil, errors.New("the head of the file is broken")
	}
	length := time.Duration(float64(total) / float64(rate) * float64(time.Second))
	return &Sound{Length: length, Rate: rate, Chans: chans, Low: make([]float32, n), High: make([]float32, n)}, nil
}

func readWAV(b []byte, n int) (*Sound, error) {
	var form, data []byte
	rest := b[12:]
	for len(rest) >= 8 {
		size := min(int64(binary.LittleEndian.Uint32(rest[4:])), int64(len(rest)-8)) // a stream's length may be missing
		d := rest[8 : 8+size]
		switch string(rest[:4]) {
		case "fmt ":
			form = d
		case "data":
			data = d
		}
		rest = rest[min(8+size+size&1, int64(len(rest))):]
	}
	if len(form) < 16 || data == nil {
		return nil, errors.New("the WAV has no sound in it")
	}
	le := binary.LittleEndian
	kind, chans, rate, bits := le.Uint16(form), int(le.Uint16(form[2:])), int(le.Uint32(form[4:])), int(le.Uint16(form[14:]))
	if kind == 0xfffe && len(form) >= 26 {
		kind = le.Uint16(form[24:])
	}
	read := wavSample(kind, bits)
	if read == nil || chans < 1 {
		return nil, fmt.Errorf("a WAV of kind %d with %d bits is not known", kind, bits)
	}
	step := bits / 8
	total := int64(len(data) / step / chans)
	s, err := newSound(rate, chans, total, n)
	if err != nil {
		return nil, err
	}
	for i := range total {
		for c := range chans {
			s.add(i, total, read(data[(int(i)*chans+c)*step:]))
		}
	}
	return s, nil
}

// wavSample reads one sample of a format, nil when it is not known.
func wavSample(kind uint16, bits int) func([]byte) float32 {
	le := binary.LittleEndian
	switch {
	case kind == 1 && bits == 8:
		return func(b []byte) float32 { return float32(int(b[0])-128) / 128 }
	case kind == 1 && bits == 16:
		return func(b []byte) float32 { return float32(int16(le.Uint16(b))) / (1 << 15) }
	case kind == 1 && bits == 24:
		return func(b []byte) float32 {
			return float32(int32(b[0])<<8|int32(b[1])<<16|int32(int8(b[2]))<<24) / (1 << 31)
		}
	case kind == 1 && bits == 32:
		return func(b []byte) float32 { return float32(int32(le.Uint32(b))) / (1 << 31) }
	case kind == 3 && bits == 32:
		return func(b []byte) float32 { return clampSample(float64(math.Float32frombits(le.Uint32(b)))) }
	case kind == 3 && bits == 64:
		return func(b []byte) float32 { return clampSample(math.Float64frombits(le.Uint64(b))) }
	}
	return nil
}

func clampSample(v float64) float32 {
	if !(v > -1) {
		return -1
	}
	return float32(min(v, 1))
}

// Wave draws a sound, w×h pixels.
func Wave(s *Sound, w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, max(w, 1), max(h, 1)))
	back, line, axis := color.RGBA{20, 22, 32, 255}, color.RGBA{122, 162, 247, 255}, color.RGBA{70, 78, 115, 255}
	for i := 0; i < len(img.Pix); i += 4 {
		img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3] = back.R, back.G, back.B, 255
	}
	half := float32(h-1) / 2
	for x := range w {
		img.SetRGBA(x, h/2, axis)
		c := x * len(s.Low) / w
		top, bottom := int(half-s.High[c]*half), int(half-s.Low[c]*half+0.5)
		if s.High[c] == s.Low[c] {
			continue
		}
		for y := max(top, 0); y <= bottom && y < h; y++ {
			img.SetRGBA(x, y, line)
		}
	}
	return img
}
