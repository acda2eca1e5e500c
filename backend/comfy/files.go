package comfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kinds of a FileItem.
const (
	FileImage = "image"
	FileVideo = "video"
	FileAudio = "audio"
	FileModel = "model"
	FileText  = "text"
	FileOther = "file"
)

// FileItem is one file, or one text, that a node showed.
type FileItem struct {
	Node      string
	Key       string // images, audio, gifs, 3d, text, … (open set)
	Kind      string // by the name's extension, see the constants
	Filename  string
	Subfolder string
	Type      string // output, temp or input: which of ComfyUI's folders
	Animated  bool
	Text      string // of kind text; Filename is "" then
}

// Files lists what is in outputs, as a history or several Executed messages give it:
// {node: {key: [item…]}}. Nodes are in the order of their ids as people count, keys
// and items in the order of the JSON. Whatever it does not know is left out.
func Files(outputs json.RawMessage) []FileItem {
	var nodes map[string]json.RawMessage
	if json.Unmarshal(Sanitize(outputs), &nodes) != nil {
		return nil
	}
	var out []FileItem
	for _, id := range slices.SortedFunc(maps.Keys(nodes), CompareNodes) {
		out = append(out, NodeFiles(id, nodes[id])...)
	}
	return out
}

// NodeFiles lists what is in the output of one node, as Executed gives it.
func NodeFiles(node string, output json.RawMessage) []FileItem {
	keys, values := orderedObject(Sanitize(output))
	animated := animatedFlags(keys, values)
	var out []FileItem
	for i, key := range keys {
		var list []json.RawMessage
		if json.Unmarshal(values[i], &list) != nil {
			continue
		}
		for n, raw := range list {
			for _, item := range itemsOf(key, raw) {
				item.Node, item.Key = node, key
				if item.Text == "" && len(animated) > 0 {
					item.Animated = animated[min(n, len(animated)-1)]
				}
				out = append(out, item)
			}
		}
	}
	return out
}

// itemsOf reads one element of a list: an object with a file name, or a text of
// the key "text" (also in a nested list).
func itemsOf(key string, raw json.RawMessage) []FileItem {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil
	}
	switch {
	case raw[0] == '{':
		var j struct {
			Filename  text `json:"filename"`
			Subfolder text `json:"subfolder"`
			Type      text `json:"type"`
		}
		if json.Unmarshal(raw, &j) != nil || j.Filename == "" {
			return nil
		}
		if j.Type == "" {
			j.Type = "output"
		}
		return []FileItem{{
			Kind: KindOf(string(j.Filename), key), Filename: string(j.Filename),
			Subfolder: string(j.Subfolder), Type: string(j.Type),
		}}
	case key != "text":
	case raw[0] == '"':
		var s string
		if json.Unmarshal(raw, &s) == nil && s != "" {
			return []FileItem{{Kind: FileText, Text: printable(s)}}
		}
	case raw[0] == '[':
		var list []json.RawMessage
		var out []FileItem
		if json.Unmarshal(raw, &list) == nil {
			for _, r := range list {
				if r = bytes.TrimSpace(r); len(r) > 0 && r[0] == '"' {
					out = append(out, itemsOf(key, r)...)
				}
			}
		}
		return out
	}
	return nil
}

// animatedFlags reads animated:[true,…].
func animatedFlags(keys []string, values []json.RawMessage) []bool {
	var flags []bool
	if i := slices.Index(keys, "animated"); i >= 0 {
		_ = json.Unmarshal(values[i], &flags)
	}
	return flags
}

// orderedObject is an object's keys and values in their order; nothing when b is not
// one.
func orderedObject(b []byte) (keys []string, values []json.RawMessage) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, nil
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, nil
		}
		var v json.RawMessage
		if dec.Decode(&v) != nil {
			return nil, nil
		}
		name, _ := key.(string)
		keys, values = append(keys, name), append(values, v)
	}
	return keys, values
}

// kinds are the kinds by extension.
var kinds = map[string]string{
	".png": FileImage, ".jpg": FileImage, ".jpeg": FileImage, ".webp": FileImage, ".gif": FileImage, ".apng": FileImage,
	".bmp": FileImage, ".tif": FileImage, ".tiff": FileImage, ".svg": FileImage, ".exr": FileImage, ".hdr": FileImage, ".avif": FileImage, ".jxl": FileImage,
	".mp4": FileVideo, ".webm": FileVideo, ".mkv": FileVideo, ".mov": FileVideo, ".avi": FileVideo, ".m4v": FileVideo,
	".flac": FileAudio, ".mp3": FileAudio, ".opus": FileAudio, ".ogg": FileAudio, ".wav": FileAudio, ".m4a": FileAudio, ".aac": FileAudio,
	".glb": FileModel, ".gltf": FileModel, ".obj": FileModel, ".ply": FileModel, ".stl": FileModel, ".fbx": FileModel, ".usdz": FileModel, ".spz": FileModel, ".splat": FileModel,
	".txt": FileText, ".json": FileText, ".csv": FileText, ".md": FileText, ".srt": FileText,
}

// KindOf is the kind of a file by its extension, or else by the key of the output it
// was listed under. Videos are listed under "images".
func KindOf(filename, key string) string {
	if kind, ok := kinds[strings.ToLower(path.Ext(filename))]; ok {
		return kind
	}
	switch key {
	case "images":
		return FileImage
	case "gifs", "video", "videos":
		return FileVideo
	case "audio":
		return FileAudio
	case "3d":
		return FileModel
	}
	return FileOther
}

// Dirs are ComfyUI's folders on this machine, absolute; "" when not known.
type Dirs struct{ Output, Input, Temp string }

// Path is where the file lies under dirs. A name that leads out of its folder, or a
// folder that is not known, is an error: names come from custom nodes.
func (f FileItem) Path(dirs Dirs) (string, error) {
	root := map[string]string{"output": dirs.Output, "input": dirs.Input, "temp": dirs.Temp}[f.Type]
	switch {
	case f.Filename == "":
		return "", errors.New("this output is a text, not a file")
	case root == "":
		return "", fmt.Errorf("the folder %q of %q is not known here", Plain(f.Type, 40), Plain(f.Filename, 200))
	}
	rel := filepath.Join(filepath.FromSlash(f.Subfolder), filepath.FromSlash(f.Filename))
	if !filepath.IsLocal(rel) || strings.ContainsRune(rel, 0) {
		return "", fmt.Errorf("the name %q leads out of ComfyUI's %s folder", Plain(path.Join(f.Subfolder, f.Filename), 200), f.Type)
	}
	return filepath.Join(root, rel), nil
}

// File is a file that is read from the server. Close it.
type File struct {
	io.ReadCloser
	ContentType string // as the server says
	Size        int64  // bytes, -1 when not told
}

// View reads one file of the server. Reading fails when nothing comes for the
// client's timeout.
func (c *Client) View(ctx context.Context, item FileItem) (*File, error) {
	op := "read the file " + Plain(item.Filename, 200)
	q := url.Values{"filename": {item.Filename}, "subfolder": {item.Subfolder}, "type": {item.Type}}
	if item.Type == "" {
		q.Set("type", "output")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := newWatch(c.timeout, cancel)
	done := func() { watch.stop(); cancel(nil) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/view?"+q.Encode(), nil)
	if err != nil {
		done()
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		err = c.stallError(ctx, op, err)
		done()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := readBody(resp, maxErrorBody)
		_ = resp.Body.Close()
		done()
		if resp.StatusCode == http.StatusNotFound {
			b = []byte("the file is not there (moved or deleted?)")
		}
		return nil, statusError(op, resp.StatusCode, b)
	}
	body := &watchedBody{body: resp.Body, watch: watch, done: done, fail: func(err error) error {
		return c.stallError(ctx, op, err)
	}}
	return &File{ReadCloser: body, ContentType: resp.Header.Get("Content-Type"), Size: resp.ContentLength}, nil
}

// errStalled ends a transfer that does not move.
var errStalled = fmt.Errorf("nothing moved: %w", context.DeadlineExceeded)

// stallError is connectError for a transfer whose context a watch may have ended.
func (c *Client) stallError(ctx context.Context, op string, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return &ConnectError{Op: op, URL: c.base, Sent: true, Err: cause}
	}
	return c.connectError(ctx, op, err)
}

// watch cancels a transfer that does not move for a while.
type watch struct {
	timer *time.Timer
	every time.Duration
}

func newWatch(every time.Duration, cancel context.CancelCauseFunc) *watch {
	return &watch{timer: time.AfterFunc(every, func() { cancel(errStalled) }), every: every}
}

func (w *watch) moved() { w.timer.Reset(w.every) }
func (w *watch) stop()  { w.timer.Stop() }

// watchedBody tells its watch of every read.
type watchedBody struct {
	body  io.ReadCloser
	watch *watch
	done  func()
	fail  func(error) error
}

// Read reads from the body.
func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	switch {
	case err == nil:
		w.watch.moved()
	case !errors.Is(err, io.EOF):
		err = w.fail(err)
	}
	return n, err
}

// Close ends the transfer.
func (w *watchedBody) Close() error {
	err := w.body.Close()
	w.done()
	return err
}

// Uploaded is where an upload lies: use these names, not those that were asked for.
type Uploaded struct {
	Name      string `json:"name"`
	Subfolder string `json:"subfolder"`
	Type      string `json:"type"`
}

// Value is what a Load node takes as the file's name.
func (u Uploaded) Value() string {
	v := path.Join(u.Subfolder, u.Name)
	if u.Type != "" && u.Type != "input" {
		v += " [" + u.Type + "]"
	}
	return v
}

// Upload sends a file of any kind (image, video, audio, model) into one of the
// server's folders: fileType is input, output or temp, "" is input. A different
// file of that name is kept unless overwrite is set: the upload gets another name.
func (c *Client) Upload(ctx context.Context, name, fileType, subfolder string, overwrite bool, r io.Reader) (Uploaded, error) {
	op := "upload " + Plain(name, 200)
	if name == "" || strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".." {
		return Uploaded{}, fmt.Errorf("%s: a file name without folders is needed", op)
	}
	head, tail, kind, err := multipartFrame(name, fileType, subfolder, overwrite)
	if err != nil {
		return Uploaded{}, fmt.Errorf("%s: %w", op, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := newWatch(c.timeout, cancel)
	defer watch.stop()
	body := io.MultiReader(bytes.NewReader(head), &watchedReader{r: r, watch: watch}, bytes.NewReader(tail))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/upload/image", body)
	if err != nil {
		return Uploaded{}, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := c.http.Do(req)
	if err != nil {
		return Uploaded{}, c.stallError(ctx, op, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := readBody(resp, maxErrorBody)
	if err != nil {
		return Uploaded{}, c.stallError(ctx, op, err)
	}
	if resp.StatusCode != http.StatusOK {
		return Uploaded{}, statusError(op, resp.StatusCode, b)
	}
	var u Uploaded
	if err := json.Unmarshal(b, &u); err != nil || u.Name == "" {
		return Uploaded{}, fmt.Errorf("%s: ComfyUI did not say where it put the file", op)
	}
	return u, nil
}

// multipartFrame is what stands before and after the file's bytes.
func multipartFrame(name, fileType, subfolder string, overwrite bool) (head, tail []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fields := [][2]string{{"type", fileType}, {"subfolder", subfolder}, {"overwrite", ""}}
	if fileType == "" {
		fields[0][1] = "input"
	}
	if overwrite {
		fields[2][1] = "true"
	}
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		if err := w.WriteField(f[0], f[1]); err != nil {
			return nil, nil, "", err
		}
	}
	if _, err := w.CreateFormFile("image", name); err != nil {
		return nil, nil, "", err
	}
	n := b.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return b.Bytes()[:n:n], b.Bytes()[n:], w.FormDataContentType(), nil
}

// watchedReader tells its watch of every read.
type watchedReader struct {
	r     io.Reader
	watch *watch
}

// Read reads on.
func (w *watchedReader) Read(p []byte) (int, error) {
	w.watch.moved()
	return w.r.Read(p)
}
