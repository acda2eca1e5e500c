package cmd

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"easel/config"
	"easel/tui/text"
)

// chooseLanguage sets the language of everything that is printed for people:
// config `language`, else the locale. JSON, paths, ids and exit codes are the
// same in every language. A configuration that cannot be read is reported by the
// command that needs it, not here.
func (a *app) chooseLanguage() {
	setting := ""
	if cfg, _, err := config.Load(config.Path(a.environ), a.environ); err == nil {
		setting = cfg.Language
	}
	if text.Use(text.Choose(setting, a.environ)) != nil {
		_ = text.Use(text.English) // a broken catalogue must not keep anyone from working
	}
}

// localise puts the help of a command and of all under it into the language in
// use. The names of commands and flags stay.
func localise(c *cobra.Command) {
	if text.Language() == text.English {
		return
	}
	c.Short, c.Long, c.Example = text.T(c.Short), text.T(c.Long), text.T(c.Example)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) { f.Usage = text.T(f.Usage) })
	if c.HasParent() {
		for _, sub := range c.Commands() {
			localise(sub)
		}
		return
	}
	c.SetUsageTemplate(usageTemplate(c.UsageTemplate()))
	for _, sub := range c.Commands() {
		localise(sub)
	}
}

// usageTemplate is cobra's template with its headings in the language in use.
func usageTemplate(t string) string {
	return strings.NewReplacer(
		"Usage:", text.T("Usage:"), "Aliases:", text.T("Aliases:"), "Examples:", text.T("Examples:"),
		"Available Commands:", text.T("Available Commands:"), "Additional Commands:", text.T("Additional Commands:"),
		"Global Flags:", text.T("Global Flags:"), "Additional help topics:", text.T("Additional help topics:"), "Flags:", text.T("Flags:"),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`, text.T(`"{{.CommandPath}} [command] --help" says more about a command.`),
	).Replace(t)
}
