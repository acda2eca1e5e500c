package cmd

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"easel/backend/keeper"
)

// serveCmd is `easel serve`: the keeper, in the foreground or detached.
func (a *app) serveCmd() *cobra.Command {
	var detach, child, reload bool
	c := &cobra.Command{
		Use: "serve", Short: "Start the engine, and keep it running",
		Long: "Start keeper and engine. In the foreground it runs until it is stopped (for systemd and\n" +
			"containers); with --detach it returns when the engine serves. With --reload a running Easel\n" +
			"becomes this binary, in place: worker and running jobs are not touched.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.host != "" {
				return usageError(c, "serve works on this box only, not with --host")
			}
			if reload && detach {
				return usageError(c, "--reload changes what runs, --detach starts it: take one of them")
			}
			if reload {
				return a.serveReload(c)
			}
			if detach {
				return a.serveDetached(c)
			}
			// The keeper handles signals itself: the first stops in order, the
			// second at once.
			return a.serve(c.Context(), !child)
		},
	}
	c.Flags().BoolVar(&detach, "detach", false, "in the background, in a session of its own")
	c.Flags().BoolVar(&reload, "reload", false, "make a running Easel this binary, running jobs untouched")
	c.Flags().BoolVar(&child, "detached-child", false, "")
	_ = c.Flags().MarkHidden("detached-child")
	return c
}

func (a *app) serve(ctx context.Context, foreground bool) error {
	err := keeper.Run(ctx, keeper.Config{
		StateDir: a.stateDir(), Version: Version(), Foreground: foreground,
		Logger: slog.New(slog.NewTextHandler(a.err, nil)),
	})
	var running keeper.ErrRunning
	if errors.As(err, &running) {
		return &exit{code: codeFailed, message: err.Error(), cause: err, hints: []string{"`easel status` shows it, `easel stop` ends it"}}
	}
	return err
}

// served is what `easel serve --detach --json` prints.
type served struct {
	PID      int    `json:"pid"` // of the keeper
	Started  bool   `json:"started"`
	StateDir string `json:"state_dir"`
}

func (a *app) serveDetached(c *cobra.Command) error {
	ctx, stop := interruptible(c)
	defer stop()
	pid, err := a.detach(ctx)
	var running keeper.ErrRunning
	already := errors.As(err, &running)
	if already {
		pid = running.PID
	} else if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, served{PID: pid, Started: !already, StateDir: a.stateDir()})
	}
	if already {
		a.sayf("easel: it runs already (pid %d)", pid)
		return nil
	}
	a.sayf("easel: the engine runs in the background (pid %d, state in %s); `easel stop` ends it", pid, a.stateDir())
	return nil
}

func init() {
	mains["keeper-takeover"] = keeperTakeover
}

// keeperTakeover is the hidden command by which an engine whose keeper died
// starts a new one.
func keeperTakeover([]string) int {
	handover, err := keeper.Inherit()
	if err == nil {
		err = keeper.Run(context.Background(), keeper.Config{
			StateDir: handover.StateDir, Version: Version(), Adopt: handover,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	a := &app{out: os.Stdout, err: os.Stderr}
	a.report(err)
	return exitCode(err)
}
