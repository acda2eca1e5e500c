package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

func child(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return cmd
}

func TestAliveAndWaitGone(t *testing.T) {
	cmd := child(t, "sleep", "60")
	pid := cmd.Process.Pid
	ticks, err := StartTicks(pid)
	if err != nil || ticks == 0 {
		t.Fatal(ticks, err)
	}
	if !Alive(pid, ticks) || !Alive(pid, 0) || Alive(pid, ticks+1) {
		t.Error("a living process")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := WaitGone(ctx, pid, ticks); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a living process: %v", err)
	}
	if err := WaitGone(t.Context(), pid, ticks+1); err != nil {
		t.Errorf("wait for another one of that number: %v", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- WaitGone(t.Context(), pid, ticks) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil { // before anybody reaped it
		t.Error(err)
	}
	if Alive(pid, ticks) {
		t.Error("a zombie counts as alive")
	}
	_ = cmd.Wait()
	if _, err := Stat(pid); !errors.Is(err, ErrNoProcess) {
		t.Errorf("stat of a gone process: %v", err)
	}
	if err := WaitGone(t.Context(), pid, 0); err != nil {
		t.Error(err)
	}
}

func TestDescendantsAndSession(t *testing.T) {
	cmd := child(t, "sh", "-c", "sleep 60 & sh -c 'sleep 60 & wait' & wait")
	pid := cmd.Process.Pid
	var kids []int
	for deadline := time.Now().Add(5 * time.Second); len(kids) < 3 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var err error
		if kids, err = Descendants(pid); err != nil {
			t.Fatal(err)
		}
	}
	if len(kids) != 3 {
		t.Fatalf("descendants %v", kids)
	}
	session, err := Session(pid)
	if err != nil || len(session) != 4 || !slices.Contains(session, pid) {
		t.Errorf("session %v, %v", session, err)
	}
}

func TestRSSAndEnviron(t *testing.T) {
	if n, err := RSS(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("rss %d, %v", n, err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.Env = []string{"A=1", "B=two words"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if env, err := Environ(cmd.Process.Pid); err != nil || !slices.Equal(env, cmd.Env) {
		t.Errorf("environ %q, %v", env, err)
	}
}

func TestParseStatOfAStrangeName(t *testing.T) {
	i, err := parseStat([]byte("42 (a) S (b c) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n"))
	if err != nil || i.PID != 42 || i.Name != "a) S (b c" || i.State != 'R' || i.PPID != 1 || i.SID != 3 || i.StartTicks != 777 {
		t.Errorf("%+v, %v", i, err)
	}
}
