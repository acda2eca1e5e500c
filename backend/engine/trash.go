//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"easel/backend"
)

// trashDir is the directory of what was thrown away, beside output and temp of the
// data directory.
const trashDir = ".easel-trash"

// maxTrash is how many outputs one call moves.
const maxTrash = 10_000

// assetsCall reads the outputs that a call names and does fn to each: what fails is
// said of that one, the others go on.
func (e *Engine) assetsCall(r *http.Request, fn func(ctx context.Context, id string, n int) error) (any, error) {
	var in struct {
		Outputs []backend.AssetRef `json:"outputs"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if len(in.Outputs) == 0 || len(in.Outputs) > maxTrash {
		return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("name 1 to %d outputs, as {\"outputs\":[{\"job\":ID,\"n\":0}]}", maxTrash), "")
	}
	out := backend.AssetsDone{Done: []backend.AssetRef{}, Faults: []backend.AssetFault{}}
	for _, ref := range in.Outputs {
		if err := fn(r.Context(), ref.Job, ref.N); err != nil {
			out.Faults = append(out.Faults, backend.AssetFault{AssetRef: ref, Error: backend.FailureOf(err)})
			continue
		}
		out.Done = append(out.Done, ref)
	}
	return out, nil
}

// trashOutputs serves POST /v1/outputs/trash.
func (e *Engine) trashOutputs(r *http.Request) (any, error) { return e.assetsCall(r, e.trash) }

// restoreOutputs serves POST /v1/outputs/restore.
func (e *Engine) restoreOutputs(r *http.Request) (any, error) { return e.assetsCall(r, e.restore) }

// trash moves the file of an output into the trash of its data directory.
func (e *Engine) trash(ctx context.Context, id string, n int) error {
	job, err := e.store.Get(ctx, id)
	if err != nil {
		return err
	}
	o, err := e.findOutput(ctx, job.ID, strconv.Itoa(n))
	if err != nil {
		return err
	}
	if o.Trashed != "" {
		return nil
	}
	if o.Filename == "" || o.Path == "" {
		return backend.Fail(backend.FailUsage, "only a file on this machine can be put into the trash", "")
	}
	if !job.State.Final() {
		return backend.Fail(backend.FailConflict, "job "+job.ID[:8]+" still runs", "try again when it has ended")
	}
	f, err := openFile(o)
	if err != nil {
		return err
	}
	f.Close()
	to, err := moveToTrash(o, fmt.Sprintf("%s-%d-%s", job.ID[:8], n, filepath.Base(o.Path)))
	if err != nil {
		return backend.Fail(backend.FailDisk, "the file could not be moved to the trash: "+clip(err.Error()), "may the engine write into "+filepath.Dir(o.Path)+"?")
	}
	if _, err := e.store.ChangeOutput(ctx, job.ID, n, func(o *backend.Output) { o.Trashed = to }); err != nil {
		return errors.Join(err, os.Rename(to, o.Path)) // unknown to the records it would be lost
	}
	return nil
}

// moveToTrash renames the file of o to name in a trash on the same file system: of
// the data directory, else of the output directory itself.
func moveToTrash(o backend.Output, name string) (string, error) {
	root := filepath.Dir(o.Path)
	if sub := filepath.Clean(o.Subfolder); o.Subfolder != "" && strings.HasSuffix(root, string(filepath.Separator)+sub) {
		root = strings.TrimSuffix(root, string(filepath.Separator)+sub)
	}
	var first error
	for _, dir := range []string{filepath.Join(filepath.Dir(root), trashDir), filepath.Join(root, trashDir)} {
		to := filepath.Join(dir, name)
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = os.Rename(o.Path, to)
		}
		if err == nil {
			return to, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// restore brings the file of an output back to its place.
func (e *Engine) restore(ctx context.Context, id string, n int) error {
	o, err := e.findOutput(ctx, id, strconv.Itoa(n))
	if err != nil {
		return err
	}
	if o.Trashed == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o755); err != nil {
		return backend.Fail(backend.FailDisk, "its directory cannot be made again: "+clip(err.Error()), "")
	}
	switch err := moveBack(o.Trashed, o.Path); {
	case errors.Is(err, fs.ErrExist):
		return backend.Fail(backend.FailConflict, "another file has its place: "+o.Path, "move that one away, or take the file from "+o.Trashed)
	case errors.Is(err, fs.ErrNotExist):
		return backend.Fail(backend.FailNotFound, "it is not in the trash any more: "+o.Trashed, "somebody emptied the trash")
	case err != nil:
		return backend.Fail(backend.FailDisk, "the file could not be moved back: "+clip(err.Error()), "it lies at "+o.Trashed)
	}
	_, err = e.store.ChangeOutput(ctx, id, n, func(o *backend.Output) { o.Trashed = "" })
	return err
}

// moveBack renames from to to and never puts it over another file.
func moveBack(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) { // a file system without links
		if _, err := os.Lstat(to); err == nil {
			return fs.ErrExist
		}
		return os.Rename(from, to)
	}
	return err
}
