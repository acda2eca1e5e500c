//go:build !linux

package client

import (
	"context"
	"net"
)

// dialSocket connects to the control socket.
func dialSocket(ctx context.Context, stateDir string) (net.Conn, error) {
	return dialPlain(ctx, stateDir)
}
