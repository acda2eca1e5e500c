//go:build linux

package worker

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"easel/backend/keeper"
	"easel/backend/process"
)

// listeners are the TCP ports on which something listens that can be reached as
// 127.0.0.1, with the process where it can be seen, in order of the port.
func listeners() []listener {
	sockets := listening()
	if len(sockets) == 0 {
		return nil
	}
	owners := socketOwners(sockets)
	var out []listener
	for inode, port := range sockets {
		l := listener{port: port}
		if pid := owners[inode]; pid != 0 {
			l = describe(pid)
			l.port = port
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b listener) int { return a.port - b.port })
	return slices.CompactFunc(out, func(a, b listener) bool { return a.port == b.port })
}

// listenerOn is who listens on a port; found is false when nobody does.
func listenerOn(port int) (l listener, found bool) {
	sockets := listening()
	for inode, p := range sockets {
		if p != port {
			continue
		}
		found = true
		if pid := socketOwners(map[string]int{inode: port})[inode]; pid != 0 {
			l = describe(pid)
		}
	}
	l.port = port
	return l, found
}

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// listening maps the inode of each listening TCP socket to its port. Addresses
// other than loopback and "any" are left out.
func listening() map[string]int {
	out := map[string]int{}
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			fields := strings.Fields(sc.Text())
			if len(fields) < 10 || fields[3] != tcpListen {
				continue
			}
			addr, hex, ok := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if ok && err == nil && reachable(addr) {
				out[fields[9]] = int(port)
			}
		}
		_ = f.Close()
	}
	return out
}

// reachable reports whether a socket bound to the address (hexadecimal, as the
// kernel prints it) answers on 127.0.0.1.
func reachable(addr string) bool {
	return strings.Trim(addr, "0") == "" || addr == "0100007F" || strings.HasSuffix(addr, "FFFF00000100007F")
}

// socketOwners finds the processes that hold sockets, by inode. Those of other
// accounts stay unknown unless we are root.
func socketOwners(sockets map[string]int) map[string]int {
	owners := map[string]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return owners
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name(), "fd")
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(dir, fd.Name()))
			if err != nil {
				continue
			}
			inode, ok := strings.CutPrefix(link, "socket:[")
			inode = strings.TrimSuffix(inode, "]")
			if _, wanted := sockets[inode]; ok && wanted && owners[inode] == 0 {
				owners[inode] = pid
			}
		}
		if len(owners) == len(sockets) {
			break
		}
	}
	return owners
}

// describe reads what /proc tells about a process.
func describe(pid int) listener {
	l := listener{pid: pid}
	info, err := process.Stat(pid)
	if err != nil {
		return l
	}
	l.ticks, l.name, l.easel = info.StartTicks, info.Name, easels(pid)
	dir := fmt.Sprintf("/proc/%d", pid)
	if st, err := os.Stat(dir); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			l.user = userName(sys.Uid)
		}
	}
	if b, err := os.ReadFile(dir + "/cmdline"); err == nil {
		for a := range bytes.SplitSeq(bytes.TrimRight(b, "\x00"), []byte{0}) {
			l.argv = append(l.argv, string(a))
		}
	}
	main := mainArg(l.argv)
	if main == "" {
		return l
	}
	cwd, err := os.Readlink(dir + "/cwd")
	if err != nil && !filepath.IsAbs(main) {
		return l
	}
	if at := filepath.Dir(join(cwd, main)); len(missingParts(at)) == 0 {
		l.dir = at
		l.python = interpreterOf(l.argv[0], cwd, dir)
	}
	return l
}

// interpreterOf is the python of a process, by the name it was called with, so that
// a virtual environment stays one.
func interpreterOf(argv0, cwd, dir string) string {
	if strings.Contains(argv0, "/") {
		return join(cwd, argv0)
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		return exe
	}
	return argv0
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// comfyProcesses are the processes that run ComfyUI's main.py, also those that do not
// listen yet.
func comfyProcesses() []listener {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []listener
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(b, []byte("main.py")) {
			continue
		}
		if l := describe(pid); l.dir != "" && !l.easel {
			out = append(out, l)
		}
	}
	return out
}

// easels reports whether a process is a worker of an Easel.
func easels(pid int) bool {
	env, err := process.Environ(pid)
	return err == nil && slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, keeper.EnvLaunch+"=") })
}
