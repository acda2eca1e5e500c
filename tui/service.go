// Package tui is the shell of the console: the root model that owns the size,
// the screen in front, dialogs, the status line and the bridge from the engine's
// event stream. Update and View do no I/O; what takes time is a command, and what
// the engine tells comes through one bridge, at most one message a frame.
package tui

import (
	"context"
	"io"
	"time"

	"easel/backend"
	"easel/backend/client"
	"easel/views/act"
	"easel/views/home"
	"easel/views/logs"
	"easel/views/queue"
)

// Watcher delivers the event stream. Watch blocks until ctx ends, connects again
// by itself, and calls fn and onState from its own goroutine, in order.
type Watcher interface {
	Watch(ctx context.Context, previews bool, fn func(backend.Frame) error, onState func(connected bool, err error)) error
}

// Stopper ends the engine: it returns when the order is taken.
type Stopper interface {
	Stop(ctx context.Context, keepWorker bool) error
}

// Service is the engine as the console needs it: the sum of what the screens ask
// for. Every method may block and is called in commands and goroutines only.
type Service interface {
	Watcher
	Stopper
	act.Service
	home.Service
	queue.Service
	logs.Service
}

// engine makes a client of the control API a Service.
type engine struct{ *client.Client }

var _ Service = engine{}

// FromClient is the engine behind a client of its control API.
func FromClient(c *client.Client) Service { return engine{c} }

// Watch reads the event stream for as long as ctx lives.
func (e engine) Watch(ctx context.Context, previews bool, fn func(backend.Frame) error, onState func(bool, error)) error {
	return e.Client.Watch(ctx, client.EventsOptions{Previews: previews}, fn, onState)
}

// Answers to the question asked on leaving, which can be remembered.
const (
	LeaveRunning = "leave" // the engine and its worker go on
	LeaveStop    = "stop"  // both are stopped
)

// Options are what the console is told by whoever starts it.
type Options struct {
	Box     string // name of the box that is looked at
	Version string

	// Start finds the engine or starts one, and says what it does meanwhile. It
	// returns whether this console started it. It is called in a goroutine and again,
	// with pauses, while it fails. nil: the engine is there.
	Start func(ctx context.Context, say func(string)) (started bool, err error)
	// Load reads a workflow file for the queue; nil: adding is not possible.
	Load act.Loader
	// Leave is the remembered answer to the question on leaving, "" asks.
	Leave string
	// Remember keeps an answer; called in a command. nil: it is not offered.
	Remember func(answer string) error

	Environ []string         // of the terminal, NAME=value; says whether it is tmux
	Now     func() time.Time // nil: time.Now
	Loc     *time.Location   // nil: local
	Input   io.Reader        // nil: the terminal
	Output  io.Writer        // nil: the terminal
}
