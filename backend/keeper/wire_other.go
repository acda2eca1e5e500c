//go:build !linux

package keeper

import (
	"net"
	"os"
)

// receive reads some bytes.
func receive(c *net.UnixConn, b []byte) (int, []*os.File, error) {
	n, err := c.Read(b)
	return n, nil, err
}

func sendFiles(*net.UnixConn, []byte, []*os.File) (int, error) { return 0, ErrLinuxOnly }
