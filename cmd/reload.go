package cmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
)

// Bounds of a reload.
const (
	reloadWithin = 3 * time.Minute // for the trial and the change
	reloadLook   = 20 * time.Millisecond
)

// reloaded is what `easel serve --reload --json` prints.
type reloaded struct {
	PID     int    `json:"pid"`        // of the keeper, which stays
	Engine  int    `json:"engine_pid"` // the new one
	Version string `json:"version"`
	Before  string `json:"before"` // the version that ran
}

// serveReload makes the running Easel this very binary, and returns when its
// engine serves.
func (a *app) serveReload(c *cobra.Command) error {
	ctx, stop := interruptible(c)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, reloadWithin)
	defer cancel()
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return fmt.Errorf("reload: find this binary: %w", err)
	}
	if err := a.connect(); err != nil {
		return err
	}
	before, err := a.engine.Status(ctx)
	if err != nil {
		if client.IsNotRunning(err) {
			return &exit{code: codeUnavailable, kind: backend.FailEngineDown, message: "reload: no engine runs here", cause: err, hints: []string{"`easel serve --detach` starts one, of this version"}}
		}
		return err
	}
	if before.Engine == nil {
		return &exit{code: codeUnavailable, message: "reload: the engine does not say who it is"}
	}
	if err := a.engine.Reload(ctx, exe); err != nil {
		return err
	}
	now, err := a.awaitEngine(ctx, before.Engine.PID)
	if err != nil {
		return err
	}
	r := reloaded{Engine: now.Engine.PID, Version: now.Engine.Version, Before: before.Engine.Version}
	if now.Keeper != nil {
		r.PID = now.Keeper.PID
	}
	if r.Version != Version() {
		return &exit{code: codeFailed, message: fmt.Sprintf("reload: version %s runs, not %s: the new one did not serve, and the old one goes on", oneLine(r.Version), Version()), hints: []string{"its last words are in " + filepath.Join(a.stateDir(), "engine.log")}}
	}
	if a.json {
		return printJSON(a.out, r)
	}
	a.sayf("easel: version %s serves (was %s); running jobs went on", oneLine(r.Version), oneLine(r.Before))
	return nil
}

// awaitEngine waits for an engine other than old.
func (a *app) awaitEngine(ctx context.Context, old int) (backend.Status, error) {
	for {
		s, err := a.engine.Status(ctx)
		if err == nil && s.Engine != nil && s.Engine.PID != old {
			return s, nil
		}
		if ctx.Err() != nil {
			return s, &exit{code: codeTimeout, kind: "timeout", message: "reload: no new engine served in time", hints: []string{"`easel status` says how it stands"}}
		}
		if err := pause(ctx, reloadLook); err != nil {
			return s, err
		}
	}
}
