package cmd

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/backend/process"
	"easel/backend/worker"
)

// TestStopEndsAWorkerThatWasLeft has a real process with a child in a session of
// its own, as a worker whose engine and keeper were killed at once.
func TestStopEndsAWorkerThatWasLeft(t *testing.T) {
	home := t.TempDir()
	cmd := exec.Command("sh", "-c", "sleep 600 & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
	ticks, err := process.StartTicks(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(worker.Record{Version: 1, ID: "cpu", BootID: process.BootID(), PID: cmd.Process.Pid, StartTicks: ticks})
	if err := os.MkdirAll(filepath.Join(home, "workers"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "workers", "cpu.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string) {
		var errs bytes.Buffer
		a := &app{out: &bytes.Buffer{}, err: &errs, environ: []string{"EASEL_HOME=" + home}}
		return a.run(args), errs.String()
	}
	if code, says := run("status"); code != 4 || !strings.Contains(says, "worker cpu (pid") {
		t.Errorf("status: %d %s", code, says)
	}
	if code, says := run("stop", "--keep-worker"); code != 0 || !process.Alive(cmd.Process.Pid, ticks) {
		t.Errorf("stop --keep-worker: %d %s", code, says)
	}
	if code, says := run("stop"); code != 0 || !strings.Contains(says, "ended worker cpu") {
		t.Errorf("stop: %d %s", code, says)
	}
	<-ended
	for deadline := time.Now().Add(5 * time.Second); ; {
		left := 0
		pids, _ := process.Session(cmd.Process.Pid)
		for _, pid := range pids {
			if i, err := process.Stat(pid); err == nil && !i.Dead() {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes of its group are left", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
