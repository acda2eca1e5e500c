package sketch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeMemory maps memory that the garbage collector knows nothing of, so that
// it is really there, and really gone after giveBack.
func takeMemory(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, n)
	}
	return b
}

func giveBack(b []byte) { _ = unix.Munmap(b) } // fails for memory of make, which is then collected

// dieBy ends the process by a signal, as a crash in native code would: the
// handlers of the Go runtime, which would print a trace and exit with status
// 2, are taken away first.
func dieBy(signal int) error {
	var action [4]uintptr // zero is SIG_DFL, no flags, empty mask
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	return syscall.Kill(syscall.Getpid(), syscall.Signal(signal))
}
