package home

import (
	"testing"
	"time"

	"easel/backend"
	"easel/tui/live"
)

func TestTimeLine(t *testing.T) {
	now := time.Date(2026, 11, 20, 14, 2, 5, 0, time.UTC)
	mark := func(ago time.Duration, kind string) backend.GPUMark {
		return backend.GPUMark{At: backend.At(now.Add(-ago)), Kind: kind}
	}
	for name, c := range map[string]struct {
		marks []backend.GPUMark
		cells int
		want  string
	}{
		"nothing":             {nil, 8, "        "},
		"no room":             {[]backend.GPUMark{mark(0, backend.MarkOOM)}, 0, ""},
		"label on the right":  {[]backend.GPUMark{mark(190*time.Second, backend.MarkOOM)}, 20, "▲oom 13:58          "},
		"label on the left":   {[]backend.GPUMark{mark(0, backend.MarkOOM)}, 14, "    14:02 oom▲"},
		"a job has no label":  {[]backend.GPUMark{mark(20*time.Second, backend.MarkJob)}, 5, "  ╵  "},
		"out of the picture":  {[]backend.GPUMark{mark(time.Hour, backend.MarkOOM), mark(-time.Hour, backend.MarkOOM)}, 3, "   "},
		"the worse one stays": {[]backend.GPUMark{mark(0, backend.MarkJob), mark(0, backend.MarkDeath)}, 2, " ✗"},
		"labels do not overlap": {
			[]backend.GPUMark{mark(200*time.Second, backend.MarkOOM), mark(170*time.Second, backend.MarkRestart)}, 21, "▲  ↻restart 13:59    ",
		},
	} {
		if got, _ := timeLine(c.marks, now, time.UTC, c.cells); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestHoldersAreNamed(t *testing.T) {
	mem := int64(18 << 30)
	g := backend.GPU{Processes: []backend.GPUProcess{
		{Name: "x\x1b[31m.py", User: "bob", Memory: &mem},
		{Name: "python", Ours: true, Worker: "gpu0", Memory: &mem, Inferred: true},
		{Name: "not of this container"},
	}}
	ours, others := holders(&live.State{}, g)
	if got := words(ours, wordFull); got != "ComfyUI 18.0 GiB (inferred)" {
		t.Errorf("%q", got)
	}
	if got := words(others, wordUser); got != "bob 18.0 GiB · not of this container" {
		t.Errorf("%q", got)
	}
	if got := join(words(ours, wordFull), words(others, wordCount)); got != "ComfyUI 18.0 GiB (inferred) · 2 processes more" {
		t.Errorf("%q", got)
	}
}
