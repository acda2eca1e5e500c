// Package gallery shows pictures inside the cells of the screen. A view asks for
// a picture in a slot at a size in cells; the gallery fetches, scales and encodes
// it in a command (the newest wish wins), sends pixels to terminals that take
// them, and gives the view lines of text to draw: kitty placeholders or half
// blocks. It frees every picture that has left the screen.
package gallery

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"easel/tui/text"
)

// Mode is how pictures are drawn.
type Mode int

// The modes.
const (
	Blocks Mode = iota // half blocks, in any terminal with colours
	Kitty              // the terminal's own images, by placeholders
	None               // no colours: pictures are named, not drawn
)

// Limits on one picture.
const (
	fetchTimeout = 20 * time.Second
	firstID      = 40 // kitty ids, one byte so that they survive 256 colours
	lastID       = 254
)

// Source makes the encoded bytes (PNG, JPEG …) of a picture that fits in w×h
// pixels. It is called in a command.
type Source func(ctx context.Context, w, h int) ([]byte, error)

// Painter turns pictures into what a terminal takes.
type Painter interface {
	// Decode reads encoded bytes, refusing absurd sizes.
	Decode(data []byte) (image.Image, error)
	// Fit is the size in cells of a picture of w×h pixels inside cols×rows cells
	// of cw×ch pixels.
	Fit(w, h, cols, rows, cw, ch int) (c, r int)
	// Blocks draws img as exactly r lines of c cells.
	Blocks(img image.Image, c, r int) []string
	// Transmit is the escape sequence that sends img under id for c×r placeholder
	// cells of cw×ch pixels.
	Transmit(id int, img image.Image, c, r, cw, ch int, tmux bool) (string, error)
	// Placeholders are the r lines of c cells that show id.
	Placeholders(id, c, r int) []string
	// Delete is the sequence that frees id.
	Delete(id int, tmux bool) string
}

// Gallery holds the slots. Use it from Update only; Lines from View too.
type Gallery struct {
	ctx   context.Context
	paint Painter

	mode         Mode
	tmux         bool
	cellW, cellH int
	slots        map[string]*slot
	nextID       int
	rev          int
}

// slot is one place for a picture.
type slot struct {
	wish  wish // what should be shown
	shown *art // what is shown, nil while nothing is
	err   string
	busy  bool
	id    int // kitty id, 0 while it has none
}

// wish is one request; two wishes are the same when key and size are.
type wish struct {
	key        string
	cols, rows int
	src        Source
}

func (w wish) same(o wish) bool { return w.key == o.key && w.cols == o.cols && w.rows == o.rows }

// art is a picture ready to draw.
type art struct {
	key        string
	cols, rows int // of the wish
	c, r       int // cells it takes
	lines      []string
}

// paintedMsg answers a wish.
type paintedMsg struct {
	slot string
	wish wish
	id   int
	mode Mode
	art  *art
	raw  string
	err  error
}

// New makes a gallery that draws with p until ctx ends.
func New(ctx context.Context, p Painter) *Gallery {
	return &Gallery{ctx: ctx, paint: p, cellW: 8, cellH: 16, slots: map[string]*slot{}, nextID: firstID}
}

// Rev grows whenever what Lines returns may have changed.
func (g *Gallery) Rev() int { return g.rev }

// Mode is how pictures are drawn now.
func (g *Gallery) Mode() Mode { return g.mode }

// SetMode changes how pictures are drawn and paints anew what is shown.
func (g *Gallery) SetMode(m Mode, tmux bool) tea.Cmd {
	if g.mode == m && g.tmux == tmux {
		return nil
	}
	g.mode, g.tmux = m, tmux
	return g.Again()
}

// SetCell tells the size of a cell in pixels.
func (g *Gallery) SetCell(w, h int) tea.Cmd {
	if w < 1 || h < 1 || w > 200 || h > 400 || (w == g.cellW && h == g.cellH) {
		return nil
	}
	g.cellW, g.cellH = w, h
	return g.Again()
}

// Again paints every slot anew, for a terminal that forgot (resume, redraw).
func (g *Gallery) Again() tea.Cmd {
	g.rev++
	var cmds []tea.Cmd
	for name, s := range g.slots {
		if s.wish.src != nil {
			s.shown = nil
			cmds = append(cmds, g.start(name, s))
		}
	}
	return tea.Batch(cmds...)
}

// Want asks for the picture key, made by src, in slot name at cols×rows cells. It
// is cheap to call again with the same wish.
func (g *Gallery) Want(name, key string, cols, rows int, src Source) tea.Cmd {
	if cols < 4 || rows < 2 {
		return g.Drop(name)
	}
	s := g.slots[name]
	if s == nil {
		s = &slot{}
		g.slots[name] = s
	}
	w := wish{key: key, cols: cols, rows: rows, src: src}
	if s.wish.same(w) {
		return nil
	}
	s.wish, s.err = w, ""
	if g.mode == None {
		return nil
	}
	return g.start(name, s)
}

// start runs the slot's wish unless a run is in flight; that one starts the
// newest wish when it ends.
func (g *Gallery) start(name string, s *slot) tea.Cmd {
	if s.busy || g.mode == None || s.wish.src == nil {
		return nil
	}
	s.busy = true
	if g.mode == Kitty && s.id == 0 {
		s.id = g.newID()
	}
	id, w, mode, tmux, cw, ch, p, parent := s.id, s.wish, g.mode, g.tmux, g.cellW, g.cellH, g.paint, g.ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, fetchTimeout)
		defer cancel()
		m := paintedMsg{slot: name, wish: w, id: id, mode: mode}
		m.art, m.raw, m.err = paint(ctx, p, w, id, mode, tmux, cw, ch)
		return m
	}
}

func paint(ctx context.Context, p Painter, w wish, id int, mode Mode, tmux bool, cw, ch int) (*art, string, error) {
	pw, ph := w.cols*cw, w.rows*ch
	if mode == Blocks {
		cw, ch = 1, 2 // a cell is two pixels, one above the other
		pw, ph = w.cols*2, w.rows*4
	}
	data, err := w.src(ctx, pw, ph)
	if err != nil {
		return nil, "", err
	}
	img, err := p.Decode(data)
	if err != nil {
		return nil, "", err
	}
	b := img.Bounds()
	a := &art{key: w.key, cols: w.cols, rows: w.rows}
	a.c, a.r = p.Fit(b.Dx(), b.Dy(), w.cols, w.rows, cw, ch)
	if a.c < 1 || a.r < 1 {
		return nil, "", fmt.Errorf("%s", text.T("the picture does not fit here"))
	}
	if mode == Blocks {
		a.lines = p.Blocks(img, a.c, a.r)
		return a, "", nil
	}
	raw, err := p.Transmit(id, img, a.c, a.r, cw, ch, tmux)
	if err != nil {
		return nil, "", err
	}
	a.lines = p.Placeholders(id, a.c, a.r)
	return a, raw, nil
}

// newID is the next kitty id that no slot uses.
func (g *Gallery) newID() int {
	for range lastID - firstID + 1 {
		id := g.nextID
		g.nextID++
		if g.nextID > lastID {
			g.nextID = firstID
		}
		if !g.uses(id) {
			return id
		}
	}
	return lastID
}

func (g *Gallery) uses(id int) bool {
	for _, s := range g.slots {
		if s.id == id {
			return true
		}
	}
	return false
}

// Update takes the gallery's own messages; ok is false for any other.
func (g *Gallery) Update(msg tea.Msg) (cmd tea.Cmd, ok bool) {
	m, ok := msg.(paintedMsg)
	if !ok {
		return nil, false
	}
	s := g.slots[m.slot]
	if s == nil { // dropped meanwhile
		return nil, true
	}
	s.busy = false
	if m.mode != g.mode || m.id != s.id && m.mode == Kitty {
		return g.start(m.slot, s), true
	}
	g.rev++
	var cmds []tea.Cmd
	switch {
	case m.err != nil && g.ctx.Err() == nil && m.wish.same(s.wish):
		s.err, s.shown = m.err.Error(), nil
	case m.err == nil:
		s.shown = m.art
		if m.raw != "" {
			cmds = append(cmds, tea.Raw(m.raw))
		}
	}
	if !m.wish.same(s.wish) {
		cmds = append(cmds, g.start(m.slot, s))
	}
	return tea.Batch(cmds...), true
}

// Drop empties a slot and frees its picture.
func (g *Gallery) Drop(name string) tea.Cmd {
	s := g.slots[name]
	if s == nil {
		return nil
	}
	delete(g.slots, name)
	g.rev++
	if s.id == 0 {
		return nil
	}
	return tea.Raw(g.paint.Delete(s.id, g.tmux))
}

// Free is the sequence that frees every picture, for when the console ends.
func (g *Gallery) Free() string {
	var b strings.Builder
	for _, s := range g.slots {
		if s.id != 0 {
			b.WriteString(g.paint.Delete(s.id, g.tmux))
		}
	}
	return b.String()
}

// Shown says which key a slot shows, "" when none, and why not.
func (g *Gallery) Shown(name string) (key, err string) {
	s := g.slots[name]
	if s == nil {
		return "", ""
	}
	if s.shown == nil {
		return "", s.err
	}
	return s.shown.key, s.err
}

// Lines is the slot drawn in cols×rows cells, centred; ok is false while there is
// nothing to draw. A picture painted for another size is not drawn.
func (g *Gallery) Lines(name string, cols, rows int) (lines []string, ok bool) {
	s := g.slots[name]
	if s == nil || s.shown == nil || g.mode == None {
		return nil, false
	}
	a := s.shown
	if a.c > cols || a.r > rows {
		return nil, false
	}
	left := strings.Repeat(" ", (cols-a.c)/2)
	right := strings.Repeat(" ", cols-a.c-(cols-a.c)/2)
	blank := strings.Repeat(" ", cols)
	top := (rows - a.r) / 2
	lines = make([]string, rows)
	for i := range lines {
		if i < top || i >= top+len(a.lines) {
			lines[i] = blank
			continue
		}
		lines[i] = left + a.lines[i-top] + right
	}
	return lines, true
}

// Ask is the sequence that asks a terminal whether it takes kitty images (a
// query of one pixel) and how large its cells are. Inside tmux the query is
// passed through to the terminal outside.
func Ask(tmux bool) string {
	query := ansi.KittyGraphics([]byte("AAAA"), "i=31", "s=1", "v=1", "a=q", "t=d", "f=24")
	var b bytes.Buffer
	if tmux {
		b.WriteString(ansi.TmuxPassthrough(query))
	} else {
		b.WriteString(query)
	}
	b.WriteString("\x1b[16t") // size of a cell in pixels
	return b.String()
}
