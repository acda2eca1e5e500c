package worker

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// readLog reads a recorded log, less the times before its lines.
func readLog(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	stamp := regexp.MustCompile(`^ *\d+ ms std(?:err|out) ?`)
	var out []string
	for l := range strings.Lines(string(b)) {
		out = append(out, stamp.ReplaceAllString(strings.TrimRight(l, "\n"), ""))
	}
	return out
}

func TestStartLogOfARealStart(t *testing.T) {
	var s startLog
	for _, l := range readLog(t, "startup.log") {
		if level := s.line(l); level == levelError {
			t.Errorf("%q is no error", l)
		}
	}
	if !s.Listening || !s.Loaded || len(s.packs) != 1 || !strings.HasSuffix(s.packs[0].Path, "websocket_image_save.py") {
		t.Errorf("%+v", s)
	}
}

func TestStartLogOfPacksThatFail(t *testing.T) {
	var s startLog
	levels := map[string]int{}
	for _, l := range readLog(t, "custom_node_import.log") {
		levels[s.line(l)]++
	}
	packs := s.Packs()
	if packs[0].ImportS != 1.5 || !strings.HasSuffix(packs[0].Path, "fixture_slow_import") {
		t.Errorf("slowest first: %+v", packs[0])
	}
	causes := map[string]string{}
	for _, p := range packs {
		if p.Failed {
			causes[p.Path[strings.LastIndexByte(p.Path, '/')+1:]+map[bool]string{true: " pre"}[p.Prestart]] = p.Cause
		}
	}
	for name, want := range map[string]string{
		"fixture_missing_dep": "No module named 'not_installed_module'", "fixture_syntax_error": "invalid syntax (__init__.py, line 1)",
		"fixture_raises": "fixture: no CUDA here", "fixture_no_mappings": "due to the lack of NODE_CLASS_MAPPINGS or NODES_LIST (need one).",
		"fixture_prestartup_fails pre": "fixture: prestartup",
	} {
		if causes[name] != want {
			t.Errorf("%s: %q, want %q", name, causes[name], want)
		}
	}
	if levels[levelError] < 20 || levels[levelWarning] < 3 {
		t.Errorf("levels %v", levels)
	}
}

func TestLevels(t *testing.T) {
	for text, want := range map[string]string{
		"got prompt":                               levelInfo,
		"Prompt executed in 0.01 seconds":          levelInfo,
		"!!! Exception during processing !!! boom": levelError,
		"Got an OOM, unloading all loaded models.": levelError,
		"WARNING: something":                       levelWarning,
		"[WARN] x":                                 levelWarning,
		"/a/b.py:3: UserWarning: old":              levelWarning,
		"ERROR: x":                                 levelError,
		"Fatal Python error: Segmentation fault":   levelError,
		"RuntimeError: CUDA error: x":              levelError,
		"Total VRAM 24106 MB, total RAM 24106 MB":  levelInfo,
		"100%|#####| 2/2 [00:02<00:00]":            levelInfo,
		"Using xformers attention":                 levelInfo,
	} {
		var s startLog
		if got := s.line(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
	var s startLog
	for i, l := range []string{"Traceback (most recent call last):", `  File "x", line 1`, "ValueError: no", "got prompt"} {
		if got := s.line(l); (got == levelError) != (i < 3) {
			t.Errorf("%q is %s", l, got)
		}
	}
}

func FuzzStartLog(f *testing.F) {
	f.Add("Import times for custom nodes:\n   0.0 seconds (IMPORT FAILED): /x\n")
	f.Fuzz(func(t *testing.T, text string) {
		var s startLog
		for l := range strings.Lines(text) {
			if level := s.line(strings.TrimRight(l, "\n")); level == "" {
				t.Error("no level")
			}
		}
	})
}

func BenchmarkLevel(b *testing.B) {
	var s startLog
	for b.Loop() {
		s.line("line 1234 of a flood that never says anything useful, but has some length")
	}
}
