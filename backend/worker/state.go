package worker

import (
	"fmt"
	"slices"

	"easel/backend"
)

// transitions are the arrows of the life of a worker:
//
//	stopped → preparing → starting → ready ⇄ busy → stopping → stopped
//	              │           │         │      │
//	              └───────────┴────┬────┴──────┘
//	                               ▼
//	                   exited ── policy ──▶ backoff → preparing
//	                     │ └──▶ failed (needs a person)
//	                     └────▶ preparing (the first restart is at once)
//
// Beside the picture: a start that cannot be (preparing) goes straight to failed,
// since nothing ran that could exit; a stop while preparing, in backoff or failed
// goes straight to stopped, since nothing runs; and a worker of somebody else
// that stops answering is exited, then backoff until it answers again.
var transitions = map[backend.WorkerState][]backend.WorkerState{
	backend.WorkerStopped:   {backend.WorkerPreparing},
	backend.WorkerPreparing: {backend.WorkerStarting, backend.WorkerExited, backend.WorkerFailed, backend.WorkerStopped},
	backend.WorkerStarting:  {backend.WorkerReady, backend.WorkerExited, backend.WorkerStopping},
	backend.WorkerReady:     {backend.WorkerBusy, backend.WorkerExited, backend.WorkerStopping},
	backend.WorkerBusy:      {backend.WorkerReady, backend.WorkerExited, backend.WorkerStopping},
	backend.WorkerStopping:  {backend.WorkerStopped},
	backend.WorkerExited:    {backend.WorkerBackoff, backend.WorkerFailed, backend.WorkerPreparing, backend.WorkerStopped},
	backend.WorkerBackoff:   {backend.WorkerPreparing, backend.WorkerStopped},
	backend.WorkerFailed:    {backend.WorkerPreparing, backend.WorkerStopped},
}

// TransitionError says that a worker cannot go from one state to another. It
// means a fault of this program, or an order that came too late.
type TransitionError struct {
	From, To backend.WorkerState
}

// Error names both states.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("a worker that is %s cannot become %s", e.From, e.To)
}

// checkTransition returns a *TransitionError unless the arrow exists.
func checkTransition(from, to backend.WorkerState) error {
	if slices.Contains(transitions[from], to) {
		return nil
	}
	return &TransitionError{From: from, To: to}
}

// alive reports whether a process belongs to the state.
func alive(s backend.WorkerState) bool {
	switch s {
	case backend.WorkerStarting, backend.WorkerReady, backend.WorkerBusy, backend.WorkerStopping:
		return true
	}
	return false
}

// NotYet is the reason of a worker that is about to be started, or asked for, by
// the engine that just began.
const NotYet = "not started yet"
