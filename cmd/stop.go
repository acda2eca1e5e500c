package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"easel/backend/client"
	"easel/backend/keeper"
	"easel/backend/process"
)

// Bounds of a stop. The engine's own is 20 s and its keeper's 5 s more.
const (
	stopAsk    = 5 * time.Second       // for the engine to take the order
	stopWithin = 60 * time.Second      // for all to end
	stopLook   = 10 * time.Millisecond // between two looks
)

// stopCmd is `easel stop`.
func (a *app) stopCmd() *cobra.Command {
	var keepWorker bool
	c := &cobra.Command{
		Use: "stop", Short: "Stop worker, engine and keeper",
		Long: "Stop worker, engine and keeper (the engine's parent), and return when they have ended.\n" +
			"Jobs are kept: a running one goes back to the queue. Where nothing runs it says so and ends with 0.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, stopWithin)
			defer cancel()
			return a.stop(ctx, keepWorker)
		},
	}
	c.Flags().BoolVar(&keepWorker, "keep-worker", false, "leave the worker running, for the next engine to adopt")
	return c
}

// stopped is what `easel stop --json` prints.
type stopped struct {
	Stopped bool `json:"stopped"` // false: nothing ran
	PID     int  `json:"pid"`     // of the keeper, 0 when not known
}

func (a *app) stop(ctx context.Context, keepWorker bool) error {
	if err := a.connect(); err != nil {
		return err
	}
	var before keeper.State
	if a.host == "" {
		k, err := keeper.ReadState(a.stateDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		before = k
	}
	asked, cancel := context.WithTimeout(ctx, stopAsk)
	err := a.engine.Stop(asked, keepWorker)
	cancel()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case a.host != "":
		return a.stopFar(ctx, err)
	case err == nil:
	case client.IsNotRunning(err) && !keeperLives(before):
		return a.stopLeftovers(ctx, keepWorker)
	case !keeperLives(before):
		return err
	default:
		a.sayf("easel: the engine does not take the order (%s): telling its keeper (pid %d), which gives it 20 s", oneLine(failure(err).Message), before.PID)
		if keepWorker {
			return &exit{code: codeUnavailable, message: "the engine does not answer, and only it can leave the worker running", hints: []string{"`easel stop` without --keep-worker stops all"}}
		}
		if err := terminate(before.PID); err != nil {
			return fmt.Errorf("signal the keeper: %w", err)
		}
	}
	if err := a.waitStopped(ctx, before); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, stopped{Stopped: true, PID: before.PID})
	}
	a.sayf("easel: stopped")
	return nil
}

// stopLeftovers ends workers that run without an engine, if there are any.
func (a *app) stopLeftovers(ctx context.Context, keepWorker bool) error {
	living := a.leftovers()
	if len(living) == 0 || keepWorker {
		return a.nothingRuns()
	}
	for _, r := range living {
		if err := endLeftover(ctx, r); err != nil {
			return fmt.Errorf("end worker %s (pid %d), which ran without an engine: %w", oneLine(r.ID), r.PID, err)
		}
		a.sayf("easel: ended worker %s (pid %d), which ran without an engine", oneLine(r.ID), r.PID)
	}
	if a.json {
		return printJSON(a.out, stopped{Stopped: true})
	}
	return nil
}

func (a *app) nothingRuns() error {
	if a.json {
		return printJSON(a.out, stopped{})
	}
	a.sayf("easel: nothing runs")
	return nil
}

// stopFar ends a stop on another box, where only the connection can be watched.
func (a *app) stopFar(ctx context.Context, err error) error {
	if client.IsNotRunning(err) {
		return a.nothingRuns()
	}
	if err != nil {
		return err
	}
	for {
		if _, err := a.engine.Status(ctx); err != nil && ctx.Err() == nil {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return stopTooLong()
		}
	}
	if a.json {
		return printJSON(a.out, stopped{Stopped: true})
	}
	a.sayf("easel: stopped on %s", a.host)
	return nil
}

// keeperLives reports whether the keeper that wrote s still runs.
func keeperLives(s keeper.State) bool { return s.PID > 0 && process.Alive(s.PID, s.StartTicks) }

// waitStopped waits until the processes of before have ended and no other keeper
// took their place: an engine whose keeper is killed starts a new one.
func (a *app) waitStopped(ctx context.Context, before keeper.State) error {
	for {
		now, err := keeper.ReadState(a.stateDir())
		gone := errors.Is(err, fs.ErrNotExist) || err == nil && !keeperLives(now) && !engineLives(now)
		if gone && !keeperLives(before) && !engineLives(before) {
			return nil
		}
		if err := pause(ctx, stopLook); err != nil {
			return stopTooLong()
		}
	}
}

func engineLives(s keeper.State) bool {
	return s.EnginePID > 0 && process.Alive(s.EnginePID, s.EngineTicks)
}

func stopTooLong() error {
	return &exit{code: codeTimeout, kind: "timeout", message: fmt.Sprintf("not everything ended within %s", stopWithin), hints: []string{"`easel stop` again; `easel status` names what still runs"}}
}

// terminate asks a process to end.
func terminate(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(syscall.SIGTERM)
}

// pause waits for d or the end of ctx, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
