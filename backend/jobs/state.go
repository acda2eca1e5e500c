package jobs

import (
	"fmt"
	"slices"

	"easel/backend"
)

// transitions are the changes of state that the store allows. A job that is
// held while its prompt still waits inside ComfyUI may start before it could be
// taken back, hence held → running.
//
//	queued ──▶ running ──▶ succeeded
//	  ▲  │        │  ├───▶ failed
//	  │  │        │  └───▶ cancelled
//	  │  └────────┼──────▶ cancelled, failed (refused before it ran)
//	  └───────────┘                        held ⇄ queued, held → cancelled
var transitions = map[backend.JobState][]backend.JobState{
	backend.JobQueued:  {backend.JobRunning, backend.JobHeld, backend.JobFailed, backend.JobCancelled},
	backend.JobHeld:    {backend.JobQueued, backend.JobRunning, backend.JobFailed, backend.JobCancelled},
	backend.JobRunning: {backend.JobQueued, backend.JobSucceeded, backend.JobFailed, backend.JobCancelled},
}

// legal reports whether a job may go from one state to another.
func legal(from, to backend.JobState) bool { return slices.Contains(transitions[from], to) }

// become changes the state of a record, or says why it may not.
func (r *record) become(to backend.JobState) error {
	if !legal(r.job.State, to) {
		return illegal(r, string(to))
	}
	r.job.State = to
	return nil
}

// illegal says that a job in its state cannot do something.
func illegal(r *record, what string) error {
	return backend.Fail(backend.FailConflict, fmt.Sprintf("job %s is %s: it cannot become %s", short(r.job.ID), r.job.State, what), "")
}

// wrongState says that a verb means nothing for a job in its state.
func wrongState(r *record, verb string) error {
	hint := ""
	if r.job.State.Final() && verb != string(backend.VerbRetry) {
		hint = fmt.Sprintf("easel jobs retry %s runs it again as a new job", short(r.job.ID))
	}
	return backend.Fail(backend.FailConflict, fmt.Sprintf("job %s is %s: it cannot %s", short(r.job.ID), stateWords(r), verb), hint)
}

// stateWords is the state of a job in words, the sent attempt included.
func stateWords(r *record) string {
	if r.open > 0 && r.job.State == backend.JobQueued {
		return "already in the worker"
	}
	return string(r.job.State)
}

// short is the part of an id that people read.
func short(id string) string { return id[:min(8, len(id))] }
