// Package screen is the contract between the shell (package tui) and the screens
// (packages under views): what a screen offers, and what it may ask of the shell.
// It draws nothing itself.
package screen

import (
	"context"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"easel/tui/gallery"
	"easel/tui/keys"
	"easel/tui/live"
	"easel/tui/theme"
)

// ID names a screen.
type ID string

// The screens, in the order of their digits.
const (
	Home      ID = "home"
	Queue     ID = "queue"
	Workflows ID = "workflows"
	Models    ID = "models"
	Nodes     ID = "nodes"
	Outputs   ID = "outputs"
	Logs      ID = "logs"
	Requests  ID = "requests"
	Settings  ID = "settings"
)

// Screen is one full screen. The shell calls every method from the goroutine of
// Update and View, and none of them does I/O: what takes time is a command.
type Screen interface {
	// Show is called when the screen comes to the front, Hide when it leaves it.
	Show() tea.Cmd
	Hide() tea.Cmd
	// SetSize gives the width and height of what View returns, in cells.
	SetSize(w, h int) tea.Cmd
	// Update takes data and mouse messages (with coordinates of the screen's own
	// top left corner), also while the screen is not in front.
	Update(msg tea.Msg) tea.Cmd
	// Actions are what the screen can do now; keys, help and palette come from
	// them.
	Actions() []Action
	// Typing reports whether a line of input has the keyboard; then keys go to
	// Type and no binding matches.
	Typing() bool
	Type(k tea.KeyPressMsg) tea.Cmd
	// Paste takes pasted text while Typing.
	Paste(s string) tea.Cmd
	// Copies is what `y` offers for the thing under the cursor.
	Copies() []Copy
	// View draws exactly the lines and cells of SetSize, side borders included.
	View() string
}

// Action is one thing that can be done, by a key, in the palette and in help.
type Action struct {
	Key   key.Binding
	Title string // in the palette: "Pause the queue"; "" keeps it out of there
	Hint  bool   // shown in the line of hints at the bottom
	Why   string // why it cannot be done now; "" when it can
	Do    func() tea.Cmd
}

// Copy is one line of the copy menu.
type Copy struct {
	Name string // "id", "path", "curl"
	Text string
}

// Tone says how serious a toast, banner or dialog is.
type Tone int

// The tones.
const (
	Info Tone = iota
	Good
	Warn
	Bad
)

// Dialog asks a question whose answers are listed. The first choice with Default
// set is under the cursor at first; without one the last.
type Dialog struct {
	Title   string
	Body    []string // clean sentences, wrapped by the shell
	Tone    Tone
	Choices []Choice
	// Own is true for a dialog that opens by itself: it ignores keys for a moment,
	// so that typing cannot answer it.
	Own bool
	// Check, when not "", is a box to tick ("do not ask again"); its state is given
	// to Done.
	Check string
}

// Choice is one answer of a dialog.
type Choice struct {
	Key     string // one letter; "" for none
	Label   string
	Note    string // more, in muted colour
	Why     string // why it cannot be chosen; "" when it can
	Default bool
	Do      func(checked bool) tea.Cmd // nil just closes
}

// Prompt asks for a line of text.
type Prompt struct {
	Title, Label, Value string
	Hint                string
	// Complete lists what the text could become, for tab; called in a command.
	Complete func(ctx context.Context, text string) []string
	Done     func(text string) tea.Cmd
}

// Shell is what a screen may ask of the root model. Calls are only made from
// Update and its callees.
type Shell interface {
	// Ask opens a dialog, Prompt a line of input.
	Ask(Dialog)
	Prompt(Prompt)
	// Toast says something in the status line for some seconds.
	Toast(tone Tone, text string)
	// Go switches to a screen.
	Go(id ID) tea.Cmd
}

// Env is what every screen is given. The shell changes its fields between calls;
// screens read them and keep the pointer, not the values.
type Env struct {
	Ctx   context.Context // ends when the console ends
	Theme *theme.Theme
	Keys  keys.Map
	State *live.State
	Pics  *gallery.Gallery
	Shell Shell
	Now   time.Time      // of the message being handled
	Loc   *time.Location // for clock times
	// Rev grows when something else than State changed what all screens look like:
	// theme, language, capabilities.
	Rev int
}

// CallTimeout bounds a call to the engine made for a key press.
const CallTimeout = 10 * time.Second

// Call is a command that runs fn with a bounded context.
func (e *Env) Call(fn func(ctx context.Context) tea.Msg) tea.Cmd {
	parent := e.Ctx
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(parent, CallTimeout)
		defer cancel()
		return fn(ctx)
	}
}

// Find is the first enabled action whose key k is.
func Find(k tea.KeyPressMsg, actions []Action) (Action, bool) {
	for _, a := range actions {
		if key.Matches(k, a.Key) {
			return a, true
		}
	}
	return Action{}, false
}

// SaidMsg is the answer of a call that a person should hear about: the shell
// shows it as a toast, in Bad tone when Err is set.
type SaidMsg struct {
	Tone Tone
	Text string
	Err  error
}
