package keeper

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Variables by which a service manager speaks to the process that it started
// (sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)).
const (
	envNotify        = "NOTIFY_SOCKET"
	envWatchdog      = "WATCHDOG_USEC"
	envWatchdogPID   = "WATCHDOG_PID"
	envListenPID     = "LISTEN_PID"
	envListenFDs     = "LISTEN_FDS"
	envListenFDNames = "LISTEN_FDNAMES"
)

// notifyFD is the first descriptor that a service manager passes (sd-daemon.h).
const notifyFD = 3

// notifier tells a service manager how it stands. Without one it does nothing.
type notifier struct {
	address string        // of the socket, "" without a service manager
	every   time.Duration // between two signs of life, 0: none are wanted
	last    time.Time     // the last sign of life
}

// newNotifier finds the service manager of this process. The environment keeps its
// variables: the image after an exec in place needs them.
func newNotifier() *notifier {
	n := &notifier{address: os.Getenv(envNotify)}
	if n.address != "" && n.address[0] != '/' && n.address[0] != '@' {
		n.address = "" // vsock and the like: not for us
	}
	usec, err := strconv.ParseInt(os.Getenv(envWatchdog), 10, 64)
	if pid := os.Getenv(envWatchdogPID); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.every = time.Duration(usec) * time.Microsecond / 3
	}
	return n
}

// tell sends assignments such as READY=1. A service manager that does not listen is
// no fault of ours: the error is for the log.
func (n *notifier) tell(assignments ...string) error {
	if n == nil || n.address == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrUnix{Name: n.address} // "@" is an abstract one for x/sys too
	if err := unix.Sendto(fd, []byte(strings.Join(assignments, "\n")), unix.MSG_NOSIGNAL, to); err != nil {
		return fmt.Errorf("tell the service manager at %s: %w", n.address, err)
	}
	return nil
}

// alive sends a sign of life when one is due.
func (n *notifier) alive(now time.Time) {
	if n == nil || n.every == 0 || now.Sub(n.last) < n.every {
		return
	}
	n.last = now
	_ = n.tell("WATCHDOG=1")
}

// announce tells the service manager, and the log when that does not work.
func (k *keeper) announce(assignments ...string) {
	if err := k.notify.tell(assignments...); err != nil {
		k.log.Warn("the service manager does not listen", "err", err)
	}
}

// monotonic is the clock that RELOADING=1 is to carry, in microseconds.
func monotonic() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "0"
	}
	return strconv.FormatInt(t.Nano()/1000, 10)
}

// withoutManager is an environment less what a service manager said to its own
// process: a detached keeper is not that one.
func withoutManager(environ []string) []string {
	var out []string
	for _, v := range environ {
		switch name, _, _ := strings.Cut(v, "="); name {
		case envNotify, envWatchdog, envWatchdogPID, envListenPID, envListenFDs, envListenFDNames, envGiven:
			continue
		}
		out = append(out, v)
	}
	return out
}
