//go:build easelfault

package jobs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"easel/backend"
)

// faultEnv makes the test binary play a process that dies at a fault point: it
// says what the process does.
const faultEnv = "EASEL_JOBS_FAULT_CHILD"

func init() {
	what, path := os.Getenv(faultEnv), os.Getenv(faultEnv+"_PATH")
	ctx := context.Background()
	switch what {
	case "":
		return
	case "migrate":
		_, _ = Open(ctx, path, Options{migrations: append(migrations[:1:1], v2)})
	case "end":
		s, err := Open(ctx, path, Options{})
		if err != nil {
			os.Exit(3)
		}
		j, _, err := s.Submit(ctx, sub("a"))
		if err != nil {
			os.Exit(3)
		}
		_, n, err := s.Sent(ctx, j.ID, backend.Attempt{PromptID: uuid.NewString()})
		if err == nil {
			_, err = s.Started(ctx, j.ID, n, time.Now())
		}
		if err == nil {
			_, err = s.End(ctx, j.ID, n, End{Outcome: backend.OutcomeSucceeded, State: backend.JobSucceeded})
		}
		_ = err
	}
	os.Exit(4) // it should have died before
}

// dieAt runs the child until it is killed at a fault point.
func dieAt(t *testing.T, point, what, path string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), faultEnv+"="+what, faultEnv+"_PATH="+path, "EASEL_FAULT="+point+"=kill-self", "EASEL_FAULT_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child was not killed at %s: %v %s", point, err, out)
	}
}

func TestKilledDuringAMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := submit(t, s, sub("ann"))
	_ = s.Close()
	dieAt(t, "migration", "migrate", path)
	// The old one can be used as before, and the migration be done again.
	old, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	get(t, old, j.ID)
	_ = old.Close()
	get(t, openAt(t, path, Options{migrations: append(migrations[:1:1], v2)}), j.ID)
}

func TestKilledBeforeTheEndIsWritten(t *testing.T) {
	for _, point := range []string{"before-state-written", "jobs-before-commit-end"} {
		path := filepath.Join(t.TempDir(), "jobs.db")
		dieAt(t, point, "end", path)
		open, err := openAt(t, path, Options{}).Unfinished(context.Background())
		if err != nil || len(open) != 1 || open[0].State != backend.JobRunning {
			t.Errorf("%s: %+v, %v", point, open, err)
		}
	}
}
