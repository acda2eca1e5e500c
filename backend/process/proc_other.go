//go:build !linux

package process

import "context"

// Stat says that this works on Linux only.
func Stat(int) (Info, error) { return Info{}, ErrLinuxOnly }

// StartTicks says that this works on Linux only.
func StartTicks(int) (uint64, error) { return 0, ErrLinuxOnly }

// Alive is false: nothing can be looked at here.
func Alive(int, uint64) bool { return false }

// Descendants says that this works on Linux only.
func Descendants(int) ([]int, error) { return nil, ErrLinuxOnly }

// MoveToCgroup says that this works on Linux only.
func MoveToCgroup(int, string) error { return ErrLinuxOnly }

// Session says that this works on Linux only.
func Session(int) ([]int, error) { return nil, ErrLinuxOnly }

// Environ says that this works on Linux only.
func Environ(int) ([]string, error) { return nil, ErrLinuxOnly }

// RSS says that this works on Linux only.
func RSS(int) (int64, error) { return 0, ErrLinuxOnly }

// WaitGone says that this works on Linux only.
func WaitGone(context.Context, int, uint64) error { return ErrLinuxOnly }

// BootID says that this works on Linux only.
func BootID() string { return "" }
