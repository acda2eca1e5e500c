package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
)

// workerCmd is `easel worker …`.
func (a *app) workerCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "worker", Short: "The ComfyUI processes: start, stop, restart, free, logs, deaths", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			return a.workers(ctx)
		},
	}
	c.AddCommand(
		a.workerActCmd(backend.WorkerStart, "Start a worker that is stopped or failed"),
		a.workerActCmd(backend.WorkerStop, "Stop a worker; its job goes back to the queue"),
		a.workerActCmd(backend.WorkerRestart, "Stop a worker and start it again; its job goes back to the queue"),
		a.workerActCmd(backend.WorkerFree, "Unload models and free memory"),
		a.workerLogsCmd(), a.workerDeathsCmd(),
	)
	return c
}

// workers lists the workers.
func (a *app) workers(ctx context.Context) error {
	if err := a.connect(); err != nil {
		return err
	}
	ws, err := a.engine.Workers(ctx)
	if err != nil {
		return err
	}
	return a.printWorkers(ws)
}

func (a *app) printWorkers(ws []backend.Worker) error {
	if a.json {
		return printJSON(a.out, list(ws))
	}
	for _, w := range ws {
		fmt.Fprintln(a.out, workerLine(w, time.Now()))
	}
	return nil
}

func (a *app) workerActCmd(verb backend.WorkerVerb, about string) *cobra.Command {
	var id string
	var wait time.Duration
	c := &cobra.Command{
		Use: string(verb), Short: about, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if wait < 0 {
				return usageError(c, "--wait: not below 0")
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.workerAct(ctx, verb, id, wait)
		},
	}
	c.Flags().StringVar(&id, "worker", "", "this `ID`; without it all")
	c.Flags().DurationVar(&wait, "wait", 0, "wait at most this long until it is done (30s, 5m)")
	return c
}

// workerLook is the pause between two looks at workers that are waited for.
const workerLook = 50 * time.Millisecond

func (a *app) workerAct(ctx context.Context, verb backend.WorkerVerb, id string, wait time.Duration) error {
	if err := a.connect(); err != nil {
		return err
	}
	before, err := a.engine.Workers(ctx)
	if err != nil {
		return err
	}
	ws, err := a.engine.WorkerAct(ctx, backend.WorkerAction{Verb: verb, ID: id, By: a.who()})
	if err != nil {
		return err
	}
	was := map[string]backend.Worker{}
	for _, w := range before {
		was[w.ID] = w
	}
	end := time.Now().Add(wait)
	for wait > 0 {
		done, err := reached(verb, id, ws, was)
		if err != nil {
			return err
		}
		if done {
			break
		}
		if time.Now().After(end) {
			return &exit{code: codeTimeout, kind: "timeout", message: fmt.Sprintf("%s of the worker was not done within %s", verb, wait), hints: []string{"it goes on; `easel worker` shows it"}}
		}
		if err := pause(ctx, workerLook); err != nil {
			return err
		}
		if ws, err = a.engine.Workers(ctx); err != nil && !client.IsPassing(err) {
			return err
		}
	}
	return a.printWorkers(ws)
}

// reached reports whether the workers are where verb wants them. was are the
// workers from before: a restart must have replaced their processes, and a
// failure from before is not ours.
func reached(verb backend.WorkerVerb, id string, ws []backend.Worker, was map[string]backend.Worker) (bool, error) {
	for _, w := range ws {
		if id != "" && w.ID != id {
			continue
		}
		up := w.State == backend.WorkerReady || w.State == backend.WorkerBusy
		switch verb {
		case backend.WorkerFree:
			continue
		case backend.WorkerStop:
			if w.State != backend.WorkerStopped {
				return false, nil
			}
			continue
		case backend.WorkerRestart:
			up = up && w.Launch != was[w.ID].Launch
		}
		if w.State == backend.WorkerFailed && !w.Since.Equal(was[w.ID].Since.Time) {
			return false, workerFailed(w, "`easel worker logs` shows why")
		}
		if !up {
			return false, nil
		}
	}
	return true, nil
}

// workerFailed says that a worker needs a person: why, and what to do.
func workerFailed(w backend.Worker, hints ...string) error {
	reason := oneLine(w.Reason)
	e := &exit{code: codeUnavailable, kind: backend.FailWorker, message: fmt.Sprintf("worker %s failed: %s", oneLine(w.ID), reason)}
	if w.LastDeath != nil {
		if remedy := oneLine(w.LastDeath.Remedy); remedy != "" && !strings.Contains(reason, remedy) {
			e.hints = append(e.hints, remedy)
		}
	}
	e.hints = append(e.hints, hints...)
	return e
}

func (a *app) workerLogsCmd() *cobra.Command {
	var q backend.LogQuery
	c := &cobra.Command{
		Use: "logs", Short: "The log of a worker", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			return a.workerLogs(ctx, q)
		},
	}
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on with new lines until interrupted")
	c.Flags().IntVarP(&q.Tail, "lines", "n", 100, "the last `N` lines; -1: all that is kept")
	c.Flags().StringVar(&q.Worker, "worker", "", "of this worker `ID`; without it of the first")
	c.Flags().StringVar(&q.Launch, "launch", "", "of this start of it; without it of the last")
	return c
}

func (a *app) workerLogs(ctx context.Context, q backend.LogQuery) error {
	if err := a.connect(); err != nil {
		return err
	}
	if q.Worker == "" {
		ws, err := a.engine.Workers(ctx)
		if err != nil {
			return err
		}
		if len(ws) == 0 {
			return &exit{code: codeUnavailable, kind: backend.FailWorker, message: "there is no worker"}
		}
		q.Worker = ws[0].ID
	}
	p := &logPrinter{w: a.out, json: a.json}
	for {
		err := a.engine.Logs(ctx, q, p.line)
		p.flush()
		if !q.Follow || ctx.Err() != nil {
			if errors.Is(err, context.Canceled) && q.Follow {
				return &exit{code: codeInterrupted, kind: "interrupted", told: true}
			}
			return err
		}
		if !errors.Is(err, io.EOF) && !client.IsPassing(err) {
			return err
		}
		// The engine was restarted; go on after the last line that was printed.
		if err := pause(ctx, time.Second); err != nil {
			return &exit{code: codeInterrupted, kind: "interrupted", told: true}
		}
		q.Tail = -1
	}
}

// logPrinter prints each line of a log once. A progress bar is printed when the
// next line shows that it is finished.
type logPrinter struct {
	w      io.Writer
	json   bool
	launch string
	last   int64 // number of the last line printed of launch
	bar    string
}

func (p *logPrinter) line(l backend.LogLine) error {
	if l.Launch != p.launch {
		p.launch, p.last = l.Launch, 0
	}
	if p.json {
		return printJSON(p.w, l)
	}
	if l.N <= p.last {
		return nil
	}
	if l.Bar {
		p.bar = l.Text
		return nil
	}
	p.flush()
	p.last = l.N
	_, err := fmt.Fprintln(p.w, strings.TrimRight(clean(l.Text), "\n"))
	return err
}

// flush prints the bar that is pending.
func (p *logPrinter) flush() {
	if p.bar != "" {
		fmt.Fprintln(p.w, clean(p.bar))
		p.bar = ""
	}
}

func (a *app) workerDeathsCmd() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "deaths", Short: "How workers ended, why, and what to do", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			if err := a.connect(); err != nil {
				return err
			}
			deaths, err := a.engine.Deaths(ctx, limit)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, list(deaths))
			}
			for _, v := range deaths {
				fmt.Fprintf(a.out, "%s  worker %s\n", clock(v.At, time.Now()), oneLine(v.Worker))
				writeVerdict(a.out, v, "  ", -1)
			}
			if len(deaths) == 0 {
				a.sayf("easel: no worker has ended yet")
			}
			return nil
		},
	}
	c.Flags().IntVarP(&limit, "limit", "n", 20, "the last `N`")
	return c
}
