package tui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
)

// epoch is the time of every test.
var epoch = time.Date(2026, 11, 20, 14, 2, 0, 0, time.UTC)

// fake is an engine in memory. It counts its calls.
type fake struct {
	calls atomic.Int64

	mu      sync.Mutex
	acts    []backend.JobAction
	workers []backend.WorkerAction
	subs    []backend.Submission
	paused  []string
	stops   []bool
	jobs    []backend.Job
	lines   []backend.LogLine
	hang    bool // Logs stays open after its lines
	fail    error
	frames  chan backend.Frame
	feed    chan []backend.LogLine // more lines of the log
}

func newFake() *fake {
	return &fake{hang: true, frames: make(chan backend.Frame, 64), feed: make(chan []backend.LogLine)}
}

func (f *fake) Submit(_ context.Context, s backend.Submission) (backend.Job, bool, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return backend.Job{}, false, f.fail
	}
	f.subs = append(f.subs, s)
	return backend.Job{ID: "new", Name: s.Name, State: backend.JobQueued}, true, nil
}

func (f *fake) Act(_ context.Context, a backend.JobAction) ([]backend.Job, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acts = append(f.acts, a)
	return nil, f.fail
}

func (f *fake) Pause(context.Context, bool, string) error {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = append(f.paused, "pause")
	return f.fail
}

func (f *fake) Resume(context.Context, string) error {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paused = append(f.paused, "resume")
	return f.fail
}

func (f *fake) Jobs(_ context.Context, q backend.JobFilter) ([]backend.Job, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]backend.Job(nil), f.jobs...), f.fail
}

func (f *fake) Graph(context.Context, string) (json.RawMessage, json.RawMessage, error) {
	f.calls.Add(1)
	return json.RawMessage(`{"6":{"class_type":"CLIPTextEncode","inputs":{"text":"a lighthouse on a cliff at dusk, gouache, long shadows, gulls","clip":["4",1]}},
		"7":{"class_type":"CLIPTextEncode","inputs":{"text":"blurry, text"},"_meta":{"title":"Negative"}},
		"3":{"class_type":"KSampler","inputs":{"seed":18446744073709551615,"steps":20,"cfg":8.0,"sampler_name":"euler","scheduler":"normal","model":["4",0]}},
		"4":{"class_type":"CheckpointLoaderSimple","inputs":{"ckpt_name":"sd_xl_base_1.0.safetensors"}}}`), nil, nil
}

func (f *fake) Picture(_ context.Context, _ string, n, w, h int) ([]byte, error) {
	f.calls.Add(1)
	return testPNG(min(w, h), min(w, h), n), nil
}

func (f *fake) WorkerAct(_ context.Context, a backend.WorkerAction) ([]backend.Worker, error) {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers = append(f.workers, a)
	return nil, f.fail
}

func (f *fake) Logs(ctx context.Context, q backend.LogQuery, fn func(backend.LogLine) error) error {
	f.calls.Add(1)
	f.mu.Lock()
	lines := f.lines
	f.mu.Unlock()
	for _, l := range lines {
		if err := fn(l); err != nil {
			return err
		}
	}
	for f.hang {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case more := <-f.feed:
			for _, l := range more {
				if err := fn(l); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func (f *fake) Watch(ctx context.Context, _ bool, fn func(backend.Frame) error, onState func(bool, error)) error {
	f.calls.Add(1)
	onState(true, nil)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case fr := <-f.frames:
			if err := fn(fr); err != nil {
				return err
			}
		}
	}
}

func (f *fake) Stop(_ context.Context, keep bool) error {
	f.calls.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stops = append(f.stops, keep)
	return f.fail
}

var _ Service = (*fake)(nil)

// testPNG is a picture worth looking at.
func testPNG(w, h, n int) []byte {
	img := image.NewRGBA(image.Rect(0, 0, max(w, 1), max(h, 1)))
	for y := range h {
		for x := range w {
			u, v := float64(x)/float64(w), float64(y)/float64(h)
			d := math.Hypot(u-0.65, v-0.4)
			c := color.RGBA{uint8(40 + 180*v), uint8(60 + 90*(1-v) + 40*u), uint8(150 * (1 - v*0.6)), 255}
			if d < 0.16 {
				c = color.RGBA{250, 220, uint8(120 + 40*n), 255}
			}
			if v > 0.72+0.06*math.Sin(u*9) {
				c = color.RGBA{30, uint8(50 + 30*u), 70, 255}
			}
			img.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	_ = png.Encode(&b, img)
	return b.Bytes()
}

func ptr[T any](v T) *T { return &v }

func ago(d time.Duration) backend.Time { return backend.At(epoch.Add(-d)) }

func testJob(n int, name string, s backend.JobState) backend.Job {
	return backend.Job{
		ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n), Name: name, Owner: "ann", State: s,
		Created: ago(time.Duration(n%100) * time.Minute), Labels: map[string]string{},
	}
}

func done(n int, name, file string, secs float64) backend.Job {
	j := testJob(n, name, backend.JobSucceeded)
	j.Started, j.Finished, j.InferenceS = ago(time.Duration(n)*time.Minute), ago(time.Duration(n)*time.Minute-time.Duration(secs)*time.Second), ptr(secs)
	j.Outputs = []backend.Output{{
		Node: "9", Kind: "image", Filename: file, Type: "output", Path: "/mnt/data/output/" + file,
		Bytes: ptr(int64(1_830_000)), Width: ptr(1024), Height: ptr(1024),
	}}
	j.Attempts = []backend.Attempt{{N: 1, Worker: "gpu0", Outcome: backend.OutcomeSucceeded, Started: j.Started, Finished: j.Finished}}
	return j
}

// oom is a failed job with two attempts and their verdicts.
func oom(n int) backend.Job {
	j := testJob(n, "upscale 4x", backend.JobFailed)
	j.Finished = ago(8 * time.Minute)
	v := &backend.Verdict{Kind: backend.KindCUDAOOM, Summary: "CUDA out of memory in VAEDecode", Remedy: "halve the batch, or the size", At: ago(9 * time.Minute)}
	j.Attempts = []backend.Attempt{
		{N: 1, Worker: "gpu0", Outcome: backend.OutcomeLost, Verdict: v, Started: ago(11 * time.Minute), Finished: ago(10 * time.Minute), Leftovers: []string{"upscale_00001_.png"}},
		{N: 2, Worker: "gpu0", Outcome: backend.OutcomeFailed, Verdict: v, Started: ago(9 * time.Minute), Finished: ago(8 * time.Minute)},
	}
	j.Error = &backend.Error{Kind: backend.KindCUDAOOM, Message: "CUDA out of memory", Node: "8", Class: "VAEDecode", Title: "VAE Decode", Remedy: "halve the batch, or the size"}
	return j
}

func testStatus() backend.Status {
	death := &backend.Verdict{Kind: backend.KindHostOOM, Certainty: backend.Certain, Summary: "the kernel killed it: no memory left", Remedy: "fewer models at once", At: ago(17 * time.Minute), Launch: "l0"}
	return backend.Status{
		Edition: "standard",
		Engine:  &backend.EngineInfo{PID: 4711, Version: "0.1.0", Started: ago(26 * time.Hour), Host: "gpu-box-3"},
		Workers: []backend.Worker{{
			ID: "gpu0", State: backend.WorkerBusy, PID: ptr(4712), Launch: "l1", Started: ago(134 * time.Minute), Restarts: 1,
			ComfyUI: &backend.ComfyUIInfo{Dir: "/opt/ComfyUI", Version: "0.3.64"}, GPU: ptr("0"), LastDeath: death,
		}},
		Queue: backend.QueueCounts{Queued: 11, Running: 1, Held: 1},
		GPUs:  []backend.GPU{testGPU(0)},
		Disk:  backend.DiskInfo{Path: "/mnt/data", Free: 1 << 40, Total: 2 << 40},
	}
}

func testGPU(i int) backend.GPU {
	f := float64(i)
	return backend.GPU{
		Index: 0, Name: "NVIDIA A10", MemoryUsed: ptr(int64(21_260_088_115)), MemoryTotal: ptr(int64(24_159_191_040)),
		Utilisation: ptr(90 + math.Mod(f*7, 9)), Temperature: ptr(70 + math.Mod(f, 3)), Power: ptr(140 + math.Mod(f*5, 11)), Source: "nvml",
		Throttle: []string{"power cap"},
		Processes: []backend.GPUProcess{
			{PID: 9100, Name: "python3 train.py", User: "bob", Memory: ptr(int64(1_288_490_188))},
			{PID: 4712, Name: "python main.py", User: "ann", Memory: ptr(int64(19_434_727_000)), Ours: true, Worker: "gpu0"},
		},
	}
}

// testMarks is what happened on the card in the last minutes.
func testMarks() []backend.GPUMark {
	return []backend.GPUMark{
		{At: ago(5 * time.Minute), Kind: backend.MarkJob, Text: "upscale", Worker: "gpu0"},
		{At: ago(170 * time.Second), Kind: backend.MarkOOM, Text: "CUDA out of memory", Worker: "gpu0"},
		{At: ago(40 * time.Second), Kind: backend.MarkJob, Text: "wan-vace-t2v", Worker: "gpu0"},
	}
}

// busyBox is a snapshot of a box at work.
func busyBox() *backend.Snapshot {
	run := testJob(1, "wan-vace-t2v", backend.JobRunning)
	run.Started = ago(40 * time.Second)
	run.Progress = &backend.Progress{Node: "3", Class: "KSampler", Title: "KSampler", Value: 14, Max: 20, Fraction: 0.68, ETAS: ptr(100.0)}
	run.Attempts = []backend.Attempt{{N: 1, Worker: "gpu0", Outcome: backend.OutcomeRunning, Started: run.Started}}
	jobs := []backend.Job{run}
	for i := range 12 {
		j := testJob(102+i, fmt.Sprintf("portrait seed=%d", 2+i), backend.JobQueued)
		j.WaitReason = "waits for the worker"
		switch i {
		case 0:
			j.Priority = 2
			j.Attempts = []backend.Attempt{{N: 1, Outcome: backend.OutcomeSent}}
		case 4:
			j.State, j.WaitReason = backend.JobHeld, "held by ann"
		}
		jobs = append(jobs, j)
	}
	cancelled := testJob(44, "rain on glass", backend.JobCancelled)
	cancelled.Finished = ago(20 * time.Minute)
	text := done(50, "caption", "", 1.5)
	text.Outputs = []backend.Output{{Kind: "text", Text: "a lighthouse on a cliff"}}
	return &backend.Snapshot{
		Seq: 100, Status: testStatus(), Jobs: jobs,
		Recent: []backend.Job{done(3, "portrait seed=1", "portrait_00041_.png", 8.2), oom(9), done(13, "海边的灯塔", "灯塔_00007_.png", 11.4), cancelled, text},
	}
}

// drive runs a model by hand inside a synctest bubble: commands run in goroutines,
// their messages are fed back until nothing moves. Time stands still.
type drive struct {
	t    *testing.T
	m    *Model
	msgs chan tea.Msg
	raw  strings.Builder
	quit bool
}

func newDrive(t *testing.T, m *Model, w, h int) *drive {
	d := &drive{t: t, m: m, msgs: make(chan tea.Msg, 10_000)}
	d.cmd(m.Init())
	if w > 0 {
		d.send(tea.WindowSizeMsg{Width: w, Height: h})
	}
	return d
}

// send feeds messages and everything that follows from them.
func (d *drive) send(msgs ...tea.Msg) {
	d.t.Helper()
	for _, m := range msgs {
		d.one(m)
	}
	d.settle()
}

func (d *drive) settle() {
	for {
		synctest.Wait()
		select {
		case m := <-d.msgs:
			d.one(m)
		default:
			return
		}
	}
}

func (d *drive) one(msg tea.Msg) {
	switch msg := msg.(type) {
	case tea.BatchMsg:
		for _, c := range msg {
			d.cmd(c)
		}
		return
	case tea.QuitMsg:
		d.quit = true
		return
	case tea.RawMsg:
		fmt.Fprint(&d.raw, msg.Msg)
		return
	}
	if v := reflect.ValueOf(msg); v.Kind() == reflect.Slice && v.Type().Elem() == reflect.TypeFor[tea.Cmd]() {
		for i := range v.Len() { // a sequence
			if m := v.Index(i).Interface().(tea.Cmd)(); m != nil {
				d.one(m)
			}
		}
		return
	}
	_, c := d.m.Update(msg)
	d.cmd(c)
	_ = d.m.View()
}

func (d *drive) cmd(c tea.Cmd) {
	if c == nil {
		return
	}
	go func() {
		if m := c(); m != nil {
			d.msgs <- m
		}
	}()
}

// keys presses keys by their names.
func (d *drive) keys(names ...string) {
	d.t.Helper()
	for _, n := range names {
		d.send(press(n))
	}
}

// typed types text, one key for each rune.
func (d *drive) typed(s string) {
	for _, r := range s {
		d.send(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

// wait lets time pass.
func (d *drive) wait(t time.Duration) {
	time.Sleep(t)
	d.settle()
}

func (d *drive) frame() string { return d.m.View().Content }

var named = map[string]rune{
	"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
	"right": tea.KeyRight, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome, "end": tea.KeyEnd, "space": tea.KeySpace,
	"backspace": tea.KeyBackspace, "delete": tea.KeyDelete,
}

// press is the key press of a name such as "q", "ctrl+k", "alt+2" or "enter".
func press(name string) tea.KeyPressMsg {
	var k tea.KeyPressMsg
	for {
		if s, ok := strings.CutPrefix(name, "ctrl+"); ok {
			k.Mod, name = k.Mod|tea.ModCtrl, s
		} else if s, ok := strings.CutPrefix(name, "alt+"); ok {
			k.Mod, name = k.Mod|tea.ModAlt, s
		} else if s, ok := strings.CutPrefix(name, "shift+"); ok {
			k.Mod, name = k.Mod|tea.ModShift, s
		} else {
			break
		}
	}
	if c, ok := named[name]; ok {
		k.Code = c
		if name == "space" && k.Mod == 0 {
			k.Text = " "
		}
		return k
	}
	k.Code = []rune(name)[0]
	if k.Mod == 0 {
		k.Text = name
	}
	return k
}

// testOptions are the options of the tests.
func testOptions() Options {
	return Options{
		Box: "gpu-box-3", Loc: time.UTC,
		Now: func() time.Time { return epoch.Add(time.Since(bubbleStart())) },
		Load: func(_ context.Context, path string) (backend.Submission, error) {
			return backend.Submission{Graph: json.RawMessage(`{}`)}, nil
		},
	}
}

// bubbleStart is when time begins in a synctest bubble.
func bubbleStart() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

// inBubble runs fn with a model at a box at work, at a size.
func inBubble(t *testing.T, w, h int, fn func(d *drive, f *fake)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		f := newFake()
		sn := busyBox()
		f.jobs = sn.Jobs[1:]
		f.lines = testLog()
		d := newDrive(t, New(ctx, f, testOptions()), w, h)
		for i := range 40 {
			g := testGPU(i)
			g.Utilisation = ptr(50 + 45*math.Sin(float64(i)/4))
			d.m.env.State.Apply(backend.Frame{Kind: backend.FrameGPUs, GPUs: []backend.GPU{g}}, epoch.Add(-time.Duration(400-i*10)*time.Second))
		}
		d.send(linkMsg{connected: true}, framesMsg{frames: []backend.Frame{{Kind: backend.FrameSnapshot, Seq: 100, Snapshot: sn}}})
		d.send(framesMsg{frames: []backend.Frame{
			{Kind: backend.FrameGPUs, GPUs: []backend.GPU{testGPU(1)}},
			{Kind: backend.FrameMarks, Marks: testMarks()},
			{Kind: backend.FramePreview, Preview: &backend.Preview{Job: sn.Jobs[0].ID, MIME: "image/png", Data: testPNG(96, 96, 1)}},
		}})
		d.wait(time.Second)
		fn(d, f)
		cancel()
		time.Sleep(time.Minute) // lets clocks that nobody listens to run out
	})
}

// testLog is a log as ComfyUI writes it.
func testLog() []backend.LogLine {
	texts := []struct{ level, text string }{
		{"info", "Total VRAM 22528 MB, total RAM 64178 MB"},
		{"info", "pytorch version: 2.7.1+cu128"},
		{"info", "Set vram state to: NORMAL_VRAM"},
		{"warning", "FutureWarning: torch.load with weights_only=False"},
		{"info", "Import times for custom nodes:"},
		{"info", "   0.4 seconds: /mnt/data/custom_nodes/ComfyUI-GGUF"},
		{"error", "IMPORT FAILED: /mnt/data/custom_nodes/broken-pack"},
		{"info", "Starting server"},
		{"info", "got prompt"},
		{"info", "Requested to load WAN21"},
		{"info", "a very long line that says much about tensors: " + strings.Repeat("tensor(0.1234, device='cuda:0') ", 12)},
		{"info", "loaded completely 19841.2 14213.1 True"},
	}
	var out []backend.LogLine
	for i, t := range texts {
		out = append(out, backend.LogLine{Launch: "l1", N: int64(i + 1), At: backend.At(epoch), Text: t.text, Level: t.level})
	}
	return append(out, backend.LogLine{Launch: "l1", N: int64(len(texts) + 1), Text: " 70%|███████   | 14/20 [00:31<00:13,  2.21s/it]", Bar: true, Level: "info", At: backend.At(epoch)})
}
