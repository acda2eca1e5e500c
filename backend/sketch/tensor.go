package sketch

import (
	"fmt"
	"math"
	"strings"
)

// tensor is a batch of images (C = 3 or 4 values per pixel, in the order B, H,
// W, C) or of masks (C = 0: B, H, W), with values from 0 to 1 as torch has them.
type tensor struct {
	b, h, w, c int
	pix        []float32
}

// maxElements keeps one node from taking the whole box: 2^29 values are 2 GiB.
// ComfyUI would try, and fail in torch's allocator with the same words.
const maxElements = 1 << 29

func newTensor(b, h, w, c int) (*tensor, error) {
	n := int64(b) * int64(h) * int64(w) * int64(max(c, 1))
	if n > maxElements {
		return nil, raise("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate %d bytes. Error code 12 (Cannot allocate memory)", n*4)
	}
	return &tensor{b: b, h: h, w: w, c: c, pix: make([]float32, n)}, nil
}

func (t *tensor) channels() int { return max(t.c, 1) }

// image is the part of pix that holds picture i of the batch.
func (t *tensor) image(i int) []float32 {
	n := t.h * t.w * t.channels()
	return t.pix[i*n : (i+1)*n]
}

func (t *tensor) shape() []int {
	if t.c == 0 {
		return []int{t.b, t.h, t.w}
	}
	return []int{t.b, t.h, t.w, t.c}
}

// fill sets every pixel to one colour, by doubling copies.
func (t *tensor) fill(v ...float32) {
	n := copy(t.pix, v)
	for n < len(t.pix) {
		n += copy(t.pix[n:], t.pix[:n])
	}
}

func (t *tensor) clone() *tensor {
	c := *t
	c.pix = append([]float32(nil), t.pix...)
	return &c
}

// String prints the tensor as torch prints one: four decimals, and of long
// dimensions the first and last three entries.
func (t *tensor) String() string {
	var s strings.Builder
	s.WriteString("tensor(")
	t.print(&s, t.shape(), 0, 0, len(t.pix) > 1000)
	s.WriteString(")")
	return s.String()
}

func (t *tensor) print(s *strings.Builder, dims []int, depth, offset int, short bool) {
	n := dims[0]
	stride := 1
	for _, d := range dims[1:] {
		stride *= d
	}
	s.WriteByte('[')
	last := len(dims) == 1
	for i := 0; i < n; i++ {
		if i > 0 {
			t.separate(s, len(dims), depth)
		}
		if short && n > 6 && i == 3 {
			s.WriteString("...")
			i = n - 4
			continue
		}
		if last {
			fmt.Fprintf(s, "%.4f", t.pix[offset+i])
		} else {
			t.print(s, dims[1:], depth+1, offset+i*stride, short)
		}
	}
	s.WriteByte(']')
}

func (t *tensor) separate(s *strings.Builder, dims, depth int) {
	if dims == 1 {
		s.WriteString(", ")
		return
	}
	s.WriteByte(',')
	s.WriteString(strings.Repeat("\n", dims-1))
	s.WriteString(strings.Repeat(" ", len("tensor(")+depth+1))
}

// tap is one source pixel of a resampled line and its weight.
type tap struct {
	i int
	w float32
}

// axis gives, for each of `out` places, the taps among `in` source places.
// The methods are torch's interpolate (no antialiasing) and, for lanczos,
// Pillow's resize.
func axis(method string, in, out int) [][]tap {
	taps := make([][]tap, out)
	scale := float64(in) / float64(out)
	for i := range taps {
		switch method {
		case "nearest-exact":
			taps[i] = []tap{{min(int((float64(i)+0.5)*scale), in-1), 1}}
		case "area":
			lo, hi := i*in/out, (i*in+in+out-1)/out
			for k := lo; k < hi; k++ {
				taps[i] = append(taps[i], tap{k, 1 / float32(hi-lo)})
			}
		case "bilinear":
			x := max((float64(i)+0.5)*scale-0.5, 0)
			lo := int(x)
			f := float32(x - float64(lo))
			taps[i] = []tap{{min(lo, in-1), 1 - f}, {min(lo+1, in-1), f}}
		case "bicubic":
			x := (float64(i)+0.5)*scale - 0.5
			lo := int(math.Floor(x))
			for k := lo - 1; k <= lo+2; k++ {
				taps[i] = append(taps[i], tap{min(max(k, 0), in-1), float32(cubic(x - float64(k)))})
			}
		default:
			taps[i] = lanczosTaps(i, in, scale)
		}
	}
	return taps
}

// cubic is the cubic convolution kernel with torch's a = -0.75.
func cubic(x float64) float64 {
	const a = -0.75
	x = math.Abs(x)
	switch {
	case x <= 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	}
	return 0
}

func lanczosTaps(i, in int, scale float64) []tap {
	fs := max(scale, 1)
	center, support := (float64(i)+0.5)*scale, 3*fs
	lo, hi := max(int(center-support+0.5), 0), min(int(center+support+0.5), in)
	var taps []tap
	var sum float64
	for k := lo; k < hi; k++ {
		x := (float64(k) - center + 0.5) / fs
		w := 0.0
		if math.Abs(x) < 3 {
			w = sinc(x) * sinc(x/3)
		}
		sum += w
		taps = append(taps, tap{k, float32(w)})
	}
	for k := range taps {
		taps[k].w /= float32(sum)
	}
	return taps
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// scale resamples every picture of the batch to w × h pixels. crop "center"
// first cuts the middle part that has the new proportions.
func (t *tensor) scale(method string, w, h int, crop string) (*tensor, error) {
	src := t
	if crop == "center" {
		src = t.cropToAspect(w, h)
	}
	if w <= 0 || h <= 0 || src.w <= 0 || src.h <= 0 {
		return nil, raise("RuntimeError", "Input and output sizes should be greater than 0, but got input (H: %d, W: %d) output (H: %d, W: %d)", src.h, src.w, h, w)
	}
	wide, err := newTensor(src.b, src.h, w, src.c)
	if err != nil {
		return nil, err
	}
	out, err := newTensor(src.b, h, w, src.c)
	if err != nil {
		return nil, err
	}
	c := src.channels()
	resampleRows(wide.pix, src.pix, src.b*src.h, src.w, w, c, axis(method, src.w, w))
	for i := range src.b {
		resampleCols(out.image(i), wide.image(i), w*c, axis(method, src.h, h))
	}
	if method == "lanczos" { // Pillow works on bytes
		for i, v := range out.pix {
			out.pix[i] = float32(math.Round(float64(min(max(v, 0), 1)*255))) / 255
		}
	}
	return out, nil
}

func resampleRows(dst, src []float32, rows, in, out, c int, taps [][]tap) {
	for r := range rows {
		s, d := src[r*in*c:(r+1)*in*c], dst[r*out*c:(r+1)*out*c]
		for x, ts := range taps {
			for _, t := range ts {
				for k := range c {
					d[x*c+k] += s[t.i*c+k] * t.w
				}
			}
		}
	}
}

func resampleCols(dst, src []float32, line int, taps [][]tap) {
	for y, ts := range taps {
		d := dst[y*line : (y+1)*line]
		for _, t := range ts {
			s := src[t.i*line : (t.i+1)*line]
			for k, v := range s {
				d[k] += v * t.w
			}
		}
	}
}

func (t *tensor) cropToAspect(w, h int) *tensor {
	oldAspect, newAspect := float64(t.w)/float64(t.h), float64(w)/float64(h)
	x, y := 0, 0
	if oldAspect > newAspect {
		x = int(math.RoundToEven((float64(t.w) - float64(t.w)*(newAspect/oldAspect)) / 2))
	} else if oldAspect < newAspect {
		y = int(math.RoundToEven((float64(t.h) - float64(t.h)*(oldAspect/newAspect)) / 2))
	}
	return t.crop(x, y, t.w-2*x, t.h-2*y)
}

// crop cuts a rectangle out of every picture of the batch, clipped to it.
func (t *tensor) crop(x, y, w, h int) *tensor {
	w, h = min(w, t.w-x), min(h, t.h-y)
	c := t.channels()
	out := &tensor{b: t.b, h: h, w: w, c: t.c, pix: make([]float32, 0, t.b*h*w*c)}
	for i := range t.b {
		img := t.image(i)
		for r := y; r < y+h; r++ {
			out.pix = append(out.pix, img[(r*t.w+x)*c:(r*t.w+x+w)*c]...)
		}
	}
	return out
}
