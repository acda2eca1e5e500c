package tui

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"easel/backend"
	"easel/tui/widget"
)

// BenchmarkFirstFrame is from nothing to a frame: building the console and
// drawing it once.
func BenchmarkFirstFrame(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		m := New(b.Context(), newFake(), testOptions0())
		_ = m.View()
	}
}

// benchModel is a console at a box at work with n waiting jobs.
func benchModel(b *testing.B, w, h, n int) *Model {
	m := New(b.Context(), newFake(), testOptions0())
	m.Update(tea.WindowSizeMsg{Width: w, Height: h})
	sn := busyBox()
	for i := range n {
		sn.Jobs = append(sn.Jobs, testJob(1000+i, fmt.Sprintf("sweep seed=%d", i), backend.JobQueued))
	}
	for i := range n / 10 {
		sn.Recent = append(sn.Recent, done(100_000+i, "old", "old.png", 5))
	}
	m.Update(framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Snapshot: sn}}})
	return m
}

// testOptions0 are testOptions outside a bubble.
func testOptions0() Options {
	return Options{Box: "gpu-box-3", Loc: time.UTC, Now: func() time.Time { return epoch }}
}

// BenchmarkSample is one sample of the card: Update and View.
func BenchmarkSample(b *testing.B) {
	for _, s := range sizes {
		b.Run(fmt.Sprintf("%dx%d", s.w, s.h), func(b *testing.B) {
			m := benchModel(b, s.w, s.h, 0)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				m.Update(framesMsg{frames: []backend.Frame{{Kind: backend.FrameGPUs, GPUs: []backend.GPU{testGPU(i)}}}})
				_ = m.View()
			}
		})
	}
}

// BenchmarkKey is one key press in a queue of 5,000 jobs: Update and View.
func BenchmarkKey(b *testing.B) {
	m := benchModel(b, 120, 40, 5000)
	m.env.State.Window = 5000
	m.Update(press("2"))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		k := "j"
		if i/200%2 == 1 {
			k = "k"
		}
		m.Update(press(k))
		_ = m.View()
	}
}

// BenchmarkViewUnchanged is a View after which nothing changed.
func BenchmarkViewUnchanged(b *testing.B) {
	m := benchModel(b, 120, 40, 0)
	_ = m.View()
	for b.Loop() {
		_ = m.View()
	}
}

// counter counts what a terminal would get.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }

// bytesPerSecond runs the real program for a minute of a bubble's time, calls
// step twice a second, and counts the bytes of that minute.
func bytesPerSecond(t *testing.T, keys []string, step func(send func(tea.Msg), f *fake, i int)) float64 {
	t.Helper()
	var rate float64
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		out, f := &counter{}, newFake()
		m := New(ctx, f, testOptions())
		p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(nil), tea.WithOutput(out), tea.WithoutSignals(),
			tea.WithColorProfile(colorprofile.TrueColor), tea.WithWindowSize(120, 40), tea.WithEnvironment([]string{"TERM=xterm-256color"}))
		ended := make(chan struct{})
		go func() { _, _ = p.Run(); close(ended) }()
		p.Send(linkMsg{connected: true})
		// Names in Latin letters: the renderer repaints a line with wide characters
		// whole whenever anything on the screen changes, about 250 bytes each.
		sn := busyBox()
		sn.Recent = slices.DeleteFunc(sn.Recent, func(j backend.Job) bool { return widget.Width(j.Name) != len(j.Name) })
		p.Send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Snapshot: sn}}})
		for _, k := range keys {
			p.Send(press(k))
		}
		time.Sleep(12 * time.Second)
		before := out.n.Load()
		for i := range 120 {
			step(p.Send, f, i)
			time.Sleep(500 * time.Millisecond)
		}
		rate = float64(out.n.Load()-before) / 60
		cancel()
		<-ended
		time.Sleep(time.Minute)
	})
	return rate
}

// noisy is a card whose every figure moves at every sample.
func noisy(i int) backend.GPU {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	g := testGPU(0)
	g.Utilisation = ptr(90 + float64(r.IntN(10)))
	g.Temperature = ptr(68 + float64(r.IntN(5)))
	g.Power = ptr(140 + float64(r.IntN(20)))
	g.MemoryUsed = ptr(int64((19 + r.Float64()) * (1 << 30)))
	return g
}

// Home at 120×40 with a card that is sampled twice a second must stay within 200
// bytes a second.
func TestBytesOfSamples(t *testing.T) {
	rate := bytesPerSecond(t, nil, func(send func(tea.Msg), _ *fake, i int) {
		send(framesMsg{frames: []backend.Frame{{Kind: backend.FrameGPUs, GPUs: []backend.GPU{noisy(i)}}}})
	})
	t.Logf("%.0f bytes a second", rate)
	if rate > 200 {
		t.Errorf("%.0f bytes a second to the terminal, the budget is 200", rate)
	}
}

// The same with a job that moves on: the bar, the step, the time left.
func TestBytesOfSamplesAndProgress(t *testing.T) {
	rate := bytesPerSecond(t, nil, func(send func(tea.Msg), _ *fake, i int) {
		f := float64(i) / 120
		send(framesMsg{frames: []backend.Frame{
			{Kind: backend.FrameGPUs, GPUs: []backend.GPU{noisy(i)}},
			{Kind: backend.FrameProgress, Progress: &backend.JobProgress{Job: testJob(1, "", "").ID, Progress: backend.Progress{
				Node: "3", Title: "KSampler", Value: math.Floor(f * 40), Max: 40, Fraction: f, ETAS: ptr(60 * (1 - f)),
			}}},
		}})
	})
	t.Logf("%.0f bytes a second", rate)
	if rate > 400 {
		t.Errorf("%.0f bytes a second to the terminal", rate)
	}
}

// A live log of 50 lines a second must stay within 10 KB a second.
func TestBytesOfLogs(t *testing.T) {
	n := int64(0)
	rate := bytesPerSecond(t, []string{"7"}, func(_ func(tea.Msg), f *fake, _ int) {
		var lines []backend.LogLine
		for range 25 {
			n++
			lines = append(lines, backend.LogLine{Launch: "l1", N: n, Text: fmt.Sprintf("[%d] step %d of %d: loss %.4f %s", n, n%20, 20, math.Sin(float64(n)), strings.Repeat("·", int(n%30))), Level: "info"})
		}
		f.feed <- lines
	})
	t.Logf("%.0f bytes a second", rate)
	if rate > 10_000 {
		t.Errorf("%.0f bytes a second to the terminal, the budget is 10,000", rate)
	}
}
