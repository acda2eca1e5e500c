package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// Bounds of worker.restart.
const (
	restartWithin = 2 * time.Minute  // for the command: systemd waits 90 s for a stop
	replaceWithin = 30 * time.Second // after it, for the old process to be gone
)

// restartWords are the words of worker.restart: one command, no shell.
func restartWords(text string) ([]string, error) {
	lists, err := splitCommand(text)
	if err != nil {
		f := backend.FailureOf(err)
		return nil, backend.Fail(f.Kind, strings.Replace(f.Message, "worker.command", "worker.restart", 1), f.Hint)
	}
	if len(lists) != 1 {
		return nil, backend.Fail(backend.FailUsage, "worker.restart: it is more than one command, and no shell runs it", "put them into a script and name that")
	}
	return lists[0], nil
}

// restartOutside has a worker of somebody else restarted by the configured command.
// It returns when the command has ended, or goes on when ctx does before that. stall
// says why when it is because the worker shows no sign of life.
func (m *Manager) restartOutside(ctx context.Context, by string, stall *backend.Verdict) error {
	words, err := restartWords(m.spec.RestartCommand)
	if err != nil {
		return err
	}
	m.mu.Lock()
	x, launch := m.ext, m.w.Launch
	m.mu.Unlock()
	if x == nil {
		return backend.Fail(backend.FailBusy, "the worker is not looked after yet", "try again")
	}
	if stall != nil && stall.Launch != "" && stall.Launch != launch {
		return backend.Fail(backend.FailConflict, "that launch of worker "+m.spec.ID+" has ended already", "another one runs")
	}
	x.mu.Lock()
	switch {
	case x.closed:
		x.mu.Unlock()
		return errLeft
	case x.restarts:
		x.mu.Unlock()
		return backend.Fail(backend.FailConflict, "it is being restarted already, by "+x.asked, "easel status says how far that is")
	}
	x.asked, x.stall, x.restarts = comfy.Plain(by+" (worker.restart: "+m.spec.RestartCommand+")", 200), stall, true
	gone := x.gone
	m.wg.Add(1) // before closed, so before the end of Run
	x.mu.Unlock()
	m.mu.Lock()
	m.ending = m.w.Launch != ""
	m.w.Reason = "being restarted by " + x.asked
	m.tell()
	m.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer m.wg.Done()
		err := x.runRestart(words)
		done <- err
		x.afterRestart(err, launch, gone)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return nil // it goes on
	}
}

// runRestart runs the command; what it prints goes to the log.
func (x *external) runRestart(words []string) error {
	ctx, cancel := context.WithTimeout(x.life, restartWithin)
	defer cancel()
	x.remark("running " + Step{Argv: words}.String())
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w, w, 2*time.Second
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return backend.Fail(backend.FailWorker, fmt.Sprintf("worker.restart: %s cannot be run: %v", words[0], rootCause(err)), "correct worker.restart")
	}
	read := make(chan string, 1)
	go func() {
		last := ""
		for in := bufio.NewReader(r); ; {
			line, err := readLine(in, maxPiece)
			if text := comfy.Plain(string(line), 400); strings.TrimSpace(text) != "" {
				last = text
				x.remark(words[0] + ": " + text)
			}
			if err != nil {
				read <- last
				return
			}
		}
	}()
	err := cmd.Wait()
	_ = w.Close()
	last := <-read
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return backend.Fail(backend.FailWorker, fmt.Sprintf("worker.restart: %s did not end within %s and was ended", words[0], span(restartWithin)), "run it by hand and see where it waits")
	case last == "":
		last = err.Error()
	}
	return backend.Fail(backend.FailWorker, fmt.Sprintf("worker.restart failed (%v): %s", err, last), "run it by hand: "+Step{Argv: words}.String())
}

// afterRestart gives the worker back when the command did not do what it should.
func (x *external) afterRestart(err error, launch string, gone <-chan struct{}) {
	x.mu.Lock()
	x.restarts = false
	x.mu.Unlock()
	if err == nil && launch != "" {
		select {
		case <-gone:
			return // connect settles it
		case <-x.life.Done():
			return
		case <-time.After(replaceWithin):
			err = fmt.Errorf("worker.restart ended well, but the same process still answers")
		}
	}
	if err == nil {
		return
	}
	x.remark(backend.FailureOf(err).Message)
	x.mu.Lock()
	x.asked, x.stall = "", nil
	x.mu.Unlock()
	m := x.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = false
	m.w.Reason = comfy.Plain(backend.FailureOf(err).Message, 400)
	m.tell()
}

// settleRestart ends a restart when a launch answers after it.
func (x *external) settleRestart() {
	x.mu.Lock()
	over := x.asked != "" && (!x.told && x.m.lastLaunch() != x.launch)
	if over {
		x.asked, x.stall = "", nil
	}
	x.mu.Unlock()
	if over {
		x.m.mu.Lock()
		x.m.ending = false
		x.m.mu.Unlock()
	}
}
