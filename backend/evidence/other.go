//go:build !linux

package evidence

import (
	"errors"
	"time"
)

// ErrNoGroups says that no memory cgroup of a process can be seen.
var ErrNoGroups = errors.New("no memory cgroup can be seen")

// GroupsOf finds none: cgroups are Linux's.
func GroupsOf(int) ([]Group, error) { return nil, ErrNoGroups }

// Read knows nothing here.
func (g Group) Read() Counters { return Counters{OOMKills: -1, Usage: -1, Limit: -1} }

// ReadMemory knows nothing here.
func ReadMemory() Memory { return Memory{Total: -1, Available: -1} }

// SystemOOMKills is not known here.
func SystemOOMKills() int64 { return -1 }

// UsageOf knows nothing here.
func UsageOf([]int) Usage { return Usage{} }

// Program is not known here.
func Program(int) string { return "" }

// FirstPIDs is false: there is no kernel log to compare with.
func FirstPIDs() bool { return false }

// KernelLog cannot be read here.
type KernelLog struct{}

// OpenKernelLog says that there is none.
func OpenKernelLog(bool) (*KernelLog, error) {
	return nil, errors.New("the kernel log is read on Linux only")
}

// Close does nothing.
func (k *KernelLog) Close() {}

// Lines is empty.
func (k *KernelLog) Lines(time.Time) []KernelLine { return nil }
