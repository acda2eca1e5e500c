//go:build linux

package engine

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"easel/backend"
	"easel/backend/comfy"
)

// maxPicture bounds the file that is decoded for a scaled picture.
const maxPicture = 512 << 20

// pictureMax bounds the sides of a scaled picture, in pixels.
const pictureMax = 4096

// output serves GET /v1/jobs/{id}/outputs/{n}: the file's bytes, or with w and h
// a PNG of the picture that fits into w×h pixels: with x, y, cw and ch a part of
// it, with frames an animation.
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
		return openFile(o)
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

// openFile opens an output on this machine, if it is still the file that the job
// wrote.
func openFile(o backend.Output) (*os.File, error) {
	if o.Trashed != "" {
		return nil, backend.Fail(backend.FailNotFound, o.Filename+" is in the trash: "+o.Trashed, "POST /v1/outputs/restore takes it back")
	}
	f, err := os.OpenFile(o.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe of that name must not hold us
	if err != nil {
		return nil, backend.Fail(backend.FailNotFound, "the file "+o.Path+" is not there any more, or cannot be read", "somebody moved or deleted it")
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = errors.New("no regular file")
	case o.Bytes != nil && st.Size() != *o.Bytes, !o.Modified.IsZero() && !backend.At(st.ModTime()).Equal(o.Modified.Time):
		err = errors.New("changed")
	}
	if err != nil {
		f.Close()
		return nil, backend.Fail(backend.FailNotFound, "the file "+o.Path+" is not the one that this job wrote: it was changed or replaced", "what the job made is gone; t makes it again")
	}
	return f, nil
}
