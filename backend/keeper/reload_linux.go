package keeper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend/fault"
	"easel/backend/process"
)

// execReload replaces this process by the new binary: same pid, children and
// sockets kept. When that fails, the old binary goes on.
func (k *keeper) execReload() {
	k.deadline = time.Time{}
	err := k.execInPlace()
	k.log.Error("reload failed: going on with the old binary", "err", err)
	k.phase = running
	k.dropPreflight()
	k.nextStart = time.Now()
}

// execInPlace returns only with an error.
func (k *keeper) execInPlace() error {
	h := Handover{
		StateDir: k.cfg.StateDir, OldKeeper: os.Getpid(), Restarts: k.restarts, LastCrash: k.crash,
		Living: k.living(), LockFD: int(rawFD(k.lock)), Children: true,
		Listeners: []handedListener{{Name: controlName, Network: "unix", FD: int(rawFD(k.ln))}},
	}
	for name, n := range k.named {
		h.Listeners = append(h.Listeners, handedListener{Name: name, Network: n.network, Address: n.address, FD: int(rawFD(n.file))})
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	mem, err := unix.MemfdCreate("handover", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a memory file: %w", err)
	}
	if _, err := unix.Write(mem, b); err != nil {
		return fmt.Errorf("write a memory file: %w", err)
	}
	k.down.close()
	kept := []int{mem, h.LockFD}
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
