package cmd

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"easel/assets"
	"easel/tui/text"
)

// interfaceDirs say what people read by text.T; engineDirs make sentences that
// text.Said translates.
var (
	interfaceDirs = []string{"tui", "views", "cmd"}
	engineDirs    = []string{"backend", "config", "gpu"}
)

// chinese is the catalogue as it is in the file.
func chinese(t testing.TB) map[string]string {
	t.Helper()
	b, err := assets.Locales.ReadFile("locales/" + text.Chinese + ".toml")
	if err != nil {
		t.Fatal(err)
	}
	words, err := text.Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return words
}

// helpTexts are the texts of every command's help.
func helpTexts() []phrase {
	var all []phrase
	add := func(s, at string) {
		if strings.TrimSpace(s) != "" {
			all = append(all, phrase{key: s, at: at, must: true})
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		at := "help of " + c.CommandPath()
		add(c.Short, at)
		add(c.Long, at)
		add(c.Example, at)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { add(f.Usage, at+" --"+f.Name) })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
	return all
}

// phrases are all texts with a place where each is.
func phrases(t testing.TB) (must, may []phrase) {
	ui := readSources(t, interfaceDirs...)
	engine := readSources(t, engineDirs...)
	cmds := readSources(t, "cmd")
	list := append(spoken(t, ui), helpTexts()...)
	list = append(list, made(cmds)...)
	list = append(list, made(engine)...)
	for _, p := range list {
		if p.must {
			must = append(must, p)
		} else {
			may = append(may, p)
		}
	}
	return must, may
}

// TestLanguageIsComplete finds English without Chinese, and Chinese that nothing
// says any more. EASEL_MISSING=FILE writes what is missing there.
func TestLanguageIsComplete(t *testing.T) {
	have := chinese(t)
	must, may := phrases(t)
	var missing, better []string
	used := map[string]bool{}
	said := map[string]bool{}
	for _, p := range slices.Concat(must, may) {
		used[p.key] = true
		if _, ok := have[p.key]; ok || p.one || said[p.key] {
			continue
		}
		said[p.key] = true
		if p.must {
			missing = append(missing, p.key)
			t.Errorf("%s: no translation of %q", p.at, p.key)
		} else {
			better = append(better, p.key)
		}
	}
	for key := range have {
		if !used[key] {
			t.Errorf("nothing says %q any more", key)
		}
	}
	t.Logf("%d texts, %d of the engine's not translated", len(used), len(better))
	if file := os.Getenv("EASEL_MISSING"); file != "" {
		write := func(name string, list []string) {
			var b strings.Builder
			for _, s := range list {
				b.WriteString(strings.ReplaceAll(s, "\n", `\n`) + "\n")
			}
			if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(file, missing)
		write(file+".may", better)
	}
}

// TestLanguageVerbsAgree compares the verbs of both languages: the same
// arguments, printed by the same verbs, in any order.
func TestLanguageVerbsAgree(t *testing.T) {
	for en, zh := range chinese(t) {
		if a, b := text.Verbs(en), text.Verbs(zh); !slices.Equal(a, b) {
			t.Errorf("%q has the verbs %v, its translation %q %v", en, a, zh, b)
		}
	}
}
