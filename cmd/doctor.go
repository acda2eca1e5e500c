package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/doctor"
	"easel/backend/keeper"
	"easel/config"
)

// Bounds of what doctor asks the engine.
const (
	doctorAsk  = 3 * time.Second
	doctorJobs = 200 // of the last jobs, for what they took
)

// doctorCmd is `easel doctor`.
func (a *app) doctorCmd() *cobra.Command {
	var bundle string
	c := &cobra.Command{
		Use: "doctor", Short: "Look the box over: what is wrong with it, and what to do",
		Long: "Look the box over: python, torch and CUDA, driver, ports, memory, control groups, disk, mounts,\n" +
			"permissions, terminal, clock, and why jobs wait. It works with and without an engine, changes\n" +
			"nothing, and ends with 0 whatever it found: the verdict is in what it prints.\n" +
			"With --bundle it also writes a report that can be sent to someone; secrets are left out.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.host != "" {
				return usageError(c, "doctor looks at the box that it runs on: ssh to that one and run `easel doctor` there")
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.doctor(ctx, bundle)
		},
	}
	c.Flags().StringVar(&bundle, "bundle", "", "also write a report to this new `FILE` (.tar.gz)")
	return c
}

func (a *app) doctor(ctx context.Context, bundle string) error {
	b, sources, err := a.box(ctx)
	if err != nil {
		return err
	}
	report := doctor.Examine(ctx, b)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bundle != "" {
		if err := writeBundle(bundle, b, report, sources); err != nil {
			return err
		}
	}
	if a.json {
		if err := printJSON(a.out, report); err != nil {
			return err
		}
	} else {
		writeReport(a.out, report)
	}
	if bundle != "" {
		a.sayf("easel: wrote %s; secrets and the name of your home directory are left out, but look it over before you send it", oneLine(bundle))
	}
	return nil
}

// box is this box, with what its engine says if one answers.
func (a *app) box(ctx context.Context) (*doctor.Box, config.Sources, error) {
	b := &doctor.Box{
		Root: "/", StateDir: a.stateDir(), ConfigPath: config.Path(a.environ), Environ: a.environ, Version: Version(),
		Logout: keeper.LogoutNote,
	}
	if f, ok := a.out.(*os.File); ok {
		b.Terminal = isatty.IsTerminal(f.Fd())
	}
	var sources config.Sources
	b.Config, sources, b.ConfigErr = config.Load(b.ConfigPath, a.environ)
	if err := a.connect(); err != nil {
		return nil, nil, err
	}
	asked, cancel := context.WithTimeout(ctx, doctorAsk)
	defer cancel()
	s, err := a.engine.Status(asked)
	if err != nil {
		b.StatusErr = errors.New(failure(err).Message)
		return b, sources, nil
	}
	b.Status = &s
	if b.Deaths, err = a.engine.Deaths(asked, 100); err != nil {
		a.sayf("easel: read the ends of workers: %s", oneLine(err.Error()))
	}
	for _, f := range []backend.JobFilter{{Limit: doctorJobs}, {States: []backend.JobState{backend.JobQueued}, Limit: 20}} {
		list, err := a.engine.Jobs(asked, f)
		if err != nil {
			a.sayf("easel: read the jobs: %s", oneLine(err.Error()))
		}
		b.Jobs = append(b.Jobs, list...)
	}
	return b, sources, nil
}

// writeReport prints the findings, and what to do under each that needs it.
func writeReport(w io.Writer, r doctor.Report) {
	marks := map[doctor.Verdict]string{doctor.OK: "✓", doctor.Note: "·", doctor.Warning: "!", doctor.Problem: "✗"}
	count := map[doctor.Verdict]int{}
	for _, f := range r.Checks {
		count[f.Verdict]++
		fmt.Fprintf(w, "%s %-7s %s: %s\n", marks[f.Verdict], f.Verdict, oneLine(f.Title), oneLine(f.Seen))
		if f.Remedy != "" && f.Verdict != doctor.OK {
			fmt.Fprintf(w, "            → %s\n", oneLine(f.Remedy))
		}
	}
	fmt.Fprintf(w, "%d problems, %d warnings, %d notes, %d ok\n", count[doctor.Problem], count[doctor.Warning], count[doctor.Note], count[doctor.OK])
}

// writeBundle writes the report file, which must not be there yet.
func writeBundle(path string, b *doctor.Box, r doctor.Report, sources config.Sources) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &exit{code: codeFailed, message: "doctor: " + path + " is there already", cause: err, hints: []string{"name a new file"}}
	}
	if err != nil {
		return fmt.Errorf("doctor: write the report: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(path)
		}
	}()
	return doctor.Bundle(f, b, r, sources)
}
