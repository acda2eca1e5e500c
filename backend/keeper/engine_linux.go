package keeper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend"
	"easel/backend/process"
)

// Limits of the log files that the keeper opens, in bytes. A larger one is renamed
// to NAME.1 when it is opened.
const (
	maxEngineLog = 8 << 20
	maxKeeperLog = 4 << 20
	crashLines   = 12
)

// engine is one run of the engine's process.
type engine struct {
	gen     int
	pid     int
	ticks   uint64
	started time.Time
	conn    *net.UnixConn
	wire    *wire
	out     chan message  // to its writer; closed when the engine has ended
	read    chan struct{} // closed when nothing more is read from it
	wrote   chan struct{} // closed when nothing more is written to it
	heard   time.Time     // when it last said something
	greeted bool          // it answered the hello
	ready   bool          // it serves
	stop    bool          // it said that its next exit ends the keeper
	quit    bool          // we sent SIGQUIT
	killed  bool          // we sent SIGKILL
	logFrom int64         // where its part of engine.log begins
}

// startEngine forks the engine and greets it. A failure counts as a crash.
func (k *keeper) startEngine() {
	k.nextStart = time.Time{}
	e, err := k.forkEngine()
	if err != nil {
		k.log.Error("cannot start the engine", "err", err)
		k.crashed(EngineEnd{At: time.Now()}, "could not be started: "+err.Error(), nil)
		return
	}
	k.engine = e
	k.log.Info("engine started", "engine", e.pid, "restarts", k.restarts)
	e.send(message{Op: opHello, Hello: &Hello{
		Version: Version, KeeperPID: os.Getpid(), StateDir: k.cfg.StateDir, Restarts: k.restarts,
		LastCrash: k.crash, Living: k.living(), Ended: slices.Clone(k.ends), StopWithin: k.cfg.StopEngine,
	}})
	k.saveState()
}

func (k *keeper) forkEngine() (*engine, error) {
	out, err := openLog(filepath.Join(k.cfg.StateDir, engineLog), maxEngineLog)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	from, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	env := append(os.Environ(), k.cfg.Env...)
	pid, err := spawn(append([]string{selfExe}, k.cfg.EngineArgs...), env, "", []syscall.Conn{null, out, out, theirs, k.ln})
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	ticks, _ := process.StartTicks(pid)
	e := &engine{pid: pid, ticks: ticks, started: time.Now(), conn: ours, logFrom: from}
	k.converse(e, nil)
	return e, nil
}

// converse starts the two goroutines that speak with an engine. read is what was
// already read of a message that is not whole. They end when the pair breaks, or by
// hush; out is closed when the engine has ended.
func (k *keeper) converse(e *engine, read []byte) {
	k.gen++
	e.gen, e.heard = k.gen, time.Now()
	e.out = make(chan message, 4096)
	e.wire = newWire(e.conn)
	e.wire.buf = append(e.wire.buf, read...)
	e.read, e.wrote = make(chan struct{}), make(chan struct{})
	gen, w, out, didRead, wrote := e.gen, e.wire, e.out, e.read, e.wrote
	go func() {
		defer close(didRead)
		for {
			m, err := w.read()
			if err != nil {
				return
			}
			k.inbox <- event{gen: gen, msg: &m}
		}
	}()
	go func() {
		defer close(wrote)
		for m := range out {
			if w.write(m) != nil {
				_ = w.conn.Close()
				return
			}
		}
	}()
}

// hush ends the two goroutines, so that the pair can go to another image of this
// process, and says what was read of a message that is not whole. Messages that
// were read are handled.
func (k *keeper) hush(e *engine) []byte {
	_ = e.conn.SetReadDeadline(time.Unix(1, 0))
	for quiet := false; !quiet; {
		select {
		case ev := <-k.inbox:
			k.onEvent(ev)
		case <-e.read:
			quiet = true
		}
	}
	for len(k.inbox) > 0 {
		k.onEvent(<-k.inbox)
	}
	close(e.out)
	<-e.wrote // bounded by the deadline of a write
	_ = e.conn.SetReadDeadline(time.Time{})
	return e.wire.buf
}

// send queues a message for the engine. One that reads nothing is left to the
// watch over silent engines.
func (e *engine) send(m message) {
	select {
	case e.out <- m:
	default:
		_ = e.conn.Close()
	}
}

// onMessage does what the engine asks.
func (k *keeper) onMessage(m *message) {
	e := k.engine
	e.heard = time.Now()
	var err error
	answer := message{}
	switch m.Op {
	case opBeat:
		return
	case opHello:
		if d := m.Version - Version; d < -1 || d > 1 {
			k.log.Error("the engine speaks another protocol", "engine", m.Version, "keeper", Version)
		}
		e.greeted = true
		return
	case opReady:
		k.serving()
	case opRefuse:
		k.refusal = m.Failure
	case opStart:
		answer.Living, err = k.start(m.Launch)
	case opSignal:
		err = k.signal(m.Name, unix.Signal(m.Signal))
	case opAck:
		k.ack(m.Name)
	case opStop:
		e.stop, k.keep = true, m.Keep
	case opListen:
		answer.files, err = k.openNamed(m)
	case opUnlisten:
		k.closeNamed(m.Name)
	case opReload:
		if err = k.startPreflight(m, e.gen); err == nil {
			return // answered when it ended
		}
	default:
		err = fmt.Errorf("the keeper does not know %q: it is of another version", m.Op)
	}
	files := answer.files
	a := answerTo(m.ID, err)
	a.Living, a.files = answer.Living, files
	e.send(a)
}

// serving notes that the engine accepts connections.
func (k *keeper) serving() {
	k.engine.ready, k.everReady, k.breaker, k.refusal = true, true, false, nil
	k.notServed = time.Time{}
	k.down.shut()
	k.saveState()
	k.tellReady(nil)
	k.announce("READY=1", "STATUS=serving, engine pid "+strconv.Itoa(k.engine.pid))
	k.log.Info("engine serves", "engine", k.engine.pid, "after", time.Since(k.engine.started).Round(time.Millisecond))
}

// engineEnded handles the end of the engine, after it was reaped.
func (k *keeper) engineEnded(status unix.WaitStatus) {
	e := k.engine
	k.engine = nil
	close(e.out)
	_ = e.conn.Close()
	k.dropPreflight()
	if k.notServed.IsZero() {
		k.notServed = time.Now()
	}
	switch {
	case k.phase == replacing:
		k.log.Info("the old binary's engine has ended", "engine", e.pid)
		k.phase, k.deadline, k.nextStart = running, time.Time{}, time.Now()
		return
	case k.phase != running:
		if k.phase == stoppingEngine {
			k.stopWorkers()
		}
		return
	case e.stop:
		k.log.Info("engine ended as it said", "engine", e.pid)
		k.announce("STOPPING=1")
		k.saveState()
		k.stopWorkers()
		return
	}
	lines := lastLines(filepath.Join(k.cfg.StateDir, engineLog), e.logFrom)
	hopeless := k.refusal != nil || status.Exited() && status.ExitStatus() == ExitHopeless
	foreign := status.Signaled() && status.Signal() == unix.SIGKILL && !e.killed
	k.crashed(EngineEnd{At: time.Now(), Served: e.ready, Foreign: foreign, Hopeless: hopeless}, endReason(e, status), lines)
}

// crashed writes an unasked end down and plans the next start.
func (k *keeper) crashed(end EngineEnd, reason string, lines []string) {
	k.restarts++
	k.crash = &backend.CrashInfo{At: backend.At(end.At), Reason: reason, Lines: lines}
	k.history = append(k.history, end)
	if n := len(k.history) - 200; n > 0 {
		k.history = slices.Delete(k.history, 0, n)
	}
	next := k.cfg.Policy.Next(k.history)
	k.log.Error("the engine ended by itself", "reason", reason, "restart_in", next.After, "why", next.Reason)
	if next.Breaker && !k.everReady {
		k.result = k.neverServed(reason, lines)
		k.stopWorkers()
		return
	}
	k.breaker = next.Breaker
	k.announce("STATUS=the engine " + reason + "; it is started again")
	k.nextStart = end.At.Add(next.After)
	if next.After > 0 {
		k.saveState()
	}
}

// neverServed is the reason of a keeper that ends because no engine ever served.
func (k *keeper) neverServed(reason string, lines []string) error {
	if k.refusal != nil {
		return k.refusal
	}
	msg := "the engine cannot start: it " + reason
	if len(lines) > 0 {
		msg += ": " + lines[len(lines)-1]
	}
	return backend.Fail(backend.FailEngineDown, msg, "its last lines are in "+filepath.Join(k.cfg.StateDir, engineLog))
}

// endReason says in words how an engine ended.
func endReason(e *engine, status unix.WaitStatus) string {
	switch {
	case e.quit || e.killed:
		return "was silent and was ended by the keeper (its stacks are in engine.log)"
	case status.Signaled():
		return fmt.Sprintf("was ended by signal %d (%s), not by Easel", int(status.Signal()), unix.SignalName(status.Signal()))
	default:
		return fmt.Sprintf("ended with exit status %d", status.ExitStatus())
	}
}

// lastLines are the lines that tell why an engine ended: from its panic on, else
// the last ones.
func lastLines(path string, from int64) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	from = max(from, st.Size()-256<<10)
	b, err := io.ReadAll(io.NewSectionReader(f, from, st.Size()-from))
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.SplitSeq(string(b), "\n") {
		if text := process.Clean([]byte(line)); text != "" {
			lines = append(lines, text)
		}
	}
	for i, line := range lines {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "SIGQUIT: ") {
			return lines[i:min(i+crashLines, len(lines))]
		}
	}
	return lines[max(0, len(lines)-crashLines):]
}

// openLog opens a log for appending, after it made room when the log is large.
func openLog(path string, most int64) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > most {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("rotate the log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return f, nil
}

// socketPair makes the two ends of a stream: ours for Go's poller, theirs to give
// away.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	c, err := net.FileConn(mine)
	_ = mine.Close()
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(errors.New("make a socket pair: no unix socket"), c.Close(), theirs.Close())
	}
	return u, theirs, nil
}
