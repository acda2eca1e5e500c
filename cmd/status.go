package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/keeper"
	"easel/backend/process"
)

// statusWithin is how long status waits for the engine before it reads what the
// keeper wrote.
const statusWithin = time.Second

// statusCmd is `easel status`.
func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Engine, workers, queue, cards and disk",
		Long: "Engine, workers, queue, cards and disk. Ends with 0 when an engine runs, 4 when none does.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			return a.status(ctx)
		},
	}
}

func (a *app) status(ctx context.Context) error {
	if err := a.connect(); err != nil {
		return err
	}
	within := statusWithin
	if a.host != "" {
		within = 30 * time.Second // ssh may ask for a password
	}
	asked, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	s, err := a.engine.Status(asked)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return a.statusWithout(err)
	}
	if a.json {
		s.Workers, s.GPUs = list(s.Workers), list(s.GPUs)
		return printJSON(a.out, s)
	}
	writeStatus(a.out, s, time.Now())
	if s.Engine != nil && s.Engine.Version != Version() {
		a.sayf("easel: the engine is version %s, this command is %s: `easel stop` and `easel serve --detach` change over, jobs are kept",
			oneLine(s.Engine.Version), Version())
	}
	return nil
}

// statusWithout says what is known when no engine answers: what the keeper wrote
// down, if one lives.
func (a *app) statusWithout(cause error) error {
	e := &exit{code: codeUnavailable, kind: backend.FailEngineDown, message: failure(cause).Message, told: true, cause: cause}
	if h := failure(cause).Hint; h != "" {
		e.hints = []string{h}
	}
	s := backend.Status{Workers: []backend.Worker{}, GPUs: []backend.GPU{}}
	if a.host == "" {
		k, err := keeper.ReadState(a.stateDir())
		if err == nil && process.Alive(k.PID, k.StartTicks) {
			s.Keeper = &backend.KeeperInfo{PID: k.PID, Restarts: k.Restarts, LastCrash: k.LastCrash}
			e.message, e.hints = keeperWords(k, cause, a.stateDir(), time.Now())
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.sayf("easel: %s", oneLine(err.Error()))
		}
		for _, r := range a.leftovers() {
			if s.Keeper == nil {
				e.hints = append(e.hints, fmt.Sprintf("worker %s (pid %d) runs without an engine: the next one adopts it, `easel stop` ends it", oneLine(r.ID), r.PID))
			}
		}
	}
	if a.json {
		if err := printJSON(a.out, s); err != nil {
			return err
		}
	} else if s.Keeper != nil {
		writeKeeper(func(key, format string, args ...any) {
			fmt.Fprintf(a.err, "%-8s %s\n", key, fmt.Sprintf(format, args...))
		}, s.Keeper, time.Now())
	}
	return e
}

// keeperWords says how it stands with an engine that does not answer although
// its keeper lives.
func keeperWords(k keeper.State, cause error, stateDir string, now time.Time) (string, []string) {
	logs := "its last words are in " + filepath.Join(stateDir, "engine.log")
	switch {
	case !k.NextStart.IsZero() && k.NextStart.After(now):
		return fmt.Sprintf("the engine is down; its next start is in %s", span(k.NextStart.Sub(now))), []string{logs, "`easel stop` ends it"}
	case k.EnginePID == 0:
		return "the engine is down and about to be started again", []string{logs}
	case client.IsNotRunning(cause):
		return fmt.Sprintf("the engine (pid %d) is starting or ending: nothing listens on its socket", k.EnginePID), nil
	}
	return fmt.Sprintf("the engine (pid %d) does not answer within %s", k.EnginePID, statusWithin), []string{logs, "`easel stop` ends it"}
}
