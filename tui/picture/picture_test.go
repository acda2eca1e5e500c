package picture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi/kitty"
)

func TestFit(t *testing.T) {
	for _, tc := range []struct{ w, h, cols, rows, cw, ch, wantC, wantR int }{
		{1024, 1024, 80, 23, 8, 16, 46, 23},
		{1024, 1024, 20, 40, 8, 16, 20, 10},
		{1024, 1024, 80, 23, 0, 0, 46, 23},
		{1024, 1024, 80, 23, 10, 10, 23, 23},
		{1920, 1080, 80, 40, 8, 16, 80, 23},
		{1, 100000, 80, 23, 8, 16, 1, 23},
		{100000, 1, 80, 23, 8, 16, 80, 1},
		{0, 5, 80, 23, 8, 16, 0, 0},
		{5, 5, 0, 23, 8, 16, 0, 0},
		{1 << 40, 1 << 40, 10, 10, 1, 1, 10, 10},
	} {
		c, r := Fit(tc.w, tc.h, tc.cols, tc.rows, tc.cw, tc.ch)
		if c != tc.wantC || r != tc.wantR {
			t.Errorf("%+v gave %d×%d", tc, c, r)
		}
	}
}

func TestDecodeFormats(t *testing.T) {
	want, err := os.ReadFile("testdata/small.png")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Decode(want)
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("testdata/*.*")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		w, h, err := Size(b)
		if err != nil || w != 24 || h != 16 {
			t.Errorf("%s: %d×%d, %v", f, w, h, err)
		}
		img, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if d := difference(t, Scale(img, 24, 16), Scale(ref, 24, 16)); d > 9 {
			t.Errorf("%s differs by %.1f", f, d)
		}
		for n := range len(b) { // cut short anywhere: an error or a picture, no panic
			_, _ = Decode(b[:n])
		}
	}
	for _, b := range [][]byte{nil, []byte("GIF89a"), []byte("hello"), []byte("RIFF1234WEBP")} {
		if _, err := Decode(b); err == nil {
			t.Errorf("%q was decoded", b)
		}
	}
	if _, err := Decode([]byte("hello, world")); !errors.Is(err, ErrFormat) {
		t.Errorf("got %v", err)
	}
}

// hugePNG is the head of a PNG of that size.
func hugePNG(w, h uint32, depth byte) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint32(b, h)
	b = append(b, depth, 2, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
}

func TestDecodeRefusesTheHuge(t *testing.T) {
	for name, b := range map[string][]byte{
		"100000×100000":     hugePNG(100000, 100000, 8),
		"just over 64 MPix": hugePNG(8193, 8192, 8),
		"16 bits":           hugePNG(8000, 8000, 16),
		"wide":              hugePNG(1<<31-1, 1, 8),
		"a GIF of 65535²":   append([]byte("GIF89a\xff\xff\xff\xff\x00\x00\x00"), 0x2c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Decode(hugePNG(8192, 8192, 8)); err == nil || errors.Is(err, ErrTooLarge) {
		t.Errorf("64 MPix without data: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.*")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, h, err := Size(b); err != nil || w*h > 1<<20 {
			return // big ones are slow, and no different
		}
		img, err := Decode(b)
		if err != nil {
			return
		}
		if HalfBlocks(img, 8, 4, colorprofile.TrueColor) == "" {
			t.Fatal("nothing to see")
		}
		if _, err := Transmit(img, Transmission{ID: 1, Cols: 8, Rows: 4}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestScale(t *testing.T) {
	src := image.NewRGBA(image.Rect(0, 0, 4, 2))
	for i := range 4 {
		src.SetRGBA(i, 0, color.RGBA{uint8(40 * i), 0, 0, 255})
		src.SetRGBA(i, 1, color.RGBA{uint8(40 * i), 100, 0, 255})
	}
	got := Scale(src, 2, 1)
	if got.RGBAAt(0, 0) != (color.RGBA{20, 50, 0, 255}) || got.RGBAAt(1, 0) != (color.RGBA{100, 50, 0, 255}) {
		t.Errorf("averages %v %v", got.RGBAAt(0, 0), got.RGBAAt(1, 0))
	}
	if d := difference(t, Scale(src, 4, 2), src); d != 0 {
		t.Error("the same size is not the same picture")
	}
	if got := Scale(src, 8, 4); got.RGBAAt(0, 0) != src.RGBAAt(0, 0) || got.RGBAAt(7, 3) != src.RGBAAt(3, 1) {
		t.Error("enlarged wrongly")
	}
	if got := Scale(image.NewGray(image.Rectangle{}), 3, 3); got.Bounds().Dx() != 3 {
		t.Error("no pixels")
	}
}

// TestScaleReadsEveryKind gives the same picture in all kinds of memory, with an
// origin that is not 0,0.
func TestScaleReadsEveryKind(t *testing.T) {
	src := gradient(60, 40, true)
	r := image.Rect(-7, 5, 53, 45)
	want := Scale(src, 13, 9)
	palette := color.Palette{}
	for i := range 256 {
		palette = append(palette, color.NRGBA{uint8(i), uint8(i), uint8(i), 255})
	}
	for name, dst := range map[string]draw.Image{
		"RGBA": image.NewRGBA(r), "NRGBA": image.NewNRGBA(r), "RGBA64": image.NewRGBA64(r), "NRGBA64": image.NewNRGBA64(r),
		"sub": image.NewRGBA(image.Rect(-20, -20, 90, 90)).SubImage(r).(*image.RGBA),
	} {
		draw.Draw(dst, r, src, image.Point{}, draw.Src)
		if d := difference(t, Scale(dst, 13, 9), want); d > 1 {
			t.Errorf("%s differs by %.1f", name, d)
		}
	}
	opaque := gradient(60, 40, false)
	for name, dst := range map[string]draw.Image{"Gray": image.NewGray(r), "Paletted": image.NewPaletted(r, palette)} {
		draw.Draw(dst, r, opaque, image.Point{}, draw.Src)
		slow := image.NewRGBA(r)
		draw.Draw(slow, r, dst, r.Min, draw.Src)
		if d := difference(t, Scale(dst, 13, 9), Scale(slow, 13, 9)); d != 0 {
			t.Errorf("%s differs by %.1f", name, d)
		}
	}
}

func TestCaps(t *testing.T) {
	c := NewCaps([]string{"TERM=xterm-kitty"})
	if q := c.Query(); !strings.Contains(q, "i=31") || !strings.Contains(q, "\x1b[16t") || strings.Contains(q, "tmux;") {
		t.Errorf("asks %q", q)
	}
	if c.Protocol(colorprofile.TrueColor) != Blocks {
		t.Error("kitty without an answer")
	}
	if c.Update(uv.KittyGraphicsEvent{Options: kitty.Options{ID: 5}, Payload: []byte("OK")}) {
		t.Error("an answer about another picture counted")
	}
	if c.Update(uv.KittyGraphicsEvent{Options: kitty.Options{ID: 31}, Payload: []byte("EINVAL:x")}) || c.Graphics {
		t.Error("a refusal counted")
	}
	if !c.Update(uv.KittyGraphicsEvent{Options: kitty.Options{ID: 31}, Payload: []byte("OK")}) || c.Protocol(colorprofile.TrueColor) != Kitty {
		t.Error("the answer did not count")
	}
	if c.Protocol(colorprofile.ANSI256) != Kitty || c.Protocol(colorprofile.ANSI) != Blocks {
		t.Error("the id needs 256 colours")
	}
	if !c.Update(uv.CellSizeEvent{Width: 9, Height: 18}) || c.CellW != 9 || c.CellH != 18 {
		t.Error("cell size")
	}
	c.Update(uv.PixelSizeEvent{Width: 800, Height: 480})
	c.Resize(80, 24)
	if c.CellW != 9 {
		t.Error("the cell's own size has precedence")
	}
	if !c.Update(uv.TerminalVersionEvent{Name: "WezTerm 20240203"}) || c.Protocol(colorprofile.TrueColor) != Blocks {
		t.Error("WezTerm has no placeholders")
	}
	if c.Update("something else") {
		t.Error("a message of another kind counted")
	}

	c = Caps{}
	c.Resize(80, 24)
	if c.Update(uv.PixelSizeEvent{Width: 800, Height: 480}); c.CellW != 10 || c.CellH != 20 {
		t.Errorf("cell %d×%d", c.CellW, c.CellH)
	}
	if cols, rows := c.Fit(100, 100, 1000, 1000); cols > MaxCells || rows > MaxCells {
		t.Error("more cells than kitty can number")
	}
}

func TestCapsFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		env         []string
		mute, tmux  bool
		placeholder bool
	}{
		{[]string{"TERM=xterm-256color"}, false, false, true},
		{[]string{"TERM=tmux-256color", "TMUX=/tmp/x,1,0"}, false, true, true},
		{[]string{"TERM=screen-256color", "TMUX=/tmp/x,1,0"}, false, true, true},
		{[]string{"TERM=screen", "STY=1.x"}, true, false, true},
		{[]string{"TERM=linux"}, true, false, true},
		{[]string{"TERM=dumb"}, true, false, true},
		{nil, true, false, true},
		{[]string{"TERM=xterm-256color", "ZELLIJ=0"}, true, false, true},
		{[]string{"TERM=xterm-256color", "KONSOLE_VERSION=230801"}, false, false, false},
		{[]string{"TERM=xterm-256color", "TERM_PROGRAM=WezTerm"}, false, false, false},
	} {
		c := NewCaps(tc.env)
		if c.Mute != tc.mute || c.Tmux != tc.tmux || c.NoPlaceholders == tc.placeholder {
			t.Errorf("%v gave %+v", tc.env, c)
		}
		if (c.Query() == "") != tc.mute {
			t.Errorf("%v asks %q", tc.env, c.Query())
		}
	}
	q := NewCaps([]string{"TMUX=x"}).Query()
	if !strings.HasPrefix(q, "\x1bPtmux;\x1b\x1b_G") || !strings.Contains(q, "\x1b[16t") {
		t.Errorf("in tmux: %q", q)
	}
}

func TestIDs(t *testing.T) {
	a := NewIDs(-3)
	seen := map[int]string{}
	n := lastID - firstID + 1
	for i := range n {
		key := fmt.Sprint(i)
		id, fresh, evicted := a.Get(key)
		if !fresh || evicted != "" || id < firstID || id > lastID || seen[id] != "" {
			t.Fatalf("%s: id %d, fresh %v, evicted %q", key, id, fresh, evicted)
		}
		seen[id] = key
	}
	first, fresh, _ := a.Get("0")
	if fresh || seen[first] != "0" {
		t.Error("an id changed")
	}
	id, fresh, evicted := a.Get("new")
	if !fresh || evicted != "1" || seen[id] != "1" {
		t.Errorf("the oldest was not given away: %d, %q", id, evicted)
	}
	if got, ok := a.Release("new"); !ok || got != id {
		t.Error("release")
	}
	if _, ok := a.Release("new"); ok {
		t.Error("released twice")
	}
	if all := a.All(); len(all) != n-1 || slices.Contains(all, id) || !slices.IsSorted(all) {
		t.Errorf("all: %v", all)
	}
	a.Reset()
	if len(a.All()) != 0 {
		t.Error("reset")
	}
	if _, fresh, _ := a.Get("0"); !fresh {
		t.Error("known after a reset")
	}
}

func TestCache(t *testing.T) {
	c := NewCache(1000)
	key := func(s string) Key { return Key{Source: s, Cols: 1, Rows: 1} }
	c.Put(key("a"), strings.Repeat("a", 200))
	c.Put(key("b"), strings.Repeat("b", 200))
	if _, ok := c.Get(key("a")); !ok {
		t.Fatal("a is gone")
	}
	c.Put(key("c"), strings.Repeat("c", 200))
	if _, ok := c.Get(key("b")); ok {
		t.Error("b was used longest ago and is there")
	}
	if v, ok := c.Get(key("a")); !ok || len(v) != 200 {
		t.Error("a is gone")
	}
	c.Put(key("huge"), strings.Repeat("x", 1000))
	if _, ok := c.Get(key("huge")); ok || c.Bytes() > 1000 {
		t.Error("over the limit")
	}
	c.Put(key("a"), "short")
	if v, _ := c.Get(key("a")); v != "short" {
		t.Error("not replaced")
	}
	c.Put(Key{Source: "a", Cols: 9}, "other size")
	c.Forget("a")
	if _, ok := c.Get(key("a")); ok {
		t.Error("not forgotten")
	}
	c.Forget("c")
	if c.Bytes() != 0 {
		t.Errorf("%d bytes remain of nothing", c.Bytes())
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				k := key(fmt.Sprint(i * n % 17))
				c.Put(k, "x")
				c.Get(k)
			}
		})
	}
	wg.Wait()
}

func TestBudgets(t *testing.T) {
	if testing.Short() {
		t.Skip("paints a photo of 1024 pixels")
	}
	file := photoPNG(1024)
	if n := show(t, file, Kitty); n > 100_000 {
		t.Errorf("%d bytes as kitty", n)
	}
	if n := show(t, file, Blocks); n > 30_000 {
		t.Errorf("%d bytes as symbols", n)
	}
}
