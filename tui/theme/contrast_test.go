package theme

import (
	"fmt"
	"image/color"
	"math"
	"testing"

	"charm.land/lipgloss/v2"
)

// luminance is the relative luminance of WCAG 2.2.
func luminance(c color.Color) float64 {
	r, g, b, _ := c.RGBA()
	lin := func(v uint32) float64 {
		s := float64(v) / 0xffff
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*lin(r) + 0.7152*lin(g) + 0.0722*lin(b)
}

func contrast(a, b color.Color) float64 {
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// TestContrast holds every role against the backgrounds it is drawn on, the row
// under the cursor included: text at least 4.5, decoration at least 3.
func TestContrast(t *testing.T) {
	for _, dark := range []bool{true, false} {
		th := New(dark)
		grounds := []string{"#ffffff", "#fafafa"}
		if dark {
			grounds = []string{"#000000", "#1a1b26"}
		}
		text := map[string]lipgloss.Style{
			"Muted": th.Muted, "Title": th.Title, "Focus": th.Focus, "Accent": th.Accent, "Good": th.Good,
			"Warn": th.Warn, "Danger": th.Danger, "Key": th.Key, "Held": th.Held,
		}
		check := func(name string, fg, bg color.Color, least float64) {
			t.Helper()
			if c := contrast(fg, bg); c < least {
				t.Errorf("dark %v: %s on %v has a contrast of %.2f, less than %.1f", dark, name, hex(bg), c, least)
			}
		}
		for name, s := range text {
			for _, g := range grounds {
				check(name, s.GetForeground(), lipgloss.Color(g), 4.5)
			}
			check(name+" selected", s.GetForeground(), th.Select.GetBackground(), 4.5)
		}
		for name, s := range map[string]lipgloss.Style{"Faint": th.Faint, "Border": th.Border} {
			for _, g := range grounds {
				check(name, s.GetForeground(), lipgloss.Color(g), 3)
			}
		}
		check("Match", th.Match.GetForeground(), th.Match.GetBackground(), 4.5)
		check("MatchOn", th.MatchOn.GetForeground(), th.MatchOn.GetBackground(), 4.5)
	}
}

func hex(c color.Color) string {
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}
