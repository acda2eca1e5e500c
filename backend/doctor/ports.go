package doctor

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listener is one listening TCP socket.
type listener struct {
	ip    net.IP
	port  int
	uid   int
	inode string
}

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// listeners are the listening TCP sockets, in order of their port.
func (b *Box) listeners() []listener {
	var list []listener
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.SplitSeq(b.read(name), "\n") {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != tcpListen {
				continue
			}
			addr, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			ip := kernelIP(addr)
			if err != nil || ip == nil {
				continue
			}
			uid, _ := strconv.Atoi(f[7])
			list = append(list, listener{ip: ip, port: int(n), uid: uid, inode: f[9]})
		}
	}
	slices.SortStableFunc(list, func(a, b listener) int { return a.port - b.port })
	return list
}

// kernelIP reads an address as the kernel prints it: words of 32 bits, each in the
// byte order of the machine, which is little-endian wherever Easel runs.
func kernelIP(s string) net.IP {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return nil
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	return raw
}

// holder names the process behind a socket as far as it can be seen.
func (b *Box) holder(l listener) string {
	links, err := filepath.Glob(b.path("/proc/[0-9]*/fd/*"))
	if err == nil {
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && to == "socket:["+l.inode+"]" {
				dir := filepath.Dir(filepath.Dir(link))
				comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
				return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), filepath.Base(dir))
			}
		}
	}
	for line := range strings.SplitSeq(b.read("/etc/passwd"), "\n") {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == strconv.Itoa(l.uid) {
			return "a program of " + f[0]
		}
	}
	return fmt.Sprintf("a program of uid %d", l.uid)
}

// checkPorts looks for ports that are wanted and taken, and for a ComfyUI that the
// whole network can use.
func checkPorts(_ context.Context, b *Box) []Finding {
	all := b.listeners()
	ours := b.ourPorts()
	var list []Finding
	if want := b.Config.Worker.Port; want != 0 && b.Config.Worker.URL == "" && !slices.Contains(ours, want) {
		if l, taken := on(all, want); taken {
			list = append(list, Finding{
				ID: "port-worker", Verdict: Problem, Seen: fmt.Sprintf("worker.port = %d is taken by %s", want, b.holder(l)),
				Remedy: "end that program, or set worker.port = 0 for a free one",
			})
		}
	}
	for _, l := range all {
		if l.ip.IsLoopback() || !slices.Contains(ours, l.port) && l.port != 8188 {
			continue
		}
		list = append(list, Finding{
			ID: fmt.Sprintf("port-open-%d", l.port), Verdict: Warning,
			Seen:   fmt.Sprintf("port %d listens on %s, held by %s: ComfyUI asks nobody for a password", l.port, l.ip, b.holder(l)),
			Remedy: "start it with --listen 127.0.0.1 and reach it over ssh or Easel's gateway, or close the port in the firewall",
		})
	}
	if len(list) == 0 {
		return one(OK, "", "nothing is in the way, and no ComfyUI listens to the network")
	}
	return list
}

func on(all []listener, port int) (listener, bool) {
	i := slices.IndexFunc(all, func(l listener) bool { return l.port == port })
	if i < 0 {
		return listener{}, false
	}
	return all[i], true
}

// ourPorts are those of the workers.
func (b *Box) ourPorts() []int {
	var ports []int
	if b.Status == nil {
		return nil
	}
	for _, w := range b.Status.Workers {
		if u, err := url.Parse(w.URL); err == nil {
			if n, err := strconv.Atoi(u.Port()); err == nil {
				ports = append(ports, n)
			}
		}
	}
	return ports
}
