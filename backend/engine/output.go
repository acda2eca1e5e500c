//go:build linux

package engine

import (
	"context"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/raster"
)

// maxPicture bounds the file that is decoded for a scaled picture.
const maxPicture = 512 << 20

// pictureMax bounds the sides of a scaled picture, in pixels.
const pictureMax = 4096

// oneDecode lets one big picture be decoded at a time: 4096×4096 takes 64 MB.
var oneDecode sync.Mutex

// output serves GET /v1/jobs/{id}/outputs/{n}: the file's bytes, or with w and h
// a PNG of the picture that fits into w×h pixels.
func (e *Engine) output(w http.ResponseWriter, r *http.Request) {
	o, err := e.findOutput(r.Context(), r.PathValue("id"), r.PathValue("n"))
	if err != nil {
		fail(w, err)
		return
	}
	f, err := e.openOutput(r.Context(), o)
	if err != nil {
		fail(w, err)
		return
	}
	defer f.Close()
	q := r.URL.Query()
	if q.Has("w") || q.Has("h") {
		e.sendScaled(w, r, f, o)
		return
	}
	kind := mime.TypeByExtension(filepath.Ext(o.Filename))
	if kind == "" {
		kind = "application/octet-stream"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": o.Filename}))
	if st, ok := f.(*os.File); ok {
		if info, err := st.Stat(); err == nil {
			http.ServeContent(w, r, "", info.ModTime(), st)
			return
		}
	}
	_, _ = io.Copy(w, f)
}

// findOutput is output n (from 0) of a job.
func (e *Engine) findOutput(ctx context.Context, id, n string) (backend.Output, error) {
	job, err := e.store.Get(ctx, id)
	if err != nil {
		return backend.Output{}, err
	}
	i, err := strconv.Atoi(n)
	if err != nil || i < 0 || i >= len(job.Outputs) {
		return backend.Output{}, backend.Fail(backend.FailNotFound, "job "+job.ID[:8]+" has no output "+clip(n), "easel jobs show lists its outputs, the first is 0")
	}
	return job.Outputs[i], nil
}

// openOutput opens an output on this machine, or over its worker's /view.
func (e *Engine) openOutput(ctx context.Context, o backend.Output) (io.ReadCloser, error) {
	if o.Filename == "" {
		return nil, backend.Fail(backend.FailNotFound, "this output is a text, not a file", "")
	}
	if o.Path != "" {
		f, err := os.Open(o.Path)
		if err == nil {
			return f, nil
		}
		return nil, backend.Fail(backend.FailNotFound, "the file "+o.Path+" is not there any more, or cannot be read", "somebody moved or deleted it")
	}
	wk := e.readyWorker()
	if wk == nil {
		return nil, backend.Fail(backend.FailWorker, "the file lies with a ComfyUI that does not answer", "easel status")
	}
	c, _, ok := wk.m.Client()
	if !ok {
		return nil, backend.Fail(backend.FailWorker, "the file lies with a ComfyUI that does not answer", "easel status")
	}
	f, err := c.View(ctx, comfy.FileItem{Filename: o.Filename, Subfolder: o.Subfolder, Type: o.Type})
	if err != nil {
		return nil, backend.Fail(backend.FailNotFound, "ComfyUI does not hand out "+o.Filename+": "+clip(err.Error()), "")
	}
	return f, nil
}

// sendScaled answers with the picture made smaller. Screens are small and lines
// are slow, so this is done on the engine's side of the wire.
func (e *Engine) sendScaled(w http.ResponseWriter, r *http.Request, f io.Reader, o backend.Output) {
	if o.Kind != "image" {
		fail(w, backend.Fail(backend.FailUsage, o.Filename+" is no picture but "+o.Kind, "easel outputs get copies it"))
		return
	}
	side := func(name string) int {
		n, err := strconv.Atoi(r.URL.Query().Get(name))
		if err != nil || n <= 0 || n > pictureMax {
			return pictureMax
		}
		return n
	}
	oneDecode.Lock()
	defer oneDecode.Unlock()
	raw, err := io.ReadAll(io.LimitReader(f, maxPicture))
	if err != nil {
		fail(w, backend.Fail(backend.FailInternal, "the picture cannot be read: "+clip(err.Error()), ""))
		return
	}
	img, err := raster.Decode(raw)
	if err != nil {
		fail(w, backend.Fail(backend.FailInternal, "the picture cannot be shown: "+clip(err.Error()), "easel outputs get copies the file as it is"))
		return
	}
	png, err := raster.PNG(raster.Fit(img, side("w"), side("h")))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	_, _ = w.Write(png)
}
