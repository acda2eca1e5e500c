package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
)

// runFlags are what `easel run` is told besides the file.
type runFlags struct {
	set       []string
	count     int
	priority  int
	hold      bool
	notBefore string
	group     string
	name      string
	key       string
	noCheck   bool
	out       string
	detach    bool
	timeout   time.Duration
	events    bool
	labels    map[string]string
}

// runCmd is `easel run`.
func (a *app) runCmd() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use: "run FILE|-", Short: "Run a workflow: queue it, follow it, print the paths of what it made",
		Long: "Run a workflow in ComfyUI's API format, or a PNG that carries one (- reads standard input).\n\n" +
			"The job is on disk before it is worked on; it goes on when this command ends. Progress goes to stderr,\n" +
			"the last lines on stdout are the paths of the outputs.\n\n" +
			"  easel run portrait.json --set seed=5 --set 6.text='a lighthouse' --set image=./cat.png --out .\n" +
			"  easel run portrait.json --count 8 --group night --detach",
		Args: wantArgs(1, 1, "one file (or - for standard input)"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			return a.runFile(c, args[0], f)
		},
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.set, "set", nil, "`IN=VALUE`: set an input (6.text=…, seed=5); IN=@FILE: to what the file says;\nfor an image input ./FILE uploads it")
	fl.IntVar(&f.count, "count", 1, "run it `N` times, each with a new seed unless one is set")
	fl.IntVar(&f.priority, "priority", 0, "a higher number runs sooner")
	fl.BoolVar(&f.hold, "hold", false, "keep it waiting until `easel jobs release`")
	fl.StringVar(&f.notBefore, "not-before", "", "not before this `time`: 2006-01-02T15:04:05Z, 15:04, or a span such as 2h")
	fl.StringVar(&f.group, "group", "", "the group it belongs to")
	fl.StringVar(&f.name, "name", "", "its name; the file's without one")
	fl.StringVar(&f.key, "key", "", "the same key with the same workflow is the first job again, for 24 h")
	fl.BoolVar(&f.noCheck, "no-check", false, "do not look the workflow over before it is queued")
	fl.StringVar(&f.out, "out", "", "copy the outputs into this `directory`, and print those paths")
	fl.BoolVar(&f.detach, "detach", false, "return when the job is queued, and print its id")
	fl.DurationVar(&f.timeout, "timeout", 0, "wait at most this long (exit code 7), and let the job run no longer than that")
	fl.BoolVar(&f.events, "events", false, "print each change as a line of JSON before the job itself (implies --json)")
	fl.StringToStringVar(&f.labels, "label", nil, "`KEY=VALUE` to keep with the job")
	return c
}

// maxCount bounds --count: the queue itself holds 100,000 jobs.
const maxCount = 10_000

// check refuses flags that make no sense, before anything is read or started.
func (f *runFlags) check(c *cobra.Command) error {
	switch {
	case f.count < 1 || f.count > maxCount:
		return usageError(c, fmt.Sprintf("--count %d: from 1 to %d", f.count, maxCount))
	case f.timeout < 0:
		return usageError(c, "--timeout: not below 0")
	case f.detach && f.out != "":
		return usageError(c, "--out needs the outputs, which --detach does not wait for; later: `easel outputs get ID --out DIR`")
	case f.detach && f.events:
		return usageError(c, "--events follows the job, which --detach does not")
	}
	for _, s := range f.set {
		if in, _, ok := strings.Cut(s, "="); !ok || strings.TrimSpace(in) == "" {
			return usageError(c, fmt.Sprintf("--set %q: write it as INPUT=VALUE", clean(s)))
		}
	}
	return nil
}

// runFile is `easel run` from the file to the paths of its outputs.
func (a *app) runFile(c *cobra.Command, file string, f runFlags) error {
	a.json = a.json || f.events
	ctx, stop := interruptible(c)
	defer stop()
	prepared, err := a.prepare(ctx, c, file, f)
	if err != nil {
		return err
	}
	if err := a.ensure(ctx); err != nil {
		return err
	}
	var save *saver
	if f.out != "" {
		if save, err = a.newSaver(f.out); err != nil {
			return err
		}
	}
	if err := prepared.upload(ctx, a.engine); err != nil {
		return err
	}
	jobs, err := a.submit(ctx, prepared, f)
	stop()
	if err != nil {
		return a.partly(jobs, err)
	}
	if f.detach {
		return a.detached(jobs)
	}
	return a.follow(c.Context(), jobs, save, f)
}

// submit hands the jobs in, one after the other so that they keep their order.
func (a *app) submit(ctx context.Context, p *prepared, f runFlags) ([]backend.Job, error) {
	var jobs []backend.Job
	for i := range f.count {
		sub, err := p.submission(i)
		if err != nil {
			return jobs, err
		}
		job, created, err := a.engine.Submit(ctx, sub)
		if err != nil {
			return jobs, err
		}
		if !created {
			a.sayf("easel: key %q was seen before: it is job %s again", clean(sub.Key), short(job.ID))
		}
		if i == 0 {
			for _, w := range job.Warnings {
				a.sayf("easel: warning: %s", oneLine(w))
			}
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// partly adds to err what was accepted before it.
func (a *app) partly(jobs []backend.Job, err error) error {
	if len(jobs) > 0 {
		a.sayf("easel: %s accepted before this and %s on: %s … in group %s", plural(len(jobs), "job"), goes(len(jobs)), short(jobs[0].ID), oneLine(jobs[0].Group))
	}
	return err
}

func goes(n int) string {
	if n == 1 {
		return "goes"
	}
	return "go"
}

// detached prints accepted jobs.
func (a *app) detached(jobs []backend.Job) error {
	for _, j := range jobs {
		if a.json {
			if err := printJSON(a.out, j); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(a.out, j.ID)
	}
	return nil
}

// follow waits for the jobs, copies what they made and prints the result.
func (a *app) follow(ctx context.Context, jobs []backend.Job, save *saver, f runFlags) error {
	saved := map[string][]string{}
	fl := newFollower(a.engine, a.newDisplay(len(jobs)), jobs)
	if f.events {
		fl.onEvent = func(e backend.Event) { _ = printJSON(a.out, e) }
	}
	fl.onFinal = func(ctx context.Context, j backend.Job) error {
		if save == nil {
			return nil
		}
		paths, err := save.job(ctx, j)
		saved[j.ID] = paths
		return err
	}
	if err := fl.wait(ctx, f.timeout); err != nil {
		return a.gaveUp(err, fl.open(), f.timeout)
	}
	final := fl.final()
	for _, j := range final {
		if a.json {
			if err := printJSON(a.out, withSaved{j, saved[j.ID]}); err != nil {
				return err
			}
			continue
		}
		a.told(j)
		if save != nil {
			a.printPaths(saved[j.ID])
			continue
		}
		a.printPaths(pathsOf(j))
		a.elsewhere(j)
	}
	return a.verdictOf(final, false)
}

// withSaved is a job with the paths that --out copied its files to.
type withSaved struct {
	backend.Job
	Saved []string `json:"saved,omitempty"`
}

// told prints what a job has to say besides its files: its texts.
func (a *app) told(j backend.Job) {
	for _, o := range j.Outputs {
		if o.Text != "" {
			a.sayf("%s", clean(o.Text))
		}
	}
}

// elsewhere says how to get files that lie with a ComfyUI whose folders cannot be
// seen from here.
func (a *app) elsewhere(j backend.Job) {
	for _, o := range j.Outputs {
		if o.Filename != "" && o.Path == "" {
			a.sayf("easel: its files lie with the ComfyUI that made them; `easel outputs get %s --out .` copies them here", short(j.ID))
			return
		}
	}
}

// pathsOf are the paths of a job's files where the engine sees them.
func pathsOf(j backend.Job) []string {
	var paths []string
	for _, o := range j.Outputs {
		if o.Path != "" {
			paths = append(paths, o.Path)
		}
	}
	return paths
}

// open are the jobs that have not ended.
func (f *follower) open() []backend.Job {
	var open []backend.Job
	for _, j := range f.final() {
		if !j.State.Final() {
			open = append(open, j)
		}
	}
	return open
}

// verdictOf is the error that the ends of jobs mean: of the first that did not
// succeed. told says that nothing was printed on stdout that explains it.
func (a *app) verdictOf(jobs []backend.Job, quiet bool) error {
	var first *exit
	bad := 0
	for _, j := range jobs {
		code := exitOfJob(j)
		if code == codeDone {
			continue
		}
		bad++
		if first == nil {
			first = jobExit(j, code)
		}
	}
	if first == nil {
		return nil
	}
	if len(jobs) > 1 {
		first.message = fmt.Sprintf("%d of %d jobs did not succeed; the first: %s", bad, len(jobs), first.message)
		if g := jobs[0].Group; g != "" {
			first.hints = append(first.hints, "`easel jobs retry --group "+shellWord(oneLine(g))+" --state failed` tries them again")
		}
	}
	first.told = !quiet || a.json // stdout has the jobs themselves
	return first
}

// jobExit says how a job ended that did not succeed.
func jobExit(j backend.Job, code int) *exit {
	e := &exit{code: code, kind: kindOfExit(code), message: fmt.Sprintf("job %s (%s) %s", short(j.ID), jobName(j), j.State)}
	if j.Error != nil {
		e.message += ": " + errorLine(*j.Error)
		e.kind = j.Error.Kind
		if j.Error.Remedy != "" {
			e.hints = append(e.hints, oneLine(j.Error.Remedy))
		}
	}
	if code == codeFailed {
		e.hints = append(e.hints, "`easel jobs show "+short(j.ID)+"` has all of it")
	}
	return e
}

// secondCtrlC is how long a second interrupt is waited for that cancels the jobs.
const secondCtrlC = 1500 * time.Millisecond

// gaveUp ends a command that stopped following jobs before they ended.
// limit is what --timeout said.
func (a *app) gaveUp(err error, open []backend.Job, limit time.Duration) error {
	switch {
	case errors.Is(err, errWaited):
		e := &exit{code: codeTimeout, kind: "timeout", message: fmt.Sprintf("not done within the %s of --timeout", span(limit)), cause: err}
		e.hints = append(goesOn(open), fmt.Sprintf("a job that has run for %s in the worker is ended there", span(limit)))
		return e
	case errors.Is(err, errInterrupted):
		return a.interrupted(open)
	}
	return err
}

// goesOn says how to come back to jobs that are left running.
func goesOn(open []backend.Job) []string {
	if len(open) == 0 {
		return nil
	}
	which := short(open[0].ID)
	if len(open) > 1 && open[0].Group != "" {
		which = "--group " + shellWord(oneLine(open[0].Group))
	}
	return []string{"`easel jobs watch " + which + "` follows it, `easel jobs cancel " + which + "` ends it"}
}

// interrupted leaves the jobs running, or cancels them on a second interrupt
// that follows on a terminal.
func (a *app) interrupted(open []backend.Job) error {
	e := &exit{code: codeInterrupted, kind: "interrupted", message: "interrupted; the job goes on", hints: goesOn(open)}
	if len(open) == 0 {
		e.message = "interrupted"
		return e
	}
	if !a.terminal {
		return e
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	a.sayf("\neasel: the job goes on; ctrl-c again cancels it")
	select {
	case <-again:
	case <-time.After(secondCtrlC):
		e.message = "interrupted"
		return e
	}
	ids := make([]string, len(open))
	for i, j := range open {
		ids[i] = j.ID
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := a.engine.Act(ctx, backend.JobAction{Verb: backend.VerbCancel, Jobs: backend.JobFilter{IDs: ids}, By: a.who()}); err != nil {
		e.message = "interrupted; cancelling failed: " + oneLine(err.Error())
		return e
	}
	e.message, e.hints = "interrupted; "+plural(len(ids), "job")+" told to end", nil
	return e
}
