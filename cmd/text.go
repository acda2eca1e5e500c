package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"easel/backend"
)

// clean takes out of s what a terminal would act on instead of show. What came
// from a file, a process or the network passes here before it is printed; line
// ends and tabs stay.
func clean(s string) string {
	s = ansi.Strip(strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsControl(r), bidi(r):
			return -1
		}
		return r
	}, s)
}

// bidi reports characters that turn the direction of text around, with which a
// name can be made to read as another.
func bidi(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f
}

// oneLine is clean text with every run of white space as one blank.
func oneLine(s string) string { return strings.Join(strings.Fields(clean(s)), " ") }

// short is the first block of an id, which is what people type.
func short(id string) string {
	if i := strings.IndexByte(id, '-'); i >= 4 {
		return id[:i]
	}
	return id
}

// size is n bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// span is a duration for people: 0.4s, 8.2s, 1m40s, 2h14m, 3d4h.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// seconds is s seconds for people.
func seconds(s float64) string { return span(time.Duration(s * float64(time.Second))) }

// clock is a moment for people: local time, with the date when it is not today.
func clock(t backend.Time, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	local, today := t.In(now.Location()), now
	if local.Year() == today.Year() && local.YearDay() == today.YearDay() {
		return local.Format("15:04:05")
	}
	return local.Format("2006-01-02 15:04")
}

// plural is n with the word, an s added unless n is 1.
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// table prints rows in aligned columns, two blanks apart; the last column is not
// padded. Wide characters count as two.
func table(w io.Writer, head []string, rows [][]string) {
	width := make([]int, len(head))
	all := append([][]string{head}, rows...)
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], ansi.StringWidth(cell))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-ansi.StringWidth(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// cut shortens s to w columns.
func cut(s string, w int) string { return ansi.Truncate(s, w, "…") }

// printJSON prints v as one line of JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// list is v, or an empty slice for nil, so that JSON has [] and not null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

// sortedKeys are the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
