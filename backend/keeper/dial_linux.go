package keeper

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is how long the path of a unix socket may be: 108 bytes with the
// final zero.
const maxSocketPath = 107

// socketAddress is the address to bind or dial and a function to call afterwards.
// A path that is too long goes through a descriptor of its directory.
func socketAddress(stateDir string) (string, func(), error) {
	path := SocketPath(stateDir)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(stateDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open the state directory: %w", &os.PathError{Op: "open", Path: stateDir, Err: err})
	}
	short := filepath.Join("/proc/self/fd", strconv.Itoa(fd), socketName)
	return short, func() { _ = unix.Close(fd) }, nil
}

// Listen opens the control socket of a state directory, mode 0600, in place of
// one that was left there. Only the holder of the keeper's lock may call it.
func Listen(stateDir string) (*net.UnixListener, error) {
	path, release, err := socketAddress(stateDir)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("remove the old control socket: %w", err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The mode set before bind is the one the socket is created with, so that
		// there is no moment at which others could connect.
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", SocketPath(stateDir), err)
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("listen on %s: got a %T", SocketPath(stateDir), ln)
	}
	u.SetUnlinkOnClose(false) // the keeper removes it, when it is still its own
	return u, nil
}
