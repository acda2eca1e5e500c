package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/keeper"
	"easel/backend/worker"
	"easel/config"
)

// foundWithin bounds the look for a ComfyUI on this box before a first start.
const foundWithin = 3 * time.Second

// connect makes the client of the engine that the command is for: of this box,
// or of --host. It starts nothing and makes no connection yet.
func (a *app) connect() error { return a.connectTo(false) }

func (a *app) connectTo(start bool) error {
	if a.engine != nil {
		return nil
	}
	if a.host != "" {
		target, err := client.ParseHost(a.host)
		if err != nil {
			return err
		}
		a.engine = client.SSH(target, start)
		return nil
	}
	a.engine = client.Unix(a.engineDir())
	return nil
}

// engineDir is where the engine of this box is reached: the private one of this
// account, or the system's where that runs and no private one does. With
// EASEL_HOME set it is always that one.
func (a *app) engineDir() string {
	private := a.stateDir()
	if slices.ContainsFunc(a.environ, func(kv string) bool { return strings.HasPrefix(kv, "EASEL_HOME=") }) {
		return private
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, dir := range []string{private, filepath.Dir(systemSocket)} {
		if conn, err := keeper.Dial(ctx, dir); err == nil {
			_ = conn.Close()
			return dir
		}
	}
	return private
}

// ensure connects and, when no engine runs, starts one detached and says so. On
// another box its own easel does that.
func (a *app) ensure(ctx context.Context) error {
	if err := a.connectTo(true); err != nil {
		return err
	}
	if a.host != "" {
		return nil
	}
	_, err := a.startEngine(ctx)
	return err
}

// startEngine starts an engine on this box when none runs. started says that this
// call did it.
func (a *app) startEngine(ctx context.Context) (started bool, err error) {
	conn, err := keeper.Dial(ctx, a.engineDir())
	if err == nil {
		return false, conn.Close()
	}
	if !errors.Is(err, keeper.ErrNotRunning) {
		return false, err
	}
	if err := a.chooseWorker(ctx); err != nil {
		return false, err
	}
	pid, err := a.detach(ctx)
	var running keeper.ErrRunning
	if errors.As(err, &running) {
		return false, nil // somebody else was faster
	}
	if err != nil {
		return false, fmt.Errorf("start the engine: %w", err)
	}
	a.sayf("easel: no engine ran here: started one in the background (pid %d, state in %s); `easel stop` ends it", pid, a.stateDir())
	return true, nil
}

// detach starts the keeper in a session of its own, after a word about what a
// log-out will do to it.
func (a *app) detach(ctx context.Context) (int, error) {
	if note := keeper.LogoutNote(ctx); note != "" {
		a.sayf("easel: %s", oneLine(note))
	}
	return keeper.Detach(ctx, keeper.Config{StateDir: a.stateDir(), Version: Version()})
}

// chooseWorker makes sure before a first start that we know what paints. With
// nothing configured and a ComfyUI on this box it names that one and refuses:
// the built-in worker never paints in its place without being asked.
func (a *app) chooseWorker(ctx context.Context) error {
	cfg, _, err := config.Open(a.environ)
	if err != nil {
		return configError(err)
	}
	if configured(cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, foundWithin)
	defer cancel()
	found := worker.Discover(ctx)
	if len(found) == 0 {
		a.sayf("easel: no ComfyUI is configured or found on this box: the built-in worker paints (no diffusion, no models; `easel use DIR` or `easel use URL` names a ComfyUI)")
		return nil
	}
	return notChosen(found)
}

// configured reports whether cfg says what paints.
func configured(cfg config.Config) bool {
	w := cfg.Worker
	return w.ComfyUI != "" || w.Command != "" || w.URL != "" || w.Builtin
}

// notChosen refuses to start before a person said which ComfyUI to use.
func notChosen(found []backend.FoundComfy) *exit {
	e := &exit{code: codeUnavailable, kind: backend.FailWorker, message: "no worker is configured, and there is " + foundName(found[0])}
	if n := len(found) - 1; n > 0 {
		e.message += fmt.Sprintf(" and %d more", n)
	}
	for _, f := range found {
		what := "Easel starts it, watches it and restarts it"
		if f.URL != "" {
			what = "it is driven and watched, never started or stopped"
		}
		e.hints = append(e.hints, "`"+foundUse(f)+"`: "+what)
	}
	e.hints = append(e.hints, "`easel use sketch`: the built-in worker paints (no diffusion, no models)")
	return e
}
