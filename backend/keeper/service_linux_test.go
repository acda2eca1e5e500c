package keeper

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager as far as sd_notify goes.
type manager struct {
	mu   sync.Mutex
	told []string
}

// newManager listens at a socket and says which.
func newManager(t *testing.T) (*manager, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m := &manager{}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, strings.Split(string(buf[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
	return m, path
}

// count is how often something was told.
func (m *manager) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.told {
		if strings.HasPrefix(s, what) {
			n++
		}
	}
	return n
}

func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	m, path := newManager(t)
	b := newBox(t, nil)
	b.env = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=300000"}
	b.serve()
	e := b.engine()
	b.wait("ready, and signs of life", func() bool { return m.count("READY=1") == 1 && m.count("WATCHDOG=1") > 1 })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.do("/reload?exe="+exe, nil, nil)
	b.wait("another engine", func() bool { return b.engine().PID != e.PID })
	b.wait("ready again", func() bool { return m.count("READY=1") == 2 })
	if m.count("RELOADING=1") != 1 || m.count("MONOTONIC_USEC=") != 1 {
		t.Errorf("a reload was told as %v", m.told)
	}
	signs := m.count("WATCHDOG=1")
	b.wait("signs of life after the exec", func() bool { return m.count("WATCHDOG=1") > signs })
	w := b.launch("w1", "sleep")
	if fds := openFDs(t, w.PID); fds != "0 1 2" {
		t.Errorf("a worker has the descriptors %s", fds)
	}
	_ = b.cmd.Process.Signal(unix.SIGTERM)
	b.wait("the end to be told", func() bool { return m.count("STOPPING=1") > 0 })
	_ = b.cmd.Wait()
}

func TestServiceManagerThatDoesNotListenStopsNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	b.env = []string{"NOTIFY_SOCKET=/nowhere/notify", "WATCHDOG_USEC=bad"}
	b.serve()
	b.engine()
}

// serveGiven starts a keeper as a service manager does, with listeners from
// descriptor 3 on.
func (b *box) serveGiven(names string, files ...*os.File) *box {
	b.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	script := fmt.Sprintf(`LISTEN_FDS=%d LISTEN_FDNAMES=%s LISTEN_PID=$$ exec "$0" serve`, len(files), names)
	b.cmd = exec.Command("/bin/sh", "-c", script, exe)
	b.cmd.Env, b.cmd.Stderr, b.cmd.ExtraFiles = b.environ(), b.out, files
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return b
}

func fileOf(t *testing.T, ln net.Listener) *os.File {
	t.Helper()
	f, err := listenerFile(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestListenersOfAServiceManager(t *testing.T) {
	t.Parallel()
	b := newBox(t, nil)
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	control, err := net.Listen("unix", filepath.Join(dir, "easel.sock"))
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{fileOf(t, gateway), fileOf(t, control)}
	b.serveGiven("gateway:control", files...)
	first := b.engine() // through the link in the state directory
	var addr string
	b.do("/listen?addr=127.0.0.1:1", nil, &addr)
	if addr != gateway.Addr().String() {
		t.Errorf("the gateway listens on %s, not on the given %s", addr, gateway.Addr())
	}
	w := b.launch("w1", "sleep")
	if fds := openFDs(t, w.PID); fds != "0 1 2" {
		t.Errorf("a worker has the descriptors %s", fds)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.do("/reload?exe="+exe, nil, nil)
	b.wait("another engine", func() bool { return b.engine().PID != first.PID })
	b.do("/listen?addr=127.0.0.1:1", nil, &addr)
	if addr != gateway.Addr().String() {
		t.Errorf("after the reload the gateway listens on %s", addr)
	}
	_ = b.cmd.Process.Signal(unix.SIGTERM)
	_ = b.cmd.Wait()
	if _, err := os.Stat(filepath.Join(dir, "easel.sock")); err != nil {
		t.Errorf("the socket of the service manager was removed: %v", err)
	}
	// Whoever calls now waits for the next start.
	answer := make(chan error, 1)
	go func() {
		c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "easel.sock"))
		}}, Timeout: 20 * time.Second}
		resp, err := c.Get("http://easel/hello")
		if err == nil {
			_ = resp.Body.Close()
		}
		answer <- err
	}()
	b.serveGiven("gateway:control", files...)
	if err := <-answer; err != nil {
		t.Errorf("a call while nothing ran: %v", err)
	}
}

// TestServiceManagerStartsTheNextKeeper kills a keeper that a service manager
// started; that one starts another, and the engine starts none itself.
func TestServiceManagerStartsTheNextKeeper(t *testing.T) {
	t.Parallel()
	_, path := newManager(t)
	b := newBox(t, nil)
	b.env = []string{"NOTIFY_SOCKET=" + path}
	b.serve()
	first := b.engine()
	w := b.launch("w1", "sleep")
	kill(t, first.Hello.KeeperPID)
	_ = b.cmd.Wait()
	b.serve()
	b.wait("another engine", func() bool { return b.engine().PID != first.PID })
	now := b.engine()
	if now.Hello.KeeperPID != b.cmd.Process.Pid {
		t.Errorf("the keeper is %d, the one that was started is %d", now.Hello.KeeperPID, b.cmd.Process.Pid)
	}
	if l := now.Hello.Living; len(l) != 1 || l[0].PID != w.PID {
		t.Errorf("living: %+v", l)
	}
}
