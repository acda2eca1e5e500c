package picture

import (
	"strings"
	"time"

	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
)

// Protocol is a way of showing pictures.
type Protocol int

// The ways.
const (
	Blocks Protocol = iota // half blocks, or characters without colour
	Kitty                  // kitty graphics with placeholders
)

// String names the way.
func (p Protocol) String() string {
	if p == Kitty {
		return "kitty"
	}
	return "blocks"
}

// queryID is the id of the picture that Query asks about.
const queryID = 31

// AnswerWait is how long an answer to Query may take. No answer means that the terminal
// cannot. In tmux the answer comes after tmux's own answers to other questions, so
// these are no fence.
const AnswerWait = 500 * time.Millisecond

// Caps is what is known of the terminal. The zero value is a terminal that can show
// half blocks. It is a value: hold it in a model and call Update with its messages.
type Caps struct {
	Tmux bool // inside tmux
	// Mute says that the terminal must not be asked: it would print the question.
	Mute bool
	// NoPlaceholders says that the terminal speaks kitty graphics without Unicode
	// placeholders (WezTerm, Konsole), which is no use here.
	NoPlaceholders bool

	Graphics     bool // the terminal answered OK to the kitty query
	CellW, CellH int  // size of a cell in pixels, 0 when unknown

	pixelW, pixelH int // of the window, 0 when unknown
	cols, rows     int // of the window, 0 when unknown
}

// NewCaps reads what the environment tells (lines NAME=value).
func NewCaps(environ []string) Caps {
	env := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	term := env["TERM"]
	c := Caps{Tmux: env["TMUX"] != ""}
	if !c.Tmux {
		c.Mute = term == "" || term == "dumb" || term == "linux" || strings.HasPrefix(term, "screen") ||
			env["STY"] != "" || env["ZELLIJ"] != ""
	}
	c.NoPlaceholders = env["KONSOLE_VERSION"] != "" || env["WEZTERM_PANE"] != "" || env["TERM_PROGRAM"] == "WezTerm"
	return c
}

// Query is the sequence that asks the terminal whether it can show kitty graphics, how
// large a cell is, and what its name is; "" when it must not be asked. Hand the answers
// to Update.
func (c Caps) Query() string {
	if c.Mute {
		return ""
	}
	graphics := ansi.KittyGraphics([]byte("AAAA"), "i=31", "s=1", "v=1", "a=q", "t=d", "f=24")
	const cell, name = "\x1b[16t", "\x1b[>0q"
	if c.Tmux {
		// tmux answers for the cell itself when it knows; the terminal outside has
		// the last word about the rest.
		return ansi.TmuxPassthrough(graphics) + cell + ansi.TmuxPassthrough(name)
	}
	return graphics + cell + name
}

// Update takes an answer of the terminal, as Bubble Tea hands it on
// (uv.KittyGraphicsEvent, uv.CellSizeEvent, uv.PixelSizeEvent,
// uv.TerminalVersionEvent), and reports whether anything has changed.
func (c *Caps) Update(msg any) bool {
	before := *c
	switch msg := msg.(type) {
	case uv.KittyGraphicsEvent:
		if msg.Options.ID == queryID {
			c.Graphics = strings.HasPrefix(string(msg.Payload), "OK")
		}
	case uv.CellSizeEvent:
		if msg.Width > 0 && msg.Height > 0 {
			c.CellW, c.CellH = msg.Width, msg.Height
		}
	case uv.PixelSizeEvent:
		c.pixelW, c.pixelH = msg.Width, msg.Height
		c.divide()
	case uv.TerminalVersionEvent:
		c.Terminal(msg.Name)
	}
	return *c != before
}

// Resize tells the window's size in cells.
func (c *Caps) Resize(cols, rows int) {
	c.cols, c.rows = cols, rows
	c.divide()
}

// divide finds the size of a cell from that of the window, when nothing better is
// known.
func (c *Caps) divide() {
	if c.CellW == 0 && c.cols > 0 && c.rows > 0 && c.pixelW >= c.cols && c.pixelH >= c.rows {
		c.CellW, c.CellH = c.pixelW/c.cols, c.pixelH/c.rows
	}
}

// Terminal tells the terminal's name, the answer to XTVERSION: those that are known to
// have no placeholders get half blocks.
func (c *Caps) Terminal(name string) {
	name = strings.ToLower(name)
	if strings.Contains(name, "wezterm") || strings.Contains(name, "konsole") {
		c.NoPlaceholders = true
	}
}

// Protocol is the way to show pictures with the colours of the profile. The id of a
// kitty picture is a colour, which 16 colours do not let through.
func (c Caps) Protocol(profile colorprofile.Profile) Protocol {
	if c.Graphics && !c.NoPlaceholders && profile >= colorprofile.ANSI256 {
		return Kitty
	}
	return Blocks
}

// Fit is Fit with the size of the terminal's cells.
func (c Caps) Fit(imgW, imgH, cols, rows int) (int, int) {
	return Fit(imgW, imgH, min(cols, MaxCells), min(rows, MaxCells), c.CellW, c.CellH)
}
