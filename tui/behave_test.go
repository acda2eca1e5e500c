package tui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/kitty"
	"github.com/charmbracelet/x/exp/teatest/v2"

	"easel/backend"
	"easel/tui/picture"
	"easel/tui/screen"
	"easel/tui/widget"
)

// everyKey is every key that is bound somewhere.
func everyKey(m *Model) []string {
	var ks []string
	for _, d := range m.doors {
		if d.view == nil {
			continue
		}
		for _, a := range append(d.view.Actions(), m.global()...) {
			ks = append(ks, a.Key.Keys()...)
		}
	}
	slices.Sort(ks)
	return slices.Compact(ks)
}

func TestUpdateAndViewCallNothing(t *testing.T) {
	f := newFake()
	m := New(t.Context(), f, testOptions())
	msgs := []tea.Msg{
		tea.WindowSizeMsg{Width: 120, Height: 40},
		linkMsg{connected: true},
		framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Snapshot: busyBox()}}},
		tickMsg{},
		tea.PasteMsg{Content: "/tmp/a.json"},
	}
	m.Init()
	for _, msg := range msgs {
		m.Update(msg)
		m.View()
	}
	for _, s := range []string{"1", "2", "7"} {
		for _, k := range everyKey(m) {
			if k == "ctrl+z" {
				continue
			}
			for _, name := range []string{"esc", "esc", s, k, "y", "enter"} {
				m.Update(press(name))
				m.View()
			}
		}
	}
	if n := f.calls.Load(); n != 0 {
		t.Errorf("Update and View made %d calls of the engine", n)
	}
}

func TestNoKeyHasTwoVerbs(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		verb := map[string]string{}
		walk := func(where string, as []screen.Action) {
			seen := map[string]bool{}
			for _, a := range as {
				for _, k := range a.Key.Keys() {
					if seen[k] {
						t.Errorf("%s: key %q is bound twice", where, k)
					}
					seen[k] = true
					if v, ok := verb[k]; ok && v != a.Key.Help().Desc {
						t.Errorf("%s: key %q means %q here and %q elsewhere", where, k, a.Key.Help().Desc, v)
					}
					verb[k] = a.Key.Help().Desc
				}
			}
		}
		for _, s := range []string{"1", "2", "7"} {
			d.keys(s)
			walk("screen "+s, append(d.m.front().Actions(), d.m.global()...))
			if s != "7" {
				d.keys("enter")
				walk("opened job on "+s, append(d.m.front().Actions(), d.m.global()...))
				d.keys("esc")
			}
		}
		for _, k := range []string{"ctrl+d"} {
			if v := verb[k]; strings.Contains(v, "clear") || strings.Contains(v, "delete") {
				t.Errorf("%s must never delete, it means %q", k, v)
			}
		}
	})
}

func TestEveryScreenAtEveryWidth(t *testing.T) {
	inBubble(t, 80, 24, func(d *drive, _ *fake) {
		for _, sc := range scenes {
			d.m.over, d.m.toast = nil, toast{}
			d.keys("esc", "esc", "esc", "1")
			sc.do(d)
			for w := 40; w <= 220; w++ {
				for _, h := range [][]int{{15}, {24}, {10, 41}}[w%3] {
					d.one(tea.WindowSizeMsg{Width: w, Height: h})
					checkFrame(t, d.frame(), w, h)
					if t.Failed() {
						t.Fatalf("scene %s at %d×%d:\n%s", sc.name, w, h, ansi.Strip(d.frame()))
					}
				}
			}
			d.settle()
			d.send(tea.WindowSizeMsg{Width: 80, Height: 24})
		}
	})
}

func TestTinyWindowSaysSo(t *testing.T) {
	inBubble(t, 80, 24, func(d *drive, _ *fake) {
		for _, s := range [][2]int{{40, 10}, {1, 1}, {59, 40}, {200, 14}} {
			d.send(tea.WindowSizeMsg{Width: s[0], Height: s[1]})
			checkFrame(t, d.frame(), s[0], s[1])
		}
		d.send(tea.WindowSizeMsg{Width: 40, Height: 10})
		if !strings.Contains(d.frame(), "40×10") {
			t.Errorf("it does not say how large the window is: %s", d.frame())
		}
		d.keys("q")
		if !d.quit {
			t.Error("q does not leave")
		}
	})
}

// hostile is text that must not reach the terminal as it is.
var hostile = "\x1b[31mred\x1b]0;title\a\x1b]52;c;AAAA\a\x1bPq#0\x1b\\ \x9b2J\u202eevil\u202c \u200bzero \x00\a\b" +
	string(kitty.Placeholder) + "\u0305 宽字 e\u0301\u0301\u0301\u0301 \xff\xfe \r\n\t end"

func TestHostileTextIsNotDrawn(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		long := hostile + strings.Repeat("x", 1<<20)
		job := func(n int, s backend.JobState) backend.Job {
			j := testJob(n, long, s)
			j.Owner, j.Group, j.WaitReason, j.Finished = hostile, hostile, long, ago(time.Minute)
			j.Warnings = []string{long}
			return j
		}
		bad := job(300, backend.JobFailed)
		bad.Error = &backend.Error{Kind: hostile, Message: long, Node: hostile, Title: hostile, Input: hostile, Remedy: long}
		bad.Attempts = []backend.Attempt{{N: 1, Worker: hostile, Outcome: "lost", Verdict: &backend.Verdict{Kind: hostile, Summary: long, Remedy: long}, Leftovers: []string{long}}, {N: 2}}
		good := job(301, backend.JobSucceeded)
		good.Outputs = []backend.Output{{Kind: "image", Filename: hostile, Path: hostile}, {Kind: "text", Text: long}}
		run := job(302, backend.JobRunning)
		run.Progress = &backend.Progress{Title: long, Class: hostile, Node: hostile, Max: 9, Fraction: 7}
		sn := &backend.Snapshot{Status: testStatus(), Jobs: []backend.Job{run, job(303, backend.JobQueued), job(304, backend.JobHeld)}, Recent: []backend.Job{bad, good}}
		w := &sn.Status.Workers[0]
		w.ID, w.Reason, w.LastLine, w.State = hostile, long, long, backend.WorkerFailed
		w.LastDeath.Summary, w.LastDeath.Remedy, w.LastDeath.Kind = long, long, hostile
		sn.Status.Edition, sn.Status.Notices = hostile, []string{long}
		sn.Status.GPUs[0].Name, sn.Status.GPUs[0].Note = hostile, hostile
		sn.Status.Found = []backend.FoundComfy{{Dir: hostile}}
		sn.Status.Queue.Paused, sn.Status.Queue.PauseReason = true, long
		f.lines = []backend.LogLine{{Launch: "h", N: 1, Text: long, Level: "error"}, {Launch: "h", N: 2, Text: hostile + " 50%|x| 1/2 [" + hostile, Bar: true}}
		f.fail = &backend.Failure{Kind: "invalid", Message: long, Hint: long, Problems: []backend.Problem{{Node: hostile, Message: long, Fix: hostile}, {Message: hostile}}}
		d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Snapshot: sn}}})
		for _, ks := range [][]string{
			{"1"},
			{"enter"},
			{"esc"},
			{"down", "enter"},
			{"esc", "tab", "enter"},
			{"esc", "2"},
			{"enter"},
			{"esc", "x"},
			{"esc", "7"},
			{"W"},
			{"E"},
			{"y"},
			{"esc", "w"},
			{"esc", ":"},
			{"esc", "2", "t", "p"},
		} {
			d.keys(ks...)
			d.wait(100 * time.Millisecond)
			checkClean(t, d.frame())
			checkFrame(t, d.frame(), 120, 40)
			d.wait(time.Second)
		}
		d.send(screen.SaidMsg{Err: f.fail})
		checkClean(t, d.frame())
		checkFrame(t, d.frame(), 120, 40)
	})
}

// checkClean fails when a frame holds anything but text, SGR and line ends.
func checkClean(t *testing.T, frame string) {
	t.Helper()
	text := sgr.ReplaceAllString(frame, "")
	for _, r := range text {
		if r == '\n' {
			continue
		}
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x200b || r == kitty.Placeholder || r == 0x301 || r == 0x305 {
			t.Fatalf("U+%04X reached the frame:\n%q", r, text[:min(len(text), 2000)])
		}
	}
}

func TestFuzzKeys(t *testing.T) {
	steps := 3000
	if testing.Short() {
		steps = 400
	}
	inBubble(t, 100, 30, func(d *drive, f *fake) {
		r := rand.New(rand.NewPCG(7, 11))
		keys := append(everyKey(d.m), "z", "é", "海", "backspace", "delete", "alt+1", "alt+7", "shift+tab", "ctrl+w", "left", "right")
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == "ctrl+z" })
		states := []backend.JobState{backend.JobQueued, backend.JobHeld, backend.JobRunning, backend.JobSucceeded, backend.JobFailed, backend.JobCancelled}
		for i := range steps {
			switch r.IntN(20) {
			case 0:
				d.send(tea.WindowSizeMsg{Width: 1 + r.IntN(220), Height: 1 + r.IntN(70)})
			case 1:
				d.send(tea.PasteMsg{Content: []string{"/a b.json", hostile, "x\ny", strings.Repeat("p", 9000)}[r.IntN(4)]})
			case 2, 3:
				j := testJob(r.IntN(60), "fuzz", states[r.IntN(len(states))])
				d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameEvent, Event: &backend.Event{Kind: []backend.EventKind{backend.EventState, backend.EventMoved, backend.EventCleared}[r.IntN(3)], JobID: j.ID, Job: &j}}}})
			case 4:
				d.send(tea.MouseClickMsg{X: r.IntN(120), Y: r.IntN(40), Button: tea.MouseLeft})
			case 5:
				d.send(tea.MouseWheelMsg{X: r.IntN(120), Y: r.IntN(40), Button: tea.MouseWheelDown})
			case 6:
				d.wait(50 * time.Millisecond)
			case 7:
				if r.IntN(20) == 0 {
					d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Snapshot: &backend.Snapshot{}}}})
				}
			default:
				d.send(press(keys[r.IntN(len(keys))]))
			}
			if i%10 == 0 {
				w, h := d.m.size()
				checkFrame(t, d.frame(), w, h)
				if t.Failed() {
					t.Fatalf("step %d at %d×%d", i, w, h)
				}
			}
		}
	})
}

func TestKeysDoWhatTheySay(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		d.keys("2", "down", "K")
		if len(f.acts) != 1 || f.acts[0].Verb != backend.VerbUp || f.acts[0].Jobs.IDs[0] != testJob(102, "", "").ID {
			t.Fatalf("K: %+v", f.acts)
		}
		d.keys("+")
		if a := f.acts[1]; a.Verb != backend.VerbPriority || a.Delta != 1 {
			t.Errorf("+: %+v", a)
		}
		d.keys("H")
		if a := f.acts[2]; a.Verb != backend.VerbHold {
			t.Errorf("H: %+v", a)
		}
		d.keys("t")
		if len(f.acts) != 3 {
			t.Error("t retried a job that has not ended")
		}
		d.keys("x")
		if a := f.acts[3]; a.Verb != backend.VerbCancel {
			t.Errorf("x on a waiting job acts at once: %+v", a)
		}
		d.keys("g", "x")
		if len(f.acts) != 4 {
			t.Error("x on a running job must ask first")
		}
		d.keys("enter") // the default is no
		if len(f.acts) != 4 {
			t.Error("the default of the question must be no")
		}
		d.keys("x", "y")
		if len(f.acts) != 5 {
			t.Error("y did not cancel")
		}
		d.keys("p")
		if !slices.Equal(f.paused, []string{"pause"}) {
			t.Errorf("p: %v", f.paused)
		}
		d.keys("space", "space", "space", "x")
		if !strings.Contains(d.frame(), "Cancel 3 jobs?") {
			t.Error("x on three marked jobs must ask and say how many")
		}
		d.keys("esc", "esc")
	})
}

func TestSortedListIsNotMoved(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		d.keys("2", "s", "down", "J")
		if len(f.acts) != 0 || !strings.Contains(d.frame(), "sorted by") {
			t.Errorf("J moved in a sorted list: %+v", f.acts)
		}
	})
}

func TestAddByPasteAndByKey(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		d.send(tea.PasteMsg{Content: "'/tmp/my flow.json' "})
		d.keys("enter")
		if len(f.subs) != 1 || f.subs[0].Name != "my flow" || f.subs[0].Source != backend.SourceConsole {
			t.Fatalf("pasted path: %+v", f.subs)
		}
		f.fail = backend.Fail(backend.FailInvalid, "node 7 has no class", "export it again")
		d.keys("a")
		d.typed("b.json")
		d.keys("enter")
		if fr := ansi.Strip(d.frame()); !strings.Contains(fr, "node 7 has no class") || !strings.Contains(fr, "export it again") {
			t.Errorf("the refusal is not shown:\n%s", fr)
		}
	})
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, n := range []string{"alpha.json", "alps.json", "beta.png", "notes.txt"} {
		if err := writeFile(n); err != nil {
			t.Fatal(err)
		}
	}
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		d.keys("a")
		d.typed("a")
		d.keys("tab")
		p := d.m.over.(*prompt)
		if p.in.Value() != "alp" || len(p.offer) != 2 {
			t.Errorf("tab after a: %q %v", p.in.Value(), p.offer)
		}
		d.typed("s")
		d.keys("tab")
		if p.in.Value() != "alps.json" {
			t.Errorf("tab after alps: %q", p.in.Value())
		}
	})
}

func TestWorkerMenuNamesTheRunningJob(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		d.keys("w", "r")
		if !strings.Contains(d.frame(), "wan-vace-t2v is running") {
			t.Errorf("restart does not name the job:\n%s", ansi.Strip(d.frame()))
		}
		d.keys("enter")
		if len(f.workers) != 0 {
			t.Fatal("the default must be no")
		}
		d.keys("w", "r", "y")
		if len(f.workers) != 1 || f.workers[0].Verb != backend.WorkerRestart || f.workers[0].ID != "gpu0" {
			t.Errorf("restart: %+v", f.workers)
		}
		d.keys("w", "s")
		if len(f.workers) != 1 {
			t.Error("a running worker was started")
		}
	})
}

func TestEnterOnTheCountdownRestartsAtOnce(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, f *fake) {
		w := testStatus().Workers[0]
		w.State, w.PID, w.NextRestart = backend.WorkerBackoff, nil, backend.At(epoch.Add(30*time.Second))
		d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameWorkers, Workers: []backend.Worker{w}}}})
		d.keys("tab")
		if !strings.Contains(d.frame(), "(enter: now)") {
			t.Errorf("the countdown does not offer enter:\n%s", ansi.Strip(d.frame()))
		}
		d.keys("enter")
		if len(f.workers) != 1 || f.workers[0].Verb != backend.WorkerStart {
			t.Errorf("enter: %+v", f.workers)
		}
	})
}

func TestLeaving(t *testing.T) {
	cases := []struct {
		name  string
		ours  bool
		leave string
		keys  []string
		quit  bool
		stops int
		kept  string
	}{
		{"somebody else's engine: at once", false, "", []string{"q"}, true, 0, ""},
		{"ctrl-c is q", false, "", []string{"ctrl+c"}, true, 0, ""},
		{"ours: asks", true, "", []string{"q"}, false, 0, ""},
		{"ours: leave it running", true, "", []string{"q", "enter"}, true, 0, ""},
		{"ours: stop", true, "", []string{"q", "s"}, true, 1, ""},
		{"ours: stay", true, "", []string{"q", "n"}, false, 0, ""},
		{"ours: remembered by the box", true, "", []string{"q", "space", "l"}, true, 0, LeaveRunning},
		{"ours: remembered leave", true, LeaveRunning, []string{"q"}, true, 0, ""},
		{"ours: remembered stop", true, LeaveStop, []string{"q"}, true, 1, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 80, 24, func(d *drive, f *fake) {
				kept := ""
				d.m.opts.Remember = func(a string) error { kept = a; return nil }
				d.m.leave = c.leave
				d.send(startMsg{started: c.ours})
				d.keys(c.keys...)
				if d.quit != c.quit || len(f.stops) != c.stops || kept != c.kept {
					t.Errorf("quit %v, stops %v, kept %q", d.quit, f.stops, kept)
				}
			})
		})
	}
}

func TestOwnDialogIsDeafAtFirst(t *testing.T) {
	inBubble(t, 80, 24, func(d *drive, _ *fake) {
		d.send(screen.SaidMsg{Err: errors.New(strings.Repeat("long ", 40))})
		if d.m.over == nil {
			t.Fatal("a long error opens no dialog")
		}
		d.keys("enter")
		if d.m.over == nil {
			t.Error("typing closed a dialog that had just opened by itself")
		}
		d.wait(deafTime)
		d.keys("enter")
		if d.m.over != nil {
			t.Error("it stays deaf")
		}
	})
}

func TestBannersFollowTheirCause(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		d.send(linkMsg{err: errors.New("connection refused")})
		if strings.Contains(d.frame(), "reconnecting") {
			t.Error("a flap became a banner at once")
		}
		d.wait(1100 * time.Millisecond)
		if !strings.Contains(d.frame(), "engine unreachable: reconnecting") {
			t.Error("no banner for a lost engine")
		}
		d.send(linkMsg{connected: true})
		if strings.Contains(d.frame(), "reconnecting") {
			t.Error("the banner outlives its cause")
		}
		d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameStopping}}})
		if !strings.Contains(d.frame(), "is being stopped") {
			t.Error("no banner while the engine stops")
		}
	})
}

func TestToastFades(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		j := done(1, "wan-vace-t2v", "wan_00001_.png", 95)
		d.send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameEvent, Event: &backend.Event{Kind: backend.EventState, JobID: j.ID, Job: &j}}}})
		if !strings.Contains(d.frame(), "wan-vace-t2v is done") {
			t.Error("no toast for a finished job")
		}
		for range 6 {
			d.wait(time.Second)
		}
		if strings.Contains(d.frame(), "is done") {
			t.Error("the toast stays")
		}
		if len(d.m.env.State.Running) != 0 || d.m.env.State.Recent[0].ID != j.ID {
			t.Error("the finished job is not the newest of recent")
		}
	})
}

func TestKittyPictures(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		d.send(tea.ColorProfileMsg{Profile: colorprofile.TrueColor}, uv.KittyGraphicsEvent{Options: kitty.Options{ID: 31}, Payload: []byte("OK")})
		d.wait(time.Second)
		if d.m.env.Pics.Protocol() != picture.Kitty {
			t.Fatal("the terminal's yes was not understood")
		}
		if !strings.ContainsRune(d.frame(), kitty.Placeholder) {
			t.Fatal("no placeholders in the frame")
		}
		if !strings.Contains(d.raw.String(), "\x1b_G") {
			t.Fatal("no pixels were sent")
		}
		checkFrame(t, d.frame(), 120, 40)
		d.raw.Reset()
		d.keys("2")
		if !strings.Contains(d.raw.String(), "a=d") {
			t.Errorf("the picture is not freed when its screen is left: %q", d.raw.String())
		}
		d.keys("1")
		d.wait(time.Second)
		d.raw.Reset()
		d.keys("q")
		if !strings.Contains(d.raw.String(), "a=d") {
			t.Error("the picture is not freed on leaving")
		}
	})
}

func TestTerminalIsAskedAfterTheFirstFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		o := testOptions()
		o.Environ = []string{"TERM=xterm-kitty"}
		d := newDrive(t, New(ctx, newFake(), o), 80, 24)
		if strings.Contains(d.raw.String(), "a=q") {
			t.Error("asked before a frame was drawn")
		}
		d.wait(100 * time.Millisecond)
		if !strings.Contains(d.raw.String(), "a=q") {
			t.Error("never asked")
		}
		cancel()
		time.Sleep(time.Minute)
	})
}

func TestPreviewNewestWins(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		id := d.m.env.State.Running[0].ID
		for i := range 20 {
			d.one(framesMsg{frames: []backend.Frame{{Kind: backend.FramePreview, Preview: &backend.Preview{Job: id, Data: testPNG(64, 64, i)}}}})
		}
		d.settle()
		d.wait(2 * time.Second)
		key, err := d.m.env.Pics.Shown("home/now")
		if want := fmt.Sprintf("%d", d.m.env.State.Previews); !strings.HasSuffix(key, "/"+want) || err != "" {
			t.Errorf("shown %q, the newest is %s (%s)", key, want, err)
		}
	})
}

func TestBridgeKeepsEventsAndThinsTheRest(t *testing.T) {
	b := newBridge(func(tea.Msg) {})
	for i := range 3000 {
		b.put(backend.Frame{Kind: backend.FrameGPUs, GPUs: []backend.GPU{{Index: i}}})
		b.put(backend.Frame{Kind: backend.FrameProgress, Progress: &backend.JobProgress{Job: "a"}})
		b.put(backend.Frame{Kind: backend.FrameProgress, Progress: &backend.JobProgress{Job: "b"}})
		if i%10 == 0 {
			b.put(backend.Frame{Kind: backend.FrameEvent, Event: &backend.Event{Seq: int64(i)}})
		}
	}
	frames, _ := b.take()
	var events, others []backend.Frame
	for _, f := range frames {
		if f.Kind == backend.FrameEvent {
			events = append(events, f)
		} else {
			others = append(others, f)
		}
	}
	if len(events) != 300 || len(others) != 3 {
		t.Fatalf("%d events and %d others", len(events), len(others))
	}
	for i, e := range events {
		if e.Event.Seq != int64(i*10) {
			t.Fatal("events are out of order")
		}
	}
	for _, o := range others {
		if o.Kind == backend.FrameGPUs && o.GPUs[0].Index != 2999 {
			t.Error("an old sample won")
		}
	}
	if f, e := b.take(); f != nil || e != nil {
		t.Error("take gave the same twice")
	}
}

func TestLogFloodStaysBounded(t *testing.T) {
	inBubble(t, 100, 30, func(d *drive, f *fake) {
		var lines []backend.LogLine
		for i := range 60_000 {
			lines = append(lines, backend.LogLine{Launch: "x", N: int64(i + 1), Text: fmt.Sprintf("line %d %s", i, strings.Repeat("y", 200)), Level: "info"})
		}
		f.lines = lines
		d.keys("7")
		d.wait(200 * time.Millisecond)
		if !strings.Contains(d.frame(), "line 59999") {
			t.Errorf("it does not follow to the end:\n%s", ansi.Strip(d.frame()))
		}
		if !strings.Contains(d.frame(), "skipped") {
			t.Error("what was skipped is not said")
		}
		d.keys("g", "L", "G", "L", "L", "W", "E", "n", "/")
		d.typed("line 5999")
		d.keys("enter", "N", "n")
		checkFrame(t, d.frame(), 100, 30)
	})
}

func TestEveryChoiceOfTheUnbuiltScreensSaysWhatToDo(t *testing.T) {
	inBubble(t, 120, 40, func(d *drive, _ *fake) {
		for _, dr := range d.m.doors {
			if dr.view != nil {
				continue
			}
			d.keys(dr.key.Help().Key)
			if !strings.Contains(d.frame(), "is not built yet") || d.m.at != 0 {
				t.Errorf("%s: %s", dr.name, d.m.toast.text)
			}
		}
		d.keys(":")
		d.typed("logs")
		d.keys("enter")
		if d.m.doors[d.m.at].id != screen.Logs {
			t.Error("the exact name of a screen does not go there")
		}
		d.keys(":")
		d.typed("q")
		d.keys("enter")
		if !d.quit {
			t.Error(": q enter does not leave")
		}
	})
}

func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{widget.Duration(100 * time.Second), "1m40s"},
		{widget.Duration(8200 * time.Millisecond), "8.2s"},
		{widget.Duration(134 * time.Minute), "2h14m"},
		{widget.Bytes(1 << 30), "1.0 GiB"},
		{widget.Bytes(512), "512 B"},
		{widget.Number(1234567), "1,234,567"},
		{widget.Percent(0.689), "68 %"},
		{widget.Fit("海边的灯塔", 7), "海边的…"},
		{widget.FitRight("12", 4), "  12"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// The real program: a first frame from nothing, then the engine's frames through
// the bridge, a key, and the end.
func TestWiring(t *testing.T) {
	f := newFake()
	m := New(t.Context(), f, Options{Box: "gpu-box-3", Loc: time.UTC})
	tm := teatest.NewTestModel(t, m, teatest.WithInitialTermSize(120, 40), teatest.WithProgramOptions(
		tea.WithColorProfile(colorprofile.TrueColor), tea.WithEnvironment([]string{"TERM=xterm-256color"}), tea.WithoutSignals()))
	see := func(s string) {
		t.Helper()
		teatest.WaitFor(t, tm.Output(), func(b []byte) bool { return bytes.Contains(b, []byte(s)) }, teatest.WithDuration(5*time.Second))
	}
	see("looking for the engine")
	ctx, cancel := context.WithCancel(t.Context())
	wait := feed(ctx, f, Options{}, tm.Send, func() {})
	f.frames <- backend.Frame{Kind: backend.FrameSnapshot, Snapshot: busyBox()}
	see("wan-vace-t2v")
	tm.Send(press("2"))
	see("sorted by")
	tm.Send(press("q"))
	final := tm.FinalModel(t, teatest.WithFinalTimeout(5*time.Second)).(*Model)
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if final.doors[final.at].id != screen.Queue {
		t.Error("the queue is not in front at the end")
	}
}

// Run ends when its context does, and looks for the engine until it is there.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	tries := 0
	out := &lockedBuffer{}
	end := make(chan error, 1)
	go func() {
		end <- Run(ctx, newFake(), Options{
			Box: "b", Input: strings.NewReader(""), Output: out, Environ: []string{"TERM=xterm-256color"},
			Start: func(_ context.Context, say func(string)) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				tries++
				say("starting the engine …")
				return true, nil
			},
		})
	}()
	deadline := time.Now().Add(5 * time.Second)
	for {
		mu.Lock()
		n := tries
		mu.Unlock()
		if n > 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	select {
	case err := <-end:
		if err != nil {
			t.Errorf("a cancelled context is a normal end, not %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not end")
	}
}

func TestOptionsZeroIsUsable(t *testing.T) {
	m := New(t.Context(), newFake(), Options{})
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	m.Update(press("a"))
	if reflect.ValueOf(m.over).IsValid() && m.over != nil {
		t.Error("adding without a loader opened a prompt")
	}
	checkFrame(t, m.View().Content, 80, 24)
}

// A panic on the engine's side of the bridge ends the program and is reported.
func TestPanicInTheFeedIsReported(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	killed := make(chan struct{})
	wait := feed(ctx, newFake(), Options{Start: func(context.Context, func(string)) (bool, error) { panic("boom") }},
		func(tea.Msg) {}, func() { close(killed) })
	<-killed
	cancel()
	if err := wait(); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("reported: %v", err)
	}
}
