package cards

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/gpu"
	"easel/gpu/child"
	"easel/gpu/gputest"
	"easel/gpu/nvml"
	"easel/gpu/smi"
)

// TestMain lets the test binary be the sampler's process.
func TestMain(m *testing.M) {
	if os.Getenv("EASEL_TEST_SAMPLER") != "" {
		_ = child.Serve(os.Stdin, os.Stdout, nvml.Open)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const gib = int64(1) << 30

// box is a watch over stand-ins, with what it told.
type box struct {
	*Cards
	mu      sync.Mutex
	workers []Worker
	looked  bool
	stats   int
	marked  int
	devices []comfy.Device
}

func newBox(t *testing.T, sources ...*source) *box {
	t.Helper()
	b := &box{looked: true}
	b.Cards = newCards(Hooks{
		Workers: func() []Worker { b.mu.Lock(); defer b.mu.Unlock(); return b.workers },
		Watched: func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.looked },
		Publish: func([]backend.GPU) {},
		Marked:  func([]backend.GPUMark) { b.mu.Lock(); defer b.mu.Unlock(); b.marked++ },
		Stats: func(context.Context, string) ([]comfy.Device, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.stats++
			return b.devices, nil
		},
	}, slog.New(slog.DiscardHandler), sources)
	b.own.nested = false
	t.Cleanup(b.close)
	return b
}

func (b *box) set(ws ...Worker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers = ws
}

// stubbed is the real binding over the stand-in library.
func stubbed(s *gputest.Stub) (*source, *child.Sampler) {
	c := child.New(gpu.NVML, []string{"/proc/self/exe"}, append(s.Environ(), "EASEL_TEST_SAMPLER=1"))
	return &source{name: gpu.NVML, watch: watched, rest: resting, open: func() (gpu.Sampler, error) { return c, nil }}, c
}

// spawn starts a real process; in a session of its own as the keeper does.
func spawn(t *testing.T, session bool, argv ...string) int {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func line(used int64, procs ...string) string {
	return fmt.Sprintf("%d %d ok %s", used, 24*gib, strings.Join(procs, " "))
}

func TestOursAndOthersByNameAndUser(t *testing.T) {
	stub := gputest.New(t)
	src, _ := stubbed(stub)
	b := newBox(t, src)
	worker, other := spawn(t, true, "sleep", "600"), spawn(t, false, "sleep", "500")
	stub.Set(t, line(20*gib, gputest.Process(other, 2*gib), gputest.Process(worker, 18*gib)), line(0))
	b.set(Worker{ID: "gpu0", PID: worker, GPU: "0", Paints: true})
	b.round(t.Context())
	list := b.Now()
	if len(list) != 2 || len(list[0].Processes) != 2 {
		t.Fatalf("%+v", list)
	}
	p, q := list[0].Processes[0], list[0].Processes[1]
	if !p.Ours || p.Worker != "gpu0" || p.PID != worker || *p.Memory != 18*gib || p.Inferred {
		t.Errorf("ours: %+v", p)
	}
	if q.Ours || q.Name != "sleep" || q.User == "" || q.PID != other {
		t.Errorf("theirs: %+v", q)
	}
	if list[0].Source != gpu.NVML || *list[0].Utilisation != 97 || list[0].Driver == "" || list[0].Note != "" {
		t.Errorf("%+v", list[0])
	}
}

func TestADescendantInASessionOfItsOwnIsOurs(t *testing.T) {
	stub := gputest.New(t)
	src, _ := stubbed(stub)
	b := newBox(t, src)
	file := filepath.Join(t.TempDir(), "pid")
	worker := spawn(t, true, "sh", "-c", "setsid sh -c 'echo $$ > "+file+".new; mv "+file+".new "+file+"; exec sleep 600' & wait")
	var grandchild int
	waitFor(t, func() bool {
		raw, err := os.ReadFile(file)
		_, serr := fmt.Sscan(string(raw), &grandchild)
		return err == nil && serr == nil
	})
	t.Cleanup(func() { _ = syscall.Kill(grandchild, syscall.SIGKILL) })
	stub.Set(t, line(20*gib, gputest.Process(grandchild, 18*gib)))
	b.set(Worker{ID: "gpu0", PID: worker, Paints: true})
	b.round(t.Context())
	if p := b.Now()[0].Processes; len(p) != 1 || !p[0].Ours {
		t.Errorf("%+v", p)
	}
}

// In a container the driver's pids mean nothing here, or something else.
func TestPidsOfAnotherNamespaceAreInferredByTheMemory(t *testing.T) {
	stub := gputest.New(t)
	src, _ := stubbed(stub)
	b := newBox(t, src)
	b.own.nested = true
	bystander := spawn(t, false, "sleep", "600") // has the same number as a process of the machine
	stub.Set(t, line(3*gib, gputest.Process(bystander, 2*gib)))
	b.round(t.Context())
	if p := b.Now()[0].Processes; len(p) != 1 || p[0].Ours || p[0].User != "" {
		t.Fatalf("before the worker: %+v", p)
	}
	worker := spawn(t, true, "sleep", "600")
	b.set(Worker{ID: "gpu0", PID: worker, Paints: true})
	b.round(t.Context())
	if p := b.Now()[0].Processes; len(p) != 1 || p[0].Ours {
		t.Errorf("a worker that holds nothing yet: %+v", p)
	}
	stub.Set(t, line(20*gib, gputest.Process(bystander, 2*gib), gputest.Process(4_000_001, 17*gib)))
	b.round(t.Context())
	p := b.Now()[0].Processes
	if len(p) != 2 || !p[0].Ours || !p[0].Inferred || p[0].Worker != "gpu0" || p[0].PID != worker || *p[0].Memory != 17*gib || p[1].Ours {
		t.Errorf("%+v", p)
	}
}

func TestAnEmptyListWithMemoryInUse(t *testing.T) {
	stub := gputest.New(t)
	src, _ := stubbed(stub)
	b := newBox(t, src)
	worker := spawn(t, true, "sleep", "600")
	w := Worker{ID: "gpu0", PID: worker, Paints: true}
	b.set(w) // adopted: how the card was before is not known
	stub.Set(t, line(20*gib))
	b.round(t.Context())
	if g := b.Now()[0]; len(g.Processes) != 0 || !strings.Contains(g.Note, "20.0 GiB in use: the driver names no process") {
		t.Fatalf("%+v", g)
	}
	b.set()
	stub.Set(t, line(gib))
	b.round(t.Context())
	b.set(w)
	stub.Set(t, line(19*gib))
	b.round(t.Context())
	if p := b.Now()[0].Processes; len(p) != 1 || !p[0].Inferred || *p[0].Memory != 18*gib || b.Now()[0].Note != "" {
		t.Errorf("%+v", b.Now()[0])
	}
}

func TestADriverThatHangsIsReplacedByNvidiaSmi(t *testing.T) {
	stub := gputest.New(t)
	src, c := stubbed(stub)
	c.Silence = 300 * time.Millisecond
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$1\" in --query-gpu=*) echo '0, GPU-00000000-stub, A10, 5, 24576, 1, 30, 20, 150, 210, 405, 0, 550.1, 0x0, 0x0';; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	b := newBox(t, src, &source{name: gpu.SMI, watch: time.Second, rest: time.Second, open: smi.Open})
	stub.Set(t, fmt.Sprintf("5 %d hang", gib))
	pause := b.round(t.Context())
	if list := b.Now(); len(list) != 1 || list[0].Source != gpu.SMI || pause != time.Second {
		t.Fatalf("%+v, next in %s", list, pause)
	}
	if n := b.Notes(); len(n) != 1 || !strings.Contains(n[0], "did not answer") {
		t.Errorf("notes %q", n)
	}
	stub.Set(t, line(5))
	src.retry = time.Time{} // a minute later
	b.round(t.Context())
	if list := b.Now(); list[0].Source != gpu.NVML || len(b.Notes()) != 0 {
		t.Errorf("%+v %q", list, b.Notes())
	}
}

func TestABoxWithoutACardCostsNothing(t *testing.T) {
	opened := 0
	none := &source{name: gpu.NVML, open: func() (gpu.Sampler, error) {
		opened++
		return nil, gpu.Errorf(gpu.NoLibrary, "none")
	}}
	b := newBox(t, none)
	for range 3 {
		if pause := b.round(t.Context()); pause != 0 {
			t.Fatalf("the next look is in %s, not when something happens", pause)
		}
	}
	if opened != 1 || len(b.Now()) != 0 || b.Now() == nil || len(b.Notes()) != 0 {
		t.Errorf("opened %d times; %v %v", opened, b.Now(), b.Notes())
	}
	if got := b.UUIDs(t.Context()); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestWhatComfyUISaysIsAskedOnceALaunch(t *testing.T) {
	b := newBox(t)
	b.devices = []comfy.Device{{Name: "cuda:0 NVIDIA A10 : cudaMallocAsync", Type: "cuda", VRAMTotal: 24 * gib, VRAMFree: 20 * gib}}
	b.set(Worker{ID: "gpu0", PID: 1, Launch: "a", Ready: true, Paints: true}, Worker{ID: "builtin", PID: 2, Launch: "b", Ready: true})
	for range 3 {
		b.round(t.Context())
	}
	list := b.Now()
	if b.stats != 1 || len(list) != 1 || list[0].Name != "NVIDIA A10" || *list[0].MemoryUsed != 4*gib || list[0].Source != gpu.ComfyUI || list[0].Note == "" {
		t.Errorf("asked %d times: %+v", b.stats, list)
	}
	b.set()
	if b.round(t.Context()); len(b.Now()) != 0 {
		t.Error("the card of a worker that ended is still shown")
	}
}

func TestCardsAreNamedByUUID(t *testing.T) {
	stub := gputest.New(t)
	src, _ := stubbed(stub)
	b := newBox(t, src)
	stub.Set(t, line(0), line(0))
	if got := b.UUIDs(t.Context()); len(got) != 2 || got[1] != "GPU-00000001-stub" {
		t.Errorf("%v", got)
	}
	worker := spawn(t, true, "sleep", "600")
	if w := on(gpu.Card{Index: 1, UUID: "GPU-00000001-stub"}, []Worker{{PID: worker, GPU: "GPU-00000001", Paints: true}}, 2); w == nil {
		t.Error("a worker pinned by a cut UUID is not found on its card")
	}
}

func TestRunFillsTheHistoryAndKeepsMarks(t *testing.T) {
	stub := gputest.New(t)
	src, c := stubbed(stub)
	b := newBox(t, src)
	stub.Set(t, line(5*gib))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	waitFor(t, func() bool { return len(b.Now()) == 1 })
	b.Mark(backend.GPUMark{Kind: backend.MarkOOM, Text: "CUDA out of memory"})
	b.Mark(backend.GPUMark{At: backend.At(time.Now().Add(-time.Hour)), Kind: backend.MarkDeath})
	h := b.History()
	if len(h.Cards) != 1 || h.StepS != 5 || len(h.Cards[0].MemoryUsed) != gpu.Bins || b.marked == 0 {
		t.Errorf("%+v", h)
	}
	if len(h.Marks) == 0 || h.Marks[0].Kind != backend.MarkOOM {
		t.Errorf("%+v", h.Marks)
	}
	cancel()
	if err := <-done; err != nil || c.PID() != 0 {
		t.Errorf("%v; the sampler is left: %d", err, c.PID())
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	end := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
