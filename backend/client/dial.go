package client

import (
	"context"
	"net"
	"path/filepath"
)

// socketName is the file name of the control socket in a state directory.
const socketName = "easel.sock"

// dialPlain connects to the socket by its path.
func dialPlain(ctx context.Context, stateDir string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", filepath.Join(stateDir, socketName))
}
