package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"easel/backend"
)

// Conn is the engine's end of the socket pair. It is safe for concurrent use.
type Conn struct {
	wire   *wire
	hello  Hello
	closed chan struct{} // closed when the keeper is gone
	ends   chan Ended
	once   sync.Once

	replaced    chan struct{} // closed when another engine is to follow
	replaceOnce sync.Once

	writing sync.Mutex // held while a message is written

	// mu guards the fields that follow.
	mu        sync.Mutex
	lastID    uint64
	waiting   map[uint64]chan message
	living    map[string]Living
	queue     []Ended       // not yet read from ends
	more      chan struct{} // capacity 1: queue grew
	listeners map[string]heldListener
}

// heldListener is a listener from Listen.
type heldListener struct {
	network, address string
	file             *os.File
}

// attach makes a Conn of an open end of the pair: it reads the keeper's hello and
// answers it.
func attach(c *net.UnixConn) (*Conn, Hello, error) {
	conn := &Conn{
		wire: newWire(c), closed: make(chan struct{}), ends: make(chan Ended),
		replaced: make(chan struct{}),
		waiting:  map[uint64]chan message{}, living: map[string]Living{},
		more: make(chan struct{}, 1), listeners: map[string]heldListener{},
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: %w", err)
	}
	m, err := conn.wire.read()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		conn.shut() // it died before it spoke: the engine takes over, knowing nothing
		return conn, Hello{}, nil
	}
	if err != nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: %w", err)
	}
	if m.Op != opHello || m.Hello == nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: it began with %q instead of hello", m.Op)
	}
	if d := m.Hello.Version - Version; d < -1 || d > 1 {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: it speaks protocol %d and this engine %d: restart it with easel stop, then easel serve", m.Hello.Version, Version)
	}
	conn.hello = *m.Hello
	for _, l := range conn.hello.Living {
		conn.living[l.Launch] = l
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, Hello{}, fmt.Errorf("attach to the keeper: %w", err)
	}
	_ = conn.send(message{Op: opHello, Version: Version}) // a failure closes conn
	go conn.read()
	go conn.beat()
	go conn.pump()
	return conn, conn.hello, nil
}

// Hello is what the keeper said first.
func (c *Conn) Hello() Hello { return c.hello }

// Living lists the launches that run as far as this engine was told, in no order.
func (c *Conn) Living() []Living {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Living, 0, len(c.living))
	for _, l := range c.living {
		list = append(list, l)
	}
	return list
}

// Ends gives each end of a worker that the keeper tells after its hello. Those
// told by the hello are not repeated here. The channel is never closed; Closed
// says when nothing more will come.
func (c *Conn) Ends() <-chan Ended { return c.ends }

// Closed is closed when the keeper is gone, or after Close.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Replaced is closed when this engine is to make room for that of a new binary:
// close the intake, finish the requests in flight, end streams, close the database
// and exit within Hello.StopWithin, without stopping workers.
func (c *Conn) Replaced() <-chan struct{} { return c.replaced }

// Start starts a launch, or finds it started already. It returns when the
// process runs, or with the reason why it could not be started. The answer of a
// call whose context ended is lost; the launch then shows up in no Living of this
// engine, so call it again with the same id.
func (c *Conn) Start(ctx context.Context, l Launch) (Living, error) {
	m, err := c.call(ctx, message{Op: opStart, Launch: &l})
	if err != nil {
		return Living{}, err
	}
	if m.Living == nil {
		return Living{}, errors.New("the keeper answered a start without a process")
	}
	return *m.Living, nil
}

// Signal sends sig to the whole process group of a launch. The keeper writes down
// that the signal is ours before it sends it. It returns ErrNotLiving when the
// launch is unknown or has ended.
func (c *Conn) Signal(ctx context.Context, launch string, sig syscall.Signal) error {
	_, err := c.call(ctx, message{Op: opSignal, Name: launch, Signal: int(sig)})
	return err
}

// Ack says that the end of a launch is written down: no later engine is told of
// it. An unknown launch is no error.
func (c *Conn) Ack(launch string) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
	defer cancel()
	_, err := c.call(ctx, message{Op: opAck, Name: launch})
	return err
}

// Ready says that this engine accepts connections on the control listener. Until
// an engine says so, the keeper counts it as starting, and after 5 s answers
// callers itself with 503. Call it as soon as the server accepts. ErrGone, as from
// every call here, says that the keeper died in that moment: go on, Closed leads to
// Takeover.
func (c *Conn) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
	defer cancel()
	_, err := c.call(ctx, message{Op: opReady})
	return err
}

// Refuse says why this engine cannot serve and that starting it again would not
// help (a newer database, a read-only directory). The engine then ends with
// ExitHopeless. A keeper whose engine never served ends with this failure too,
// and Detach returns it; one whose engine did serve tries again later.
func (c *Conn) Refuse(f *backend.Failure) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
	defer cancel()
	_, err := c.call(ctx, message{Op: opRefuse, Failure: f})
	return err
}

// Stop tells the keeper that the next exit of the engine is meant and ends the
// keeper too. Workers that still run then are stopped by the keeper, or left
// running for the next engine to adopt when keepWorker is set.
func (c *Conn) Stop(keepWorker bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
	defer cancel()
	_, err := c.call(ctx, message{Op: opStop, Keep: keepWorker})
	return err
}

// Listen asks the keeper to open a listener ("tcp" or "unix") under a name, and
// returns it. The keeper holds it until Unlisten, so that connections wait while
// no engine runs; a name that is open already with the same address is returned
// as it is, with another address it is closed and opened anew.
func (c *Conn) Listen(ctx context.Context, name, network, address string) (net.Listener, error) {
	m, err := c.call(ctx, message{Op: opListen, Name: name, Network: network, Address: address})
	if err != nil {
		return nil, err
	}
	if len(m.files) != 1 {
		return nil, errors.New("the keeper answered a listen without a descriptor")
	}
	ln, err := net.FileListener(m.files[0])
	if err != nil {
		_ = m.files[0].Close()
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.listeners[name]; ok {
		_ = old.file.Close()
	}
	c.listeners[name] = heldListener{network, address, m.files[0]} // kept for Takeover
	return ln, nil
}

// Unlisten lets the keeper close the listener of that name.
func (c *Conn) Unlisten(ctx context.Context, name string) error {
	_, err := c.call(ctx, message{Op: opUnlisten, Name: name})
	c.mu.Lock()
	defer c.mu.Unlock()
	if held, ok := c.listeners[name]; ok {
		_ = held.file.Close()
		delete(c.listeners, name)
	}
	return err
}

// Reload asks the keeper to replace itself by the binary exe, in place. The
// binary's preflight must pass, else nothing changes and the reason is returned.
// After nil the new keeper closes Replaced of this engine, workers stay, and the
// new binary's engine follows.
func (c *Conn) Reload(ctx context.Context, exe string) error {
	_, err := c.call(ctx, message{Op: opReload, Exe: exe})
	return err
}

// Close ends the connection. The keeper keeps running and, while the engine
// process lives, takes its silence for a fault.
func (c *Conn) Close() error {
	c.shut()
	return nil
}

// shut closes once, and fails every call that waits.
func (c *Conn) shut() {
	c.once.Do(func() {
		_ = c.wire.conn.Close()
		close(c.closed)
	})
}

// call sends a request and waits for its answer.
func (c *Conn) call(ctx context.Context, m message) (message, error) {
	answer := make(chan message, 1)
	c.mu.Lock()
	c.lastID++
	m.ID = c.lastID
	c.waiting[m.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.ID)
		c.mu.Unlock()
	}()
	if err := c.send(m); err != nil {
		return message{}, fmt.Errorf("%s: %w", m.Op, err)
	}
	select {
	case got := <-answer:
		return got, got.err()
	case <-c.closed:
		return message{}, fmt.Errorf("%s: %w", m.Op, ErrGone)
	case <-ctx.Done():
		return message{}, fmt.Errorf("%s: the keeper did not answer: %w", m.Op, ctx.Err())
	}
}

// send writes one message. A failed write ends the connection.
func (c *Conn) send(m message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	select {
	case <-c.closed:
		return ErrGone
	default:
	}
	if err := c.wire.write(m); err != nil {
		c.shut()
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return nil
}

// read takes messages until the keeper is gone.
func (c *Conn) read() {
	defer c.shut()
	for {
		m, err := c.wire.read()
		if err != nil {
			return
		}
		switch m.Op {
		case opAnswer:
			c.answered(m)
		case opReplace:
			c.replaceOnce.Do(func() { close(c.replaced) })
		case opEnded:
			if m.Ended != nil {
				c.ended(*m.Ended)
			}
		}
	}
}

func (c *Conn) answered(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Living != nil {
		c.living[m.Living.Launch] = *m.Living
	}
	if w := c.waiting[m.ID]; w != nil {
		w <- m
		delete(c.waiting, m.ID)
		return
	}
	for _, f := range m.files { // nobody waits for them any more
		_ = f.Close()
	}
}

func (c *Conn) ended(e Ended) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.living, e.Launch)
	c.queue = append(c.queue, e)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// pump moves ends from the queue to the channel, so that a slow reader never
// stops the connection.
func (c *Conn) pump() {
	for {
		c.mu.Lock()
		batch := slices.Clone(c.queue)
		c.queue = c.queue[:0]
		c.mu.Unlock()
		for _, e := range batch {
			select {
			case c.ends <- e:
			case <-c.closed:
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-c.more:
		case <-c.closed:
			return
		}
	}
}

// beat tells the keeper that this process is not stuck.
func (c *Conn) beat() {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if c.send(message{Op: opBeat}) != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}
