package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"easel/backend"
)

// Environment variables by which one process of Easel tells another of a
// descriptor.
const (
	envHandover = "EASEL_HANDOVER_FD"
	envReady    = "EASEL_READY_FD"
)

// takeoverWithin bounds how long an engine waits for its new keeper.
const takeoverWithin = 6 * time.Second

// outcome is what a starting keeper tells the process that started it.
type outcome struct {
	PID     int              `json:"pid"`
	Running int              `json:"running,omitempty"` // another keeper
	Busy    bool             `json:"busy,omitempty"`    // another keeper, pid unknown
	Failure *backend.Failure `json:"failure,omitempty"`
}

func outcomeOf(err error) outcome {
	o := outcome{PID: os.Getpid()}
	var other ErrRunning
	switch {
	case errors.As(err, &other):
		o.Running, o.Busy = other.PID, true
	case err != nil:
		o.Failure = backend.FailureOf(err)
	}
	return o
}

func (o outcome) err() error {
	switch {
	case o.Busy:
		return ErrRunning{PID: o.Running}
	case o.Failure != nil:
		return o.Failure
	}
	return nil
}

// Takeover starts a new keeper in place of one that died, and returns when it
// holds the lock, or with the reason why not. It hands over the listeners and the
// living workers. Either way the engine then ends at once, without stopping any
// worker: the new keeper waits for that and starts a new engine. ErrRunning says
// that somebody started another keeper in the meantime; that one finds the workers
// by its files.
func Takeover(ctx context.Context, c *Conn, o TakeoverOptions) error {
	ctx, cancel := context.WithTimeout(ctx, takeoverWithin)
	defer cancel()
	defaultTo(&o.Args, []string{"keeper-takeover"})
	if err := managerReplaces(o.StateDir, c.Hello().KeeperPID); err != nil {
		return err
	}
	var err error
	for range 3 { // the new one may be killed as well
		if err = takeover(ctx, c, o); !errors.Is(err, errNoAnswer) || ctx.Err() != nil {
			break
		}
	}
	if err != nil && !errors.As(err, new(ErrRunning)) {
		return fmt.Errorf("start a new keeper: %w", err)
	}
	return err
}

// errNoAnswer says that a new keeper ended before it said anything.
var errNoAnswer = errors.New("it ended before it answered")

func takeover(ctx context.Context, c *Conn, o TakeoverOptions) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer func() { _ = ours.Close() }()
	defer func() { _ = theirs.Close() }()
	out, err := openLog(filepath.Join(o.StateDir, keeperLog), maxKeeperLog)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	h, files := handoverOf(c, o)
	files = append([]syscall.Conn{null, out, out, theirs}, files...)
	env := append(os.Environ(), envHandover+"=3")
	pid, err := spawn(append([]string{selfExe}, o.Args...), env, "", files)
	if err != nil {
		return err
	}
	_ = theirs.Close()
	go func() { _, _ = syscall.Wait4(pid, nil, 0, nil) }() // in case it ends before we do
	err = json.NewEncoder(ours).Encode(h)
	if err = errors.Join(err, ours.CloseWrite()); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ours.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var got outcome
	if err := json.NewDecoder(ours).Decode(&got); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, errors.Join(ctx.Err(), err))
	}
	return got.err()
}

// handoverOf collects what the new keeper gets; its descriptors begin at 4.
func handoverOf(c *Conn, o TakeoverOptions) (Handover, []syscall.Conn) {
	hello := c.Hello()
	h := Handover{
		StateDir: o.StateDir, OldKeeper: hello.KeeperPID, Engine: os.Getpid(),
		Restarts: hello.Restarts + 1, LastCrash: hello.LastCrash, Living: c.Living(),
		Listeners: []handedListener{{Name: controlName, Network: "unix", FD: 4}},
	}
	files := []syscall.Conn{o.Listener}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, l := range c.listeners {
		h.Listeners = append(h.Listeners, handedListener{Name: name, Network: l.network, Address: l.address, FD: 4 + len(files)})
		files = append(files, l.file)
	}
	return h, files
}

// Inherit reads the handover that the starting process left, for the command that
// takes over. It fails when this process was not started for that.
func Inherit() (*Handover, error) {
	fd, err := strconv.Atoi(os.Getenv(envHandover))
	_ = os.Unsetenv(envHandover)
	if err != nil || fd < 3 {
		return nil, errors.New("take over: this command is started by Easel itself, when a keeper died or is replaced")
	}
	closeOnExecAll()
	f := os.NewFile(uintptr(fd), "handover")
	h := &Handover{}
	c, err := net.FileConn(f)
	if err != nil { // a memory file, left by an exec in place
		err = json.NewDecoder(io.NewSectionReader(f, 0, maxMessage)).Decode(h)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("take over: %w", err)
		}
		return h, nil
	}
	_ = f.Close()
	if err := c.SetReadDeadline(time.Now().Add(takeoverWithin)); err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	if err := json.NewDecoder(c).Decode(h); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("take over: %w", err)
	}
	h.answer = c
	return h, nil
}

// tell answers the engine that handed over. Afterwards a nil Handover is as good.
func (h *Handover) tell(err error) {
	if h == nil || h.answer == nil {
		return
	}
	_ = json.NewEncoder(h.answer).Encode(outcomeOf(err))
	_ = h.answer.Close()
	h.answer = nil
}

// tellReady tells Detach how the start went, once.
func (k *keeper) tellReady(err error) {
	if k.ready == nil {
		return
	}
	_ = json.NewEncoder(k.ready).Encode(outcomeOf(err))
	_ = k.ready.Close()
	k.ready = nil
}
