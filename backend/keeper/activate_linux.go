package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend/process"
)

// envGiven says to every later image of keeper and engine that the control socket
// belongs to a service manager, which removes it itself.
const envGiven = "EASEL_SOCKET_GIVEN"

// activate takes the listeners that a service manager opened for us
// (sd_listen_fds(3)). The one named "control", else the first unix one, becomes
// the control socket (without one, ours is opened as ever); the others are kept
// under their names. It returns an error
// when what was passed cannot be used.
func (k *keeper) activate() error {
	pid, n := os.Getenv(envListenPID), os.Getenv(envListenFDs)
	names := strings.Split(os.Getenv(envListenFDNames), ":")
	for _, name := range []string{envListenPID, envListenFDs, envListenFDNames} {
		_ = os.Unsetenv(name) // not for our children
	}
	count, err := strconv.Atoi(n)
	if err != nil || count <= 0 || pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	for i := range count {
		fd := notifyFD + i
		unix.CloseOnExec(fd)
		name := "listener" + strconv.Itoa(i)
		if i < len(names) && names[i] != "" && names[i] != "unknown" {
			name = names[i]
		}
		if err := k.given(name, fd, name == controlName || !slices.Contains(names, controlName)); err != nil {
			return fmt.Errorf("take the listener %s of the service manager: %w", name, err)
		}
	}
	return nil
}

// given takes one listener; control says that it may be the control socket.
func (k *keeper) given(name string, fd int, control bool) error {
	ln, err := fileListener(fd)
	if err != nil {
		return err
	}
	u, unixOne := ln.(*net.UnixListener)
	if unixOne && k.ln == nil && control {
		u.SetUnlinkOnClose(false)
		k.ln = u
		return k.linkGiven(u.Addr().String())
	}
	f, err := listenerFile(ln)
	address, network := ln.Addr().String(), ln.Addr().Network()
	_ = ln.Close() // f keeps it open
	if err != nil {
		return err
	}
	k.named[name] = &named{network: network, address: address, file: f, given: true}
	return nil
}

// linkGiven makes the control socket be found in the state directory, where it
// lies elsewhere.
func (k *keeper) linkGiven(path string) error {
	if err := os.Setenv(envGiven, path); err != nil {
		return err
	}
	own := SocketPath(k.cfg.StateDir)
	if path == own || !filepath.IsAbs(path) {
		return nil
	}
	if err := os.Remove(own); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(path, own)
}

// isGiven reports whether the control socket's own path is a service manager's.
func (k *keeper) isGiven() bool { return os.Getenv(envGiven) == SocketPath(k.cfg.StateDir) }

// managerWithin is how long a service manager may take to start a new keeper.
const managerWithin = time.Second

// managerReplaces waits, after the death of a keeper that a service manager had
// started, for the one that it starts in its place. Without a service manager it
// returns nil at once; ErrRunning is the new keeper.
func managerReplaces(stateDir string, old int) error {
	if os.Getenv(envNotify) == "" {
		return nil
	}
	for end := time.Now().Add(managerWithin); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if pid := lockHolder(filepath.Join(stateDir, lockName)); pid != 0 && pid != old && process.Alive(pid, 0) {
			return ErrRunning{PID: pid}
		}
	}
	return nil
}
