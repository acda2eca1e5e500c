package dispatch

import (
	"context"
	"slices"
	"time"

	"easel/backend"
)

// Control ends launches of a worker. One that somebody else runs returns an error
// that says so.
type Control interface {
	// Stall ends the launch because it shows no sign of life. Its end is reported with
	// the verdict stall, v's evidence in it. It returns when that has begun.
	Stall(ctx context.Context, v backend.Verdict) error
	// Restart stops the worker and starts it again; it returns when that has begun. by
	// says why, in words.
	Restart(ctx context.Context, by string) error
}

// Activity is what a process was last seen doing.
type Activity struct {
	Line       time.Time // the last line of its log; zero: none seen
	Bar        string    // the text of the progress bar that it draws, "" when it draws none
	ThreadDied time.Time // when its log told of a thread that died; zero: never
	VRAM       int64     // bytes that it holds; 0 when unknown
}

// Observer is a Worker whose log and GPU are seen.
type Observer interface {
	// Activity must not block.
	Activity() Activity
}

// Launcher is a Worker that can be launched with more flags.
type Launcher interface {
	// Flags are those that the present launch got besides the configured ones.
	Flags() []string
	// Relaunch replaces the launch by one with these flags. It returns at once; an
	// error says that it cannot be done.
	Relaunch(flags []string) error
}

// activity is what is known about the process of the lane.
func (l *lane) activity() Activity {
	if o, ok := l.worker.(Observer); ok {
		return o.Activity()
	}
	return Activity{}
}

// flags are the additional flags of the lane's launch.
func (l *lane) flags() []string {
	if x, ok := l.worker.(Launcher); ok {
		return x.Flags()
	}
	return nil
}

// errNoControl says that a worker cannot be stopped from here.
var errNoControl = backend.Fail(backend.FailConflict, "this worker cannot be restarted by Easel", "restart it where it was started")

// restart has the worker of the lane restarted.
func (l *lane) restart(ctx context.Context, by string) error {
	c, ok := l.worker.(Control)
	if !ok {
		return errNoControl
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.Restart(ctx, by)
}

// stall has a launch ended that shows no sign of life. When the worker reports
// its end as asked for, v is what counts.
func (l *lane) stall(ctx context.Context, v backend.Verdict) error {
	c, ok := l.worker.(Control)
	if !ok {
		return errNoControl
	}
	l.mu.Lock()
	l.blame[v.Launch] = v
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.Stall(ctx, v)
}

// Explain is the verdict on a launch: that of the dispatcher when it had it ended,
// with what the worker saw of its end, else v itself.
func (d *Dispatcher) Explain(id string, v backend.Verdict) backend.Verdict {
	d.mu.Lock()
	l := d.lanes[id]
	d.mu.Unlock()
	if l == nil {
		return v
	}
	return l.blamed(v)
}

// blamed is the verdict on a launch that we had ended ourselves.
func (l *lane) blamed(v backend.Verdict) backend.Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	why, ok := l.blame[v.Launch]
	if !ok || v.Kind == backend.KindStall || l.gone[v.Launch] {
		return v
	}
	why.Evidence = append(slices.Clone(why.Evidence), v.Evidence...)
	why.ExitCode, why.Signal, why.At = v.ExitCode, v.Signal, v.At
	return why
}
