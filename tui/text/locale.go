package text

import (
	"slices"
	"strings"
)

// Choose is the language for a setting (config `language`) and an environment:
// the setting, else the locale of LC_ALL, LC_MESSAGES or LANG, the first that is
// set. What is not known is English, and so is a locale with another encoding
// than UTF-8: its terminal could not show what we write.
func Choose(setting string, environ []string) string {
	if slices.Contains(Languages(), setting) {
		return setting
	}
	name, charset := split(Locale(environ))
	if utf8(charset) || charset == "" {
		if name == "zh" || strings.HasPrefix(name, "zh_") || strings.HasPrefix(name, "zh-") {
			return Chinese
		}
	}
	return English
}

// Locale is the locale for messages, "" when none is set.
func Locale(environ []string) string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := lookup(environ, name); v != "" {
			return v
		}
	}
	return ""
}

func utf8(charset string) bool {
	c := strings.ToLower(charset)
	return c == "utf-8" || c == "utf8"
}

// split cuts a locale such as zh_CN.UTF-8@pinyin.
func split(locale string) (name, charset string) {
	locale, _, _ = strings.Cut(locale, "@")
	name, charset, _ = strings.Cut(locale, ".")
	return name, charset
}

// lookup is the last value of a variable.
func lookup(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}
