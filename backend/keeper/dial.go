package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
)

// socketName is the name of the control socket within the state directory.
const socketName = "easel.sock"

// SocketPath is where the control socket of a state directory lies. The path may
// be longer than a socket address may be; Listen and Dial cope with that.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, socketName) }

// Dial connects to the control socket of a state directory. The error wraps
// ErrNotRunning when nobody listens there.
func Dial(ctx context.Context, stateDir string) (net.Conn, error) {
	path, release, err := socketAddress(stateDir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w (%s)", ErrNotRunning, stateDir)
		}
		return nil, err
	}
	defer release()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (%s)", ErrNotRunning, stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", SocketPath(stateDir), err)
	}
	return c, nil
}
