package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"easel/backend"
)

// The protocol: one JSON object a line, over a stream socket pair. The engine
// asks with an id and is answered with the same id; the keeper tells hello and
// ended unasked. Descriptors travel beside the line that announces them.
const (
	opHello     = "hello"     // keeper → engine, then engine → keeper
	opBeat      = "heartbeat" // engine → keeper, each beatEvery
	opReady     = "ready"
	opRefuse    = "refuse"
	opStart     = "start"
	opSignal    = "signal"
	opAck       = "ack"
	opStop      = "stop"
	opListen    = "listen"
	opUnlisten  = "unlisten"
	opReload    = "reload"
	opAnswer    = "answer" // keeper → engine
	opEnded     = "ended"  // keeper → engine
	opReplace   = "replace"
	beatEvery   = 2 * time.Second
	maxMessage  = 16 << 20 // bytes
	writeWithin = 5 * time.Second
)

// message is every line of the protocol.
type message struct {
	ID      uint64           `json:"id,omitempty"`
	Op      string           `json:"op"`
	Version int              `json:"version,omitempty"`
	Launch  *Launch          `json:"launch,omitempty"`
	Name    string           `json:"name,omitempty"` // a launch, or a listener
	Signal  int              `json:"signal,omitempty"`
	Keep    bool             `json:"keep,omitempty"`
	Network string           `json:"network,omitempty"`
	Address string           `json:"address,omitempty"`
	Exe     string           `json:"exe,omitempty"`
	Hello   *Hello           `json:"hello,omitempty"`
	Living  *Living          `json:"living,omitempty"`
	Ended   *Ended           `json:"ended,omitempty"`
	Failure *backend.Failure `json:"failure,omitempty"`
	Error   string           `json:"error,omitempty"`
	Code    string           `json:"code,omitempty"` // which sentinel Error stands for
	FDs     int              `json:"fds,omitempty"`

	files []*os.File
}

// codes name the sentinels that cross the socket.
var codes = map[string]error{"not-living": ErrNotLiving}

// err is the error an answer carries.
func (m *message) err() error {
	switch {
	case m.Failure != nil:
		return m.Failure
	case m.Error == "":
		return nil
	case codes[m.Code] != nil:
		return fmt.Errorf("%s: %w", m.Error, codes[m.Code])
	default:
		return errors.New(m.Error)
	}
}

// answerTo makes the answer to a request.
func answerTo(id uint64, err error) message {
	m := message{ID: id, Op: opAnswer}
	if err == nil {
		return m
	}
	if f := (*backend.Failure)(nil); errors.As(err, &f) {
		m.Failure = f
		return m
	}
	m.Error = err.Error()
	for code, sentinel := range codes {
		if errors.Is(err, sentinel) {
			m.Code = code
		}
	}
	return m
}

// wire reads and writes messages on one end of the pair. Reading and writing may
// happen at the same time, each by one goroutine.
type wire struct {
	conn  *net.UnixConn
	buf   []byte
	chunk []byte
	files []*os.File // received and not yet claimed by a message
}

func newWire(c *net.UnixConn) *wire {
	return &wire{conn: c, chunk: make([]byte, 64<<10)}
}

// read blocks until a whole message is there.
func (w *wire) read() (message, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(w.buf[seen:], '\n'); i >= 0 {
			line := w.buf[:seen+i]
			var m message
			err := json.Unmarshal(line, &m)
			w.buf = append(w.buf[:0], w.buf[seen+i+1:]...)
			if err != nil {
				return message{}, fmt.Errorf("read from the keeper's socket pair: %w", err)
			}
			return m, w.claim(&m)
		}
		seen = len(w.buf)
		if seen > maxMessage {
			return message{}, fmt.Errorf("a message on the keeper's socket pair is longer than %d bytes", maxMessage)
		}
		n, files, err := receive(w.conn, w.chunk)
		w.files = append(w.files, files...)
		w.buf = append(w.buf, w.chunk[:n]...)
		if err != nil {
			return message{}, err
		}
	}
}

// claim gives m the descriptors that it announces.
func (w *wire) claim(m *message) error {
	if m.FDs > len(w.files) {
		return errors.New("a message on the keeper's socket pair came without its descriptors")
	}
	m.files, w.files = w.files[:m.FDs:m.FDs], w.files[m.FDs:]
	return nil
}

// write sends m, with its files beside it.
func (w *wire) write(m message) error {
	m.FDs = len(m.files)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if len(m.files) > 0 {
		n, err := sendFiles(w.conn, b, m.files)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	_, err = w.conn.Write(b)
	return err
}
