package text

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"easel/assets"
)

// The languages there are.
const (
	English = "en"
	Chinese = "zh-CN"
)

// Languages lists the languages, English first.
func Languages() []string { return []string{English, Chinese} }

// NameOf is a language's name in that language itself, as a list of languages
// shows it.
func NameOf(lang string) string {
	switch lang {
	case English:
		return "English"
	case Chinese:
		return "中文"
	}
	return lang
}

// catalogue is one language other than English.
type catalogue struct {
	lang  string
	words map[string]string // English, formats included → the same in lang

	once     sync.Once // for what follows: sentences are rare at start-up
	patterns index

	// mu guards kept.
	mu   sync.Mutex
	kept map[string]string // answers of said; screens ask the same at every frame
}

func (c *catalogue) has(en string) bool { _, ok := c.words[en]; return ok }

// loaded are the catalogues that were read.
var loaded sync.Map // string → *catalogue

// load reads a catalogue, once.
func load(lang string) (*catalogue, error) {
	if c, ok := loaded.Load(lang); ok {
		return c.(*catalogue), nil
	}
	b, err := assets.Locales.ReadFile(path.Join("locales", lang+".toml"))
	if err != nil {
		return nil, fmt.Errorf("language %q: there is no such translation; there are %s", lang, strings.Join(Languages(), ", "))
	}
	words, err := Parse(string(b))
	if err != nil {
		return nil, fmt.Errorf("language %s: %w", lang, err)
	}
	c, _ := loaded.LoadOrStore(lang, &catalogue{lang: lang, words: words})
	return c.(*catalogue), nil
}

// Parse reads a catalogue: lines of the form "English" = "translation", blank
// lines, and comments that begin with #. That is TOML, read by hand because it
// is read before the first frame.
func Parse(file string) (map[string]string, error) {
	words := make(map[string]string, strings.Count(file, "\n"))
	n := 0
	for line := range strings.Lines(file) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		en, rest, err := quoted(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		eq := strings.TrimSpace(rest)
		if !strings.HasPrefix(eq, "=") {
			return nil, fmt.Errorf("line %d: no = after the English text", n)
		}
		tr, rest, err := quoted(strings.TrimSpace(eq[1:]))
		if err != nil || rest != "" {
			return nil, fmt.Errorf("line %d: the translation is not one quoted text", n)
		}
		if _, twice := words[en]; twice {
			return nil, fmt.Errorf("line %d: %q is there twice", n, en)
		}
		words[en] = tr
	}
	return words, nil
}

// quoted takes a basic string of TOML from the beginning of s. Its escapes are
// among those of Go.
func quoted(s string) (text, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil || q[0] != '"' {
		return "", "", fmt.Errorf("no text in double quotes")
	}
	text, err = strconv.Unquote(q)
	return text, s[len(q):], err
}
