package cmd

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"easel/backend"
)

func TestSafeName(t *testing.T) {
	for in, want := range map[string]string{
		"a.png":                           "a.png",
		"../../etc/passwd":                "passwd",
		`..\..\boot.ini`:                  "boot.ini",
		"a\nb\x1b.png":                    "a_b_.png",
		"what?:*.png":                     "what___.png",
		"..":                              "fallback",
		"":                                "fallback",
		".bashrc":                         "_bashrc",
		"trailing. ":                      "trailing",
		strings.Repeat("x", 300) + ".png": strings.Repeat("x", 196) + ".png",
	} {
		if got := safeName(in, "fallback"); got != want {
			t.Errorf("safeName(%q) = %q, want %q", in, got, want)
		}
	}
}

// outputsFrom serves outputs from memory.
func outputsFrom(files map[int]io.Reader, names map[int]string) func(context.Context, string, int) (io.ReadCloser, string, error) {
	return func(_ context.Context, _ string, n int) (io.ReadCloser, string, error) {
		return io.NopCloser(files[n]), names[n], nil
	}
}

func TestSaverNeverOverwritesAnotherFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.png"), []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	job := backend.Job{ID: "abcd", Outputs: []backend.Output{{Filename: "a.png"}, {Kind: "text", Text: "no file"}, {Filename: "b.png"}}}
	get := func() []string {
		s := &saver{dir: dir, open: outputsFrom(
			map[int]io.Reader{0: strings.NewReader("first"), 2: strings.NewReader("second")},
			map[int]string{0: "a.png", 2: "b.png"})}
		paths, err := s.job(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		for i := range paths {
			paths[i] = filepath.Base(paths[i])
		}
		return paths
	}
	if got := strings.Join(get(), " "); got != "a-2.png b.png" {
		t.Errorf("paths %s", got)
	}
	if got := strings.Join(get(), " "); got != "a-2.png b.png" {
		t.Errorf("the same again: %s, want no new copies", got)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "a.png")); string(b) != "somebody else's" {
		t.Errorf("a.png was overwritten with %q", b)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "a-2.png")); string(b) != "first" {
		t.Errorf("a-2.png holds %q", b)
	}
}

func TestSaverLeavesNothingOfABrokenCopy(t *testing.T) {
	dir := t.TempDir()
	broken := io.MultiReader(strings.NewReader("half"), &failing{})
	s := &saver{dir: dir, open: outputsFrom(map[int]io.Reader{0: broken}, map[int]string{0: "a.png"})}
	if _, err := s.job(t.Context(), backend.Job{ID: "abcd", Outputs: []backend.Output{{Filename: "a.png"}}}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err %v", err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
