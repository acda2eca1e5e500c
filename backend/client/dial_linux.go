package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is what fits in sockaddr_un on Linux (108 bytes with the NUL).
const maxSocketPath = 107

// dialSocket connects to the control socket. A path too long for the system
// call goes through a descriptor of its directory.
func dialSocket(ctx context.Context, stateDir string) (net.Conn, error) {
	if len(filepath.Join(stateDir, socketName)) <= maxSocketPath {
		return dialPlain(ctx, stateDir)
	}
	dir, err := os.Open(stateDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dialPlain(ctx, fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}
