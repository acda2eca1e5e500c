package tui

import (
	"bytes"
	"fmt"
	"image/color"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"

	"easel/backend"
)

// scenes are the frames that are kept.
var scenes = []struct {
	name string
	do   func(d *drive)
}{
	{"home", func(*drive) {}},
	{"home-recent-picture", func(d *drive) { d.keys("enter") }},
	{"home-failed", func(d *drive) { d.keys("down", "enter") }},
	{"queue", func(d *drive) { d.keys("2", "down", "down") }},
	{"queue-marked", func(d *drive) { d.keys("2", "down", "space", "space") }},
	{"queue-filter", func(d *drive) { d.keys("2", "/"); d.typed("portrait") }},
	{"queue-cancel", func(d *drive) { d.keys("2", "x") }},
	{"logs", func(d *drive) { d.keys("7"); d.wait(100 * time.Millisecond) }},
	{"logs-search", func(d *drive) {
		d.keys("7")
		d.wait(100 * time.Millisecond)
		d.keys("W", "/")
		d.typed("tensor")
		d.keys("enter")
	}},
	{"help", func(d *drive) { d.keys("2", "?") }},
	{"palette", func(d *drive) { d.keys(":"); d.typed("que") }},
	{"screens", func(d *drive) { d.keys("0") }},
	{"worker", func(d *drive) { d.keys("w") }},
	{"restart", func(d *drive) { d.keys("w", "r") }},
	{"copy", func(d *drive) { d.keys("y") }},
	{"add", func(d *drive) { d.keys("a"); d.typed("workflows/hello.json") }},
	{"leave", func(d *drive) { d.m.ours = true; d.m.opts.Remember = func(string) error { return nil }; d.keys("q") }},
	{"banners", func(d *drive) {
		st := testStatus()
		st.Workers[0].State, st.Workers[0].Reason = backend.WorkerFailed, "it ended 5 times in 10 minutes"
		d.send(framesMsg{frames: []backend.Frame{
			{Kind: backend.FrameWorkers, Workers: st.Workers},
			{Kind: backend.FrameNotices, Notices: []string{"the disk of /mnt/data is nearly full: 1.2 GiB left"}},
			{Kind: backend.FrameQueue, Queue: &backend.QueueCounts{Queued: 11, Held: 1, Paused: true, PauseReason: "by ann, after the current job"}},
		}})
	}},
}

var sizes = []struct{ w, h int }{{80, 24}, {120, 40}, {200, 60}}

func TestGoldenFrames(t *testing.T) {
	for _, sc := range scenes {
		for _, sz := range sizes {
			t.Run(fmt.Sprintf("%s-%dx%d", sc.name, sz.w, sz.h), func(t *testing.T) {
				inBubble(t, sz.w, sz.h, func(d *drive, _ *fake) {
					sc.do(d)
					f := d.frame()
					checkFrame(t, f, sz.w, sz.h)
					shoot(t, fmt.Sprintf("%s-%dx%d", sc.name, sz.w, sz.h), f, sz.w, sz.h, true)
					golden.RequireEqual(t, []byte(ansi.Strip(f)))
				})
			})
		}
	}
}

// The colours are kept for a few frames; the others are compared as text, so that
// a changed colour is one file and not sixty.
func TestGoldenColours(t *testing.T) {
	for _, sc := range []string{"home", "queue", "logs"} {
		for _, dark := range []bool{true, false} {
			name := map[bool]string{true: "dark", false: "light"}[dark]
			t.Run(sc+"-"+name, func(t *testing.T) {
				inBubble(t, 120, 40, func(d *drive, _ *fake) {
					bg := color.Color(color.Black)
					if !dark {
						bg = color.White
					}
					d.send(tea.BackgroundColorMsg{Color: bg})
					scene(sc)(d)
					shoot(t, sc+"-"+name, d.frame(), 120, 40, dark)
					golden.RequireEqual(t, []byte(d.frame()))
				})
			})
		}
	}
}

// Without colour every frame still says what it says: the selection by a mark, a
// state by a word or a sign.
func TestGoldenNoColour(t *testing.T) {
	for _, sc := range []string{"home", "queue", "logs-search", "banners"} {
		t.Run(sc, func(t *testing.T) {
			inBubble(t, 80, 24, func(d *drive, _ *fake) {
				d.send(tea.ColorProfileMsg{Profile: colorprofile.Ascii})
				d.wait(time.Second)
				scene(sc)(d)
				var b bytes.Buffer
				w := &colorprofile.Writer{Forward: &b, Profile: colorprofile.Ascii}
				if _, err := w.WriteString(d.frame()); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(b.String(), "38;2") {
					t.Error("a colour came through")
				}
				if !strings.Contains(b.String(), "▸") && sc != "logs" {
					t.Error("no mark shows where the cursor is")
				}
				golden.RequireEqual(t, b.Bytes())
			})
		})
	}
}

func scene(name string) func(*drive) {
	for _, s := range scenes {
		if s.name == name {
			return s.do
		}
	}
	panic(name)
}

func TestFirstFrameFromNothing(t *testing.T) {
	m := New(t.Context(), newFake(), testOptions())
	f := m.View().Content
	checkFrame(t, f, 80, 24)
	for _, want := range []string{"gpu-box-3", "looking for the engine"} {
		if !strings.Contains(f, want) {
			t.Errorf("the first frame does not say %q:\n%s", want, ansi.Strip(f))
		}
	}
	golden.RequireEqual(t, []byte(ansi.Strip(f)))
}

// checkFrame fails when a line is wider than the terminal or the frame taller.
func checkFrame(t testing.TB, frame string, w, h int) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != h {
		t.Errorf("the frame has %d lines, the window %d", len(lines), h)
	}
	for i, l := range lines {
		if n := ansi.StringWidth(l); n > w {
			t.Errorf("line %d is %d cells wide, the window %d: %q", i, n, w, ansi.Strip(l))
			return
		}
	}
}
