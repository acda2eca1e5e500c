package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Attach takes the engine's end of the socket pair (PairFD), reads the keeper's
// hello and answers it. Every inherited descriptor is closed on exec from then on.
// When the keeper died before it spoke, Attach returns a Conn that is closed and an
// empty Hello: the engine then calls Takeover as ever.
func Attach(fd int) (*Conn, Hello, error) {
	closeOnExecAll()
	f := os.NewFile(uintptr(fd), "keeper")
	if f == nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: %d is no descriptor", fd)
	}
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: %w (the engine is started by easel serve, not by hand)", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, Hello{}, errors.New("attach to the keeper: the descriptor is no unix socket (the engine is started by easel serve, not by hand)")
	}
	return attach(u)
}

// ControlListener is the listener of the control socket that the engine inherited.
func ControlListener() (*net.UnixListener, error) { return inheritListener(ControlFD) }

func inheritListener(fd int) (*net.UnixListener, error) {
	ln, err := fileListener(fd)
	if err != nil {
		return nil, fmt.Errorf("take over the control listener: %w", err)
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		_ = ln.Close()
		return nil, errors.New("take over the control listener: the descriptor is no unix listener")
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

func fileListener(fd int) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), "listener")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	defer func() { _ = f.Close() }()
	return net.FileListener(f) // a duplicate, closed on exec
}

// closeOnExecAll marks every descriptor above 2, so that nothing this process
// inherited goes on into what it starts: a worker that held the socket pair or
// the lock would hide the death of the keeper.
func closeOnExecAll() {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		for fd := 3; fd < 1024; fd++ {
			unix.CloseOnExec(fd)
		}
		return
	}
	defer func() { _ = d.Close() }()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
