//go:build linux

package cmd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"easel/backend"
)

// buildOther builds the program again, as another version.
func buildOther(t *testing.T, version string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "easel")
	args := []string{"build", "-tags", "easelfault", "-ldflags", "-X easel/cmd.buildVersion=" + version, "-o", bin}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "easel")...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// TestReloadTouchesNoRunningJob upgrades Easel in place under a running job: same
// keeper, same worker, same attempt, another engine of another version.
func TestReloadTouchesNoRunningJob(t *testing.T) {
	other := buildOther(t, "v9.8.7") // before the box: it goes after the box has stopped
	b := newBox(t)
	id := b.submit(b.sketch("over", 1, 12))
	next := b.submit(b.sketch("next", 2, 0.1))
	b.waitState(id, backend.JobRunning)
	before, worker := b.status(), b.workerPID()

	b.bin = other
	var got struct {
		PID     int    `json:"pid"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal([]byte(b.must("serve", "--reload", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	now := b.status()
	if got.Version != "v9.8.7" || now.Engine.Version != "v9.8.7" || now.Engine.PID == before.Engine.PID {
		t.Errorf("engine %+v, was %+v, told %+v", now.Engine, before.Engine, got)
	}
	if got.PID != before.Keeper.PID || now.Keeper.PID != before.Keeper.PID || now.Keeper.LastCrash != nil {
		t.Errorf("keeper %+v, was %+v", now.Keeper, before.Keeper)
	}
	if s := b.job(id).State; s != backend.JobRunning {
		t.Errorf("right after the reload the job is %s: the test did not see one run over it", s)
	}
	for _, id := range []string{id, next} {
		if j := b.waitState(id, backend.JobSucceeded); len(j.Attempts) != 1 || j.Attempts[0].Verdict != nil {
			t.Errorf("attempts: %+v", j.Attempts)
		}
	}
	if pid := b.workerPID(); pid != worker {
		t.Errorf("the worker was %d and is %d", worker, pid)
	}
}

// TestReloadRefusesABinaryThatCannotRunHere keeps everything when the trial fails.
func TestReloadRefusesABinaryThatCannotRunHere(t *testing.T) {
	b := newBox(t)
	b.must("serve", "--detach")
	before := b.status()
	if err := os.WriteFile(filepath.Join(b.home, "config.toml"), []byte("no_such_key = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := b.easel("serve", "--reload")
	if r.code == 0 || !strings.Contains(r.err, "preflight") || !strings.Contains(r.err, "no_such_key") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if now := b.status(); now.Engine.PID != before.Engine.PID {
		t.Error("the engine was replaced")
	}
	if err := os.Remove(filepath.Join(b.home, "config.toml")); err != nil {
		t.Fatal(err)
	}
	b.must("stop")
	if r := b.easel("serve", "--reload"); r.code != 4 || !strings.Contains(r.err, "no engine runs") {
		t.Errorf("without an engine: exit %d: %s", r.code, r.err)
	}
}
