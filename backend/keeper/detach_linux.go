package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"easel/backend"
)

// Detach starts a keeper in a session of its own, with its output in keeper.log,
// and returns its pid when its engine serves. It returns ErrRunning, with the pid
// of the other one, when a keeper runs already, and a *backend.Failure with the
// reason when the keeper or the engine could not start within StartWithin.
func Detach(ctx context.Context, cfg Config) (int, error) {
	cfg = cfg.withDefaults()
	if err := CheckStateDir(cfg.StateDir); err != nil {
		return 0, err
	}
	out, err := openLog(filepath.Join(cfg.StateDir, keeperLog), maxKeeperLog)
	if err != nil {
		return 0, dirFailure(cfg.StateDir, err)
	}
	defer func() { _ = out.Close() }()
	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, dirFailure(cfg.StateDir, err)
	}
	answer, theirs, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("start Easel: %w", err)
	}
	defer func() { _ = answer.Close() }()
	argv := append(scopeFor(ctx), append([]string{selfPath()}, cfg.Args...)...)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives every context of ours
	cmd.Dir = cfg.StateDir
	cmd.Env = append(append(withoutManager(os.Environ()), cfg.Env...), envReady+"="+strconv.Itoa(3))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("start Easel: %w", err)
	}
	go func() { _ = cmd.Wait() }() // ours until we end
	got, err := waitOutcome(ctx, answer, cfg.StartWithin)
	if err != nil {
		return cmd.Process.Pid, detachFailure(cfg, err, from)
	}
	return got.PID, got.err()
}

// waitOutcome reads what the new keeper says.
func waitOutcome(ctx context.Context, answer *os.File, within time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var got outcome
	if err := json.NewDecoder(answer).Decode(&got); err != nil {
		return outcome{}, errors.Join(ctx.Err(), err)
	}
	return got, nil
}

// detachFailure says why a keeper did not get so far as to say it itself.
func detachFailure(cfg Config, err error, from int64) error {
	log := filepath.Join(cfg.StateDir, keeperLog)
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return backend.Fail(backend.FailEngineDown,
			fmt.Sprintf("Easel was started and does not serve after %v; it goes on trying", cfg.StartWithin),
			"see "+log+" and "+filepath.Join(cfg.StateDir, engineLog)+", or ask again with easel status")
	}
	msg := "Easel ended while it started"
	if lines := lastLines(log, from); len(lines) > 0 {
		msg += ": " + lines[len(lines)-1]
	}
	return backend.Fail(backend.FailEngineDown, msg, "see "+log)
}

// selfPath is this binary as another program can start it: by its name where that
// still is this file, else through /proc, which also works after go run deleted
// it.
func selfPath() string {
	var mine, named os.FileInfo
	mine, err := os.Stat(selfExe)
	if err != nil {
		return selfExe
	}
	if path, err := os.Executable(); err == nil {
		if named, err = os.Stat(path); err == nil && os.SameFile(mine, named) {
			return path
		}
	}
	return fmt.Sprintf("/proc/%d/exe", os.Getpid())
}
