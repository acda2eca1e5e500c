package near

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"comfyui", "comfyui", 0},
		{"comfui", "comfyui", 1},
		{"comfyiu", "comfyui", 1},
		{"listen", "silent", 4},
		{"肖像", "肖象", 1},
		{"kitten", "sitting", 3},
	} {
		if got, back := Distance(c.a, c.b), Distance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q and %q: %d and %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}
