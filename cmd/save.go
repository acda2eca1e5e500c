package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"easel/backend"
)

// saver copies outputs into a directory of the side where the command was typed.
type saver struct {
	dir  string
	open func(ctx context.Context, jobID string, n int) (io.ReadCloser, string, error)
}

// newSaver makes sure that dir is a directory that can be written.
func (a *app) newSaver(dir string) (*saver, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &exit{code: codeFailed, message: "--out: " + err.Error(), cause: err}
	}
	return &saver{dir: dir, open: a.engine.OutputFile}, nil
}

// job copies every file of j and returns their paths, in the order of the
// outputs. Outputs that are only text have none.
func (s *saver) job(ctx context.Context, j backend.Job) ([]string, error) {
	var paths []string
	for n, o := range j.Outputs {
		if o.Filename == "" {
			continue
		}
		p, err := s.output(ctx, j.ID, n)
		if err != nil {
			return paths, fmt.Errorf("copy output %d of job %s: %w", n, short(j.ID), err)
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// output copies one file: whole or not at all. A file of that name with the same
// bytes is left as it is; one with other bytes is never overwritten, the copy
// gets a number.
func (s *saver) output(ctx context.Context, jobID string, n int) (string, error) {
	src, name, err := s.open(ctx, jobID, n)
	if err != nil {
		return "", err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(s.dir, ".easel-*.part")
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, src)
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return "", err
	}
	return s.place(tmp.Name(), safeName(name, fmt.Sprintf("output-%d", n)))
}

// place gives the finished file its name. Linking fails when the name is taken,
// so that two of us cannot take the same one.
func (s *saver) place(tmp, name string) (string, error) {
	ext := filepath.Ext(name)
	for i := 1; ; i++ {
		target := filepath.Join(s.dir, name)
		if i > 1 {
			target = filepath.Join(s.dir, fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), i, ext))
		}
		err := os.Link(tmp, target)
		switch {
		case err == nil:
			return target, nil
		case errors.Is(err, fs.ErrExist):
			if same, err := sameBytes(tmp, target); err == nil && same {
				return target, nil
			}
		default: // a file system without links
			if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
				return target, os.Rename(tmp, target)
			}
		}
		if i > 100_000 {
			return "", fmt.Errorf("no free name like %s in %s", name, s.dir)
		}
	}
}

// sameBytes compares two files.
func sameBytes(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	ib, err := os.Lstat(b)
	if err != nil || !ib.Mode().IsRegular() || ia.Size() != ib.Size() {
		return false, err
	}
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			return n == m, nil
		}
	}
}

// safeName is name as one that any of our systems takes and that cannot leave
// the directory.
func safeName(name, otherwise string) string {
	name = filepath.Base(strings.ReplaceAll(strings.ToValidUTF8(name, "_"), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || bidi(r) || strings.ContainsRune(`<>:"|?*`, r) {
			return '_'
		}
		return r
	}, name)
	name = strings.TrimRight(name, ". ")
	name = strings.TrimLeft(name, " ")
	if strings.Trim(name, "./") == "" {
		return otherwise
	}
	if strings.HasPrefix(name, ".") {
		name = "_" + name[1:]
	}
	if len(name) > 200 {
		ext := filepath.Ext(name)
		if len(ext) > 20 {
			ext = ""
		}
		name = strings.ToValidUTF8(name[:200-len(ext)], "") + ext
	}
	return name
}
