package tui

import (
	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"easel/tui/keys"
	"easel/tui/screen"
	"easel/tui/text"
)

// languages are the actions that change over to another language. They have no
// key: they are in the palette, each named in its own language as well.
func (m *Model) languages() []screen.Action {
	var as []screen.Action
	for _, lang := range text.Languages() {
		if lang == text.Language() {
			continue
		}
		as = append(as, screen.Action{
			Key: key.NewBinding(), Title: text.T("Language: %s", text.NameOf(lang)),
			Do: func() tea.Cmd { m.speak(lang); return nil },
		})
	}
	return as
}

// speak changes the language while the console runs, until it is left; the
// setting `language` is for good. Screens draw anew because Rev grows.
func (m *Model) speak(lang string) {
	if err := text.Use(lang); err != nil {
		m.say(screen.Bad, err.Error())
		return
	}
	m.env.Keys = keys.New()
	names := doorNames()
	for i := range m.doors {
		d := &m.doors[i]
		d.name = names[d.id]
		d.key.SetHelp(d.key.Help().Key, d.name)
	}
	m.env.Rev++
	m.dirty = true
	m.say(screen.Good, text.T("Language: %s; `easel config set language %s` keeps it", text.NameOf(lang), lang))
}

// doorNames are the names of the screens in the language in use.
func doorNames() map[screen.ID]string {
	t := text.T
	return map[screen.ID]string{
		screen.Home: t("home"), screen.Queue: t("queue"), screen.Workflows: t("workflows"), screen.Models: t("models"),
		screen.Nodes: t("nodes"), screen.Outputs: t("outputs"), screen.Logs: t("logs"), screen.Requests: t("requests"),
		screen.Settings: t("settings"),
	}
}
