package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stat reads /proc/PID/stat. The error wraps ErrNoProcess when there is none.
func Stat(pid int) (Info, error) {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return Info{}, gone(pid, err)
	}
	return parseStat(b)
}

// parseStat takes apart "pid (name) state ppid group session …". The name may
// hold blanks and parentheses, so the last one counts.
func parseStat(b []byte) (Info, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Info{}, fmt.Errorf("read /proc/PID/stat: no process name in %.60q", b)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 20 {
		return Info{}, fmt.Errorf("read /proc/PID/stat: only %d fields", len(f))
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	ticks, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return Info{}, fmt.Errorf("read the start time in /proc/PID/stat: %w", err)
	}
	return Info{
		PID: number(strings.TrimSpace(string(b[:open]))), Name: string(b[open+1 : end]), State: f[0][0],
		PPID: number(f[1]), Group: number(f[2]), SID: number(f[3]), StartTicks: ticks,
	}, nil
}

// StartTicks is when a process started, in clock ticks since boot.
func StartTicks(pid int) (uint64, error) {
	i, err := Stat(pid)
	return i.StartTicks, err
}

// Alive reports whether the process with that pid and start time runs. Start time
// 0 matches any. A process that has ended and was not reaped is not alive.
func Alive(pid int, startTicks uint64) bool {
	i, err := Stat(pid)
	return err == nil && !i.Dead() && (startTicks == 0 || startTicks == i.StartTicks)
}

// Descendants lists the pids of the children of pid, their children and so on,
// parents before children. It does not see those whose parent ended and that were
// given to another process.
func Descendants(pid int) ([]int, error) {
	list, ok := descendantsByChildren(pid)
	if ok {
		return list, nil
	}
	all, err := everyone()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, i := range all {
		children[i.PPID] = append(children[i.PPID], i.PID)
	}
	list = append([]int(nil), children[pid]...)
	for n := 0; n < len(list); n++ {
		list = append(list, children[list[n]]...)
	}
	return list, nil
}

// descendantsByChildren reads /proc/PID/task/TID/children, which costs nothing for
// processes that have nothing to do with pid. It answers false where the kernel
// was built without these files.
func descendantsByChildren(pid int) ([]int, bool) {
	list, ok := children(pid)
	if !ok {
		return nil, false
	}
	for n := 0; n < len(list); n++ {
		more, _ := children(list[n])
		list = append(list, more...)
	}
	return list, true
}

func children(pid int) ([]int, bool) {
	files, _ := filepath.Glob(procPath(pid, "task/*/children"))
	var list []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		for field := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(field); err == nil {
				list = append(list, n)
			}
		}
	}
	return list, len(files) > 0
}

// Session lists the pids of the processes in session sid, in no order.
func Session(sid int) ([]int, error) {
	all, err := everyone()
	if err != nil {
		return nil, err
	}
	var list []int
	for _, i := range all {
		if i.SID == sid {
			list = append(list, i.PID)
		}
	}
	return list, nil
}

func everyone() ([]Info, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []Info
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if i, err := Stat(pid); err == nil {
			list = append(list, i)
		}
	}
	return list, nil
}

// Environ is the environment that a process was started with. It needs the same
// user, or root.
func Environ(pid int) ([]string, error) {
	b, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return nil, gone(pid, err)
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00"), nil
}

// RSS is how much memory of a process is resident, in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(procPath(pid, "statm"))
	if err != nil {
		return 0, gone(pid, err)
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("read %s: %q", procPath(pid, "statm"), b)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", procPath(pid, "statm"), err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// WaitGone blocks until the process with that pid and start time (0: any) has
// ended, reaped or not. It returns the context's error when that ends first.
func WaitGone(ctx context.Context, pid int, startTicks uint64) error {
	fd, err := unix.PidfdOpen(pid, unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil
	case err != nil:
		return pollGone(ctx, pid, startTicks)
	}
	f := os.NewFile(uintptr(fd), "pidfd") // registers with the poller: no thread waits
	defer func() { _ = f.Close() }()
	if !Alive(pid, startTicks) { // after the open, so that the descriptor is that process
		return nil
	}
	if f.SetReadDeadline(time.Time{}) != nil {
		return pollGone(ctx, pid, startTicks)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return pollGone(ctx, pid, startTicks)
	}
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return pollGone(ctx, pid, startTicks)
	}
	return nil
}

// pollGone is WaitGone for kernels without pidfd.
func pollGone(ctx context.Context, pid int, startTicks uint64) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for Alive(pid, startTicks) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// BootID tells this boot of the machine from every other, "" when unknown.
var BootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})

func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

func gone(pid int, err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, ErrNoProcess)
	}
	return fmt.Errorf("process %d: %w", pid, err)
}
