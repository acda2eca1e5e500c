// Package gallery shows pictures inside the cells of the screen. A view asks for
// a picture in a slot at a size in cells; the gallery fetches, scales and encodes
// it in a command (the newest wish wins), sends pixels to terminals that take
// them, and gives the view lines of text to draw: kitty placeholders or half
// blocks. It frees every picture that has left the screen.
package gallery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"easel/tui/picture"
	"easel/tui/text"
)

// Limits on pictures.
const (
	fetchTimeout = 20 * time.Second
	cacheBytes   = 4 << 20
	liveBytes    = 32_000                 // of one live preview
	liveEvery    = 300 * time.Millisecond // between two live previews of a slot
)

// Live begins the key of a picture that is shown once and replaced soon, a
// preview: it is sent smaller, not more often than a few times a second, and not
// kept.
const Live = "live:"

// Source makes the encoded bytes (PNG, JPEG …) of a picture that fits in w×h
// pixels. It is called in a command.
type Source func(ctx context.Context, w, h int) ([]byte, error)

// Gallery holds the slots. Use it from Update only; Lines from View too.
type Gallery struct {
	ctx     context.Context
	caps    picture.Caps
	profile colorprofile.Profile
	ids     *picture.IDs
	cache   *picture.Cache
	slots   map[string]*slot
	rev     int
}

// slot is one place for a picture.
type slot struct {
	wish  wish // what should be shown
	shown *art // what is shown, nil while nothing is
	err   string
	busy  bool
	last  time.Time // when the last run was started
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
	to   *slot
	wish wish
	how  how
	art  *art
	raw  string
	err  error
}

// how is everything besides the wish that a painted picture depends on.
type how struct {
	id      int // kitty id, 0 for blocks
	proto   picture.Protocol
	profile colorprofile.Profile
	tmux    bool
	cw, ch  int
}

// New makes a gallery that works until ctx ends, for a terminal of which caps is
// known so far.
func New(ctx context.Context, caps picture.Caps) *Gallery {
	return &Gallery{
		ctx: ctx, caps: caps, profile: colorprofile.TrueColor, slots: map[string]*slot{},
		ids: picture.NewIDs(os.Getpid()), cache: picture.NewCache(cacheBytes),
	}
}

// Rev grows whenever what Lines returns may have changed.
func (g *Gallery) Rev() int { return g.rev }

// Protocol is how pictures are drawn now.
func (g *Gallery) Protocol() picture.Protocol { return g.caps.Protocol(g.profile) }

// Query is what to ask the terminal, "" when it must not be asked.
func (g *Gallery) Query() string { return g.caps.Query() }

// Answer takes a message of the terminal, which may be an answer to Query, and
// paints anew when it changes how pictures are drawn.
func (g *Gallery) Answer(msg tea.Msg) tea.Cmd {
	before, cw, ch := g.Protocol(), g.caps.CellW, g.caps.CellH
	switch msg := msg.(type) {
	case tea.TerminalVersionMsg:
		g.caps.Terminal(msg.Name)
	case tea.ColorProfileMsg:
		if g.profile == msg.Profile {
			return nil
		}
		g.profile = msg.Profile
		return g.Again()
	case tea.WindowSizeMsg:
		g.caps.Resize(msg.Width, msg.Height)
	default:
		g.caps.Update(msg)
	}
	if g.Protocol() != before || g.Protocol() == picture.Kitty && (g.caps.CellW != cw || g.caps.CellH != ch) {
		return g.Again()
	}
	return nil
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
	w := wish{key: key, cols: min(cols, picture.MaxCells), rows: min(rows, picture.MaxCells), src: src}
	if s.wish.same(w) {
		return nil
	}
	s.wish, s.err = w, ""
	return g.start(name, s)
}

// start runs the slot's wish unless a run is in flight; that one starts the
// newest wish when it ends.
func (g *Gallery) start(name string, s *slot) tea.Cmd {
	if s.busy || s.wish.src == nil {
		return nil
	}
	s.busy = true
	h := how{proto: g.Protocol(), profile: g.profile, tmux: g.caps.Tmux, cw: g.caps.CellW, ch: g.caps.CellH}
	if h.proto == picture.Kitty {
		h.id, _, _ = g.ids.Get(name)
	}
	w, cache, parent := s.wish, g.cache, g.ctx
	wait := time.Duration(0)
	if now := time.Now(); strings.HasPrefix(w.key, Live) {
		wait = liveEvery - now.Sub(s.last)
		s.last = now.Add(max(wait, 0))
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, fetchTimeout)
		defer cancel()
		if wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		m := paintedMsg{slot: name, to: s, wish: w, how: h}
		m.art, m.raw, m.err = paint(ctx, cache, w, h)
		return m
	}
}

// paint makes w ready to draw. It blocks while the picture is fetched.
func paint(ctx context.Context, cache *picture.Cache, w wish, h how) (*art, string, error) {
	cw, ch := h.cw, h.ch
	if cw == 0 || ch == 0 {
		cw, ch = 8, 16
	}
	pw, ph := w.cols*cw, w.rows*ch
	if h.proto == picture.Blocks {
		pw, ph = w.cols*2, w.rows*4 // twice what is drawn, for a better mean
	}
	data, err := w.src(ctx, pw, ph)
	if err != nil {
		return nil, "", err
	}
	iw, ih, err := picture.Size(data)
	if err != nil {
		return nil, "", err
	}
	a := &art{key: w.key, cols: w.cols, rows: w.rows}
	if a.c, a.r = picture.Fit(iw, ih, w.cols, w.rows, h.cw, h.ch); a.c < 1 || a.r < 1 {
		return nil, "", errors.New(text.T("the picture does not fit here"))
	}
	draw := func() (string, error) {
		img, err := picture.Decode(data)
		if err != nil {
			return "", err
		}
		if h.proto == picture.Blocks {
			return picture.HalfBlocks(img, a.c, a.r, h.profile), nil
		}
		t := picture.Transmission{ID: h.id, Cols: a.c, Rows: a.r, CellW: h.cw, CellH: h.ch, Tmux: h.tmux}
		if strings.HasPrefix(w.key, Live) {
			t.MaxBytes = liveBytes
		}
		return picture.Transmit(img, t)
	}
	out, err := cached(cache, w, h, a, draw)
	if err != nil {
		return nil, "", err
	}
	if h.proto == picture.Blocks {
		a.lines = strings.Split(out, "\n")
		return a, "", nil
	}
	a.lines = strings.Split(picture.Placeholder(h.id, a.c, a.r), "\n")
	return a, out, nil
}

// cached is what draw makes, kept for the next time unless w is a live preview.
func cached(cache *picture.Cache, w wish, h how, a *art, draw func() (string, error)) (string, error) {
	if strings.HasPrefix(w.key, Live) {
		return draw()
	}
	k := picture.Key{Source: fmt.Sprintf("%s#%d#%d", w.key, h.id, h.profile), Cols: a.c, Rows: a.r, Protocol: h.proto}
	if s, ok := cache.Get(k); ok {
		return s, nil
	}
	s, err := draw()
	if err == nil {
		cache.Put(k, s)
	}
	return s, err
}

// Update takes the gallery's own messages; ok is false for any other.
func (g *Gallery) Update(msg tea.Msg) (cmd tea.Cmd, ok bool) {
	m, ok := msg.(paintedMsg)
	if !ok {
		return nil, false
	}
	s := g.slots[m.slot]
	if s == nil || s != m.to { // dropped meanwhile: the picture was never sent
		return nil, true
	}
	s.busy = false
	if m.how.proto != g.Protocol() || m.how.profile != g.profile {
		return g.start(m.slot, s), true
	}
	g.rev++
	var cmds []tea.Cmd
	same := m.wish.same(s.wish)
	switch {
	case m.err == nil:
		s.shown = m.art
		if m.raw != "" {
			cmds = append(cmds, tea.Raw(m.raw))
		}
	case same && g.ctx.Err() == nil:
		s.err, s.shown = m.err.Error(), nil
	}
	if !same {
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
	if id, ok := g.ids.Release(name); ok {
		return tea.Raw(picture.Delete(id, g.caps.Tmux))
	}
	return nil
}

// Free is the sequence that frees every picture, for when the console ends.
func (g *Gallery) Free() string {
	var b strings.Builder
	for _, id := range g.ids.All() {
		b.WriteString(picture.Delete(id, g.caps.Tmux))
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
	if s == nil || s.shown == nil {
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
