package dispatch

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/jobs"
)

// quick are options under which nothing takes long.
func quick(o *Options) {
	o.StallLimit, o.StallGrace, o.LoopLimit, o.IdleWindow = 1500*time.Millisecond, time.Second, time.Second, 800*time.Millisecond
	o.ThreadLimit, o.CancelFree, o.CancelStop, o.FreeSettle = 500*time.Millisecond, time.Second, time.Second, 300*time.Millisecond
	o.MinFreeRAM, o.MinFreeDisk = 0, 0
}

// once is a fault that strikes in the first prompt only, over restarts too.
func once(t *testing.T, faults ...string) []string {
	args := []string{"--fault-state", filepath.Join(t.TempDir(), "count")}
	for _, f := range faults {
		args = append(args, "--fault", f)
	}
	return args
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func linuxOnly(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("processes are looked at on Linux only")
	}
}

func TestDeadWorkerThreadIsFoundWarnedOfAndEnded(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	b := tunedBench(t, quick, nil, once(t, "dead-worker@1")...)
	id := b.submit(0.2, nil)
	until(t, "a warning", func() bool {
		return strings.Contains(b.d.Remark("w"), "restarted in") && b.d.Note(id) != "" && len(b.d.Notices()) > 0
	})
	j := b.wait(id, backend.JobSucceeded)
	if len(j.Attempts) != 2 || j.Attempts[0].Outcome != backend.OutcomeLost {
		t.Fatalf("attempts %+v", j.Attempts)
	}
	v := j.Attempts[0].Verdict
	if v == nil || v.Kind != backend.KindStall || v.Certainty != backend.Certain || len(v.Evidence) < 3 || v.Job == nil {
		t.Errorf("verdict %+v", v)
	}
	until(t, "the remark goes", func() bool { return b.d.Remark("w") == "" })
}

func TestSilentJobIsEndedByItsLimit(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	b := tunedBench(t, quick, nil, once(t, "slow-node=60s@1")...)
	id := b.submit(0.05, nil)
	j := b.wait(id, backend.JobSucceeded)
	if v := j.Attempts[0].Verdict; len(j.Attempts) != 2 || v == nil || v.Kind != backend.KindStall || v.Certainty != backend.Likely {
		t.Errorf("attempts %+v", j.Attempts)
	}
}

func TestNodesThatEverTookLongerGetMoreTime(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	b := tunedBench(t, quick, nil, once(t, "slow-node=2500ms@1")...)
	b.d.learned.load(t.Context())
	b.d.learned.mu.Lock()
	b.d.learned.classes["EaselSketch"], b.d.learned.classes["SaveImage"] = classStats{Slow: 10}, classStats{Slow: 10}
	b.d.learned.mu.Unlock()
	j := b.wait(b.submit(0.05, nil), backend.JobSucceeded)
	if len(j.Attempts) != 1 {
		t.Errorf("attempts %+v", j.Attempts)
	}
}

func TestBlockedLoopIsEnded(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	b := tunedBench(t, quick, nil, once(t, "blocked-loop=60s@1")...)
	id := b.submit(0.2, nil)
	j := b.wait(id, backend.JobSucceeded)
	v := j.Attempts[0].Verdict
	if len(j.Attempts) != 2 || v == nil || v.Kind != backend.KindStall {
		t.Errorf("attempts %+v", j.Attempts)
	}
}

func TestCancelEscalatesAndTheNextJobStartsClean(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, quick, nil, once(t, "slow-node=120s@1", "ignore-int")...)
	id := b.submit(0.05, nil)
	next := b.submit(0.05, nil)
	b.wait(id, backend.JobRunning)
	if _, err := b.store.Act(t.Context(), backend.JobAction{Verb: backend.VerbCancel, Jobs: backend.JobFilter{IDs: []string{id}}}); err != nil {
		t.Fatal(err)
	}
	b.d.Wake()
	until(t, "the countdown to /free", func() bool { return strings.Contains(b.d.Note(id), "/free in") })
	until(t, "the countdown to the stop", func() bool { return strings.Contains(b.d.Note(id), "stopped in") })
	b.wait(id, backend.JobCancelled)
	if j := b.wait(next, backend.JobSucceeded); len(j.Attempts) != 1 {
		t.Errorf("attempts of the next %+v", j.Attempts)
	}
	if ends := b.w.ended(); len(ends) != 1 || !strings.HasPrefix(ends[0], "cancelling") {
		t.Errorf("ended by %q", ends)
	}
}

func TestTimeLimitEndsAJobThatObeysNothing(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, quick, nil, once(t, "slow-node=120s@1")...)
	id := b.submit(0.05, func(s *backend.Submission) { s.TimeoutS = 0.3 })
	if j := b.wait(id, backend.JobFailed); j.Error.Kind != backend.KindTimeout || len(j.Attempts) != 1 {
		t.Errorf("job %+v error %+v", j, j.Error)
	}
}

func TestOutOfMemoryIsFreedAndRunAlone(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, quick, nil, once(t, "cuda-oom@1")...)
	id := b.submit(0.05, nil)
	j := b.wait(id, backend.JobSucceeded)
	v := j.Attempts[0].Verdict
	if len(j.Attempts) != 2 || v == nil || v.Kind != backend.KindCUDAOOM || step(j) != stepFree || len(b.w.ended()) != 0 {
		t.Errorf("attempts %+v", j.Attempts)
	}
}

func TestLadderEndsWithWhatWouldFit(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, func(o *Options) {
		quick(o)
		o.Ladder, o.Flags = []string{"free", "flags", "gpu"}, []string{"--lowvram"}
	}, nil, once(t, "cuda-oom@1", "cuda-oom@2", "cuda-oom@3")...)
	id := b.submit(0.05, nil)
	j := b.wait(id, backend.JobFailed)
	if j.Error.Kind != backend.KindCUDAOOM || !strings.Contains(j.Error.Remedy, "also alone and freed and with --lowvram") {
		t.Errorf("error %+v", j.Error)
	}
	if got := fmt.Sprint(steps(j)); got != "[free flags]" {
		t.Errorf("steps %s", got)
	}
	if k := b.wait(b.submit(0.05, nil), backend.JobSucceeded); k.State != backend.JobSucceeded {
		t.Error("the queue does not go on")
	}
	if ends := fmt.Sprint(b.w.ended()); ends != "[flags: --lowvram flags: ]" {
		t.Errorf("launches %s", ends)
	}
}

func TestSmallerNamesANodeAndAValue(t *testing.T) {
	t.Parallel()
	for graph, want := range map[string]string{
		`{"5":{"class_type":"EmptyLatentImage","inputs":{"width":1024,"height":1024,"batch_size":4}}}`: "try 5.batch_size=2 (it was 4)",
		`{"5":{"class_type":"W","inputs":{"width":832,"height":480,"length":81,"batch_size":1}}}`:      "try 5.length=41 (it was 81)",
		`{"5":{"class_type":"EmptyLatentImage","inputs":{"width":1024,"height":768,"batch_size":1}}}`:  "try 5.width=704 and 5.height=512 (it was 1024×768)",
		`{"5":{"class_type":"LoadImage","inputs":{"image":"a.png"}}}`:                                  "make batch, frames or size smaller, then try again",
	} {
		if got := smaller(json.RawMessage(graph)); got != want {
			t.Errorf("%s: %s", graph, got)
		}
	}
}

func TestBrokenContextRestartsBeforeTheNextJob(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, quick, nil)
	s := newSession(&lane{d: b.d, id: "x", worker: b.w}, nil, "launch")
	p := &prompt{job: backend.Job{ID: "j", Attempts: []backend.Attempt{{N: 1}}}, n: 1}
	e := &comfy.ExecutionError{Node: "3", Type: "RuntimeError", Message: "CUDA error: an illegal memory access was encountered"}
	end := s.poison(p, e, jobs.End{})
	if s.restart == "" || !s.wantsQuiet() || end.State != backend.JobQueued || end.Verdict.Kind != backend.KindCUDAFault || !counted(end.Verdict) {
		t.Errorf("restart %q, end %+v", s.restart, end)
	}
}

func TestRecycleAfterJobsLetsALeakyWorkerRunOn(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	// A node that leaks 4 MiB a job, and 200 jobs: 800 MiB without a restart.
	b := tunedBench(t, func(o *Options) { quick(o); o.RecycleGrowth = 120 << 20 }, nil, "--fault", "alloc=4MiB")
	var ids []string
	for range 200 {
		ids = append(ids, b.submit(0, func(s *backend.Submission) {
			s.Graph = json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EaselSketch","inputs":{"text":"t","seed":%d,"width":16,"height":16,"batch_size":1,"steps":1,"seconds":0}},
				"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`, len(ids)))
		}))
	}
	var most atomic.Int64
	for _, id := range ids {
		j := b.wait(id, backend.JobSucceeded)
		if len(j.Attempts) != 1 {
			t.Errorf("job %s took %d attempts", id, len(j.Attempts))
		}
		if j.PeakRAM != nil && *j.PeakRAM > most.Load() {
			most.Store(*j.PeakRAM)
		}
	}
	ends := b.w.ended()
	if len(ends) < 2 || !strings.Contains(ends[0], "recycle_after (grown by") {
		t.Errorf("restarts %q", ends)
	}
	t.Logf("%d restarts, at most %d MiB", len(ends), most.Load()>>20)
}

func TestRecycleCountsJobs(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, func(o *Options) { quick(o); o.RecycleJobs = 3 }, nil)
	var ids []string
	for range 7 {
		ids = append(ids, b.submit(0, nil))
	}
	for _, id := range ids {
		if j := b.wait(id, backend.JobSucceeded); len(j.Attempts) != 1 {
			t.Errorf("attempts %+v", j.Attempts)
		}
	}
	if ends := b.w.ended(); len(ends) != 2 || !strings.Contains(ends[0], "3 jobs") {
		t.Errorf("restarts %q", ends)
	}
}

func TestRAMFloorFreesThenRestartsTheWorkerThatHoldsIt(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	var b *bench
	box := &machine{disk: freeDisk, who: func(map[int]bool) holder { return holder{} }}
	var ready atomic.Bool
	// As if the machine had 600 MiB beside what the worker's process holds; /free
	// gives nothing back, since the memory is a node's own.
	box.ram = func() int64 {
		if !ready.Load() {
			return 1 << 30
		}
		st := b.w.State()
		return 600<<20 - measureTree(*st.PID).rss
	}
	b = tunedBench(t, func(o *Options) { quick(o); o.MinFreeRAM = 300 << 20 }, box, once(t, "alloc=400MiB@1", "alloc=400MiB@2")...)
	ready.Store(true)
	first := b.submit(0.05, nil)
	b.wait(first, backend.JobSucceeded)
	until(t, "intake stops", func() bool { return strings.Contains(b.d.Blocked(), "worker w holds") })
	second := b.submit(0.05, nil)
	b.wait(second, backend.JobSucceeded)
	third := b.submit(0.05, nil)
	b.wait(third, backend.JobSucceeded)
}

func TestRAMFloorRestartsWhatFreeingDoesNotHelp(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	var b *bench
	box := &machine{disk: freeDisk, who: func(map[int]bool) holder { return holder{} }}
	var first atomic.Pointer[string]
	box.ram = func() int64 {
		if l := first.Load(); l == nil || b.w.State().Launch != *l {
			return 1 << 30
		}
		return 106 << 20
	}
	b = tunedBench(t, func(o *Options) { quick(o); o.MinFreeRAM = 100 << 20 }, box)
	launch := b.w.State().Launch
	running := b.submit(2, nil)
	b.wait(running, backend.JobRunning)
	b.d.SetOptions(func() Options { o := *b.d.opts(); o.MinFreeRAM = 110 << 20; return o }())
	first.Store(&launch)
	next := b.submit(0, nil)
	if j := b.wait(running, backend.JobSucceeded); len(j.Attempts) != 1 {
		t.Errorf("the running job was not left alone: %+v", j.Attempts)
	}
	if j := b.wait(next, backend.JobSucceeded); len(j.Attempts) != 1 || j.Attempts[0].Launch == launch {
		t.Errorf("attempts of the next %+v", j.Attempts)
	}
	if ends := b.w.ended(); len(ends) != 1 || !strings.Contains(ends[0], "short of RAM") {
		t.Errorf("restarts %q", ends)
	}
}

func TestRAMHeldByOthersStopsIntakeAndSaysWho(t *testing.T) {
	t.Parallel()
	var free, disk atomic.Int64
	free.Store(100 << 20)
	disk.Store(1 << 40)
	box := &machine{
		ram:  free.Load,
		disk: func(string) (int64, bool) { return disk.Load(), true },
		who:  func(map[int]bool) holder { return holder{pid: 4711, name: "blender", user: "eve", rss: 9 << 30} },
	}
	b := tunedBench(t, func(o *Options) { quick(o); o.MinFreeRAM, o.MinFreeDisk = 8<<30, 1<<30 }, box)
	id := b.submit(0, nil)
	until(t, "it says who", func() bool { return strings.Contains(b.d.Blocked(), "blender (pid 4711, user eve) holds 9.0 GiB") })
	if j, err := b.store.Get(t.Context(), id); err != nil || j.State != backend.JobQueued {
		t.Fatalf("it was sent: %+v %v", j, err)
	}
	free.Store(20 << 30)
	b.wait(id, backend.JobSucceeded)
	disk.Store(1 << 20)
	until(t, "the disk stops it", func() bool { return strings.Contains(b.d.Blocked(), "of disk left") })
	id = b.submit(0, nil)
	disk.Store(1 << 40)
	b.wait(id, backend.JobSucceeded)
	if len(b.w.ended()) != 0 {
		t.Errorf("restarts %q", b.w.ended())
	}
}

func TestWhatRunsTookIsLearned(t *testing.T) {
	t.Parallel()
	linuxOnly(t)
	b := tunedBench(t, quick, nil)
	graph := func(seed int) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EaselSketch","inputs":{"text":"t","seed":%d,"width":64,"height":64,"batch_size":1,"steps":8,"seconds":1.2}},
			"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"p"}}}`, seed))
	}
	j := b.wait(b.submit(0, func(s *backend.Submission) { s.Graph = graph(1) }), backend.JobSucceeded)
	if j.PeakRAM == nil || *j.PeakRAM < 1<<20 {
		t.Errorf("peak RAM %v", j.PeakRAM)
	}
	var k Learned
	until(t, "it is learned", func() bool { k = b.d.Learned(t.Context(), graph(2)); return k.Runs > 0 })
	if k.Nodes["1"] < 1 || k.Nodes["1"] > 3 || k.PeakRAM == 0 || k.Seconds < 1 {
		t.Errorf("learned %+v", k)
	}
	if s := b.d.learned.perStep("EaselSketch"); s < 0.1 || s > 0.4 {
		t.Errorf("seconds per step %g", s)
	}
	id := b.submit(0, func(s *backend.Submission) { s.Graph = graph(3) })
	until(t, "an ETA by what is known", func() bool {
		p := b.d.Progress(id)
		return p != nil && p.ETAS != nil && *p.ETAS > 0.2 && *p.ETAS < 2
	})
	b.wait(id, backend.JobSucceeded)
	again := &learned{store: b.store}
	again.load(t.Context())
	if again.slowest("EaselSketch") < 1 {
		t.Errorf("not kept: %+v", again.classes)
	}
}

func TestPromptsOfOthersAreShownAndLeftAlone(t *testing.T) {
	t.Parallel()
	b := tunedBench(t, quick, nil)
	c, _, _ := b.w.Client()
	_, err := c.Post(t.Context(), comfy.PromptRequest{
		ClientID: "somebody", PromptID: "11111111-2222-4333-8444-555555555555",
		Graph: json.RawMessage(`{"1":{"class_type":"EaselSketch","_meta":{"title":"theirs"},"inputs":{"text":"t","seed":1,"width":64,"height":64,"batch_size":1,"steps":20,"seconds":4}},
			"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"p"}}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	id := b.submit(0, nil)
	until(t, "it shows with node and step", func() bool {
		list := b.d.Foreign()
		return len(list) == 1 && list[0].State == backend.JobRunning && list[0].ClientID == "somebody" && list[0].Title == "theirs" && list[0].Max == 20
	})
	if n := b.d.Notices(); len(n) == 0 || !strings.Contains(n[0], "1 prompt of others inside ComfyUI") {
		t.Errorf("notices %q", n)
	}
	b.wait(id, backend.JobSucceeded)
	entry, found, err := c.History(t.Context(), "11111111-2222-4333-8444-555555555555")
	if err != nil || !found || !entry.Success {
		t.Errorf("theirs: %+v %v %v", entry, found, err)
	}
	until(t, "it goes", func() bool { return len(b.d.Foreign()) == 0 })
}
