package cmd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/workflow"
)

// prepared is a workflow that was read and set up, ready to be handed in.
type prepared struct {
	doc     workflow.Doc
	base    backend.Submission
	uploads []localFile
	count   int
	// draw gives each run its seeds; nil when they are as in the file.
	draw *rand.Rand
}

// localFile is a file of this side that an input of a node takes.
type localFile struct {
	input string // as it was written with --set
	path  string
}

// prepare reads the workflow and applies what the command line sets. It needs no
// engine.
func (a *app) prepare(ctx context.Context, c *cobra.Command, file string, f runFlags) (*prepared, error) {
	b, err := a.readWorkflow(ctx, file)
	if err != nil {
		return nil, err
	}
	doc, err := workflow.Read(b)
	if err != nil {
		return nil, named(file, err)
	}
	p := &prepared{doc: doc, count: f.count}
	seeds := false
	for _, s := range f.set {
		in, value, _ := strings.Cut(s, "=")
		in = strings.TrimSpace(in)
		seeds = seeds || p.setsSeed(in, value)
		if err := p.set(in, value); err != nil {
			return nil, err
		}
	}
	notBefore, err := parseWhen(f.notBefore, time.Now())
	if err != nil {
		return nil, usageError(c, "--not-before: "+err.Error())
	}
	p.base = backend.Submission{
		Name: f.name, Owner: a.who(), Source: backend.SourceCLI, Priority: f.priority, Labels: f.labels, Group: f.group,
		Hold: f.hold, NotBefore: notBefore, TimeoutS: f.timeout.Seconds(), NoCheck: f.noCheck, Key: f.key,
	}
	if p.base.Name == "" {
		p.base.Name = nameOf(file)
	}
	if f.count > 1 {
		if p.base.Group == "" {
			p.base.Group = groupOf(p.base.Name, f.key)
		}
		if !seeds {
			p.draw = drawer(f.key)
		}
	}
	return p, nil
}

// maxWorkflow bounds what is read of a workflow: the engine takes 96 MiB, and a
// picture that carries one may be larger than that.
const maxWorkflow = 512 << 20

// readWorkflow reads FILE or standard input.
func (a *app) readWorkflow(ctx context.Context, file string) ([]byte, error) {
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			code, kind := codeFailed, ""
			if errors.Is(err, fs.ErrNotExist) {
				code, kind = codeNotFound, backend.FailNotFound
			}
			return nil, &exit{code: code, kind: kind, message: "read the workflow: " + err.Error(), cause: err}
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return nil, &exit{code: codeUsage, kind: backend.FailUsage, message: "read the workflow: " + oneLine(file) + " is a directory"}
		}
		in = f
	}
	b, err := readAll(ctx, io.LimitReader(in, maxWorkflow+1))
	if err != nil {
		return nil, fmt.Errorf("read the workflow: %w", err)
	}
	if len(b) > maxWorkflow {
		return nil, named(file, backend.Fail(backend.FailTooLarge, "larger than 512 MiB", "ComfyUI takes no workflow above 100 MB"))
	}
	return b, nil
}

// readAll reads r to its end, or until ctx ends: standard input may be a person
// who does not type.
func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		b   []byte
		err error
	}
	ch := make(chan result, 1)
	go func() {
		b, err := io.ReadAll(r)
		ch <- result{b, err}
	}()
	select {
	case res := <-ch:
		return res.b, res.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// named puts the file's name before an error in it.
func named(file string, err error) error {
	if file == "-" {
		file = "standard input"
	}
	var f *backend.Failure
	if errors.As(err, &f) {
		named := *f
		named.Message = oneLine(file) + ": " + f.Message
		return &named
	}
	return fmt.Errorf("%s: %w", oneLine(file), err)
}

// nameOf is the name of a job from its file: without directory, without .json,
// .api.json or .png.
func nameOf(file string) string {
	if file == "-" {
		return "stdin"
	}
	name := filepath.Base(file)
	name = strings.TrimSuffix(name, filepath.Ext(name))
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".api"), ".ui")
	return oneLine(name)
}

// groupOf is a group for runs that were given none: the same for the same key, so
// that doing it again means the same jobs.
func groupOf(name, key string) string {
	id := uuid.NewString()
	if key != "" {
		id = uuid.NewSHA1(uuid.Nil, []byte(key)).String()
	}
	return name + "-" + id[:6]
}

// drawer draws seeds: the same ones for the same key, so that a submission that
// is tried again under its key is the same.
func drawer(key string) *rand.Rand {
	if key == "" {
		return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return rand.New(rand.NewChaCha8(sha256.Sum256([]byte(key))))
}

// isSeed reports whether an input written with --set is a seed.
func isSeed(in string) bool {
	if i := strings.LastIndexByte(in, '.'); i >= 0 {
		in = in[i+1:]
	}
	return strings.EqualFold(in, "seed") || strings.EqualFold(in, "noise_seed")
}

// set applies one --set: VALUE as it is, @FILE as what the file says, ./FILE of an
// image input as an upload to come.
func (p *prepared) set(in, value string) error {
	switch {
	case strings.HasPrefix(value, "@@"):
		value = value[1:] // a value that begins with @
	case strings.HasPrefix(value, "@"):
		text, err := readText(value[1:])
		if err != nil {
			return fmt.Errorf("--set %s: %w", clean(in), err)
		}
		value = text
	case isLocalPath(value):
		upload, err := p.takesFile(in, value)
		if err != nil {
			return setError(in, err)
		}
		if !upload {
			break
		}
		info, err := os.Stat(value)
		if errors.Is(err, fs.ErrNotExist) {
			return &exit{code: codeNotFound, kind: backend.FailNotFound, message: fmt.Sprintf("--set %s: there is no file %s", clean(in), oneLine(value)), cause: err}
		}
		if err != nil {
			return fmt.Errorf("--set %s: %w", clean(in), err)
		}
		if !info.Mode().IsRegular() {
			return &exit{code: codeUsage, kind: backend.FailUsage, message: fmt.Sprintf("--set %s: %s is not a file", clean(in), oneLine(value))}
		}
		p.uploads = append(p.uploads, localFile{input: in, path: value})
		return nil
	}
	return setError(in, workflow.Set(&p.doc, in, value))
}

// setError says which --set went wrong.
func setError(in string, err error) error {
	if err == nil {
		return nil
	}
	var f *backend.Failure
	if errors.As(err, &f) {
		named := *f
		named.Message = "--set " + oneLine(in) + ": " + strings.TrimPrefix(f.Message, "set "+in+": ")
		return &named
	}
	return &exit{code: codeUsage, kind: backend.FailUsage, message: "--set " + oneLine(in) + ": " + oneLine(err.Error()), cause: err}
}

// maxText bounds a file that becomes the value of an input.
const maxText = 8 << 20

// readText reads a file as the value of an input; one line end at its end is the
// editor's and not the text's.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > maxText:
		return "", fmt.Errorf("%s is larger than %s", oneLine(path), size(maxText))
	case !utf8.Valid(b):
		return "", fmt.Errorf("%s is not text (for a picture write ./FILE without @)", oneLine(path))
	}
	s := strings.TrimPrefix(string(b), "\uFEFF")
	s = strings.TrimSuffix(s, "\n")
	return strings.TrimSuffix(s, "\r"), nil
}

// isLocalPath reports whether a value is written as a path of this side.
func isLocalPath(v string) bool {
	for _, prefix := range []string{"./", "../", "/", "~/"} {
		if strings.HasPrefix(v, prefix) {
			return true
		}
	}
	return filepath.IsAbs(v) || strings.HasPrefix(v, `.\`) || strings.HasPrefix(v, `..\`)
}

// upload sends the local files to the worker's input directory and sets the names
// that came back.
func (p *prepared) upload(ctx context.Context, engine *client.Client) error {
	sent := map[string]string{}
	for _, u := range p.uploads {
		value, done := sent[u.path]
		if !done {
			up, err := sendFile(ctx, engine, u.path)
			if err != nil {
				return fmt.Errorf("upload %s: %w", oneLine(u.path), err)
			}
			value = up.Value()
			sent[u.path] = value
		}
		if err := workflow.Set(&p.doc, u.input, value); err != nil {
			return setError(u.input, err)
		}
	}
	return nil
}

func sendFile(ctx context.Context, engine *client.Client, path string) (client.Uploaded, error) {
	f, err := os.Open(path)
	if err != nil {
		return client.Uploaded{}, err
	}
	defer f.Close()
	return engine.Upload(ctx, safeName(filepath.Base(path), "upload"), f)
}

// submission is run i, from 0.
func (p *prepared) submission(i int) (backend.Submission, error) {
	s := p.base
	if p.draw != nil {
		if _, err := workflow.Randomize(&p.doc, p.draw); err != nil {
			return s, err
		}
	}
	if p.count > 1 && s.Key != "" {
		s.Key = fmt.Sprintf("%s#%d", s.Key, i+1)
	}
	if p.count > 1 {
		s.Name = fmt.Sprintf("%s %d/%d", s.Name, i+1, p.count)
	}
	s.Graph, s.Workflow = p.doc.GraphJSON, p.doc.Workflow
	return s, nil
}

// parseWhen reads a moment: RFC 3339, a local date and time, a clock time (its
// next occurrence), or a span from now. "" is no moment.
func parseWhen(s string, now time.Time) (backend.Time, error) {
	if s == "" {
		return backend.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return backend.At(t), nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return backend.Time{}, fmt.Errorf("%s is in the past", s)
		}
		return backend.At(now.Add(d)), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return backend.At(t), nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			next := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			if !next.After(now) {
				next = next.AddDate(0, 0, 1)
			}
			return backend.At(next), nil
		}
	}
	return backend.Time{}, fmt.Errorf("%q is no time; write 2006-01-02T15:04:05Z, 15:04, or a span such as 2h", clean(s))
}

// fileInputs are the inputs by which ComfyUI's loaders name a file of its input
// directory.
var fileInputs = map[string]bool{"image": true, "video": true, "audio": true, "file": true, "mask": true, "model_file": true}

// takesFile reports whether an input names a file in the worker's input
// directory, so that a file of this side must be uploaded for it.
func (p *prepared) takesFile(in, value string) (bool, error) {
	ref, changed, err := p.target(in, value)
	if err != nil {
		return false, err
	}
	return changed && fileInputs[ref.Input] && strings.Contains(ref.Class, "Load"), nil
}

// target finds the input that a word of --set means, by trying value on a copy.
// changed is false when the input has that value already.
func (p *prepared) target(in, value string) (ref workflow.Ref, changed bool, err error) {
	trial := p.doc
	if err := workflow.Set(&trial, in, value); err != nil {
		return ref, false, err
	}
	after := trial.Graph.Nodes()
	for i, n := range p.doc.Graph.Nodes() {
		for j, input := range n.Inputs {
			if !bytes.Equal(input.Value, after[i].Inputs[j].Value) {
				return workflow.Ref{Node: n.ID, Title: n.Title, Class: n.Class, Input: input.Name}, true, nil
			}
		}
	}
	return ref, false, nil
}

// setsSeed reports whether a --set names a seed, so that --count leaves the seeds
// alone.
func (p *prepared) setsSeed(in, value string) bool {
	if isSeed(in) {
		return true
	}
	ref, changed, err := p.target(in, value)
	return err == nil && changed && slices.Contains(workflow.FindSeeds(p.doc), ref)
}
