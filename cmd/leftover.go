package cmd

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"easel/backend/process"
	"easel/backend/worker"
)

// Bounds of ending a worker that no engine looks after.
const (
	leftoverPolite = 5 * time.Second // between SIGTERM and SIGKILL
	leftoverGone   = 2 * time.Second // after SIGKILL
)

// leftovers are the workers that still run although no engine does: after `stop
// --keep-worker`, or when engine and keeper were killed at once. The next engine
// would adopt them.
func (a *app) leftovers() []worker.Record {
	files, err := filepath.Glob(filepath.Join(a.stateDir(), "workers", "*.json"))
	if err != nil {
		return nil
	}
	var living []worker.Record
	for _, f := range files {
		r, found, err := worker.ReadRecord(a.stateDir(), strings.TrimSuffix(filepath.Base(f), ".json"))
		if err == nil && found && r.PID > 0 && r.BootID == process.BootID() && process.Alive(r.PID, r.StartTicks) {
			living = append(living, r)
		}
	}
	return living
}

// endLeftover ends a worker and its process group: asked first, then forced.
func endLeftover(ctx context.Context, r worker.Record) error {
	for _, step := range []struct {
		sig    syscall.Signal
		within time.Duration
	}{{syscall.SIGTERM, leftoverPolite}, {syscall.SIGKILL, leftoverGone}} {
		if err := signalGroup(r.PID, step.sig); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, step.within)
		err := process.WaitGone(waiting, r.PID, r.StartTicks)
		cancel()
		if err == nil {
			_ = signalGroup(r.PID, syscall.SIGKILL) // what it left of its group
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return stopTooLong()
}
