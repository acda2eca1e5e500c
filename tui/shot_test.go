package tui

import (
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	uv "github.com/charmbracelet/ultraviolet"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// shoot writes a frame as a PNG into the directory EASEL_SHOTS, to be looked at;
// without it nothing happens. It is no assertion.
func shoot(t *testing.T, name, frame string, w, h int, dark bool) {
	dir := os.Getenv("EASEL_SHOTS")
	if dir == "" {
		return
	}
	data, err := os.ReadFile("/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf")
	if err != nil {
		t.Skip("no font to draw with")
	}
	f, err := opentype.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: 13, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		t.Fatal(err)
	}
	const cw, ch = 8, 16
	var bg, fg color.Color = color.RGBA{26, 27, 38, 255}, color.RGBA{192, 202, 245, 255}
	if !dark {
		bg, fg = color.RGBA{250, 250, 252, 255}, color.RGBA{52, 59, 88, 255}
	}
	buf := uv.NewScreenBuffer(w, h)
	uv.NewStyledString(frame).Draw(buf, buf.Bounds())
	img := image.NewRGBA(image.Rect(0, 0, w*cw, h*ch))
	draw.Draw(img, img.Bounds(), image.NewUniform(bg), image.Point{}, draw.Src)
	for y := range h {
		for x := range w {
			c := buf.CellAt(x, y)
			if c == nil || c.IsZero() {
				continue
			}
			cf, cb := c.Style.Fg, c.Style.Bg
			if cf == nil {
				cf = fg
			}
			if c.Style.Attrs&uv.AttrReverse != 0 {
				if cb == nil {
					cb = bg
				}
				cf, cb = cb, cf
			}
			r := image.Rect(x*cw, y*ch, (x+c.Width)*cw, (y+1)*ch)
			if cb != nil {
				draw.Draw(img, r, image.NewUniform(cb), image.Point{}, draw.Src)
			}
			switch c.Content {
			case "▀":
				draw.Draw(img, image.Rect(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+ch/2), image.NewUniform(cf), image.Point{}, draw.Src)
				continue
			case "▄":
				draw.Draw(img, image.Rect(r.Min.X, r.Min.Y+ch/2, r.Max.X, r.Max.Y), image.NewUniform(cf), image.Point{}, draw.Src)
				continue
			}
			d := font.Drawer{Dst: img, Src: image.NewUniform(cf), Face: face, Dot: fixed.P(x*cw, y*ch+12)}
			d.DrawString(c.Content)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(dir, name+".png"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := png.Encode(out, img); err != nil {
		t.Fatal(err)
	}
}
