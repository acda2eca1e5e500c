//go:build !linux

package keeper

import (
	"context"
	"net"
)

// Run says that the engine runs on Linux only.
func Run(context.Context, Config) error { return ErrLinuxOnly }

// Detach says that the engine runs on Linux only.
func Detach(context.Context, Config) (int, error) { return 0, ErrLinuxOnly }

// Attach says that the engine runs on Linux only.
func Attach(int) (*Conn, Hello, error) { return nil, Hello{}, ErrLinuxOnly }

// ControlListener says that the engine runs on Linux only.
func ControlListener() (*net.UnixListener, error) { return nil, ErrLinuxOnly }

// Takeover says that the engine runs on Linux only.
func Takeover(context.Context, *Conn, TakeoverOptions) error { return ErrLinuxOnly }

// Inherit says that the engine runs on Linux only.
func Inherit() (*Handover, error) { return nil, ErrLinuxOnly }

// Listen says that the engine runs on Linux only.
func Listen(string) (*net.UnixListener, error) { return nil, ErrLinuxOnly }

// CheckStateDir says that the engine runs on Linux only.
func CheckStateDir(string) error { return ErrLinuxOnly }

// LogoutNote is empty: nothing is started here.
func LogoutNote(context.Context) string { return "" }
