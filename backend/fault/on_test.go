//go:build easelfault

package fault

import (
	"os"
	"os/exec"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("FAULT_CHILD") != "" {
		Hit("here")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestEachPointIsHitOnceADirectory(t *testing.T) {
	dir := t.TempDir()
	run := func(spec string) *os.ProcessState {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), "FAULT_CHILD=1", "EASEL_FAULT="+spec, "EASEL_FAULT_DIR="+dir)
		_ = cmd.Run()
		return cmd.ProcessState
	}
	if s := run("other=kill-self"); !s.Success() {
		t.Fatalf("another point's action was taken: %v", s)
	}
	if s := run("other=sleep=1s,here=kill-self"); s.String() != "signal: killed" {
		t.Fatalf("first hit: %v, want killed", s)
	}
	if s := run("here=kill-self"); !s.Success() {
		t.Fatalf("second hit: %v, want a process that goes on", s)
	}
}
