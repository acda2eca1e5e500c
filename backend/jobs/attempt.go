package jobs

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"easel/backend"
	"easel/backend/fault"
)

// change loads the job id, lets fn change it, saves it and answers the result.
// fn must refuse before it writes.
func (s *Store) change(ctx context.Context, what, id string, fn func(*tx, *record) error) (job backend.Job, err error) {
	err = s.do(ctx, what, longPatience, changeOp(id, fn, &job))
	return job, err
}

// changeOp is the op of change.
func changeOp(id string, fn func(*tx, *record) error, out *backend.Job) func(*tx) error {
	return func(t *tx) error {
		r, err := t.find(id)
		if err != nil {
			return err
		}
		if err := fn(t, r); err != nil {
			return err
		}
		if t.wrote {
			if err := t.save(r); err != nil {
				return err
			}
		}
		*out, err = t.shown(r)
		return err
	}
}

// Sent records an attempt before its prompt is posted: outcome sent, the job
// still queued. a names PromptID (never used before), Worker and Launch; its
// number is returned. The owner counts as served from now on. A job that is not
// queued, or has an open attempt, is a conflict.
func (s *Store) Sent(ctx context.Context, id string, a backend.Attempt) (job backend.Job, n int, err error) {
	job, err = s.change(ctx, "record an attempt", id, func(t *tx, r *record) error {
		if !r.ready() {
			return wrongState(r, "be sent to a worker")
		}
		n = 1
		if k := len(r.job.Attempts); k > 0 {
			n = r.job.Attempts[k-1].N + 1
		}
		taken := false
		if _, err := t.row(`SELECT count(*) FROM attempts WHERE prompt_id = ?`, []any{a.PromptID}, &taken); err != nil {
			return err
		}
		if taken || a.PromptID == "" {
			return backend.Fail(backend.FailConflict, fmt.Sprintf("the prompt id %q was used before", a.PromptID), "")
		}
		next := backend.Attempt{N: n, PromptID: a.PromptID, Worker: a.Worker, Launch: a.Launch, Outcome: backend.OutcomeSent}
		if err := t.emit(r, backend.EventSent, map[string]any{"n": n, "prompt_id": a.PromptID, "worker": a.Worker, "launch": a.Launch}); err != nil {
			return err
		}
		before, err := t.serve(r.job.Owner, t.w.seq)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO attempts (job, n, prompt_id, worker, launch, sent, started, finished, outcome, mark, served_before)
			VALUES (?, ?, ?, ?, ?, ?, 0, 0, 'sent', ?, ?)`, r.seq, n, a.PromptID, a.Worker, a.Launch, t.now.Milli(), t.w.seq, before)
		r.job.Attempts = append(r.job.Attempts, next)
		r.open = n
		return err
	})
	if err != nil {
		return backend.Job{}, 0, err
	}
	return job, n, nil
}

// serve marks an owner as served at the event mark and returns the mark before.
func (t *tx) serve(owner string, mark int64) (before int64, err error) {
	if _, err := t.row(`SELECT served FROM owners WHERE owner = ?`, []any{owner}, &before); err != nil {
		return 0, err
	}
	_, err = t.exec(`INSERT INTO owners (owner, served) VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET served = excluded.served`, owner, mark)
	return before, err
}

// TakeBack removes a sent attempt whose prompt was taken out of the worker again:
// it is not counted, and the owner's turn is given back. A job that is being
// cancelled becomes cancelled by it. Only an attempt with outcome sent can be
// taken back.
func (s *Store) TakeBack(ctx context.Context, id string, n int, reason string) (backend.Job, error) {
	return s.change(ctx, "take an attempt back", id, func(t *tx, r *record) error {
		a := r.attempt(n)
		if a == nil || r.open != n || a.Outcome != backend.OutcomeSent {
			return attemptState(r, n, "be taken back")
		}
		var mark, before int64
		if _, err := t.row(`SELECT mark, served_before FROM attempts WHERE job = ? AND n = ?`, []any{r.seq, n}, &mark, &before); err != nil {
			return err
		}
		if err := t.emit(r, backend.EventBack, map[string]any{"n": n, "prompt_id": a.PromptID, "reason": reason}); err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE owners SET served = ? WHERE owner = ? AND served = ?`, before, r.job.Owner, mark); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM attempts WHERE job = ? AND n = ?`, r.seq, n); err != nil {
			return err
		}
		r.job.Attempts = slices.DeleteFunc(r.job.Attempts, func(a backend.Attempt) bool { return a.N == n })
		r.open = 0
		if r.job.Cancelling {
			return t.settle(r, backend.JobCancelled, map[string]any{"reason": reason})
		}
		return nil
	})
}

// Started records that the worker began to run a sent attempt: the job runs.
func (s *Store) Started(ctx context.Context, id string, n int, at time.Time) (backend.Job, error) {
	return s.change(ctx, "record a start", id, func(t *tx, r *record) error { return t.begin(r, n, backend.At(at)) })
}

// begin turns a sent attempt into a running one.
func (t *tx) begin(r *record, n int, at backend.Time) error {
	a := r.attempt(n)
	if a == nil || r.open != n || a.Outcome != backend.OutcomeSent {
		return attemptState(r, n, "start")
	}
	if at.IsZero() {
		at = t.now
	}
	from := r.job.State
	if err := r.become(backend.JobRunning); err != nil {
		return err
	}
	a.Started, a.Outcome = at, backend.OutcomeRunning
	if r.job.Started.IsZero() {
		r.job.Started = at
	}
	if err := t.emit(r, backend.EventStarted, map[string]any{"n": n, "from": from, "to": r.job.State, "at": at}); err != nil {
		return err
	}
	return t.saveAttempt(r, a)
}

// attemptState says that an attempt is not in the state that a change needs.
func attemptState(r *record, n int, what string) error {
	is := "unknown"
	if a := r.attempt(n); a != nil {
		is = string(a.Outcome)
	}
	return backend.Fail(backend.FailConflict, fmt.Sprintf("attempt %d of job %s is %s: it cannot %s", n, short(r.job.ID), is, what), "")
}

// AddOutputs adds what a running attempt has produced so far. An output seen
// before (same node, file and type) is replaced.
func (s *Store) AddOutputs(ctx context.Context, id string, n int, list []backend.Output) (backend.Job, error) {
	return s.change(ctx, "record outputs", id, func(t *tx, r *record) error {
		if r.open != n || n == 0 {
			return attemptState(r, n, "have outputs")
		}
		return t.addOutputs(r, n, list)
	})
}

// addOutputs writes outputs of an attempt.
func (t *tx) addOutputs(r *record, n int, list []backend.Output) error {
	var fresh []backend.Output
	for _, o := range list {
		i := slices.IndexFunc(r.job.Outputs, func(have backend.Output) bool { return sameOutput(have, o) })
		if i < 0 {
			i = len(r.job.Outputs)
			r.job.Outputs = append(r.job.Outputs, o)
			fresh = append(fresh, o)
		} else {
			r.job.Outputs[i] = o
		}
		if _, err := t.exec(`INSERT OR REPLACE INTO outputs (job, i, n, data) VALUES (?, ?, ?, ?)`, r.seq, i, n, toJSON(o)); err != nil {
			return err
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return t.emit(r, backend.EventOutput, map[string]any{"n": n, "outputs": fresh})
}

// sameOutput reports whether two outputs are the same file or text.
func sameOutput(a, b backend.Output) bool {
	return a.Node == b.Node && a.Kind == b.Kind && a.Type == b.Type && a.Subfolder == b.Subfolder && a.Filename == b.Filename &&
		(a.Filename != "" || a.Text == b.Text)
}

// End is how an attempt ended and what becomes of its job.
type End struct {
	Outcome backend.Outcome  // succeeded, failed, lost or cancelled
	State   backend.JobState // what the job becomes: queued (to be run again) or a final state
	At      time.Time        // zero: now
	Verdict *backend.Verdict // of the worker's death, if that ended it
	// InferenceS are the seconds it spent inside ComfyUI; they add up over the
	// attempts. 0 when unknown.
	InferenceS float64
	Leftovers  []string         // files a lost attempt left behind
	Error      *backend.Error   // why the job failed
	Outputs    []backend.Output // added to those recorded before
	Warnings   []string         // added to the job's
	GPUS       float64          // seconds of GPU time, added up; 0 when unknown
	PeakVRAM   int64            // bytes; the highest of all attempts is kept, 0 when unknown
	PeakRAM    int64            // bytes, as PeakVRAM
	// Shape names jobs that take about as long (the hash of the graph without
	// its seeds, say). With a success, InferenceS is remembered under it for
	// Seconds. "" remembers nothing.
	Shape string
}

// End records the end of the open attempt n, in one commit: the attempt, its
// outputs, and what the job becomes. A job that goes back to the queue loses the
// outputs of that attempt (name them as Leftovers), becomes cancelled when a
// cancel was waiting, and stays held when somebody held it. An attempt that ended
// well without having been seen to start is recorded as started too.
func (s *Store) End(ctx context.Context, id string, n int, e End) (job backend.Job, err error) {
	if e.Outcome.Open() || (!e.State.Final() && e.State != backend.JobQueued) {
		return backend.Job{}, fmt.Errorf("end attempt %d of job %s: outcome %q and state %q end nothing", n, short(id), e.Outcome, e.State)
	}
	fault.Hit("before-state-written")
	o := &op{fault: "jobs-before-commit-end", done: make(chan struct{})}
	o.fn = changeOp(id, func(t *tx, r *record) error { return t.end(r, n, e) }, &job)
	err = s.enqueue(ctx, s.queue, "record the end of a job", longPatience, o)
	if err != nil {
		return backend.Job{}, err
	}
	return job, nil
}

// end is End inside the transaction.
func (t *tx) end(r *record, n int, e End) error {
	a := r.attempt(n)
	if a == nil || r.open != n || n == 0 {
		return attemptState(r, n, "end")
	}
	at := backend.At(e.At)
	if at.IsZero() {
		at = t.now
	}
	if a.Outcome == backend.OutcomeSent && e.Outcome == backend.OutcomeSucceeded {
		if err := t.begin(r, n, at); err != nil {
			return err
		}
	}
	to := endState(r, e.State)
	if to != r.job.State && !legal(r.job.State, to) {
		return illegal(r, string(to))
	}
	if to == backend.JobQueued {
		if err := t.dropOutputs(r); err != nil {
			return err
		}
	} else if err := t.addOutputs(r, n, e.Outputs); err != nil {
		return err
	}
	a.Finished, a.Outcome, a.Verdict, a.Leftovers = at, e.Outcome, e.Verdict, e.Leftovers
	if err := t.emit(r, backend.EventAttempt, endData(n, e)); err != nil {
		return err
	}
	if err := t.saveAttempt(r, a); err != nil {
		return err
	}
	r.open = 0
	r.account(e)
	if err := t.learn(e); err != nil {
		return err
	}
	if to == r.job.State {
		return nil
	}
	if to != backend.JobQueued {
		r.job.Error = e.Error
	}
	return t.settleAt(r, to, at, nil)
}

// endState is what a job becomes when its attempt ended, wishes of people
// included.
func endState(r *record, want backend.JobState) backend.JobState {
	switch {
	case want != backend.JobQueued:
		return want
	case r.job.Cancelling:
		return backend.JobCancelled
	case r.job.State == backend.JobHeld:
		return backend.JobHeld
	}
	return want
}

// endData are the details of an attempt's end.
func endData(n int, e End) map[string]any {
	data := map[string]any{"n": n, "outcome": e.Outcome}
	if e.Verdict != nil {
		data["verdict"] = e.Verdict
	}
	if e.InferenceS > 0 {
		data["inference_s"] = e.InferenceS
	}
	if len(e.Leftovers) > 0 {
		data["leftovers"] = e.Leftovers
	}
	return data
}

// account adds up what an attempt used.
func (r *record) account(e End) {
	r.job.Warnings = append(r.job.Warnings, e.Warnings...)
	addUp(&r.job.InferenceS, e.InferenceS)
	addUp(&r.job.GPUS, e.GPUS)
	keepHighest(&r.job.PeakVRAM, e.PeakVRAM)
	keepHighest(&r.job.PeakRAM, e.PeakRAM)
}

// addUp adds a known amount of seconds.
func addUp(sum **float64, v float64) {
	if v <= 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	if *sum != nil {
		v += **sum
	}
	*sum = &v
}

// keepHighest keeps a known peak.
func keepHighest(peak **int64, v int64) {
	if v > 0 && (*peak == nil || **peak < v) {
		*peak = &v
	}
}

// dropOutputs forgets what a lost attempt produced: it is not a result.
func (t *tx) dropOutputs(r *record) error {
	if len(r.job.Outputs) == 0 {
		return nil
	}
	r.job.Outputs = []backend.Output{}
	_, err := t.exec(`DELETE FROM outputs WHERE job = ?`, r.seq)
	return err
}

// settle changes the state of a job now and tells so.
func (t *tx) settle(r *record, to backend.JobState, data map[string]any) error {
	return t.settleAt(r, to, t.now, data)
}

// settleAt changes the state of a job and tells so; the caller saves it.
func (t *tx) settleAt(r *record, to backend.JobState, at backend.Time, data map[string]any) error {
	from := r.job.State
	if err := r.become(to); err != nil {
		return err
	}
	if to.Final() {
		r.job.Finished, r.job.Cancelling, r.wake = at, false, 0
	}
	if data == nil {
		data = map[string]any{}
	}
	data["from"], data["to"] = from, to
	if r.job.Error != nil && to.Final() {
		data["error"] = r.job.Error
	}
	return t.emit(r, backend.EventState, data)
}

// Fail ends a job that never started as failed: its graph was refused. A job
// with an open attempt ends by End.
func (s *Store) Fail(ctx context.Context, id string, why *backend.Error) (backend.Job, error) {
	return s.change(ctx, "record a failure", id, func(t *tx, r *record) error {
		if r.open > 0 || !legal(r.job.State, backend.JobFailed) {
			return wrongState(r, "fail without an attempt")
		}
		r.job.Error = why
		return t.settle(r, backend.JobFailed, nil)
	})
}

// Warn adds warnings to a job, those of a worker that accepted its graph with
// remarks, say. No event tells of it.
func (s *Store) Warn(ctx context.Context, id string, warnings []string) (backend.Job, error) {
	return s.change(ctx, "record warnings", id, func(t *tx, r *record) error {
		r.job.Warnings = append(r.job.Warnings, warnings...)
		t.wrote = true
		return nil
	})
}

// SetCancelling marks a job with an open attempt as being cancelled: it stays as
// it is until the worker confirmed. Asking again changes nothing.
func (s *Store) SetCancelling(ctx context.Context, id string) (backend.Job, error) {
	return s.change(ctx, "mark a cancel", id, func(t *tx, r *record) error {
		if r.open == 0 {
			return wrongState(r, "wait for its cancel")
		}
		return t.markCancelling(r, "")
	})
}

// markCancelling sets the flag, once.
func (t *tx) markCancelling(r *record, by string) error {
	if r.job.Cancelling {
		return nil
	}
	r.job.Cancelling = true
	data := map[string]any{"from": r.job.State, "to": r.job.State, "cancelling": true}
	if by != "" {
		data["by"] = by
	}
	return t.emit(r, backend.EventState, data)
}
