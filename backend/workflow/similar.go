package workflow

import (
	"path"
	"slices"
	"strings"

	"easel/config/near"
)

// similar lists at most n of names that could be meant by s, the best first:
// the same file in another folder, the same but for case or punctuation, one
// that holds the other, or one that is a few letters away.
func similar(s string, names []string, n int) []string {
	type scored struct {
		name  string
		score int
	}
	var list []scored
	want := fold(s)
	for _, name := range names {
		if score := unlike(want, s, name); score >= 0 {
			list = append(list, scored{name, score})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int { return a.score - b.score })
	out := make([]string, 0, min(n, len(list)))
	for _, item := range list[:min(n, len(list))] {
		out = append(out, item.name)
	}
	return out
}

// unlike says how far a name is from s, -1 when it is not near. want is fold(s).
func unlike(want, s, name string) int {
	if len(s) > 200 || len(name) > 200 {
		return -1
	}
	have := fold(name)
	switch {
	case have == want:
		return 0
	case base(name) != "" && strings.EqualFold(base(name), base(s)):
		return 1
	case want == "" || have == "":
		return -1
	case len(want) >= 4 && strings.Contains(have, want), len(have) >= 4 && strings.Contains(want, have):
		return 2 + abs(len(have)-len(want))/4
	}
	stem, other := fold(base(s)), fold(base(name))
	if d := near.Distance(stem, other); d <= max(2, min(len(stem), len(other))/3) {
		return 3 + 2*d
	}
	return -1
}

// base is the last part of a path of either kind of system, without extension.
func base(s string) string {
	s = path.Base(strings.ReplaceAll(s, `\`, "/"))
	return strings.TrimSuffix(s, path.Ext(s))
}

// fold leaves of a name what people remember: letters and digits, lower case.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" _-.,/\\()[]", r) {
			return -1
		}
		return r
	}, strings.ToLower(s))
}

func abs(n int) int { return max(n, -n) }
