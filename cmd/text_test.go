package cmd

import (
	"bytes"
	"testing"
	"time"

	"easel/backend"
)

func TestCleanTakesOutWhatATerminalActsOn(t *testing.T) {
	for in, want := range map[string]string{
		"plain 图":               "plain 图",
		"a\x1b[2Jb\x07c\x7f":    "abc",
		"a\u009b31mb":           "a31mb",
		"line\nnext\ttab\r":     "line\nnext\ttab",
		"gpj.\u202egnp.exe":     "gpj.gnp.exe",
		"broken \xff\xfe utf-8": "broken \uFFFD utf-8",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWordsForPeople(t *testing.T) {
	for got, want := range map[string]string{
		span(8200 * time.Millisecond):             "8.2s",
		span(100 * time.Second):                   "1m40s",
		span(2*time.Hour + 14*time.Minute):        "2h14m",
		span(76 * time.Hour):                      "3d4h",
		span(-time.Second):                        "0s",
		size(512):                                 "512 B",
		size(3 << 20):                             "3.0 MiB",
		size(5<<30 + 1<<29):                       "5.5 GiB",
		short("1a2b3c4d-0000-4000-8000-00000000"): "1a2b3c4d",
		shellWord("/opt/ComfyUI"):                 "/opt/ComfyUI",
		shellWord("/opt/my ui's"):                 `'/opt/my ui'\''s'`,
		plural(1, "job"):                          "1 job",
		plural(2, "job"):                          "2 jobs",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	if got := clock(backend.At(now.Add(-time.Hour)), now); got != "11:00:00" {
		t.Error(got)
	}
	if got := clock(backend.At(now.AddDate(0, 0, -2)), now); got != "2026-11-23 12:00" {
		t.Error(got)
	}
}

func TestTableCountsWideCharactersAsTwo(t *testing.T) {
	var b bytes.Buffer
	table(&b, []string{"A", "B"}, [][]string{{"图图", "x"}, {"abc", "y"}})
	if want := "A     B\n图图  x\nabc   y\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
