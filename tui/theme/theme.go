// Package theme gives colours their roles. A view asks for a role (accent,
// muted, danger …), never for a colour; New builds them once for a dark or a
// light background. Every role that carries meaning is paired with a word or a
// symbol by whoever draws it, because some terminals have no colour.
package theme

import (
	"image/color"

	"charm.land/lipgloss/v2"
)

// Theme is the set of styles that the whole console draws with.
type Theme struct {
	Dark bool

	Text    lipgloss.Style // ordinary
	Strong  lipgloss.Style // names, figures that matter
	Muted   lipgloss.Style // units, ages, hints
	Faint   lipgloss.Style // empty part of a bar, separators
	Border  lipgloss.Style // frames
	Title   lipgloss.Style // titles in frames
	Focus   lipgloss.Style // frame title and marks of what has the keyboard
	Accent  lipgloss.Style // progress, the running job, keys in hints
	Good    lipgloss.Style // done, ready
	Warn    lipgloss.Style // waits, nearly full
	Danger  lipgloss.Style // failed
	Select  lipgloss.Style // the row under the cursor
	Match   lipgloss.Style // a search hit
	MatchOn lipgloss.Style // the search hit the cursor is on
	Key     lipgloss.Style // a key in help
	Cursor  lipgloss.Style // the cell under a text cursor
	Held    lipgloss.Style // held, special states
}

// New builds the theme for a dark or a light background.
func New(dark bool) *Theme {
	ld := lipgloss.LightDark(dark)
	c := func(light, dark string) color.Color { return ld(lipgloss.Color(light), lipgloss.Color(dark)) }
	fg := func(light, dark string) lipgloss.Style { return lipgloss.NewStyle().Foreground(c(light, dark)) }
	return &Theme{
		Dark: dark,
		// Ordinary text is the terminal's own colour: it reads on any background,
		// also where the terminal never says which it has, and costs no bytes.
		Text:    lipgloss.NewStyle(),
		Strong:  lipgloss.NewStyle().Bold(true),
		Muted:   fg("#5f647a", "#939bb9"),
		Faint:   fg("#8c909f", "#626781"),
		Border:  fg("#8b90a3", "#606787"),
		Title:   fg("#4a5075", "#a9b1d6").Bold(true),
		Focus:   fg("#2e5bd8", "#7aa2f7").Bold(true),
		Accent:  fg("#2e5bd8", "#7aa2f7"),
		Good:    fg("#38712c", "#9ece6a"),
		Warn:    fg("#8d5a09", "#e0af68"),
		Danger:  fg("#b8303f", "#f7768e"),
		Select:  lipgloss.NewStyle().Background(c("#dde3f5", "#283154")),
		Match:   lipgloss.NewStyle().Background(c("#f3dfa2", "#4d4020")).Foreground(c("#3b2f00", "#ffdf9e")),
		MatchOn: lipgloss.NewStyle().Background(c("#e0a030", "#e0af68")).Foreground(c("#1a1b26", "#1a1b26")).Bold(true),
		Key:     fg("#2e5bd8", "#7aa2f7").Bold(true),
		Cursor:  lipgloss.NewStyle().Reverse(true),
		Held:    fg("#7847bd", "#bb9af7"),
	}
}
