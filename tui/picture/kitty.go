package picture

import (
	"encoding/base64"
	"fmt"
	"image"
	"math"
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/kitty"

	"easel/backend/raster"
)

// DefaultMaxBytes is how many bytes Transmit sends at most when it is not told.
const DefaultMaxBytes = 100_000

// MaxCells is the largest number of columns or rows of a placeholder: kitty's table
// of diacritics has no more.
const MaxCells = 297

// Transmission says how a picture is sent to a terminal that speaks the kitty
// graphics protocol.
type Transmission struct {
	ID           int // 1–255, see IDs
	Cols, Rows   int // of its placeholder, at most MaxCells
	CellW, CellH int // size of a cell in pixels, 0 when unknown
	// Tmux wraps the sequences so that tmux (with allow-passthrough on) hands them on.
	Tmux bool
	// MaxBytes of the result, 0 is DefaultMaxBytes. A picture that is larger is sent
	// in 256 colours, then with fewer pixels.
	MaxBytes int
}

// Transmit gives the sequence that sends img and makes a virtual placement of it, to
// be shown by Placeholder. It is to be written out of band, not as part of a frame.
// An image that the terminal has under the same id is replaced.
func Transmit(img image.Image, t Transmission) (string, error) {
	if t.ID < 1 || t.ID > 255 {
		return "", fmt.Errorf("send a picture: id %d is not in 1–255", t.ID)
	}
	if t.Cols < 1 || t.Rows < 1 || t.Cols > MaxCells || t.Rows > MaxCells {
		return "", fmt.Errorf("send a picture: %d×%d cells", t.Cols, t.Rows)
	}
	if img.Bounds().Empty() {
		return "", fmt.Errorf("send a picture: it has no pixels")
	}
	limit := t.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxBytes
	}
	return t.wrap(encodeWithin(img, t.pixels(img), t.room(limit))), nil
}

// pixels is the size that the terminal shows, but no more than the picture has.
func (t Transmission) pixels(img image.Image) image.Point {
	cellW, cellH := t.CellW, t.CellH
	if cellW <= 0 || cellH <= 0 {
		cellW, cellH = defaultCellW, defaultCellH
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	f := min(1, float64(t.Cols*cellW)/float64(w), float64(t.Rows*cellH)/float64(h))
	return image.Pt(max(1, int(float64(w)*f+0.5)), max(1, int(float64(h)*f+0.5)))
}

// chunkOverhead is what a chunk takes beside its 4096 characters: "ESC _G q=2,m=1;"
// and "ESC \", wrapped for tmux.
const chunkOverhead = 32

// room is how many bytes of PNG fit into a sequence of limit bytes.
func (t Transmission) room(limit int) int {
	chunks := limit/(kitty.MaxChunkSize+chunkOverhead) + 1
	return max(0, limit-chunks*chunkOverhead-96) / 4 * 3
}

// encodeWithin is img as a PNG of about size pixels and at most room bytes: in true
// colour if that fits, else in 256 colours, else smaller too. The smallest is 1×1,
// whatever the room.
func encodeWithin(img image.Image, size image.Point, room int) []byte {
	bands := sample(img, size)
	if estimate(plain(bands), size) <= room {
		if b := plain(Scale(img, size.X, size.Y)).png(); len(b) <= room {
			return b
		}
	}
	bytes := estimate(paletted(bands), size)
	for {
		if bytes <= room || size == image.Pt(1, 1) {
			b := paletted(Scale(img, size.X, size.Y)).png()
			if len(b) <= room || size == image.Pt(1, 1) {
				return b
			}
			bytes = len(b)
		}
		// The palette and the head do not shrink with the picture. Smaller pictures
		// have more detail to the pixel, hence the rest.
		fixed := min(pngFixed, bytes-1)
		f := math.Sqrt(float64(max(room-fixed, 1))/float64(bytes-fixed)) * 0.98
		f = min(max(f, 0.1), 0.95)
		size = image.Pt(max(1, int(float64(size.X)*f)), max(1, int(float64(size.Y)*f)))
		bytes = estimate(paletted(sample(img, size)), size)
	}
}

// pngFixed is about what a PNG takes beside its compressed pixels: head, palette, end.
const pngFixed = 860

// sample is some bands of the scaled picture, or all of a small one, without scaling
// the rest.
func sample(img image.Image, size image.Point) *image.RGBA {
	const bands, lines = 4, 12
	if size.Y <= 2*bands*lines {
		return Scale(img, size.X, size.Y)
	}
	s := raster.NewScaler(img, size.X, size.Y)
	out := image.NewRGBA(image.Rect(0, 0, size.X, bands*lines))
	for i := range bands {
		at := (2*i+1)*size.Y/(2*bands) - lines/2
		part := *out
		part.Pix = out.Pix[i*lines*out.Stride:]
		s.Lines(&part, at, at+lines)
	}
	return out
}

// estimate tells from a sample how many bytes the PNG of the whole picture takes.
func estimate(c canvas, size image.Point) int {
	return len(c.deflate())*size.Y/c.h + pngFixed
}

// wrap is the PNG as a sequence of chunks.
func (t Transmission) wrap(png []byte) string {
	data := base64.StdEncoding.EncodeToString(png)
	first := (&kitty.Options{
		Action: kitty.TransmitAndPut, Transmission: kitty.Direct, Format: kitty.PNG,
		ID: t.ID, Columns: t.Cols, Rows: t.Rows, VirtualPlacement: true, Quiet: 2,
	}).Options()
	var b strings.Builder
	b.Grow(len(data) + (len(data)/kitty.MaxChunkSize+1)*chunkOverhead + 128)
	for i := 0; i == 0 || i < len(data); i += kitty.MaxChunkSize {
		end := min(i+kitty.MaxChunkSize, len(data))
		opts := []string{"q=2"}
		if i == 0 {
			opts = first
		}
		more := "m=0"
		if end < len(data) {
			more = "m=1"
		}
		b.WriteString(passthrough(ansi.KittyGraphics([]byte(data[i:end]), append(opts, more)...), t.Tmux))
	}
	return b.String()
}

func passthrough(seq string, tmux bool) string {
	if tmux {
		return ansi.TmuxPassthrough(seq)
	}
	return seq
}

// Delete gives the sequence that frees a picture in the terminal, with its
// placements.
func Delete(id int, tmux bool) string {
	return passthrough(ansi.KittyGraphics(nil, "a=d", "d=I", "q=2", "i="+strconv.Itoa(id)), tmux)
}

// Placeholder gives the text that shows the picture: rows lines of cols cells, joined
// by newlines. Its foreground colour is the id, as an indexed colour: that survives
// profiles TrueColor and ANSI256, and no lower ones. Cells may be cut off and
// overlaid as other text.
func Placeholder(id, cols, rows int) string {
	cols, rows = min(cols, MaxCells), min(rows, MaxCells)
	if cols < 1 || rows < 1 {
		return ""
	}
	colour := "\x1b[38;5;" + strconv.Itoa(id) + "m"
	var b strings.Builder
	b.Grow(rows * (len(colour) + cols*9 + 8))
	for r := range rows {
		if r > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(colour)
		for c := range cols {
			b.WriteRune(kitty.Placeholder)
			b.WriteRune(kitty.Diacritic(r))
			b.WriteRune(kitty.Diacritic(c))
		}
		b.WriteString("\x1b[39m")
	}
	return b.String()
}
