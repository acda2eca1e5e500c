// Package keys holds every key of the console, once. A screen takes the bindings
// it uses from here and never makes its own, so that a key has one meaning
// everywhere. What each key means is fixed by the project's console page; help is
// generated from these bindings.
package keys

import (
	"charm.land/bubbles/v2/key"

	"easel/tui/text"
)

// Map is all the bindings.
type Map struct {
	Up, Down, Left, Right, Top, Bottom, PageUp, PageDown key.Binding

	Open, Back, NextPane, PrevPane, NextTab, PrevTab key.Binding
	Mark, Range, Filter, Next, Prev, Sort            key.Binding

	Add, Cancel, Retry, MoveUp, MoveDown, More, Less key.Binding
	Pause, Hold, Trash, Copy, Full, Refresh          key.Binding

	Follow, Level, Wrap, NextError key.Binding

	Worker, Palette, Screens, Help, Redraw, Suspend, Leave key.Binding
}

func bind(help, desc string, ks ...string) key.Binding {
	return key.NewBinding(key.WithKeys(ks...), key.WithHelp(help, desc))
}

// New builds the bindings with their help in the language in use.
func New() Map {
	m := Map{}
	m.moves()
	m.verbs()
	m.global()
	return m
}

func (m *Map) moves() {
	t := text.T
	m.Up = bind("↑ k", t("up"), "up", "k")
	m.Down = bind("↓ j", t("down"), "down", "j")
	m.Left = bind("← h", t("left"), "left", "h")
	m.Right = bind("→ l", t("right"), "right", "l")
	m.Top = bind("g", t("to the top"), "g", "home")
	m.Bottom = bind("G", t("to the bottom"), "G", "end")
	m.PageUp = bind("pgup ctrl-u", t("a page up"), "pgup", "ctrl+u")
	m.PageDown = bind("pgdn ctrl-d", t("a page down"), "pgdown", "ctrl+d")
	m.Open = bind("enter", t("open"), "enter")
	m.Back = bind("esc", t("back"), "esc")
	m.NextPane = bind("tab", t("next pane"), "tab")
	m.PrevPane = bind("shift-tab", t("previous pane"), "shift+tab")
	m.NextTab = bind("]", t("next tab"), "]")
	m.PrevTab = bind("[", t("previous tab"), "[")
}

func (m *Map) verbs() {
	t := text.T
	m.Mark = bind("space", t("mark"), "space")
	m.Range = bind("v", t("mark a range"), "v")
	m.Filter = bind("/", t("filter, search"), "/")
	m.Next = bind("n", t("next match"), "n")
	m.Prev = bind("N", t("previous match"), "N")
	m.Sort = bind("s", t("sort"), "s")
	m.Add = bind("a", t("add to the queue"), "a")
	m.Cancel = bind("x", t("cancel"), "x")
	m.Retry = bind("t", t("try again"), "t")
	m.MoveUp = bind("K ctrl-↑", t("move up"), "K", "ctrl+up")
	m.MoveDown = bind("J ctrl-↓", t("move down"), "J", "ctrl+down")
	m.More = bind("+", t("priority up"), "+", "=")
	m.Less = bind("-", t("priority down"), "-")
	m.Pause = bind("p", t("pause, go on"), "p")
	m.Hold = bind("H", t("hold, release"), "H")
	m.Trash = bind("d", t("clear"), "d")
	m.Copy = bind("y", t("copy"), "y")
	m.Full = bind("f", t("full screen"), "f")
	m.Refresh = bind("r", t("refresh"), "r")
	m.Follow = bind("F", t("follow"), "F")
	m.Level = bind("L", t("level"), "L")
	m.Wrap = bind("W", t("wrap"), "W")
	m.NextError = bind("E", t("next error"), "E")
}

func (m *Map) global() {
	t := text.T
	m.Worker = bind("w", t("worker"), "w")
	m.Palette = bind(":", t("every action"), ":", "ctrl+k")
	m.Screens = bind("0", t("every screen"), "0", "alt+0")
	m.Help = bind("?", t("help"), "?")
	m.Redraw = bind("ctrl-l", t("draw again"), "ctrl+l")
	m.Suspend = bind("ctrl-z", t("suspend"), "ctrl+z")
	m.Leave = bind("q", t("leave"), "q", "ctrl+c")
}
