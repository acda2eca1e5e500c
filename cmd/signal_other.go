//go:build !linux

package cmd

import (
	"syscall"

	"easel/backend/keeper"
)

// signalGroup says that workers run on Linux only.
func signalGroup(int, syscall.Signal) error { return keeper.ErrLinuxOnly }
