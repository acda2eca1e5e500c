//go:build !linux

package keeper

import "fmt"

// socketAddress is the address to dial and a function to call afterwards.
func socketAddress(stateDir string) (string, func(), error) {
	path := SocketPath(stateDir)
	if len(path) > 103 {
		return "", nil, fmt.Errorf("the socket path %s is longer than the 103 bytes that this system allows: choose a shorter EASEL_HOME", path)
	}
	return path, func() {}, nil
}
