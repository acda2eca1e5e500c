// Package gpu holds the words for reading graphics cards: what a Sampler gives,
// and the History of the last ten minutes. Each source of readings is a package
// under it (nvml, smi, sysfs); child runs one of them in a process of its own. It
// knows nothing of workers or jobs.
package gpu

import (
	"context"
	"fmt"
	"time"
)

// The names of the sources.
const (
	NVML    = "nvml"
	SMI     = "smi"
	AMDGPU  = "amdgpu"
	ComfyUI = "comfyui"
)

// Sampler reads the cards of this box.
//
// Sample may block in the driver for ever: it takes a context, but a thread inside
// a driver cannot be called back, so whoever must stay alive runs it by package
// child. It is not safe for concurrent use. When the cards cannot be read at all
// the error is an *Error, or wraps one; a single card that cannot be read is a
// Card with a Note.
type Sampler interface {
	// Source is the name of the source.
	Source() string
	Sample(ctx context.Context) (Reading, error)
	// Close frees what the sampler holds.
	Close() error
}

// Reading is all cards at one moment.
type Reading struct {
	At     time.Time `json:"at"`
	Source string    `json:"source"`
	Driver string    `json:"driver,omitempty"` // version, "" when unknown
	Cards  []Card    `json:"cards"`            // by index
	// Notes say what could not be read of the box as a whole, in sentences.
	Notes []string `json:"notes,omitempty"`
}

// Card is one card at one moment. What is not known is nil.
type Card struct {
	Index       int      `json:"index"` // in the order of the PCI bus
	UUID        string   `json:"uuid,omitempty"`
	Name        string   `json:"name"`
	MemoryUsed  *int64   `json:"memory_used"`  // bytes
	MemoryTotal *int64   `json:"memory_total"` // bytes
	Utilisation *float64 `json:"utilisation"`  // percent of the time that something ran
	Temperature *float64 `json:"temperature"`  // °C
	Power       *float64 `json:"power"`        // W
	PowerLimit  *float64 `json:"power_limit"`  // W
	ClockSM     *float64 `json:"clock_sm"`     // MHz
	ClockMemory *float64 `json:"clock_memory"` // MHz
	ECC         *int64   `json:"ecc"`          // uncorrected errors over its life
	Throttle    []string `json:"throttle,omitempty"`
	// Processes are those that hold its memory, in the driver's own pids. nil: the
	// source cannot tell; empty: it says that there are none.
	Processes []Process `json:"processes"`
	// Lost: the card no longer answers, only its index, UUID and name are known.
	Lost bool   `json:"lost,omitempty"`
	Note string `json:"note,omitempty"` // what is wrong with it, a sentence
}

// Process is one holder of a card's memory.
type Process struct {
	PID    int    `json:"pid"`            // in the pid namespace of the driver: 0 or foreign inside a container
	Memory *int64 `json:"memory"`         // bytes
	Name   string `json:"name,omitempty"` // as the driver says it
}

// Why cards cannot be read.
const (
	NoLibrary = "no-library" // the source is not on this box
	NoDriver  = "no-driver"  // it is, and there is no driver or no card under it
	Mismatch  = "mismatch"   // library and driver are of different versions
	Hung      = "hung"       // the driver does not answer
	Broken    = "broken"     // anything else
)

// Error says why the cards cannot be read.
type Error struct {
	Kind    string `json:"kind"`
	Message string `json:"message"` // for people: what failed, and what to do when something can be done
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Known is a pointer to v: a figure that is known.
func Known[T any](v T) *T { return &v }
