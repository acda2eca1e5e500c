package cmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
)

// jobsCmd is `easel jobs …`.
func (a *app) jobsCmd() *cobra.Command {
	ls := a.jobsLsCmd()
	c := &cobra.Command{Use: "jobs", Short: "List jobs and act on them", Args: noArgs, RunE: ls.RunE}
	c.Flags().AddFlagSet(ls.Flags()) // `easel jobs` is `easel jobs ls`
	c.AddCommand(
		ls, a.jobsShowCmd(), a.jobsWatchCmd(),
		a.jobsActCmd("cancel", "Cancel jobs", "Cancel jobs. One that runs is interrupted; it stays `running` until the worker confirmed it.", backend.VerbCancel),
		a.jobsActCmd("retry", "Try jobs again, as new jobs", "Try jobs again: each becomes a new job of the same graph, seed, group and labels.", backend.VerbRetry),
		a.jobsActCmd("promote", "Move jobs to the top of their priority", "", backend.VerbPromote),
		a.jobsActCmd("hold", "Keep waiting jobs from running", "", backend.VerbHold),
		a.jobsActCmd("release", "Let held jobs run", "", backend.VerbRelease),
		a.jobsActCmd("clear", "Forget jobs that have ended (their files stay)", "", backend.VerbClear),
		a.jobsPauseCmd(), a.jobsResumeCmd(),
	)
	return c
}

// defaultPage is how many jobs `jobs ls` prints unless told.
const defaultPage = 50

func (a *app) jobsLsCmd() *cobra.Command {
	var sel selector
	var limit int
	var before, order string
	c := &cobra.Command{
		Use: "ls", Short: "List jobs, newest first", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := sel.filter(c, nil)
			if err != nil {
				return err
			}
			if order != "" && order != "queue" && order != "newest" {
				return usageError(c, fmt.Sprintf("--order %q: it is queue or newest", clean(order)))
			}
			if limit < 0 {
				return usageError(c, "--limit: not below 0")
			}
			if before != "" {
				if err := checkID(before); err != nil {
					return err
				}
			}
			f.Limit, f.Before = limit, before
			if order == "queue" {
				f.Order = order
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.jobsLs(ctx, f)
		},
	}
	sel.flags(c)
	c.Flags().IntVar(&limit, "limit", defaultPage, "at most `N` jobs; 0: all")
	c.Flags().StringVar(&before, "before", "", "only jobs older than the one with this `ID`")
	c.Flags().StringVar(&order, "order", "newest", "newest, or queue: in the order they will run")
	return c
}

func (a *app) jobsLs(ctx context.Context, f backend.JobFilter) error {
	if err := a.connect(); err != nil {
		return err
	}
	jobs, err := a.engine.Jobs(ctx, f)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, list(jobs))
	}
	if len(jobs) == 0 {
		a.sayf("easel: no jobs; `easel run FILE` makes one")
		return nil
	}
	writeJobs(a.out, jobs, time.Now())
	if f.Limit > 0 && len(jobs) == f.Limit {
		a.sayf("easel: older ones by `--before %s`", short(jobs[len(jobs)-1].ID))
	}
	return nil
}

// writeJobs prints a table of jobs.
func writeJobs(w io.Writer, jobs []backend.Job, now time.Time) {
	rows := make([][]string, len(jobs))
	for i, j := range jobs {
		rows[i] = jobRow(j, now)
	}
	table(w, jobHead, rows)
}

func (a *app) jobsShowCmd() *cobra.Command {
	var events, graph bool
	c := &cobra.Command{
		Use: "show ID", Short: "All about one job: attempts and why each ended, outputs, error", Args: wantArgs(1, 1, "the id of one job"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.jobsShow(ctx, lower(args)[0], events, graph)
		},
	}
	c.Flags().BoolVar(&events, "events", false, "every step with its delay")
	c.Flags().BoolVar(&graph, "graph", false, "the graph it runs, in API format, and nothing else")
	return c
}

func (a *app) jobsShow(ctx context.Context, id string, events, graph bool) error {
	if err := a.connect(); err != nil {
		return err
	}
	if graph {
		g, _, err := a.engine.Graph(ctx, id)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, string(g))
		return err
	}
	job, err := a.engine.Job(ctx, id)
	if err != nil {
		return err
	}
	var steps []backend.Event
	if events {
		if steps, err = a.engine.JobEvents(ctx, job.ID); err != nil {
			return err
		}
	}
	if a.json {
		if events {
			return printJSON(a.out, struct {
				backend.Job
				Events []backend.Event `json:"events"`
			}{job, list(steps)})
		}
		return printJSON(a.out, job)
	}
	writeJob(a.out, job, time.Now())
	if events {
		fmt.Fprintln(a.out)
		writeEvents(a.out, steps, time.Now())
	}
	return nil
}

// jobsActCmd is a verb on selected jobs.
func (a *app) jobsActCmd(name, about, long string, verb backend.Verb) *cobra.Command {
	var sel selector
	c := &cobra.Command{
		Use: name + " [ID…]", Short: about, Long: long,
		RunE: func(c *cobra.Command, args []string) error {
			f, err := sel.some(c, lower(args))
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.act(ctx, verb, f)
		},
	}
	sel.flags(c)
	return c
}

func (a *app) act(ctx context.Context, verb backend.Verb, f backend.JobFilter) error {
	if err := a.connect(); err != nil {
		return err
	}
	jobs, err := a.engine.Act(ctx, backend.JobAction{Verb: verb, Jobs: f, By: a.who()})
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, list(jobs))
	}
	for _, j := range jobs {
		if verb == backend.VerbClear {
			fmt.Fprintln(a.out, j.ID)
			continue
		}
		line := j.ID + " " + stateWord(j)
		if verb == backend.VerbRetry && j.RetryOf != nil {
			line += " (tries " + short(*j.RetryOf) + " again)"
		}
		fmt.Fprintln(a.out, line)
	}
	if len(jobs) == 0 {
		a.sayf("easel: no job of the selection is in a state to %s", verb)
	}
	return nil
}

func (a *app) jobsPauseCmd() *cobra.Command {
	var after bool
	c := &cobra.Command{
		Use: "pause", Short: "Start no further job; what runs goes on", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			if err := a.connect(); err != nil {
				return err
			}
			return a.queueTold(a.engine.Pause(ctx, after, a.who()), true)
		},
	}
	c.Flags().BoolVar(&after, "after-current", false, "also let the job run that already waits inside the worker")
	return c
}

func (a *app) jobsResumeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Let the queue go on", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			if err := a.connect(); err != nil {
				return err
			}
			return a.queueTold(a.engine.Resume(ctx, a.who()), false)
		},
	}
}

// queueTold says how the queue stands after a pause or a resume.
func (a *app) queueTold(err error, paused bool) error {
	switch {
	case err != nil:
		return err
	case a.json:
		return printJSON(a.out, map[string]bool{"paused": paused})
	case paused:
		a.sayf("easel: the queue is paused; `easel jobs resume` lets it go on")
	default:
		a.sayf("easel: the queue goes on")
	}
	return nil
}

func (a *app) jobsWatchCmd() *cobra.Command {
	var sel selector
	c := &cobra.Command{
		Use: "watch [ID…]", Short: "Follow jobs until they end, or everything until interrupted",
		Long: "Follow the selected jobs until all have ended, with the exit code of `easel run`. Without a selection\n" +
			"print every change of every job until interrupted. With --json each change is one object on a line.",
		RunE: func(c *cobra.Command, args []string) error {
			f, err := sel.filter(c, lower(args))
			if err != nil {
				return err
			}
			if err := a.connect(); err != nil {
				return err
			}
			if f.Empty() {
				return a.watchAll(c)
			}
			return a.watchJobs(c, f)
		},
	}
	sel.flags(c)
	return c
}

// watchAll prints every kept change until interrupted.
func (a *app) watchAll(c *cobra.Command) error {
	ctx, stop := interruptible(c)
	defer stop()
	if _, err := a.engine.Status(ctx); err != nil {
		return err // no engine now: say so instead of waiting for one
	}
	stopping := false
	err := a.engine.Watch(ctx, client.EventsOptions{}, func(f backend.Frame) error {
		switch {
		case f.Kind == backend.FrameStopping:
			stopping = true
		case f.Event == nil:
		case a.json:
			return printJSON(a.out, f.Event)
		default:
			e := *f.Event
			name := ""
			if e.Job != nil {
				name = jobName(*e.Job) + " "
			}
			fmt.Fprintf(a.out, "%s %s %s%s\n", e.At.Local().Format("15:04:05"), short(e.JobID), name, eventWords(e))
		}
		return nil
	}, func(connected bool, err error) {
		switch {
		case connected:
		case stopping:
			a.sayf("easel: the engine was stopped; waiting for the next one")
		default:
			a.sayf("easel: %s; connecting again", oneLine(err.Error()))
		}
	})
	return err
}

// watchJobs follows the selected jobs until all have ended.
func (a *app) watchJobs(c *cobra.Command, f backend.JobFilter) error {
	ctx, stop := interruptible(c)
	jobs, err := a.engine.Jobs(ctx, f)
	stop()
	if err != nil {
		return err
	}
	if len(jobs) == 0 {
		return &exit{code: codeNotFound, kind: backend.FailNotFound, message: "no such job"}
	}
	fl := newFollower(a.engine, a.newDisplay(len(jobs)), jobs)
	if a.json {
		fl.onEvent = func(e backend.Event) { _ = printJSON(a.out, e) }
	}
	if err := fl.wait(c.Context(), 0); err != nil {
		return a.gaveUp(err, nil, 0)
	}
	return a.verdictOf(fl.final(), true)
}
