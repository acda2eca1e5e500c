package sketch

import "math"

func runEmptyImage(c *call) ([]any, *object, error) {
	w, h, n, color := c.int("width"), c.int("height"), c.int("batch_size"), c.int("color")
	if w < 0 || h < 0 || n < 0 {
		return failed(raise("RuntimeError", "Trying to create tensor with negative dimension %d: [%d, %d, %d, 1]", min(w, h, n), n, h, w))
	}
	t, err := newTensor(n, h, w, 3)
	if err != nil {
		return failed(err)
	}
	t.fill(float32(color>>16&0xff)/255, float32(color>>8&0xff)/255, float32(color&0xff)/255)
	return one(t)
}

func runImageScale(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	w, h := c.int("width"), c.int("height")
	switch {
	case w == 0 && h == 0:
		return one(t)
	case w == 0:
		w = max(1, int(math.RoundToEven(float64(t.w)*float64(h)/float64(t.h))))
	case h == 0:
		h = max(1, int(math.RoundToEven(float64(t.h)*float64(w)/float64(t.w))))
	}
	out, err := t.scale(c.text("upscale_method"), w, h, c.text("crop"))
	if err != nil {
		return failed(err)
	}
	return one(out)
}

func runImageScaleBy(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	by := c.float("scale_by")
	w, h := int(math.RoundToEven(float64(t.w)*by)), int(math.RoundToEven(float64(t.h)*by))
	out, err := t.scale(c.text("upscale_method"), w, h, "disabled")
	if err != nil {
		return failed(err)
	}
	return one(out)
}

func runImageInvert(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	out := t.clone()
	for i, v := range out.pix {
		out.pix[i] = 1 - v
	}
	return one(out)
}

func runImageBatch(c *call) ([]any, *object, error) {
	a, err := c.tensor("image1")
	if err != nil {
		return failed(err)
	}
	b, err := c.tensor("image2")
	if err != nil {
		return failed(err)
	}
	if a.h != b.h || a.w != b.w {
		if b, err = b.scale("bilinear", a.w, a.h, "center"); err != nil {
			return failed(err)
		}
	}
	a, b = sameChannels(a, b)
	out, err := newTensor(a.b+b.b, a.h, a.w, a.c)
	if err != nil {
		return failed(err)
	}
	copy(out.pix[copy(out.pix, a.pix):], b.pix)
	return one(out)
}

// sameChannels gives the picture without an alpha channel an opaque one where
// the other has one.
func sameChannels(a, b *tensor) (*tensor, *tensor) {
	switch {
	case a.c < b.c:
		return a.withAlpha(), b
	case b.c < a.c:
		return a, b.withAlpha()
	}
	return a, b
}

func (t *tensor) withAlpha() *tensor {
	out := &tensor{b: t.b, h: t.h, w: t.w, c: t.c + 1, pix: make([]float32, 0, len(t.pix)/t.c*(t.c+1))}
	for i := 0; i < len(t.pix); i += t.c {
		out.pix = append(append(out.pix, t.pix[i:i+t.c]...), 1)
	}
	return out
}

// blends are the modes of ImageBlend, per value.
var blends = map[string]func(a, b float32) float32{
	"normal":   func(_, b float32) float32 { return b },
	"multiply": func(a, b float32) float32 { return a * b },
	"screen":   func(a, b float32) float32 { return 1 - (1-a)*(1-b) },
	"overlay": func(a, b float32) float32 {
		if a <= 0.5 {
			return 2 * a * b
		}
		return 1 - 2*(1-a)*(1-b)
	},
	"soft_light": softLight,
	"difference": func(a, b float32) float32 { return a - b },
}

func softLight(a, b float32) float32 {
	if b <= 0.5 {
		return a - (1-2*b)*a*(1-a)
	}
	g := float32(math.Sqrt(float64(a)))
	if a <= 0.25 {
		g = ((16*a-12)*a + 4) * a
	}
	return a + (2*b-1)*(g-a)
}

func runImageBlend(c *call) ([]any, *object, error) {
	a, err := c.tensor("image1")
	if err != nil {
		return failed(err)
	}
	b, err := c.tensor("image2")
	if err != nil {
		return failed(err)
	}
	a, b = sameChannels(a, b)
	if a.h != b.h || a.w != b.w || a.b != b.b {
		if b, err = b.scale("bicubic", a.w, a.h, "center"); err != nil {
			return failed(err)
		}
	}
	if a.b != b.b && a.b != 1 && b.b != 1 {
		return failed(raise("RuntimeError", "The size of tensor a (%d) must match the size of tensor b (%d) at non-singleton dimension 0", a.b, b.b))
	}
	mode := blends[c.text("blend_mode")]
	if mode == nil {
		return failed(raise("ValueError", "Unsupported blend mode: %s", c.text("blend_mode")))
	}
	f := float32(c.float("blend_factor"))
	out, err := newTensor(max(a.b, b.b), a.h, a.w, a.c)
	if err != nil {
		return failed(err)
	}
	for i := range out.b {
		x, y, d := a.image(min(i, a.b-1)), b.image(min(i, b.b-1)), out.image(i)
		for k := range d {
			d[k] = min(max(x[k]*(1-f)+mode(x[k], y[k])*f, 0), 1)
		}
	}
	return one(out)
}

// runImageBlur convolves with a Gaussian. As in ComfyUI its width is measured
// against the radius (the kernel spans -1 to 1), and the edges mirror.
func runImageBlur(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	r, sigma := c.int("blur_radius"), c.float("sigma")
	if r <= 0 {
		return one(t)
	}
	if r >= t.w || r >= t.h {
		return failed(raise("RuntimeError", "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding (%d, %d) at dimension 3 of input [%d, %d, %d, %d]", r, r, t.b, t.c, t.h, t.w))
	}
	kernel := make([]float32, 2*r+1)
	var sum float64
	for i := range kernel {
		x := float64(i-r) / float64(r)
		g := math.Exp(-x * x / (2 * sigma * sigma))
		kernel[i], sum = float32(g), sum+g
	}
	for i := range kernel {
		kernel[i] /= float32(sum)
	}
	mirror := func(n int) [][]tap {
		taps := make([][]tap, n)
		for i := range taps {
			for k, w := range kernel {
				j := i + k - r
				if j < 0 {
					j = -j
				}
				if j >= n {
					j = 2*n - 2 - j
				}
				taps[i] = append(taps[i], tap{j, w})
			}
		}
		return taps
	}
	mid, out := t.clone(), t.clone()
	clear(mid.pix)
	clear(out.pix)
	resampleRows(mid.pix, t.pix, t.b*t.h, t.w, t.w, t.c, mirror(t.w))
	for i := range t.b {
		resampleCols(out.image(i), mid.image(i), t.w*t.c, mirror(t.h))
	}
	return one(out)
}

func runImageCrop(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	x, y := min(max(c.int("x"), 0), t.w-1), min(max(c.int("y"), 0), t.h-1)
	return one(t.crop(x, y, max(c.int("width"), 0), max(c.int("height"), 0)))
}

func runImagePad(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	left, top, right, bottom := c.int("left"), c.int("top"), c.int("right"), c.int("bottom")
	out, err := newTensor(t.b, t.h+top+bottom, t.w+left+right, t.c)
	if err != nil {
		return failed(err)
	}
	out.fill(0.5)
	for i := range t.b {
		src, dst := t.image(i), out.image(i)
		for y := range t.h {
			copy(dst[((y+top)*out.w+left)*t.c:], src[y*t.w*t.c:(y+1)*t.w*t.c])
		}
	}
	mask, err := newTensor(1, out.h, out.w, 0)
	if err != nil {
		return failed(err)
	}
	mask.fill(1)
	feather := c.int("feathering")
	for y := range t.h {
		for x := range t.w {
			mask.pix[(y+top)*out.w+left+x] = feathered(t, x, y, feather, left, top, right, bottom)
		}
	}
	return []any{out, mask}, nil, nil
}

// feathered is the mask at a pixel of the original: 0 inside, rising towards
// each side that was padded.
func feathered(t *tensor, x, y, feather, left, top, right, bottom int) float32 {
	if feather <= 0 || feather*2 >= t.h || feather*2 >= t.w {
		return 0
	}
	side := func(padded, distance, far int) int {
		if padded != 0 {
			return distance
		}
		return far
	}
	d := min(side(top, y, t.h), side(bottom, t.h-y, t.h), side(left, x, t.w), side(right, t.w-x, t.w))
	if d >= feather {
		return 0
	}
	v := float32(feather-d) / float32(feather)
	return v * v
}

func runSolidMask(c *call) ([]any, *object, error) {
	w, h := c.int("width"), c.int("height")
	if w < 0 || h < 0 {
		return failed(raise("RuntimeError", "Trying to create tensor with negative dimension %d: [1, %d, %d]", min(w, h), h, w))
	}
	t, err := newTensor(1, h, w, 0)
	if err != nil {
		return failed(err)
	}
	t.fill(float32(c.float("value")))
	return one(t)
}

func runMaskToImage(c *call) ([]any, *object, error) {
	m, err := c.tensor("mask")
	if err != nil {
		return failed(err)
	}
	out, err := newTensor(m.b, m.h, m.w, 3)
	if err != nil {
		return failed(err)
	}
	for i, v := range m.pix {
		out.pix[3*i], out.pix[3*i+1], out.pix[3*i+2] = v, v, v
	}
	return one(out)
}

func runImageToMask(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	k := map[string]int{"red": 0, "green": 1, "blue": 2, "alpha": 3}[c.text("channel")]
	if k >= t.c {
		return failed(raise("IndexError", "index %d is out of bounds for dimension 3 with size %d", k, t.c))
	}
	out, err := newTensor(t.b, t.h, t.w, 0)
	if err != nil {
		return failed(err)
	}
	for i := range out.pix {
		out.pix[i] = t.pix[i*t.c+k]
	}
	return one(out)
}

func runRepeatBatch(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	out, err := newTensor(t.b*max(c.int("amount"), 0), t.h, t.w, t.c)
	if err != nil {
		return failed(err)
	}
	out.fill(t.pix...)
	return one(out)
}

func runImageFromBatch(c *call) ([]any, *object, error) {
	t, err := c.tensor("image")
	if err != nil {
		return failed(err)
	}
	first := min(t.b-1, max(c.int("batch_index"), 0))
	n := min(t.b-first, max(c.int("length"), 0))
	size := t.h * t.w * t.channels()
	out := &tensor{b: n, h: t.h, w: t.w, c: t.c, pix: append([]float32(nil), t.pix[first*size:(first+n)*size]...)}
	return one(out)
}

func runPrimitive(c *call) ([]any, *object, error) { return one(c.inputs["value"]) }

func runPreviewAny(c *call) ([]any, *object, error) {
	text := "None"
	switch v := c.inputs["source"].(type) {
	case nil:
	case string:
		text = v
	case *object, []any:
		text = string(dumpJSON(v))
	default:
		text = pyStr(v)
	}
	return nil, obj("text", []any{text}), nil
}
