//go:build easelfault

package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Enabled says that fault points are compiled in.
const Enabled = true

var (
	// mu guards the fields that follow.
	mu     sync.Mutex
	worker func() int
	hit    = map[string]bool{}
)

// Worker names the function that answers the pid that kill-worker kills.
func Worker(pid func() int) {
	mu.Lock()
	defer mu.Unlock()
	worker = pid
}

// Hit does what EASEL_FAULT says for this point, the first time it is reached.
func Hit(name string) {
	action, ok := actionOf(name, os.Getenv("EASEL_FAULT"))
	if !ok || !first(name) {
		return
	}
	fmt.Fprintf(os.Stderr, "fault point %s: %s\n", name, action)
	act(action)
}

// actionOf finds the action for name in a value of EASEL_FAULT.
func actionOf(name, spec string) (string, bool) {
	for part := range strings.SplitSeq(spec, ",") {
		if n, action, ok := strings.Cut(strings.TrimSpace(part), "="); ok && n == name {
			return action, true
		}
	}
	return "", false
}

// first reports whether this point is reached for the first time, and writes
// that down in EASEL_FAULT_DIR.
func first(name string) bool {
	mu.Lock()
	defer mu.Unlock()
	if hit[name] {
		return false
	}
	hit[name] = true
	dir := os.Getenv("EASEL_FAULT_DIR")
	if dir == "" {
		return true
	}
	f, err := os.OpenFile(filepath.Join(dir, "fault-"+name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return !errors.Is(err, fs.ErrExist)
	}
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	return f.Close() == nil
}

func act(action string) {
	verb, arg, _ := strings.Cut(action, "=")
	switch verb {
	case "kill-self":
		kill(os.Getpid())
	case "kill-parent":
		kill(os.Getppid())
	case "kill-worker":
		kill(workerPID())
	case "sleep":
		if d, err := time.ParseDuration(arg); err == nil {
			time.Sleep(d)
		}
	case "exit":
		code, err := strconv.Atoi(arg)
		if err != nil {
			code = 1
		}
		os.Exit(code)
	}
}

// workerPID is the pid to kill for kill-worker, 0 when none is known.
func workerPID() int {
	if b, err := os.ReadFile(os.Getenv("EASEL_FAULT_PIDFILE")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			return pid
		}
	}
	mu.Lock()
	f := worker
	mu.Unlock()
	if f == nil {
		return 0
	}
	return f()
}

// kill ends a process at once. When it is this one, it does not return.
func kill(pid int) {
	if pid <= 1 {
		return
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	_ = p.Kill()
	if pid == os.Getpid() {
		select {}
	}
}
