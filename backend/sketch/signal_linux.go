package sketch

import (
	"syscall"
	"unsafe"
)

// dieBy ends the process by a signal, as a crash in native code would: the
// handlers of the Go runtime, which would print a trace and exit with status
// 2, are taken away first.
func dieBy(signal int) error {
	var action [4]uintptr // zero is SIG_DFL, no flags, empty mask
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	return syscall.Kill(syscall.Getpid(), syscall.Signal(signal))
}
