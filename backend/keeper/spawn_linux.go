package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// selfExe is this very binary, also after its file was deleted (go run) or
// replaced.
const selfExe = "/proc/self/exe"

// spawn starts a process as the leader of a new session. files become its
// descriptors 0, 1, 2 … in order; every other one is closed.
func spawn(argv, env []string, dir string, files []syscall.Conn) (int, error) {
	path, err := lookPath(argv[0], env, dir)
	if err != nil {
		return 0, err
	}
	if dir != "" {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return 0, fmt.Errorf("start %s: its working directory %s is no directory", argv[0], dir)
		}
	}
	if path == selfExe {
		argv = append([]string{"easel"}, argv[1:]...)
	}
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = rawFD(f)
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	return pid, nil
}

// rawFD is the descriptor of a file or a listener, without the change to blocking
// mode that (*os.File).Fd makes and that listeners would share with their other
// holders.
func rawFD(f syscall.Conn) uintptr {
	raw, err := f.SyscallConn()
	if err != nil {
		return ^uintptr(0)
	}
	n := ^uintptr(0)
	_ = raw.Control(func(fd uintptr) { n = fd })
	return n
}

// lookPath finds a command without a slash in the PATH of env.
func lookPath(name string, env []string, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		full := filepath.Join(d, name)
		if st, err := os.Stat(full); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("start %s: no such command in PATH", name)
}

// exited is one process that has ended and is not reaped yet, as waitid tells.
func exited() (pid int, ok bool) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Signo == 0 {
			return 0, false
		}
		break
	}
	// si_pid is the first field of the union, which is aligned like a pointer.
	offset := (3*4 + unsafe.Alignof(uintptr(0)) - 1) &^ (unsafe.Alignof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), offset))), true
}

// reapOne takes the status of a process that has ended.
func reapOne(pid int) (unix.WaitStatus, unix.Rusage) {
	var status unix.WaitStatus
	var usage unix.Rusage
	for {
		_, err := unix.Wait4(pid, &status, unix.WNOHANG, &usage)
		if !errors.Is(err, unix.EINTR) {
			return status, usage
		}
	}
}
