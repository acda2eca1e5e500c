//go:build linux

package engine

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/dispatch"
	"easel/config"
)

// relaunchWithin bounds the start of a launch with other flags, before the worker
// goes back to the configured ones.
const relaunchWithin = 15 * time.Minute

// Activity is what the process was last seen doing.
func (l lane) Activity() dispatch.Activity {
	a := l.m.Activity()
	return dispatch.Activity{Line: a.Line, Bar: a.Bar, ThreadDied: a.ThreadDied}
}

// Stall ends a launch that shows no sign of life, and keeps the Python stacks
// that it prints.
func (l lane) Stall(ctx context.Context, v backend.Verdict) error { return l.m.Stall(ctx, v) }

// Restart restarts the worker.
func (l lane) Restart(ctx context.Context, by string) error { return l.m.Restart(ctx, by) }

// Flags are those that the launch got besides the configured ones.
func (l lane) Flags() []string { return l.flags }

// Relaunch replaces the worker by one with more flags, in the background.
func (l lane) Relaunch(flags []string) error {
	if l.spec.URL != "" {
		return backend.Fail(backend.FailConflict, "somebody else runs this ComfyUI", "")
	}
	e := l.eng
	e.mu.Lock()
	why := e.badFlags[strings.Join(flags, " ")]
	e.mu.Unlock()
	if why != "" && len(flags) > 0 {
		return fmt.Errorf("a launch with them failed: %s", why)
	}
	e.background(func(ctx context.Context) { e.relaunch(ctx, l.worker, flags) })
	return nil
}

// relaunch replaces w by a worker with other flags. When that does not start, the
// configured flags come back, and the others are not tried again.
func (e *Engine) relaunch(ctx context.Context, w *worker, flags []string) {
	next := e.swap(ctx, w, flags)
	if next == nil || len(flags) == 0 {
		return
	}
	wctx, cancel := context.WithTimeout(ctx, relaunchWithin)
	defer cancel()
	st, err := next.m.Wait(wctx, func(st backend.Worker) bool {
		return st.State == backend.WorkerReady || st.State == backend.WorkerBusy || st.State == backend.WorkerFailed || st.State == backend.WorkerStopped
	})
	if ctx.Err() != nil || err == nil && st.State != backend.WorkerFailed {
		return
	}
	e.log.Warn("a launch with other flags failed: going back", "worker", w.id, "flags", flags, "reason", st.Reason)
	e.mu.Lock()
	e.badFlags[strings.Join(flags, " ")] = clip(st.Reason)
	e.mu.Unlock()
	e.swap(ctx, next, nil)
}

// swap puts a worker with other flags in the place of w, nil when w is no longer
// one of ours.
func (e *Engine) swap(ctx context.Context, w *worker, flags []string) *worker {
	e.replacing.Lock()
	defer e.replacing.Unlock()
	e.mu.Lock()
	ours := slices.Contains(e.workers, w)
	e.mu.Unlock()
	if !ours || ctx.Err() != nil {
		return nil
	}
	e.removeWorker(ctx, w)
	spec := w.spec
	if spec.Builtin {
		spec.BuiltinArgs = slices.Concat(spec.BuiltinArgs, flags)
	} else {
		spec.Args = slices.Concat(spec.Args, flags)
	}
	next := e.newWorker(spec)
	next.spec, next.flags = w.spec, flags
	e.addWorker(next)
	return next
}

// guardOptions are what the configuration says about watching and guarding.
func guardOptions(cfg config.Config, stateDir string) dispatch.Options {
	o := dispatch.DefaultOptions()
	o.StallLimit, o.StallGrace = cfg.Stall.Limit.Duration, cfg.Stall.Grace.Duration
	o.CancelFree, o.CancelStop = cfg.Cancel.FreeAfter.Duration, cfg.Cancel.StopAfter.Duration
	o.Ladder, o.Flags = cfg.OOM.Ladder, cfg.OOM.Flags
	o.MinFreeRAM, o.MinFreeDisk, o.Disk = int64(cfg.Guard.MinFreeRAM), int64(cfg.Guard.MinFreeDisk), stateDir
	if jobs, growth, err := config.ParseRecycle(cfg.Worker.RecycleAfter); err == nil {
		o.RecycleJobs, o.RecycleGrowth = jobs, int64(growth)
	}
	return o
}

// onRemark passes on what the dispatcher has to say about a worker or the machine.
func (e *Engine) onRemark(string) {
	e.tellWorkers()
	e.queueChanged()
	if any, _ := e.hub.watched(); any {
		e.hub.publish(backend.Frame{Kind: backend.FrameNotices, Notices: e.notices(backend.Status{Disk: disk(e.opts.StateDir)})})
	}
}

// counts are the queue's numbers, prompts of others among them.
func (e *Engine) counts(ctx context.Context) (backend.QueueCounts, error) {
	c, err := e.store.Counts(ctx)
	c.Foreign = len(e.disp.Foreign())
	return c, err
}

// listForeign serves GET /v1/queue/foreign.
func (e *Engine) listForeign(*http.Request) (any, error) { return e.disp.Foreign(), nil }

// whyNext says why the job that is next does not run, "" when it is only its turn
// that has not come.
func (e *Engine) whyNext() string {
	if why := e.disp.Blocked(); why != "" {
		return why
	}
	switch n := len(e.disp.Foreign()); n {
	case 0:
		return ""
	case 1:
		return "1 prompt of others before it"
	default:
		return fmt.Sprintf("%d prompts of others before it", n)
	}
}
