package dispatch

import (
	"slices"
	"time"
)

// Options are what people may set about watching, cancelling, memory and the
// GPU's memory. A zero limit turns its rule off.
type Options struct {
	// StallLimit is how long a job may show no message and no log line; a node that
	// ever took longer gets four times what it took.
	StallLimit time.Duration
	// StallGrace is the time between the warning and the end of the worker.
	StallGrace time.Duration
	// LoopLimit is how long ComfyUI may answer no request before its event loop
	// counts as blocked.
	LoopLimit time.Duration
	// IdleWindow is the time over which CPU and disk use are looked at.
	IdleWindow time.Duration
	// ThreadLimit is the silence that is enough once the log said that a thread of
	// ComfyUI died.
	ThreadLimit time.Duration

	CancelFree time.Duration // from the interrupt to /free
	CancelStop time.Duration // from there to the stop of the worker

	Ladder []string // steps after an out-of-memory of the GPU: free, flags, gpu
	Flags  []string // of the step flags

	MinFreeRAM  int64  // bytes
	MinFreeDisk int64  // bytes
	Disk        string // a directory whose file system is watched besides the outputs'

	RecycleJobs   int   // jobs after which a worker is restarted
	RecycleGrowth int64 // bytes of growth after which it is

	// FreeSettle bounds how long a /free may take to show.
	FreeSettle time.Duration
}

// DefaultOptions are those of a box where nothing is set.
func DefaultOptions() Options {
	return Options{
		StallLimit: 10 * time.Minute, StallGrace: 30 * time.Second, LoopLimit: time.Minute, IdleWindow: 5 * time.Second,
		ThreadLimit: 10 * time.Second, CancelFree: 10 * time.Second, CancelStop: 10 * time.Second, Ladder: []string{stepFree},
		Flags: []string{"--lowvram"}, MinFreeRAM: 256 << 20, MinFreeDisk: 256 << 20, FreeSettle: 2 * time.Second,
	}
}

// SetOptions changes what is in force, from the next look on.
func (d *Dispatcher) SetOptions(o Options) {
	if o.LoopLimit <= 0 {
		o.LoopLimit = DefaultOptions().LoopLimit
	}
	o.Ladder, o.Flags = slices.Clone(o.Ladder), slices.Clone(o.Flags)
	d.options.Store(&o)
	d.Wake()
}

// opts are the options in force; they are not to be changed.
func (d *Dispatcher) opts() *Options { return d.options.Load() }
