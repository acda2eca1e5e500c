//go:build linux

package engine

import (
	"context"
	"fmt"
	"image"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/raster"
)

// Limits of pictures made for screens.
const (
	maxPictureFrames = 60
	maxFramePixels   = 16 << 20  // of all frames of an answer together
	maxSound         = 256 << 20 // bytes of a sound that is drawn
)

// decoding bounds the pixels that are decoded at a time, so that ten thousand
// thumbnails do not take the memory that the worker needs: one huge picture, or as
// many small ones as there are processors.
var decoding = semaphore.NewWeighted(decodePixels)

const decodePixels = 16 << 20

// pictureAsk is the query of a scaled picture.
type pictureAsk struct {
	w, h   int             // pixels of the answer, at most
	crop   image.Rectangle // part of the source, empty: all of it
	frames int             // 1: a still
}

func pictureAskOf(r *http.Request) pictureAsk {
	q := r.URL.Query()
	num := func(name string, least, most, other int) int {
		n, err := strconv.Atoi(q.Get(name))
		if err != nil || n < least {
			return other
		}
		return min(n, most)
	}
	a := pictureAsk{w: num("w", 1, pictureMax, pictureMax), h: num("h", 1, pictureMax, pictureMax), frames: num("frames", 1, maxPictureFrames, 1)}
	if cw, ch := num("cw", 1, 1<<20, 0), num("ch", 1, 1<<20, 0); cw > 0 && ch > 0 {
		x, y := num("x", 0, 1<<20, 0), num("y", 0, 1<<20, 0)
		a.crop = image.Rect(x, y, x+cw, y+ch)
	}
	if a.frames > 1 { // smaller rather than fewer
		for a.w*a.h*a.frames > maxFramePixels {
			a.w, a.h = max(a.w*3/4, 1), max(a.h*3/4, 1)
		}
	}
	return a
}

// sendScaled answers with the picture made smaller, or a part of it. Screens are
// small and lines are slow, so this is done on the engine's side of the wire.
func (e *Engine) sendScaled(w http.ResponseWriter, r *http.Request, f io.Reader, o backend.Output) {
	a := pictureAskOf(r)
	key := thumbKey(f, o, a)
	t, ok := e.thumbs.get(key)
	if !ok {
		var err error
		if t, err = e.makePicture(r.Context(), f, o, a); err != nil {
			fail(w, err)
			return
		}
		e.thumbs.put(key, t)
	}
	h := w.Header()
	h.Set("Content-Type", "image/png")
	h.Set(client.HeaderFrames, strconv.Itoa(t.Frames))
	if t.W > 0 {
		h.Set(client.HeaderSize, fmt.Sprintf("%dx%d", t.W, t.H))
	}
	if t.Moves {
		h.Set(client.HeaderMoves, "1")
	}
	if t.Seconds > 0 {
		h.Set(client.HeaderSeconds, strconv.FormatFloat(t.Seconds, 'f', 3, 64))
	}
	_, _ = w.Write(t.PNG)
}

// makePicture draws an output as a PNG.
func (e *Engine) makePicture(ctx context.Context, f io.Reader, o backend.Output, a pictureAsk) (client.Shown, error) {
	switch o.Kind {
	case "image":
		return e.imagePicture(ctx, f, o, a)
	case "audio":
		return audioPicture(ctx, f, o, a)
	case "video":
		return videoPicture(ctx, o, a)
	}
	return client.Shown{}, backend.Fail(backend.FailUsage, o.Filename+" is no picture but "+o.Kind, "easel outputs get copies it")
}

// readFor reads a file of at most limit bytes.
func readFor(f io.Reader, limit int64) ([]byte, error) {
	if st, ok := f.(*os.File); ok {
		if info, err := st.Stat(); err == nil && info.Size() > limit {
			return nil, backend.Fail(backend.FailTooLarge, fmt.Sprintf("the file is too large to be shown: %d MiB", info.Size()>>20), "easel outputs get copies it")
		}
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, backend.Fail(backend.FailInternal, "the file cannot be read: "+clip(err.Error()), "")
	}
	return raw, nil
}

// room waits until so many pixels may be decoded; done gives the room back.
func room(ctx context.Context, pixels int64) (done func(), err error) {
	n := min(max(pixels, decodePixels/int64(max(runtime.NumCPU(), 2))), decodePixels)
	if err := decoding.Acquire(ctx, n); err != nil {
		return nil, err
	}
	return func() { decoding.Release(n) }, nil
}

// imagePicture is the still, the part or the animation that was asked for. It gives
// up, between its steps, when nobody waits any more.
func (e *Engine) imagePicture(ctx context.Context, f io.Reader, o backend.Output, a pictureAsk) (client.Shown, error) {
	no := func(err error) (client.Shown, error) {
		if ctx.Err() != nil {
			return client.Shown{}, ctx.Err()
		}
		return client.Shown{}, backend.Fail(backend.FailInternal, "the picture cannot be shown: "+clip(err.Error()), "easel outputs get copies the file as it is")
	}
	key := thumbKey(f, o, pictureAsk{})
	if !a.crop.Empty() {
		if img := e.lens.get(key); img != nil {
			return still(ctx, img, a, no)
		}
	}
	pixels := int64(decodePixels / 4)
	if o.Width != nil && o.Height != nil {
		pixels = int64(*o.Width) * int64(*o.Height)
	}
	done, err := room(ctx, pixels)
	if err != nil {
		return no(err)
	}
	defer done()
	raw, err := readFor(f, maxPicture)
	if err != nil {
		return client.Shown{}, err
	}
	moves := raster.Animated(raw)
	if a.frames > 1 && moves {
		return moving(ctx, raw, a, no)
	}
	img, err := raster.Decode(raw)
	if err != nil {
		return no(err)
	}
	if !a.crop.Empty() {
		e.lens.put(key, img)
	}
	s, err := still(ctx, img, a, no)
	s.Moves = moves
	return s, err
}

// still is a picture, or a part of it, scaled.
func still(ctx context.Context, img image.Image, a pictureAsk, no func(error) (client.Shown, error)) (client.Shown, error) {
	s := client.Shown{W: img.Bounds().Dx(), H: img.Bounds().Dy(), Frames: 1}
	if !a.crop.Empty() {
		img = raster.Crop(img, a.crop)
	}
	if ctx.Err() != nil {
		return no(ctx.Err())
	}
	var err error
	if s.PNG, err = raster.PNG(raster.Fit(img, a.w, a.h)); err != nil {
		return no(err)
	}
	return s, nil
}

// moving is an animation as an APNG.
func moving(ctx context.Context, raw []byte, a pictureAsk, no func(error) (client.Shown, error)) (client.Shown, error) {
	w, h, err := raster.Size(raw)
	if err != nil {
		return no(err)
	}
	frames, err := raster.Frames(ctx, raw, a.frames, a.w, a.h)
	if err != nil {
		return no(err)
	}
	s := client.Shown{W: w, H: h, Frames: len(frames), Moves: true}
	if s.PNG, err = raster.APNG(frames); err != nil {
		return no(err)
	}
	return s, nil
}

// audioPicture draws a sound as a wave: WAV and FLAC by itself, others with ffmpeg.
func audioPicture(ctx context.Context, f io.Reader, o backend.Output, a pictureAsk) (client.Shown, error) {
	done, err := room(ctx, decodePixels)
	if err != nil {
		return client.Shown{}, err
	}
	defer done()
	raw, err := readFor(f, maxSound)
	if err != nil {
		return client.Shown{}, err
	}
	s, err := raster.ReadSound(raw, a.w)
	if err != nil {
		wav, ferr := ffmpegSound(ctx, o)
		if ferr != nil {
			return client.Shown{}, ferr
		}
		if s, err = raster.ReadSound(wav, a.w); err != nil {
			return client.Shown{}, backend.Fail(backend.FailUsage, o.Filename+" is a sound that cannot be drawn: "+clip(err.Error()), "easel outputs get copies it")
		}
	}
	png, err := raster.PNG(raster.Wave(s, a.w, min(a.h, max(a.w/3, 48))))
	return client.Shown{PNG: png, Frames: 1, Seconds: s.Length.Round(time.Millisecond).Seconds()}, err
}
