package config

import (
	"sort"
	"strings"
	"unicode/utf8"

	"easel/config/near"
)

// unknown is the complaint about a key that does not exist.
func unknown(path string) string {
	best, score := "", 1<<30
	for _, k := range keys {
		if d := keyDistance(path, k.Path); d < score {
			best, score = k.Path, d
		}
	}
	if best != "" && score <= tolerance(path) {
		return "unknown key " + show(path) + ": did you mean " + best + "?"
	}
	section, _, found := strings.Cut(path, ".")
	var names []string
	for _, k := range keys {
		if found && k.section() == section {
			names = append(names, k.name())
		}
	}
	if len(names) > 0 {
		return "unknown key " + show(path) + ": [" + section + "] has " + strings.Join(names, ", ")
	}
	return "unknown key " + show(path) + ": `easel config init` writes every key there is"
}

// keyDistance compares whole paths, and last names with a small charge for
// standing in another section.
func keyDistance(path, known string) int {
	whole := distance(path, known)
	last := distance(lastName(path), lastName(known)) + 1
	return min(whole, last)
}

func lastName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func tolerance(s string) int { return max(2, utf8.RuneCountInString(lastName(s))/3) }

// meant is ": did you mean X?" for the nearest of names, "" when none is near.
func meant(s string, names []string, before, after string) string {
	best, score := "", 1<<30
	for _, name := range names {
		if d := distance(s, name); d < score {
			best, score = name, d
		}
	}
	if score > tolerance(s) {
		return ": there are " + before + strings.Join(names, after+", "+before) + after
	}
	return ": did you mean " + before + best + after + "?"
}

func nearestEnv(name string) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Env
	}
	best, score := "", 1<<30
	for _, known := range names {
		if d := distance(name, known); d < score {
			best, score = known, d
		}
	}
	if score > 4 {
		return ": `easel config init` writes every key there is"
	}
	return ": did you mean " + best + "?"
}

func sectionNames() []string {
	names := make([]string, 0, len(sectionDocs))
	for name := range sectionDocs {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// show is a name from a file, fit for a screen.
func show(s string) string { return clip(strings.Map(printable, s), 60) }

// distance compares two names without regard to case. Names longer than 64 bytes
// are never near.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 20
	}
	return near.Distance(strings.ToLower(a), strings.ToLower(b))
}
