// Package process looks at processes that Easel runs or finds: whether one still
// lives, what it started, how much memory it uses, when it is gone; and follows
// the log file that one writes. It starts and judges nothing.
//
// A process is named by its pid and its start time in clock ticks since boot
// (field 22 of /proc/PID/stat), since a pid alone is used again. Looking at
// processes works on Linux only; reading logs works everywhere.
package process

import "errors"

// ErrLinuxOnly says that this system has no /proc.
var ErrLinuxOnly = errors.New("looking at processes works on Linux only")

// ErrNoProcess says that there is no such process.
var ErrNoProcess = errors.New("no such process")
