package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"easel/backend"
	"easel/backend/jobs"
	"easel/backend/keeper"
	"easel/config"
)

func init() { mains["keeper"] = keeperMain }

// keeperMain is the hidden command `keeper --preflight`, with which a running
// keeper tries a new binary before it becomes that binary: it reads the
// configuration and opens a copy of the records, and changes nothing.
func keeperMain(args []string) int {
	a := &app{out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	if len(args) != 1 || args[0] != "--preflight" {
		a.report(&exit{code: codeUsage, message: "keeper is started by `easel serve`, not by hand"})
		return codeUsage
	}
	err := a.preflight(context.Background())
	a.report(err)
	if err == nil {
		fmt.Fprintf(a.out, "easel %s protocol %d\n", Version(), keeper.Version)
	}
	return exitCode(err)
}

// preflightTries is how often the records are copied while they are written to.
const preflightTries = 3

func (a *app) preflight(ctx context.Context) error {
	if _, _, err := config.Open(a.environ); err != nil {
		return configError(err)
	}
	if err := keeper.CheckStateDir(a.stateDir()); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(a.stateDir(), ".preflight-")
	if err != nil {
		return fmt.Errorf("make room for a copy of the records: %w", err)
	}
	defer os.RemoveAll(dir)
	for range preflightTries {
		if err = a.tryRecords(ctx, dir); err == nil {
			return nil
		}
	}
	return fmt.Errorf("try the records: %w", err)
}

// tryRecords opens a copy of the records, which brings it to this binary's
// schema.
func (a *app) tryRecords(ctx context.Context, dir string) error {
	for _, suffix := range []string{"", "-wal"} {
		err := copyFile(filepath.Join(a.stateDir(), "jobs.db"+suffix), filepath.Join(dir, "jobs.db"+suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	store, err := jobs.Open(ctx, filepath.Join(dir, "jobs.db"), jobs.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return backend.FailureOf(err)
	}
	return store.Close()
}

// copyFile copies src over dst.
func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
