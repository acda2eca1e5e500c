package live

import (
	"testing"
	"time"

	"easel/backend"
)

var t0 = time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC)

func job(id string, s backend.JobState, prio int) backend.Job {
	return backend.Job{ID: id, State: s, Priority: prio}
}

func event(kind backend.EventKind, j backend.Job) backend.Frame {
	return backend.Frame{Kind: backend.FrameEvent, Event: &backend.Event{Kind: kind, JobID: j.ID, Job: &j}}
}

func ids(jobs []backend.Job) string {
	s := ""
	for _, j := range jobs {
		s += j.ID
	}
	return s
}

func TestEventsFileJobsWhereTheyBelong(t *testing.T) {
	s := New("box", t0)
	s.Apply(backend.Frame{Kind: backend.FrameSnapshot, Snapshot: &backend.Snapshot{
		Jobs: []backend.Job{job("a", backend.JobRunning, 0), job("b", backend.JobQueued, 0), job("c", backend.JobQueued, 0)},
	}}, t0)
	steps := []struct {
		frame                    backend.Frame
		running, waiting, recent string
	}{
		{event(backend.EventAccepted, job("d", backend.JobQueued, 0)), "a", "bcd", ""},
		{event(backend.EventAccepted, job("e", backend.JobQueued, 5)), "a", "ebcd", ""},
		{event(backend.EventState, job("a", backend.JobSucceeded, 0)), "", "ebcd", "a"},
		{event(backend.EventStarted, job("e", backend.JobRunning, 5)), "e", "bcd", "a"},
		{event(backend.EventState, job("c", backend.JobHeld, 0)), "e", "bcd", "a"},
		{event(backend.EventState, job("e", backend.JobQueued, 5)), "", "ebcd", "a"},
		{event(backend.EventState, job("b", backend.JobCancelled, 0)), "", "ecd", "ba"},
		{event(backend.EventCleared, job("a", backend.JobSucceeded, 0)), "", "ecd", "b"},
	}
	for i, st := range steps {
		s.Apply(st.frame, t0)
		if ids(s.Running) != st.running || ids(s.Waiting) != st.waiting || ids(s.Recent) != st.recent {
			t.Fatalf("step %d: running %q waiting %q recent %q", i, ids(s.Running), ids(s.Waiting), ids(s.Recent))
		}
	}
}

func TestListsAreBounded(t *testing.T) {
	s := New("box", t0)
	for i := range 5000 {
		s.Apply(event(backend.EventAccepted, job(string(rune(0x4e00+i)), backend.JobQueued, i%3)), t0)
		s.Apply(event(backend.EventState, job(string(rune(0x8000+i)), backend.JobFailed, 0)), t0)
	}
	if len(s.Waiting) > s.Window || len(s.Recent) > MaxRecent {
		t.Errorf("%d waiting, %d recent", len(s.Waiting), len(s.Recent))
	}
	for i := 1; i < len(s.Waiting); i++ {
		if s.Waiting[i-1].Priority < s.Waiting[i].Priority {
			t.Fatal("a lower priority stands before a higher one")
		}
	}
}

func TestPreviewsGoWithTheirJob(t *testing.T) {
	s := New("box", t0)
	s.Apply(event(backend.EventStarted, job("a", backend.JobRunning, 0)), t0)
	pre := backend.Frame{Kind: backend.FramePreview, Preview: &backend.Preview{Job: "a"}}
	s.Apply(pre, t0)
	if s.Preview["a"] == nil {
		t.Fatal("the preview of a running job is not kept")
	}
	s.Apply(event(backend.EventState, job("a", backend.JobSucceeded, 0)), t0)
	s.Apply(pre, t0) // a late one
	if len(s.Preview) != 0 {
		t.Error("a preview outlives its job")
	}
}

func TestHistoryIsInBinsOfTenSeconds(t *testing.T) {
	s := New("box", t0)
	put := func(at time.Duration, v float64) {
		s.Apply(backend.Frame{Kind: backend.FrameGPUs, GPUs: []backend.GPU{{Utilisation: &v}}}, t0.Add(at))
	}
	put(0, 20)
	put(time.Second, 40)
	put(25*time.Second, 90)
	h := s.History(0)
	if n := len(h); h[n-3] != 0.3 && (h[n-3] < 0.299 || h[n-3] > 0.301) || h[n-2] != -1 || h[n-1] != 0.9 {
		t.Errorf("the last bins are %v", h[len(h)-3:])
	}
	put(time.Hour, 10)
	put(30*time.Minute, 50) // the clock went back
	if h = s.History(0); h[len(h)-2] != -1 {
		t.Errorf("after an hour of silence the bins are %v", h[len(h)-3:])
	}
}

func TestASnapshotBringsTheHistoryOfTheCards(t *testing.T) {
	s := New("box", t0)
	util := make([]*float64, 120)
	for i := range util {
		if i >= 60 {
			v := float64(i)
			util[i] = &v
		}
	}
	mem, total := 5.0, int64(10)
	onlyMemory := make([]*float64, 120)
	onlyMemory[119] = &mem
	sn := &backend.Snapshot{
		Status: backend.Status{GPUs: []backend.GPU{{Index: 1, MemoryTotal: &total}}},
		GPUHistory: &backend.GPUHistory{
			StepS: 5, To: backend.At(t0.Add(-time.Hour)), // another clock
			Cards: []backend.GPUSeries{{Index: 0, Utilisation: util}, {Index: 1, Utilisation: make([]*float64, 120), MemoryUsed: onlyMemory}},
			Marks: []backend.GPUMark{{Kind: backend.MarkOOM}},
		},
	}
	at := t0.Add(5 * time.Second)
	s.Apply(backend.Frame{Kind: backend.FrameSnapshot, Snapshot: sn}, at)
	h := s.History(0)
	if n := len(h); n != 60 || h[29] != -1 || h[30] != 0.605 || h[n-1] != 1.185 || s.History(1)[59] != 0.5 || len(s.Marks) != 1 {
		t.Errorf("%v %v", h, s.Marks)
	}
	s.Apply(backend.Frame{Kind: backend.FrameMarks, Marks: []backend.GPUMark{{}, {}}}, at)
	if len(s.Marks) != 2 || BinsAgo(t0.Add(-20*time.Second), at) != 2 {
		t.Error("marks")
	}
}
