package sketch

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// category is a kind of model and the folders it is looked for in.
type category struct {
	name string
	dirs []string
	exts []string // nil: any file
}

var weights = []string{".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}

// categories are the model folders of ComfyUI. No node here reads them.
func (w *Worker) categories() []category {
	m := func(name string, dirs ...string) category {
		if len(dirs) == 0 {
			dirs = []string{name}
		}
		for i, d := range dirs {
			if !strings.HasPrefix(d, "output/") {
				dirs[i] = filepath.Join(w.opts.BaseDir, "models", d)
			} else {
				dirs[i] = filepath.Join(w.opts.OutputDir, d[len("output/"):])
			}
		}
		return category{name, dirs, weights}
	}
	list := []category{
		m("checkpoints", "checkpoints", "output/checkpoints"), m("configs"), m("loras", "loras", "output/loras"),
		m("vae", "vae", "output/vae"), m("text_encoders", "text_encoders", "clip", "output/clip"),
		m("diffusion_models", "unet", "diffusion_models", "output/diffusion_models"), m("clip_vision"), m("style_models"),
		m("embeddings"), m("diffusers"), m("vae_approx"), m("controlnet", "controlnet", "t2i_adapter"), m("gligen"), m("upscale_models"),
	}
	list[1].exts, list[9].exts = []string{".yaml"}, []string{"folder"}
	if w.since("0.8.0") {
		list = append(list, m("latent_upscale_models"))
	}
	list = append(list, category{"custom_nodes", []string{filepath.Join(w.opts.BaseDir, "custom_nodes")}, nil},
		m("hypernetworks"), m("photomaker"), m("classifiers"), m("model_patches"), m("audio_encoders"))
	list[len(list)-3].exts = []string{""}
	return list
}

func (c category) accepts(name string) bool {
	if c.exts == nil {
		return true
	}
	ext := strings.ToLower(filepath.Ext(name))
	for _, e := range c.exts {
		if e == ext {
			return true
		}
	}
	return false
}

// files lists what a category holds, as paths relative to its folders.
func (c category) files() []any {
	seen := map[string]bool{}
	names := []string{}
	for _, dir := range c.dirs {
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !c.accepts(p) {
				return nil //nolint:nilerr // a folder that is not there holds nothing
			}
			if rel, err := filepath.Rel(dir, p); err == nil && !seen[rel] {
				seen[rel] = true
				names = append(names, rel)
			}
			return nil
		})
	}
	sort.Strings(names)
	return texts(names)
}

func (w *Worker) category(name string) (category, bool) {
	for _, c := range w.categories() {
		if c.name == name {
			return c, true
		}
	}
	return category{}, false
}

func (w *Worker) modelRoutes(rt *router) {
	rt.both("GET", "/embeddings", func(*request) (reply, error) {
		c, _ := w.category("embeddings")
		names := c.files()
		for i, n := range names {
			names[i] = strings.TrimSuffix(n.(string), filepath.Ext(n.(string)))
		}
		return jsonReply(names)
	})
	rt.both("GET", "/models", func(*request) (reply, error) {
		names := []any{}
		for _, c := range w.categories() {
			names = append(names, c.name)
		}
		return jsonReply(names)
	})
	rt.both("GET", "/models/{folder}", func(r *request) (reply, error) {
		c, ok := w.category(r.vars["folder"])
		if !ok {
			return statusReply(http.StatusNotFound)
		}
		return jsonReply(c.files())
	})
	rt.both("GET", "/experiment/models", func(*request) (reply, error) {
		list := []any{}
		for _, c := range w.categories() {
			if c.name != "configs" && c.name != "custom_nodes" {
				list = append(list, obj("name", c.name, "folders", texts(c.dirs)))
			}
		}
		return jsonReply(list)
	})
	rt.both("GET", "/experiment/models/{folder}", w.experimentModels)
	rt.both("GET", "/view_metadata/{folder}", func(*request) (reply, error) { return statusReply(http.StatusNotFound) })
}

func (w *Worker) experimentModels(r *request) (reply, error) {
	c, ok := w.category(r.vars["folder"])
	if !ok {
		return statusReply(http.StatusNotFound)
	}
	list := []any{}
	for i, dir := range c.dirs {
		one := category{c.name, []string{dir}, c.exts}
		for _, n := range one.files() {
			st, err := os.Stat(filepath.Join(dir, n.(string)))
			if err != nil {
				continue
			}
			t := float64(st.ModTime().UnixNano()) / 1e9
			list = append(list, obj("name", n, "pathIndex", int64(i), "size", st.Size(), "modified", t, "created", t))
		}
	}
	return jsonReply(list)
}

// contentType guesses by the ending, as Python's mimetypes does.
func contentType(name string) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".bmp":
		return "image/bmp"
	case ".tif", ".tiff":
		return "image/tiff"
	case ".svg":
		return "image/svg+xml"
	case ".avif":
		return "image/avif"
	case ".mp4":
		return "video/mp4"
	case ".webm":
		return "video/webm"
	case ".wav":
		return "audio/x-wav"
	case ".mp3":
		return "audio/mpeg"
	case ".flac":
		return "audio/x-flac"
	case ".json":
		return "application/json"
	case ".txt":
		return "text/plain"
	}
	return "application/octet-stream" // html, js and css on purpose: nothing is shown that can act
}

func (w *Worker) fileRoutes(rt *router) {
	rt.both("GET", "/view", w.getView)
	rt.both("POST", "/upload/image", func(r *request) (reply, error) { return w.upload(r, nil) })
	rt.both("POST", "/upload/mask", func(r *request) (reply, error) { return w.upload(r, w.saveMask) })
}

// locate finds the file of a /view request, or the status that refuses it.
func (w *Worker) locate(name, kind, sub string) (file string, status int) {
	name, dir := w.annotated(name)
	if name == "" || strings.HasPrefix(name, "/") || strings.Contains(name, "..") {
		return "", http.StatusBadRequest
	}
	if dir == "" {
		dir = w.dirOf(kind)
	}
	if dir == "" {
		return "", http.StatusBadRequest
	}
	where := join(dir, sub)
	if !inside(dir, where) {
		return "", http.StatusForbidden
	}
	file = filepath.Join(where, filepath.Base(name))
	if st, err := os.Stat(file); err != nil || !st.Mode().IsRegular() {
		return "", http.StatusNotFound
	}
	return file, 0
}

func (w *Worker) getView(r *request) (reply, error) {
	q := r.URL.Query()
	if !q.Has("filename") {
		return statusReply(http.StatusNotFound)
	}
	kind := "output"
	if q.Has("type") {
		kind = q.Get("type")
	}
	file, status := w.locate(q.Get("filename"), kind, q.Get("subfolder"))
	if status != 0 {
		return statusReply(status)
	}
	name := filepath.Base(file)
	disposition := fmt.Sprintf("filename=%q", name)
	switch {
	case q.Has("preview"):
		return encodedView(file, disposition, previewEncoder(q.Get("preview")))
	case q.Get("channel") == "rgb":
		return encodedView(file, disposition, func(img image.Image) (string, []byte, error) { return encoded("image/png", opaque(img)) })
	case q.Get("channel") == "a":
		return encodedView(file, disposition, func(img image.Image) (string, []byte, error) { return encoded("image/png", alphaOnly(img)) })
	}
	return reply{raw: func(rw http.ResponseWriter, req *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			write(rw, req, reply{status: http.StatusNotFound})
			return
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			write(rw, req, serverError())
			return
		}
		h := rw.Header()
		h.Set("Content-Disposition", disposition)
		h.Set("Content-Type", contentType(name))
		h.Set("Etag", fmt.Sprintf(`"%x-%x"`, st.ModTime().UnixNano(), st.Size()))
		http.ServeContent(rw, req, name, st.ModTime(), f)
	}}, nil
}

// previewEncoder reads "jpeg;80". webp is asked for most; this worker writes
// JPEG in its place, and says so in the content type.
func previewEncoder(spec string) func(image.Image) (string, []byte, error) {
	_, q, _ := strings.Cut(spec, ";")
	quality, err := strconv.Atoi(q)
	if err != nil || quality < 1 || quality > 100 {
		quality = 90
	}
	return func(img image.Image) (string, []byte, error) {
		var b bytes.Buffer
		err := jpeg.Encode(&b, opaque(img), &jpeg.Options{Quality: quality})
		return "image/jpeg", b.Bytes(), err
	}
}

func encodedView(file, disposition string, enc func(image.Image) (string, []byte, error)) (reply, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return reply{}, err
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return reply{}, raise("PIL.UnidentifiedImageError", "cannot identify image file %s", pyRepr(file))
	}
	typ, out, err := enc(img)
	return reply{typ: typ, body: out, head: map[string]string{"Content-Disposition": disposition}}, err
}

func encoded(typ string, img image.Image) (string, []byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return typ, b.Bytes(), err
}

func toNRGBA(img image.Image, fn func(color.NRGBA) color.NRGBA) *image.NRGBA {
	r := img.Bounds()
	out := image.NewNRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	for y := range r.Dy() {
		for x := range r.Dx() {
			out.SetNRGBA(x, y, fn(color.NRGBAModel.Convert(img.At(r.Min.X+x, r.Min.Y+y)).(color.NRGBA)))
		}
	}
	return out
}

func opaque(img image.Image) *image.NRGBA {
	return toNRGBA(img, func(c color.NRGBA) color.NRGBA { c.A = 255; return c })
}

func alphaOnly(img image.Image) *image.NRGBA {
	return toNRGBA(img, func(c color.NRGBA) color.NRGBA { return color.NRGBA{A: c.A} })
}

// form is what an upload brings: the file part and the fields.
type form struct {
	name   string
	file   []byte
	fields map[string]string
}

// readForm reads a multipart body; nil means there is no usable file in it.
func readForm(r *request) (*form, error) {
	mr, err := r.MultipartReader()
	if err != nil {
		return nil, nil //nolint:nilerr // another kind of body: no file
	}
	f := &form{fields: map[string]string{}}
	found := false
	for {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		name, isFile := partFile(p)
		switch {
		case p.FormName() == "image" && isFile:
			f.name, f.file, found = name, b, true
		case p.FormName() == "image":
			return nil, raise("AttributeError", "'str' object has no attribute 'file'")
		default:
			f.fields[p.FormName()] = string(b)
		}
	}
	if !found {
		return nil, nil
	}
	return f, nil
}

// partFile is the file name of a part, folders and all (Go's own method cuts
// them off).
func partFile(p *multipart.Part) (string, bool) {
	d := p.Header.Get("Content-Disposition")
	_, rest, ok := strings.Cut(d, `filename="`)
	if !ok {
		return p.FileName(), p.FileName() != ""
	}
	var b strings.Builder
	for i := 0; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] == '\\' && i+1 < len(rest) && (rest[i+1] == '"' || rest[i+1] == '\\') {
			i++
		}
		b.WriteByte(rest[i])
	}
	return b.String(), true
}

// upload saves a file. save, if given, makes what is written from the upload;
// nil from it means that nothing is written.
func (w *Worker) upload(r *request, save func(*form) ([]byte, error)) (reply, error) {
	f, err := readForm(r)
	if err != nil {
		return reply{}, err
	}
	kind := "input"
	if f != nil && f.fields["type"] != "" {
		kind = f.fields["type"]
	}
	dir := w.dirOf(kind)
	if dir == "" {
		return reply{}, raise("UnboundLocalError", "cannot access local variable 'type_dir'")
	}
	if f == nil {
		return statusReply(http.StatusBadRequest)
	}
	if f.name == "" { // aiohttp takes such a part for a plain field
		return reply{}, raise("AttributeError", "'str' object has no attribute 'file'")
	}
	sub := f.fields["subfolder"]
	folder := join(dir, filepath.Clean(sub))
	path := join(folder, f.name)
	if filepath.IsAbs(f.name) {
		return reply{}, raise("ValueError", "the file name is absolute")
	}
	if !inside(dir, path) {
		return statusReply(http.StatusBadRequest)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return reply{}, err
	}
	name, same := f.name, false
	if o := f.fields["overwrite"]; o != "true" && o != "1" {
		name, same = freeName(folder, f)
	}
	data := f.file
	if save != nil {
		if data, err = save(f); err != nil {
			return reply{}, err
		}
	}
	if !same && data != nil {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
			return reply{}, err
		}
	}
	return jsonReply(obj("name", name, "subfolder", sub, "type", kind))
}

// freeName finds a name that is not taken, or a file that is the same already.
func freeName(folder string, f *form) (name string, same bool) {
	name = f.name
	ext := filepath.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	for i := 1; ; i++ {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return name, false
		}
		if bytes.Equal(b, f.file) {
			return name, true
		}
		name = fmt.Sprintf("%s (%d)%s", stem, i, ext)
	}
}

// saveMask puts the alpha of the upload onto the picture that original_ref
// names. Where that is missing or outside, nothing is written and the client
// is told nothing of it, as in ComfyUI.
func (w *Worker) saveMask(f *form) ([]byte, error) {
	ref, ok := f.fields["original_ref"]
	if !ok {
		return nil, raise("TypeError", "the JSON object must be str, bytes or bytearray, not NoneType")
	}
	v, err := parseJSON([]byte(ref))
	if err != nil {
		return nil, err
	}
	o, _ := v.(*object)
	kind := "output"
	if o.has("type") {
		kind = pyStr(o.at("type"))
	}
	sub, _ := o.at("subfolder").(string)
	file, status := w.locate(pyStr(o.at("filename")), kind, sub)
	if status != 0 {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	base, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	mask, _, err := image.Decode(bytes.NewReader(f.file))
	if err != nil {
		return nil, err
	}
	if mask.Bounds().Size() != base.Bounds().Size() {
		return nil, raise("ValueError", "images do not match")
	}
	out, m := toNRGBA(base, func(c color.NRGBA) color.NRGBA { return c }), alphaOnly(mask)
	for i := 3; i < len(out.Pix); i += 4 {
		out.Pix[i] = m.Pix[i]
	}
	return withTexts(out, pngTexts(b))
}

// withTexts encodes a picture with text chunks that are ASCII.
func withTexts(img image.Image, chunks []chunk) ([]byte, error) {
	var b, out bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return nil, err
	}
	const head = 8 + 25
	out.Write(b.Bytes()[:head])
	for _, c := range chunks {
		if validKeyword(c.key) {
			writeChunk(&out, "tEXt", append(append([]byte(c.key), 0), c.text...))
		}
	}
	out.Write(b.Bytes()[head:])
	return out.Bytes(), nil
}
