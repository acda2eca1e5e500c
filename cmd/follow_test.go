package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/client"
)

// fakeEngine serves the parts of the control API that following needs. Each
// connection to the event stream gets the next of streams.
type fakeEngine struct {
	t       *testing.T
	job     atomic.Pointer[backend.Job]
	events  atomic.Pointer[[]backend.Event]
	streams []func(send func(backend.Frame), r *http.Request)
	opened  atomic.Int32
	acted   atomic.Pointer[backend.JobAction]
}

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch {
	case r.URL.Path == "/v1/events":
		n := int(f.opened.Add(1)) - 1
		if n >= len(f.streams) {
			f.t.Errorf("the event stream was opened %d times", n+1)
			return
		}
		f.streams[n](func(fr backend.Frame) {
			b, _ := json.Marshal(fr)
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", fr.Kind, b)
			w.(http.Flusher).Flush()
		}, r)
	case r.URL.Path == "/v1/jobs/actions":
		var a backend.JobAction
		_ = json.NewDecoder(r.Body).Decode(&a)
		f.acted.Store(&a)
		reply(map[string]any{"jobs": []backend.Job{*f.job.Load()}})
	case strings.HasSuffix(r.URL.Path, "/events"):
		reply(*f.events.Load())
	case r.URL.Path == "/v1/jobs":
		reply([]backend.Job{*f.job.Load()})
	default:
		reply(*f.job.Load())
	}
}

// start serves f and gives a client of it.
func (f *fakeEngine) start() *client.Client {
	f.t.Helper()
	dir, err := os.MkdirTemp("", "easel")
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "easel.sock"))
	if err != nil {
		f.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(f)
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	c := client.Unix(dir)
	f.t.Cleanup(func() {
		_ = c.Close()
		srv.CloseClientConnections()
		srv.Close()
		_ = os.RemoveAll(dir)
	})
	return c
}

const followed = "aaaaaaaa-0000-4000-8000-000000000001"

func jobIn(state backend.JobState) backend.Job {
	return backend.Job{ID: followed, Name: "hello", State: state, Created: before(time.Minute)}
}

func eventOf(seq, jobSeq int64, kind backend.EventKind, j *backend.Job) backend.Event {
	return backend.Event{Seq: seq, JobSeq: jobSeq, Kind: kind, JobID: followed, Job: j, At: before(0)}
}

func frameOf(e backend.Event) backend.Frame {
	return backend.Frame{Kind: backend.FrameEvent, Seq: e.Seq, Event: &e}
}

func snapshot(seq int64, ws ...backend.Worker) backend.Frame {
	return backend.Frame{Kind: backend.FrameSnapshot, Seq: seq, Snapshot: &backend.Snapshot{Seq: seq, Status: backend.Status{Workers: ws}}}
}

// TestFollowOverARestart loses the engine in mid-job. Every event is told once,
// and the job's end is seen.
func TestFollowOverARestart(t *testing.T) {
	queued, running, done := jobIn(backend.JobQueued), jobIn(backend.JobRunning), jobIn(backend.JobSucceeded)
	done.Started, done.Finished = before(30*time.Second), before(20*time.Second)
	done.Outputs = []backend.Output{{Kind: "image", Filename: "hello.png", Path: "/out/hello.png"}}
	e := []backend.Event{
		eventOf(4, 1, backend.EventAccepted, nil), eventOf(5, 2, backend.EventSent, nil), eventOf(6, 3, backend.EventStarted, &running),
		eventOf(8, 4, backend.EventOutput, nil), eventOf(9, 5, backend.EventState, &done),
	}
	f := &fakeEngine{t: t}
	set := func(j backend.Job, events []backend.Event) { f.job.Store(&j); f.events.Store(&events) }
	set(queued, e[:2])
	f.streams = []func(func(backend.Frame), *http.Request){
		func(send func(backend.Frame), _ *http.Request) {
			send(snapshot(5))
			send(frameOf(e[2]))
			send(backend.Frame{Kind: backend.FrameProgress, Progress: &backend.JobProgress{Job: followed, Progress: backend.Progress{Node: "3", Class: "KSampler", Value: 1, Max: 2, Fraction: 0.5}}})
		},
		func(send func(backend.Frame), r *http.Request) {
			if got := r.URL.Query().Get("after"); got != "6" {
				t.Errorf("resumed after %s, want 6", got)
			}
			set(done, e)
			send(frameOf(e[4])) // e[3] was never streamed: it is read back
			<-r.Context().Done()
		},
	}
	var text bytes.Buffer
	now := noon
	show := &plainLines{w: &text, now: func() time.Time { now = now.Add(2 * time.Second); return now }, last: map[string]plainState{}}
	fl := newFollower(f.start(), show, []backend.Job{queued})
	var told []int64
	fl.onEvent = func(e backend.Event) { told = append(told, e.JobSeq) }
	if err := fl.wait(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(told) != "[1 2 3 4 5]" {
		t.Errorf("events told %v", told)
	}
	if j := fl.final()[0]; j.State != backend.JobSucceeded {
		t.Errorf("job %+v", j)
	}
	for _, want := range []string{"aaaaaaaa hello: queued\n", "running · KSampler 1/2 · 50 %\n", "succeeded · in 10s · hello.png\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
}

func TestFollowEndsWhen(t *testing.T) {
	queued := jobIn(backend.JobQueued)
	hang := func(frames ...backend.Frame) func(func(backend.Frame), *http.Request) {
		return func(send func(backend.Frame), r *http.Request) {
			for _, fr := range frames {
				send(fr)
			}
			<-r.Context().Done()
		}
	}
	for _, tc := range []struct {
		name   string
		stream func(func(backend.Frame), *http.Request)
		limit  time.Duration
		code   int
	}{
		{"the time is up", hang(snapshot(1)), 50 * time.Millisecond, codeTimeout},
		{"every worker needs a person", hang(snapshot(1, backend.Worker{ID: "cpu", State: backend.WorkerFailed, Reason: "no main.py", LastDeath: &backend.Verdict{Remedy: "fix it"}})), time.Minute, codeUnavailable},
		{"the engine is stopped", func(send func(backend.Frame), _ *http.Request) {
			send(snapshot(1))
			send(backend.Frame{Kind: backend.FrameStopping})
		}, time.Minute, codeUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fakeEngine{t: t, streams: []func(func(backend.Frame), *http.Request){tc.stream}}
			f.job.Store(&queued)
			var text, errs bytes.Buffer
			fl := newFollower(f.start(), &plainLines{w: &text, now: time.Now, last: map[string]plainState{}}, []backend.Job{queued})
			err := fl.wait(t.Context(), tc.limit)
			a := &app{out: &text, err: &errs}
			if got := exitCode(a.gaveUp(err, fl.open(), tc.limit)); got != tc.code {
				t.Errorf("exit code %d for %v, want %d", got, err, tc.code)
			}
		})
	}
}

// TestFirstInterruptLeavesTheJob sends this process a real SIGINT.
func TestFirstInterruptLeavesTheJob(t *testing.T) {
	queued := jobIn(backend.JobQueued)
	f := &fakeEngine{t: t, streams: []func(func(backend.Frame), *http.Request){func(send func(backend.Frame), r *http.Request) {
		send(snapshot(1))
		<-r.Context().Done()
	}}}
	f.job.Store(&queued)
	var text, errs bytes.Buffer
	show := &signalOnFirstNote{display: &plainLines{w: &text, now: time.Now, last: map[string]plainState{}}, t: t}
	fl := newFollower(f.start(), show, []backend.Job{queued})
	fl.workers = nil
	err := fl.wait(t.Context(), time.Minute)
	if !errors.Is(err, errInterrupted) {
		t.Fatalf("err %v", err)
	}
	a := &app{out: &text, err: &errs}
	err = a.gaveUp(err, fl.open(), 0)
	a.report(err)
	if exitCode(err) != codeInterrupted || !strings.Contains(errs.String(), "the job goes on") || !strings.Contains(errs.String(), "easel jobs cancel aaaaaaaa") {
		t.Errorf("code %d, stderr %q", exitCode(err), errs.String())
	}
	if f.acted.Load() != nil {
		t.Error("the job was cancelled")
	}
}

// signalOnFirstNote interrupts this process when the jobs were read once.
type signalOnFirstNote struct {
	display
	t    *testing.T
	jobs int
}

func (s *signalOnFirstNote) job(j backend.Job) {
	s.display.job(j)
	if s.jobs++; s.jobs == 2 { // the first is from newFollower, before signals are caught
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Signal(os.Interrupt)
		}
		if err != nil {
			s.t.Error(err)
		}
	}
}

func TestBarLine(t *testing.T) {
	var b bytes.Buffer
	now := noon
	bar := &barLine{w: &b, width: func() int { return 60 }, now: func() time.Time { return now }, total: 2, jobs: map[string]backend.Job{}}
	j := jobIn(backend.JobQueued)
	j.Position = ptr(1)
	bar.job(j)
	j.State, j.Progress = backend.JobRunning, &backend.Progress{Title: "KSampler", Value: 10, Max: 20, Fraction: 0.5}
	bar.job(j)
	j.Progress = &backend.Progress{Title: "KSampler", Value: 11, Max: 20, Fraction: 0.55}
	bar.job(j) // too soon to be drawn
	now = now.Add(time.Second)
	bar.note("worker gpu0 is ready")
	j.State, j.Progress, j.Started, j.Finished = backend.JobSucceeded, nil, before(9*time.Second), before(time.Second)
	bar.job(j)
	bar.end()
	got := strings.ReplaceAll(b.String(), "\r\x1b[K", "|")
	want := "|0/2 hello · queued · #1|0/2 hello  ████████████░░░░░░░░░░░░  KSampler 10/20 · 50 %" +
		"|easel: worker gpu0 is ready\n|0/2 hello  █████████████░░░░░░░░░░░  KSampler 11/20 · 55 %" +
		"|✓ hello · succeeded · in 8.0s · no output\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestJobsDoNotGoBack: the job was read while the event of its sending was still
// under way.
func TestJobsDoNotGoBack(t *testing.T) {
	attempt := func(j backend.Job, id string, o backend.Outcome) backend.Job {
		j.Attempts = append(j.Attempts[:len(j.Attempts):len(j.Attempts)], backend.Attempt{PromptID: id, Outcome: o})
		return j
	}
	running := attempt(jobIn(backend.JobRunning), "p1", backend.OutcomeRunning)
	for name, tc := range map[string]struct {
		job  backend.Job
		want bool
	}{
		"sent before it ran": {attempt(jobIn(backend.JobQueued), "p1", backend.OutcomeSent), true},
		"lost":               {attempt(jobIn(backend.JobQueued), "p1", backend.OutcomeLost), false},
		"lost, sent again":   {attempt(attempt(jobIn(backend.JobQueued), "p1", backend.OutcomeLost), "p2", backend.OutcomeSent), false},
		"taken back":         {jobIn(backend.JobQueued), false},
		"done":               {attempt(jobIn(backend.JobSucceeded), "p1", backend.OutcomeSucceeded), false},
	} {
		if got := outdated(running, tc.job); got != tc.want {
			t.Errorf("%s: outdated %v, want %v", name, got, tc.want)
		}
	}
}
