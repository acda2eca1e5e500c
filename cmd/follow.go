package cmd

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/worker"
)

// goneAfter is how long jobs are waited for without a connection to the engine. A
// restarted engine is back within a second; this is for one that is not.
const goneAfter = 60 * time.Second

// lostAfter is how long a broken connection is not worth a word.
const lostAfter = 2 * time.Second

// watchAgain is the pause before the event stream is begun anew.
const watchAgain = 100 * time.Millisecond

// Reasons for which following jobs ends before the jobs do.
var (
	errInterrupted = errors.New("interrupted")
	errWaited      = errors.New("waited long enough")
	errAllFinal    = errors.New("every job has ended")
)

// follower waits for jobs and tells what becomes of them. Its methods are
// called from one goroutine.
type follower struct {
	engine *client.Client
	show   display
	// onEvent gets every kept event of the jobs, each once and in order within
	// its job; nil when nobody wants them.
	onEvent func(backend.Event)
	// onFinal is called once for each job that has ended.
	onFinal func(context.Context, backend.Job) error

	ids      []string
	jobs     map[string]backend.Job
	seen     map[string]int64 // number of the last event told, by job
	stopping bool             // the engine said that it is being stopped
	workers  []backend.Worker
}

func newFollower(engine *client.Client, show display, jobs []backend.Job) *follower {
	show = &locked{display: show}
	f := &follower{engine: engine, show: show, jobs: map[string]backend.Job{}, seen: map[string]int64{}}
	for _, j := range jobs {
		f.ids = append(f.ids, j.ID)
		f.jobs[j.ID] = j
		show.job(j)
	}
	return f
}

// wait follows the jobs until all have ended. The error says why it stopped
// before that: errInterrupted, errWaited (after limit, 0: none), or that there is
// no engine or worker.
func (f *follower) wait(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if limit > 0 {
		t := time.AfterFunc(limit, func() { cancel(errWaited) })
		defer t.Stop()
	}
	stop := onSignal(func() { cancel(errInterrupted) })
	defer stop()
	gone := time.AfterFunc(goneAfter, func() { cancel(errGone(nil)) })
	defer gone.Stop()
	defer f.show.end()

	lost := time.AfterFunc(time.Hour, func() {
		f.show.note("the engine does not answer; waiting for it, the job is safe")
	})
	defer lost.Stop()
	onState := func(connected bool, err error) {
		if connected {
			gone.Stop()
			lost.Stop()
			return
		}
		if f.stopping || client.IsNotRunning(err) {
			cancel(errGone(err))
			return
		}
		gone.Reset(goneAfter)
		lost.Reset(lostAfter) // an engine that is restarted is back before that
	}
	var err error
	for {
		err = f.engine.Watch(ctx, client.EventsOptions{}, func(fr backend.Frame) error { return f.frame(ctx, fr) }, onState)
		if ctx.Err() != nil || !client.IsPassing(err) {
			break
		}
		// A call made for a frame met a restart of the engine: begin again with a
		// snapshot, by which the jobs are read anew.
		onState(false, err)
		time.Sleep(watchAgain)
	}
	switch {
	case errors.Is(err, errAllFinal):
		return nil
	case context.Cause(ctx) != nil && errors.Is(err, context.Canceled):
		return context.Cause(ctx)
	}
	return err
}

// errGone says that jobs are safe but nobody works on them now.
func errGone(cause error) error {
	return &exit{
		code: codeUnavailable, kind: backend.FailEngineDown, cause: cause,
		message: "the engine was stopped; accepted jobs are kept and go on when it runs again",
		hints:   []string{"`easel serve --detach` starts it, `easel jobs watch` follows them"},
	}
}

// onSignal calls f at the first interrupt, termination or hang-up.
func onSignal(f func()) (stop func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case <-ch:
			f()
		case <-done:
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
}

// frame takes one frame of the event stream.
func (f *follower) frame(ctx context.Context, fr backend.Frame) error {
	switch fr.Kind {
	case backend.FrameSnapshot:
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		if fr.Snapshot != nil && !f.allFinal() {
			f.workersChanged(fr.Snapshot.Status.Workers)
			if err := unchosen(fr.Snapshot.Status); err != nil {
				return err
			}
			f.paused(fr.Snapshot.Status.Queue)
		}
	case backend.FrameEvent:
		if err := f.event(ctx, fr.Event); err != nil {
			return err
		}
	case backend.FrameProgress:
		if p := fr.Progress; p != nil {
			if j, ok := f.jobs[p.Job]; ok && j.State == backend.JobRunning {
				j.Progress = &p.Progress
				f.jobs[p.Job] = j
				f.show.job(j)
			}
		}
	case backend.FrameWorkers:
		f.workersChanged(fr.Workers)
		if len(fr.Workers) == 0 && !f.allFinal() { // the engine looked for a ComfyUI
			s, err := f.engine.Status(ctx)
			if err == nil {
				err = unchosen(s)
			}
			if err != nil {
				return err
			}
		}
	case backend.FrameQueue:
		if fr.Queue != nil {
			f.paused(*fr.Queue)
		}
	case backend.FrameStopping:
		f.stopping = true
		f.show.note("the engine is being stopped")
	}
	if f.allFinal() {
		return errAllFinal
	}
	return f.hopeless()
}

// askAtOnce bounds the ids in one request, which go into its URL.
const askAtOnce = 100

// catchUp reads the jobs as they are now: at the start, and when the stream
// began anew.
func (f *follower) catchUp(ctx context.Context) error {
	var open []string
	for _, id := range f.ids {
		if j := f.jobs[id]; !j.State.Final() || f.behind(j) {
			open = append(open, id)
		}
	}
	for len(open) > 0 {
		n := min(askAtOnce, len(open))
		jobs, err := f.engine.Jobs(ctx, backend.JobFilter{IDs: open[:n]})
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if err := f.history(ctx, j.ID); err != nil {
				return err
			}
			if err := f.changed(ctx, j); err != nil {
				return err
			}
		}
		open = open[n:]
	}
	return nil
}

// behind reports whether a job that came in final (the same key again) was not
// told yet.
func (f *follower) behind(j backend.Job) bool { return f.seen[j.ID] >= 0 }

// history tells the events of a job that were not told yet.
func (f *follower) history(ctx context.Context, id string) error {
	if f.onEvent == nil {
		return nil
	}
	events, err := f.engine.JobEvents(ctx, id)
	if err != nil {
		return err
	}
	for _, e := range events {
		f.tell(e)
	}
	return nil
}

func (f *follower) tell(e backend.Event) {
	if f.onEvent != nil && f.seen[e.JobID] >= 0 && e.JobSeq > f.seen[e.JobID] {
		f.seen[e.JobID] = e.JobSeq
		f.onEvent(e)
	}
}

// event takes one kept change of a job.
func (f *follower) event(ctx context.Context, e *backend.Event) error {
	if e == nil {
		return nil
	}
	if _, ours := f.jobs[e.JobID]; !ours {
		return nil
	}
	if f.onEvent != nil && e.JobSeq > f.seen[e.JobID]+1 && f.seen[e.JobID] >= 0 {
		if err := f.history(ctx, e.JobID); err != nil {
			return err
		}
	}
	f.tell(*e)
	if e.Job != nil {
		return f.changed(ctx, *e.Job)
	}
	j, err := f.engine.Job(ctx, e.JobID) // an event read back has no job in it
	if err != nil {
		return err
	}
	return f.changed(ctx, j)
}

// changed takes the job as it is now.
func (f *follower) changed(ctx context.Context, j backend.Job) error {
	old, ours := f.jobs[j.ID]
	if !ours || f.seen[j.ID] < 0 || old.State.Final() && !j.State.Final() {
		return nil
	}
	if outdated(old, j) {
		return nil
	}
	if j.State == backend.JobRunning && j.Progress == nil {
		j.Progress = old.Progress
	}
	f.jobs[j.ID] = j
	f.show.job(j)
	if !j.State.Final() {
		return nil
	}
	if err := f.history(ctx, j.ID); err != nil { // the last events may not have come yet
		return err
	}
	f.seen[j.ID] = -1
	if f.onFinal != nil {
		return f.onFinal(ctx, j)
	}
	return nil
}

// outdated reports whether j is how a job was before old: an event that was under
// way while the job was read. A prompt that runs is never only sent again.
func outdated(old, j backend.Job) bool {
	n := len(j.Attempts)
	return old.State == backend.JobRunning && j.State == backend.JobQueued && n > 0 && n == len(old.Attempts) &&
		j.Attempts[n-1].PromptID == old.Attempts[n-1].PromptID && j.Attempts[n-1].Outcome == backend.OutcomeSent
}

// allFinal reports whether every job has ended and was told.
func (f *follower) allFinal() bool {
	for _, id := range f.ids {
		if f.seen[id] >= 0 {
			return false
		}
	}
	return true
}

// workersChanged notes workers that are in the way of the jobs.
func (f *follower) workersChanged(ws []backend.Worker) {
	was := map[string]backend.WorkerState{}
	for _, w := range f.workers {
		was[w.ID] = w.State
	}
	f.workers = ws
	for _, w := range ws {
		if was[w.ID] == w.State || w.State == backend.WorkerStopped && w.Reason == worker.NotYet {
			continue
		}
		switch w.State {
		case backend.WorkerReady, backend.WorkerBusy:
			if was[w.ID] != "" && was[w.ID] != backend.WorkerReady && was[w.ID] != backend.WorkerBusy {
				f.show.note("worker " + oneLine(w.ID) + " is ready")
			}
		default:
			text := "worker " + oneLine(w.ID) + ": " + string(w.State)
			if w.Reason != "" && w.Reason != string(w.State) {
				text += ", " + oneLine(w.Reason)
			}
			f.show.note(text)
		}
	}
}

// paused notes a queue that does not move.
func (f *follower) paused(q backend.QueueCounts) {
	if q.Paused {
		f.show.note("the queue is paused: `easel jobs resume` lets it go on")
	}
}

// hopeless says so when no worker will run the jobs before a person does
// something.
func (f *follower) hopeless() error {
	if len(f.workers) == 0 {
		return nil
	}
	for _, w := range f.workers {
		if w.State != backend.WorkerFailed {
			return nil
		}
	}
	return workerFailed(f.workers[0], "the job is kept and waits: `easel worker logs` shows why, `easel worker start` tries again")
}

// unchosen says so when nobody works because a person has to say first which
// ComfyUI to use.
func unchosen(s backend.Status) error {
	if len(s.Workers) > 0 || len(s.Found) == 0 {
		return nil
	}
	e := notChosen(s.Found)
	e.hints = append(e.hints, "the job is kept and waits for that")
	return e
}

// final are the jobs as they were last seen, in the order they were given.
func (f *follower) final() []backend.Job {
	out := make([]backend.Job, len(f.ids))
	for i, id := range f.ids {
		out[i] = f.jobs[id]
	}
	return out
}
