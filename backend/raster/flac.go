package raster

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// errFLAC is a fault in a FLAC's frames.
var errFLAC = errors.New("the FLAC is broken")

// bitReader reads big-endian bit fields; past the end it panics, which ReadSound
// turns into an error.
type bitReader struct {
	b    []byte
	pos  int // next byte
	acc  uint64
	have uint
}

func (r *bitReader) read(n uint) uint64 {
	for r.have < n {
		r.acc = r.acc<<8 | uint64(r.b[r.pos])
		r.pos++
		r.have += 8
	}
	r.have -= n
	return r.acc >> r.have & (1<<n - 1)
}

func (r *bitReader) signed(n uint) int64 {
	if n == 0 {
		return 0
	}
	return int64(r.read(n)<<(64-n)) >> (64 - n)
}

// unary counts zeros up to a one.
func (r *bitReader) unary() uint64 {
	n := uint64(0)
	for {
		if r.have == 0 {
			r.acc, r.have = uint64(r.b[r.pos]), 8
			r.pos++
		}
		left := r.acc & (1<<r.have - 1)
		if left != 0 {
			z := uint(bits.LeadingZeros64(left)) - (64 - r.have)
			r.have -= z + 1
			return n + uint64(z)
		}
		n += uint64(r.have)
		r.have = 0
	}
}

// align skips to the next byte and gives back bytes that were read ahead.
func (r *bitReader) align() {
	r.have -= r.have % 8
	r.pos -= int(r.have / 8)
	r.have = 0
}

// flac is a stream's head and the samples of its current frame.
type flac struct {
	rate, chans, bps int
	total            int64
	block            [8][]int64
}

// readFLAC decodes a FLAC. Checksums are not looked at: a wrong sample is a wrong
// pixel.
func readFLAC(b []byte, n int) (*Sound, error) {
	f, at, err := flacHead(b)
	if err != nil {
		return nil, err
	}
	total := f.total
	if total == 0 { // a stream that was not finished: guess from its size
		total = int64(len(b)) * 8 / int64(max(f.bps*f.chans/2, 1))
	}
	s, err := newSound(f.rate, f.chans, total, n)
	if err != nil {
		return nil, err
	}
	r := &bitReader{b: b, pos: at}
	scale := 1 / float32(int64(1)<<(f.bps-1))
	for i := int64(0); r.pos+6 < len(b) && i < total; {
		size, err := f.frame(r)
		if err != nil {
			if i == 0 {
				return nil, err
			}
			break
		}
		for c := range f.chans {
			for k, v := range f.block[c][:size] {
				s.add(i+int64(k), total, float32(v)*scale)
			}
		}
		i += int64(size)
	}
	return s, nil
}

// flacHead reads the metadata; at is where the frames begin.
func flacHead(b []byte) (f *flac, at int, err error) {
	f = &flac{}
	at = 4
	for last := false; !last; {
		if at+4 > len(b) {
			return nil, 0, errFLAC
		}
		last = b[at]&0x80 != 0
		kind, size := b[at]&0x7f, int(b[at+1])<<16|int(b[at+2])<<8|int(b[at+3])
		at += 4
		if at+size > len(b) {
			return nil, 0, errFLAC
		}
		if kind == 0 && size >= 18 {
			v := binary.BigEndian.Uint64(b[at+10:])
			f.rate, f.chans, f.bps = int(v>>44), int(v>>41&7)+1, int(v>>36&31)+1
			f.total = int64(v & (1<<36 - 1))
		}
		at += size
	}
	if f.rate == 0 || f.bps < 4 {
		return nil, 0, errFLAC
	}
	return f, at, nil
}

// frame decodes one frame into block and gives its length in samples.
func (f *flac) frame(r *bitReader) (int, error) {
	if r.read(14) != 0x3ffe {
		return 0, errFLAC
	}
	r.read(2)
	sizeCode, rateCode := r.read(4), r.read(4)
	mode, bpsCode := int(r.read(4)), r.read(3)
	r.read(1)
	for lead := r.read(8); lead&0xc0 == 0xc0; lead = lead << 1 & 0xff { // the frame's number, as UTF-8
		r.read(8)
	}
	size := 0
	switch {
	case sizeCode == 1:
		size = 192
	case sizeCode >= 2 && sizeCode <= 5:
		size = 576 << (sizeCode - 2)
	case sizeCode == 6:
		size = int(r.read(8)) + 1
	case sizeCode == 7:
		size = int(r.read(16)) + 1
	case sizeCode >= 8:
		size = 256 << (sizeCode - 8)
	default:
		return 0, errFLAC
	}
	switch rateCode {
	case 12:
		r.read(8)
	case 13, 14:
		r.read(16)
	}
	r.read(8) // checksum of the head
	bps := [8]int{f.bps, 8, 12, f.bps, 16, 20, 24, 32}[bpsCode]
	if err := f.channels(r, mode, size, bps); err != nil {
		return 0, err
	}
	r.align()
	r.pos += 2 // checksum of the frame
	return size, nil
}

// channels decodes the subframes and undoes the joining of stereo.
func (f *flac) channels(r *bitReader, mode, size, bps int) error {
	count := mode + 1
	if mode >= 8 {
		count = 2
	}
	if mode > 10 || count < f.chans {
		return errFLAC
	}
	for c := range count {
		wide := bps
		if mode == 8 && c == 1 || mode == 9 && c == 0 || mode == 10 && c == 1 {
			wide++
		}
		if cap(f.block[c]) < size {
			f.block[c] = make([]int64, size)
		}
		f.block[c] = f.block[c][:size]
		if err := subframe(r, f.block[c], wide); err != nil {
			return err
		}
	}
	a, b := f.block[0], f.block[1]
	for i := range a {
		switch mode {
		case 8:
			b[i] = a[i] - b[i]
		case 9:
			a[i] += b[i]
		case 10:
			mid, side := a[i]<<1|b[i]&1, b[i]
			a[i], b[i] = (mid+side)>>1, (mid-side)>>1
		default:
			return nil
		}
	}
	return nil
}

// subframe decodes one channel of a frame.
func subframe(r *bitReader, out []int64, bps int) error {
	r.read(1)
	kind := int(r.read(6))
	waste := uint(0)
	if r.read(1) == 1 {
		waste = uint(r.unary()) + 1
	}
	if int(waste) >= bps {
		return errFLAC
	}
	wide := uint(bps) - waste
	var err error
	switch {
	case kind == 0:
		v := r.signed(wide)
		for i := range out {
			out[i] = v
		}
	case kind == 1:
		for i := range out {
			out[i] = r.signed(wide)
		}
	case kind >= 8 && kind <= 12:
		err = predicted(r, out, wide, kind-8, false)
	case kind >= 32:
		err = predicted(r, out, wide, kind-31, true)
	default:
		err = errFLAC
	}
	for i := range out {
		out[i] <<= waste
	}
	return err
}

// fixed are the coefficients of the fixed predictors, newest sample first.
var fixed = [5][]int64{{}, {1}, {2, -1}, {3, -3, 1}, {4, -6, 4, -1}}

// predicted decodes samples that are a prediction and a rest.
func predicted(r *bitReader, out []int64, wide uint, order int, linear bool) error {
	if order > len(out) {
		return errFLAC
	}
	for i := range order {
		out[i] = r.signed(wide)
	}
	shift := uint(0)
	var coef []int64
	if linear {
		precision := uint(r.read(4)) + 1
		shift = uint(max(r.signed(5), 0))
		coef = make([]int64, order)
		for i := range coef {
			coef[i] = r.signed(precision)
		}
	} else {
		coef = fixed[order]
	}
	if err := residual(r, out, order); err != nil {
		return err
	}
	for i := order; i < len(out); i++ {
		var sum int64
		for k, c := range coef {
			sum += c * out[i-1-k]
		}
		out[i] += sum >> shift
	}
	return nil
}

// residual reads the rests, Rice coded in partitions.
func residual(r *bitReader, out []int64, order int) error {
	method := r.read(2)
	if method > 1 {
		return errFLAC
	}
	width := uint(4 + method)
	parts := 1 << r.read(4)
	if len(out)%parts != 0 || len(out)/parts < order {
		return errFLAC
	}
	each, i := len(out)/parts, order
	for p := range parts {
		param := uint(r.read(width))
		end := (p + 1) * each
		if param == 1<<width-1 {
			n := uint(r.read(5))
			for ; i < end; i++ {
				out[i] = r.signed(n)
			}
			continue
		}
		for ; i < end; i++ {
			u := r.unary()<<param | r.read(param)
			out[i] = int64(u>>1) ^ -int64(u&1)
		}
	}
	return nil
}
