package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend/fault"
	"easel/backend/process"
)

// preflight is a new binary being tried.
type preflight struct {
	pid int
	id  uint64 // of the request
	gen int    // of the engine that asked
	exe *os.File
	out *os.File
}

// startPreflight runs the new binary's preflight. The answer follows when it ends.
func (k *keeper) startPreflight(m *message, gen int) error {
	if k.phase != running || k.preflight != nil {
		return errors.New("reload: Easel is stopping or reloading already")
	}
	fd, err := unix.Open(m.Exe, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("reload: %w", &os.PathError{Op: "open", Path: m.Exe, Err: err})
	}
	exe := os.NewFile(uintptr(fd), m.Exe) // what is tried is what will run
	out, err := os.CreateTemp(k.cfg.StateDir, ".preflight-*")
	if err != nil {
		_ = exe.Close()
		return fmt.Errorf("reload: %w", err)
	}
	_ = os.Remove(out.Name())
	null, err := os.Open(os.DevNull)
	if err != nil {
		closeAll([]*os.File{exe, out})
		return fmt.Errorf("reload: %w", err)
	}
	defer func() { _ = null.Close() }()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	pid, err := spawn(append([]string{path}, k.cfg.PreflightArgs...), os.Environ(), "", []syscall.Conn{null, out, out})
	if err != nil {
		closeAll([]*os.File{exe, out})
		return fmt.Errorf("reload %s: %w", m.Exe, err)
	}
	k.preflight = &preflight{pid: pid, id: m.ID, gen: gen, exe: exe, out: out}
	return nil
}

// preflightEnded goes on with a reload, or refuses it.
func (k *keeper) preflightEnded(status unix.WaitStatus) {
	p := k.preflight
	if k.engine == nil || k.engine.gen != p.gen || k.phase != running {
		k.dropPreflight()
		return
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		b, _ := io.ReadAll(io.NewSectionReader(p.out, 0, 64<<10))
		why := fmt.Sprintf("reload: %s failed its preflight, nothing was changed: %s", p.exe.Name(), lastLine(b))
		k.engine.send(answerTo(p.id, errors.New(why)))
		k.dropPreflight()
		return
	}
	k.engine.send(answerTo(p.id, nil))
	k.log.Info("reloading", "exe", p.exe.Name())
	k.execReload()
}

func (k *keeper) dropPreflight() {
	if k.preflight == nil {
		return
	}
	closeAll([]*os.File{k.preflight.exe, k.preflight.out})
	k.preflight = nil
}

// execReload replaces this process by the new binary: same pid, children and
// sockets kept, the engine too, so that there is no moment at which a kill leaves
// nobody to start the rest again. When the exec fails, the old binary goes on.
func (k *keeper) execReload() {
	e := k.engine
	unread := k.hush(e)
	if k.engine == e && k.phase == running {
		k.announce("RELOADING=1", "MONOTONIC_USEC="+monotonic(), "STATUS=becoming "+k.preflight.exe.Name())
		err := k.execInPlace(unread)
		k.announce("READY=1", "STATUS=serving; a reload failed")
		k.log.Error("reload failed: going on with the old binary", "err", err)
	}
	k.dropPreflight()
	if k.engine == e {
		k.converse(e, unread)
	}
}

// execInPlace returns only with an error.
func (k *keeper) execInPlace(unread []byte) error {
	h := Handover{
		StateDir: k.cfg.StateDir, OldKeeper: os.Getpid(), Restarts: k.restarts, LastCrash: k.crash,
		Living: k.living(), LockFD: int(rawFD(k.lock)), Children: true,
		Listeners: []handedListener{{Name: controlName, Network: "unix", FD: int(rawFD(k.ln))}},
		Replace: &handedEngine{
			PID: k.engine.pid, Ticks: k.engine.ticks, FD: int(rawFD(k.engine.conn)), Unread: unread,
			Ready: k.engine.ready, Started: k.engine.started, LogFrom: k.engine.logFrom,
		},
	}
	for name, n := range k.named {
		h.Listeners = append(h.Listeners, handedListener{Name: name, Network: n.network, Address: n.address, FD: int(rawFD(n.file)), Given: n.given})
	}
	mem, err := memoryFile(h)
	if err != nil {
		return err
	}
	kept := []int{mem, h.LockFD, h.Replace.FD}
	for _, l := range h.Listeners {
		kept = append(kept, l.FD)
	}
	setCloseOnExec(kept, false)
	fault.Hit("keeper.before-exec")
	argv := append([]string{"easel"}, k.cfg.TakeoverArgs...)
	env := append(os.Environ(), fmt.Sprintf("%s=%d", envHandover, mem))
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", rawFD(k.preflight.exe)), argv, env)
	setCloseOnExec(kept, true)
	_ = unix.Close(mem)
	return fmt.Errorf("exec %s: %w", k.preflight.exe.Name(), err)
}

// memoryFile is a descriptor of a file in memory that holds the handover.
func memoryFile(h Handover) (int, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	fd, err := unix.MemfdCreate("handover", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("make a memory file: %w", err)
	}
	if n, err := unix.Write(fd, b); err != nil || n < len(b) {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("write a memory file: %d of %d bytes: %w", n, len(b), err)
	}
	return fd, nil
}

// takeEngine goes on with the engine that the old binary started, and asks it to
// end without stopping workers.
func (k *keeper) takeEngine(h *handedEngine) error {
	f := os.NewFile(uintptr(h.FD), "pair")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("take over the engine: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errors.Join(errors.New("take over the engine: its pair is no unix socket"), c.Close())
	}
	k.engine = &engine{
		pid: h.PID, ticks: h.Ticks, started: h.Started, conn: u, ready: h.Ready, greeted: true, logFrom: h.LogFrom,
	}
	k.converse(k.engine, h.Unread)
	k.everReady = true
	if h.Ready {
		k.notServed = time.Time{}
	}
	k.phase, k.deadline = replacing, time.Now().Add(k.cfg.StopEngine)
	k.engine.send(message{Op: opReplace})
	return nil
}

func setCloseOnExec(fds []int, on bool) {
	flag := 0
	if on {
		flag = unix.FD_CLOEXEC
	}
	for _, fd := range fds {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

// lastLine is the last line of some output that is not empty.
func lastLine(b []byte) string {
	lines := bytes.Split(bytes.TrimSpace(b), []byte{'\n'})
	if text := process.Clean(lines[len(lines)-1]); text != "" {
		return text
	}
	return "it said nothing"
}
