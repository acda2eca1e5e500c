package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
)

// outputsCmd is `easel outputs …`.
func (a *app) outputsCmd() *cobra.Command {
	ls := a.outputsLsCmd()
	c := &cobra.Command{Use: "outputs", Short: "Pictures and other files that jobs made", Args: noArgs, RunE: ls.RunE}
	c.Flags().AddFlagSet(ls.Flags())
	c.AddCommand(ls, a.outputsGetCmd(), a.outputsShowCmd())
	return c
}

// outputOf is an output with the job it belongs to, for JSON.
type outputOf struct {
	Job  string `json:"job"`
	Name string `json:"name"`
	N    int    `json:"n"`
	backend.Output
}

func outputsOf(jobs []backend.Job) []outputOf {
	out := []outputOf{}
	for _, j := range jobs {
		for n, o := range j.Outputs {
			out = append(out, outputOf{j.ID, j.Name, n, o})
		}
	}
	return out
}

func (a *app) outputsLsCmd() *cobra.Command {
	var sel selector
	var limit int
	c := &cobra.Command{
		Use: "ls", Short: "List outputs, those of the newest jobs first", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := sel.filter(c, nil)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usageError(c, "--limit: not below 0")
			}
			f.Limit = limit
			if len(f.States) == 0 {
				f.States = []backend.JobState{backend.JobSucceeded, backend.JobFailed, backend.JobCancelled, backend.JobRunning}
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.outputsLs(ctx, f)
		},
	}
	sel.flags(c)
	c.Flags().IntVar(&limit, "limit", defaultPage, "of at most `N` jobs; 0: all")
	return c
}

func (a *app) outputsLs(ctx context.Context, f backend.JobFilter) error {
	if err := a.connect(); err != nil {
		return err
	}
	jobs, err := a.engine.Jobs(ctx, f)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, outputsOf(jobs))
	}
	var rows [][]string
	for _, j := range jobs {
		for n := range j.Outputs {
			rows = append(rows, outputRow(j, n))
		}
	}
	if len(rows) == 0 {
		a.sayf("easel: no outputs yet")
		return nil
	}
	table(a.out, outputHead, rows)
	return nil
}

func (a *app) outputsGetCmd() *cobra.Command {
	var sel selector
	var dir string
	c := &cobra.Command{
		Use: "get [ID…]", Short: "Copy the files of jobs here",
		Long: "Copy the files of jobs into a directory on the side where the command was typed, and print their paths.\n" +
			"A different file of the same name is never overwritten: the copy gets a number.",
		RunE: func(c *cobra.Command, args []string) error {
			f, err := sel.some(c, lower(args))
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.outputsGet(ctx, f, dir)
		},
	}
	sel.flags(c)
	c.Flags().StringVar(&dir, "out", ".", "into this `directory`")
	return c
}

func (a *app) outputsGet(ctx context.Context, f backend.JobFilter, dir string) error {
	if err := a.connect(); err != nil {
		return err
	}
	jobs, err := a.engine.Jobs(ctx, f)
	if err != nil {
		return err
	}
	save, err := a.newSaver(dir)
	if err != nil {
		return err
	}
	var all []string
	var failed error
	for _, j := range jobs {
		paths, err := save.job(ctx, j)
		all = append(all, paths...)
		if !a.json {
			a.printPaths(paths)
		}
		if err != nil {
			failed = errors.Join(failed, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed != nil {
		return failed
	}
	if a.json {
		return printJSON(a.out, list(all))
	}
	if len(all) == 0 {
		return &exit{code: codeNotFound, kind: backend.FailNotFound, message: "these jobs have no files"}
	}
	return nil
}

// printPaths prints paths, one a line. A path is printed as it is: scripts open
// it; only what would break the line is taken out.
func (a *app) printPaths(paths []string) {
	for _, p := range paths {
		fmt.Fprintln(a.out, strings.NewReplacer("\n", "", "\r", "", "\x1b", "").Replace(p))
	}
}

func (a *app) outputsShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "What a job made: each file with its size, pixels and place", Args: wantArgs(1, 1, "the id of one job"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkID(args[0]); err != nil {
				return err
			}
			ctx, stop := interruptible(c)
			defer stop()
			if err := a.connect(); err != nil {
				return err
			}
			j, err := a.engine.Job(ctx, lower(args)[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, outputsOf([]backend.Job{j}))
			}
			fmt.Fprintf(a.out, "%s · %s · %s\n", short(j.ID), jobName(j), stateLine(j))
			for n, o := range j.Outputs {
				fmt.Fprintf(a.out, "%d  node %s · %s\n", n, oneLine(o.Node), outputLine(o))
				if o.Text != "" {
					fmt.Fprintln(a.out, clean(o.Text))
				}
				if o.SHA256 != nil {
					fmt.Fprintln(a.out, "   sha256", *o.SHA256)
				}
			}
			if len(j.Outputs) == 0 && !j.State.Final() {
				a.sayf("easel: nothing yet, since %s", clock(j.Created, time.Now()))
			}
			return nil
		},
	}
}
