package sketch

import (
	"context"
	"image"
	"math"
	"time"
)

// runSketch draws pictures from words. It takes `seconds` in all, ticks once
// per step, and sends previews that go from coarse to fine.
func runSketch(c *call) ([]any, *object, error) {
	w, h := max(c.int("width"), 1), max(c.int("height"), 1)
	n, steps := max(c.int("batch_size"), 1), max(c.int("steps"), 1)
	took := time.Duration(c.float("seconds") * float64(time.Second))
	out, err := newTensor(n, h, w, 3)
	if err != nil {
		return failed(err)
	}
	text, seed := c.text("text"), c.seed("seed")
	first := newPicture(text, seed, float64(w)/float64(h))
	begin, bar := time.Now(), newTQDM(c.w.log, steps)
	for s := 1; s <= steps; s++ {
		if s == steps { // the picture itself is part of the last step
			for i := range n {
				p := first
				if i > 0 {
					p = newPicture(text, seed+uint64(i), float64(w)/float64(h))
				}
				p.render(out.image(i), w, h)
				label(out.image(i), w, h, text)
			}
		}
		c.pause(begin.Add(took * time.Duration(s) / time.Duration(steps)))
		bar.step(s)
		err := c.tick(s, steps, func() image.Image {
			return first.preview(float64(s)/float64(steps), w, h, c.w.opts.PreviewSize)
		})
		if err != nil {
			bar.close(s)
			return failed(err)
		}
	}
	bar.close(steps)
	return one(out)
}

// pause waits until a moment, or until the worker stops.
func (c *call) pause(until time.Time) {
	ctx := c.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	_ = sleep(ctx, time.Until(until)) // the tick that follows reports the end of ctx
}

// maxPreview is the longest side, in pixels, that a preview is computed at;
// larger ones are scaled up from it.
const maxPreview = 256

// preview draws the picture as far as it is after a part of the steps: with
// few large pixels and much noise first, and close to the picture at the end.
func (p *picture) preview(done float64, w, h, size int) image.Image {
	scale := min(float64(max(size, 16))/float64(max(w, h)), 1)
	pw, ph := max(int(float64(w)*scale), 1), max(int(float64(h)*scale), 1)
	fine := math.Exp2(-4 * (1 - done))
	side := max(fine*float64(min(max(pw, ph), maxPreview)), 4)
	k := side / float64(max(pw, ph))
	small := &tensor{b: 1, w: max(int(float64(pw)*k), 1), h: max(int(float64(ph)*k), 1), c: 3}
	small.pix = make([]float32, small.w*small.h*3)
	p.render(small.pix, small.w, small.h)
	noise := float32(math.Pow(1-done, 1.5) * 0.5)
	r := random{p.seed ^ math.Float64bits(done)}
	for i := range small.pix {
		small.pix[i] += (float32(r.float()) - small.pix[i]) * noise
	}
	big, err := small.scale("bicubic", pw, ph, "disabled")
	if err != nil {
		return small.toImage(0)
	}
	return big.toImage(0)
}
