package sketch

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	_ "image/jpeg" // formats that LoadImage reads
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"
)

func runSaveImage(c *call) ([]any, *object, error) {
	return saveImages(c, c.w.opts.OutputDir, "output", c.text("filename_prefix"), png.DefaultCompression)
}

func runPreviewImage(c *call) ([]any, *object, error) {
	return saveImages(c, c.w.opts.tempDir(), "temp", "ComfyUI"+c.prefix, png.BestSpeed)
}

func saveImages(c *call, dir, kind, prefix string, level png.CompressionLevel) ([]any, *object, error) {
	t, err := c.tensor("images")
	if err != nil {
		return failed(err)
	}
	if t.b == 0 {
		return failed(raise("IndexError", "index 0 is out of bounds for dimension 0 with size 0"))
	}
	where, err := c.w.savePath(dir, prefix, t.w, t.h, time.Now())
	if err != nil {
		return failed(err)
	}
	var list []any
	for i := range t.b {
		var b bytes.Buffer
		if err := encodePNG(&b, t, i, level, c.metadata()); err != nil {
			return failed(err)
		}
		name := fmt.Sprintf("%s_%05d_.png", strings.ReplaceAll(where.name, "%batch_num%", strconv.Itoa(i)), where.counter)
		if err := c.w.writeFile(filepath.Join(where.dir, name), b.Bytes()); err != nil {
			return failed(err)
		}
		list = append(list, obj("filename", name, "subfolder", filepath.ToSlash(where.subfolder), "type", kind))
		where.counter++
	}
	return nil, obj("images", list), nil
}

// writeFile writes straight to the name, as ComfyUI does: a full disk leaves
// a file that is cut short. The disk-full fault does just that.
func (w *Worker) writeFile(path string, b []byte) error {
	if w.faults.take("disk-full", w.prompts.Load()) != nil {
		_ = os.WriteFile(path, b[:len(b)/3], 0o644)
		return &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
	}
	return os.WriteFile(path, b, 0o644)
}

// chunk is a text chunk of a PNG.
type chunk struct{ key, text string }

// metadata is what SaveImage hides in the file: the prompt, and whatever the
// client sent as extra_pnginfo (the workflow).
func (c *call) metadata() []chunk {
	if c.w.opts.DisableMetadata {
		return nil
	}
	var list []chunk
	if c.prompt != nil {
		list = append(list, chunk{"prompt", string(dumpJSON(c.prompt))})
	}
	if info, ok := c.pngInfo.(*object); ok && info != nil {
		for _, k := range info.keys {
			if validKeyword(k) {
				list = append(list, chunk{k, string(dumpJSON(info.vals[k]))})
			}
		}
	}
	return list
}

// validKeyword says whether PNG allows the key: 1 to 79 printable bytes.
func validKeyword(k string) bool {
	for _, r := range k {
		if r < 0x20 || r > 0x7e {
			return false
		}
	}
	return len(k) > 0 && len(k) < 80
}

// encodePNG writes one picture of the batch with its text chunks, which stand
// before the pixels so that a reader finds them at once.
func encodePNG(w io.Writer, t *tensor, i int, level png.CompressionLevel, texts []chunk) error {
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: level}
	if err := enc.Encode(&b, t.toImage(i)); err != nil {
		return err
	}
	const head = 8 + 25 // signature and IHDR
	raw := b.Bytes()
	out := bufio.NewWriter(w)
	_, _ = out.Write(raw[:head])
	for _, c := range texts {
		writeChunk(out, "tEXt", append(append([]byte(c.key), 0), c.text...))
	}
	_, _ = out.Write(raw[head:])
	return out.Flush()
}

func writeChunk(w io.Writer, kind string, data []byte) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(data)))
	_, _ = w.Write(n[:])
	body := append([]byte(kind), data...)
	_, _ = w.Write(body)
	binary.BigEndian.PutUint32(n[:], crc32.ChecksumIEEE(body))
	_, _ = w.Write(n[:])
}

// pngTexts reads the text chunks of a PNG (tEXt, and zTXt and iTXt unpacked).
func pngTexts(b []byte) []chunk {
	var list []chunk
	if !bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")) {
		return nil
	}
	for b = b[8:]; len(b) >= 12; {
		n := int(binary.BigEndian.Uint32(b))
		if n < 0 || n > len(b)-12 {
			break
		}
		data := b[8 : 8+n]
		key, rest, ok := bytes.Cut(data, []byte{0})
		switch kind := string(b[4:8]); {
		case !ok:
		case kind == "tEXt":
			list = append(list, chunk{string(key), latin1(rest)})
		case kind == "zTXt" && len(rest) > 1:
			list = append(list, chunk{string(key), latin1(inflate(rest[1:]))})
		case kind == "iTXt" && len(rest) > 2:
			packed := rest[0] == 1
			parts := bytes.SplitN(rest[2:], []byte{0}, 3)
			if len(parts) == 3 {
				text := parts[2]
				if packed {
					text = inflate(text)
				}
				list = append(list, chunk{string(key), string(text)})
			}
		}
		b = b[12+n:]
	}
	return list
}

func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

func inflate(b []byte) []byte {
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(z, 64<<20))
	return out
}

// toImage makes bytes of picture i, cutting off the fraction as numpy does.
func (t *tensor) toImage(i int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, t.w, t.h))
	src, c := t.image(i), t.channels()
	for p := range t.w * t.h {
		for k := range 4 {
			v := uint8(255)
			switch {
			case c == 1 && k < 3:
				v = toByte(src[p])
			case c > 1 && k < c:
				v = toByte(src[p*c+k])
			}
			img.Pix[4*p+k] = v
		}
	}
	return img
}

func toByte(v float32) uint8 {
	v *= 255
	switch {
	case !(v > 0):
		return 0
	case v >= 255:
		return 255
	}
	return uint8(v)
}

// target is where the next files of a prefix go.
type target struct {
	dir, name, subfolder string
	counter              int
}

// savePath turns a filename prefix into a folder, a name and the next free
// number. The prefix may name a folder below dir, never one outside.
func (w *Worker) savePath(dir, prefix string, width, height int, now time.Time) (target, error) {
	for _, r := range [][2]string{
		{"%width%", strconv.Itoa(width)},
		{"%height%", strconv.Itoa(height)},
		{"%year%", now.Format("2006")},
		{"%month%", now.Format("01")},
		{"%day%", now.Format("02")},
		{"%hour%", now.Format("15")},
		{"%minute%", now.Format("04")},
		{"%second%", now.Format("05")},
	} {
		prefix = strings.ReplaceAll(prefix, r[0], r[1])
	}
	clean := filepath.Clean(prefix)
	t := target{name: filepath.Base(clean), subfolder: filepath.Dir(clean)}
	if t.subfolder == "." {
		t.subfolder = ""
	}
	t.dir = join(dir, t.subfolder)
	if !inside(dir, t.dir) {
		common := commonPath(dir, t.dir)
		msg := "**** ERROR: Saving image outside the output folder is not allowed." +
			"\n full_output_folder: " + t.dir + "\n         output_dir: " + dir + "\n         commonpath: " + common
		w.log.line(msg)
		return t, raise("Exception", "%s", msg)
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		if err := os.MkdirAll(t.dir, 0o755); err != nil {
			return t, err
		}
	}
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), t.name+"_"); ok {
			digits, _, _ := strings.Cut(rest, "_")
			n, _ := strconv.Atoi(digits)
			t.counter = max(t.counter, n)
		}
	}
	t.counter++
	return t, nil
}

// join is Python's os.path.join: an absolute second part stands alone.
func join(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// inside says whether path is dir or below it, by its text.
func inside(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

func commonPath(a, b string) string {
	for !inside(a, b) {
		a = filepath.Dir(a)
	}
	return a
}

// annotated splits "name [input]" into the name and its folder; without such
// an ending the folder is empty.
func (w *Worker) annotated(name string) (string, string) {
	for _, k := range []string{"output", "input", "temp"} {
		if strings.HasSuffix(name, "["+k+"]") {
			return strings.TrimSuffix(strings.TrimSuffix(name, "["+k+"]"), " "), w.dirOf(k)
		}
	}
	return name, ""
}

// dirOf is the folder of a type of file, empty for an unknown type.
func (w *Worker) dirOf(kind string) string {
	switch kind {
	case "output":
		return w.opts.OutputDir
	case "input":
		return w.opts.InputDir
	case "temp":
		return w.opts.tempDir()
	}
	return ""
}

// loadPath is the file that a Load node names. Unlike ComfyUI 0.3.64 and
// 0.8.0 (but like later ones) it never leaves the folder.
func (w *Worker) loadPath(name string) (string, bool) {
	name, dir := w.annotated(name)
	if dir == "" {
		dir = w.opts.InputDir
	}
	path := join(dir, name)
	return path, name != "" && inside(dir, path)
}

func checkLoadImage(w *Worker, v any) string {
	name := pyStr(v)
	path, ok := w.loadPath(name)
	if ok {
		_, err := os.Stat(path)
		ok = err == nil
	}
	if !ok {
		return "Invalid image file: " + name
	}
	return ""
}

func changedLoadImage(w *Worker, inputs *object) (string, error) {
	path, ok := w.loadPath(pyStr(inputs.at("image")))
	if !ok {
		return "", fmt.Errorf("%s is outside the input folder", pyStr(inputs.at("image")))
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// runLoadImage reads a picture and its mask (1 where the picture is
// transparent). All frames of a GIF make a batch. Orientation marks of cameras
// are not applied.
func runLoadImage(c *call) ([]any, *object, error) {
	path, ok := c.w.loadPath(c.text("image"))
	if !ok {
		return failed(raise("FileNotFoundError", "[Errno 2] No such file or directory: %s", pyRepr(path)))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return failed(err)
	}
	frames, err := decodeFrames(b)
	if err != nil {
		return failed(raise("PIL.UnidentifiedImageError", "cannot identify image file %s", pyRepr(path)))
	}
	size := frames[0].Bounds().Size()
	img, err := newTensor(len(frames), size.Y, size.X, 3)
	if err != nil {
		return failed(err)
	}
	mask := &tensor{b: len(frames), h: size.Y, w: size.X, pix: make([]float32, len(img.pix)/3)}
	alpha := false
	for i, f := range frames {
		fromImage(f, img.image(i), mask.image(i))
		alpha = alpha || hasAlpha(f)
	}
	if !alpha {
		mask = &tensor{b: len(frames), h: 64, w: 64, pix: make([]float32, len(frames)*64*64)}
	}
	return []any{img, mask}, nil, nil
}

func decodeFrames(b []byte) ([]image.Image, error) {
	if bytes.HasPrefix(b, []byte("GIF8")) {
		g, err := gif.DecodeAll(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		var frames []image.Image
		canvas := image.NewNRGBA(image.Rect(0, 0, g.Config.Width, g.Config.Height))
		for _, f := range g.Image {
			r := f.Bounds()
			for y := r.Min.Y; y < r.Max.Y; y++ {
				for x := r.Min.X; x < r.Max.X; x++ {
					if c := color.NRGBAModel.Convert(f.At(x, y)).(color.NRGBA); c.A > 0 {
						canvas.SetNRGBA(x, y, c)
					}
				}
			}
			still := *canvas
			still.Pix = append([]uint8(nil), canvas.Pix...)
			frames = append(frames, &still)
		}
		return frames, nil
	}
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return []image.Image{img}, nil
}

// fromImage fills a picture and a mask.
func fromImage(img image.Image, pix, mask []float32) {
	r := img.Bounds()
	i := 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			pix[3*i], pix[3*i+1], pix[3*i+2] = float32(c.R)/255, float32(c.G)/255, float32(c.B)/255
			mask[i] = 1 - float32(c.A)/255
			i++
		}
	}
}

// hasAlpha says whether the file has an alpha channel, or colours that are
// transparent; without one the mask is a black square.
func hasAlpha(img image.Image) bool {
	switch m := img.(type) {
	case *image.NRGBA, *image.NRGBA64, *image.NYCbCrA:
		return true
	case *image.Paletted:
		for _, c := range m.Palette {
			if _, _, _, a := c.RGBA(); a != 0xffff {
				return true
			}
		}
	}
	return false
}
