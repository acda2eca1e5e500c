package comfy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	maxMessage    = 64 << 20 // bytes of one WebSocket message that are kept
	keepBuffer    = 1 << 20  // a read buffer larger than this is not kept
	closePatience = time.Second
	socketDial    = 30 * time.Second // a stalled event loop delays the handshake
)

// featureFlags is the first message of every session.
const featureFlags = `{"type":"feature_flags","data":{"supports_preview_metadata":true}}`

// session is one socket, present or past, of a client id.
type session struct {
	cancel context.CancelCauseFunc // nil when it has ended
	ended  time.Time               // when the server last had a socket of that id
}

var (
	errBusy    = errors.New("this client id is being listened to already")
	errDropped = errors.New("the socket was dropped to open a new one")
)

// LastMessage is when the last message of any socket of this client came, the zero
// time before the first. ComfyUI sends no pings, so silence is no proof: a stalled
// event loop, a socket that the server has forgotten, and nothing to tell look the
// same. Compare with Queue, then Drop.
func (c *Client) LastMessage() time.Time {
	n := c.lastMessage.Load()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

// Drop ends the socket of clientID, if there is one; ListenForever then opens a new
// one.
func (c *Client) Drop(clientID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[clientID]; s != nil && s.cancel != nil {
		s.cancel(errDropped)
	}
}

// Listen opens a WebSocket as clientID, sends the feature flags, and calls fn for
// every message, in order and never twice at once, until the connection or ctx ends.
// The error says why; it is never nil, and is ctx's own when ctx ended. fn must be
// quick: a reader that stops halts ComfyUI's messages for everybody.
//
// When the last socket of the same id ended less than a second ago, it waits: the
// server would forget the new socket when it notices the end of the old one. A socket
// of another process does the same harm, so use an id that only this process knows.
func (c *Client) Listen(ctx context.Context, clientID string, fn func(Message)) error {
	_, err := c.listen(ctx, clientID, fn, nil)
	return err
}

// listen is Listen; opened tells whether there was a connection, and onOpen is called
// when there is one.
func (c *Client) listen(ctx context.Context, clientID string, fn func(Message), onOpen func()) (opened bool, err error) {
	const op = "listen to ComfyUI"
	if clientID == "" {
		return false, fmt.Errorf("%s: no client id given", op)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wait, err := c.begin(clientID, cancel)
	if err != nil {
		return false, fmt.Errorf("%s: %w", op, err)
	}
	defer func() { c.end(clientID, opened) }()
	if err := sleep(ctx, wait); err != nil {
		return false, err
	}
	conn, err := c.dialSocket(ctx, clientID)
	if err != nil {
		return false, c.socketError(ctx, op, err)
	}
	opened = true
	// The read context stays alive, so that the end is a clean close: the server
	// then forgets the socket at once.
	stop := context.AfterFunc(ctx, func() {
		kill := time.AfterFunc(closePatience, func() { _ = conn.CloseNow() })
		_ = conn.Close(websocket.StatusNormalClosure, "")
		kill.Stop()
	})
	defer func() {
		stop()
		_ = conn.CloseNow()
	}()
	if err := conn.Write(ctx, websocket.MessageText, []byte(featureFlags)); err != nil {
		return true, c.socketError(ctx, op, err)
	}
	if onOpen != nil {
		onOpen()
	}
	return true, c.socketError(ctx, op, c.read(context.WithoutCancel(ctx), conn, fn))
}

// begin claims the client id and says how long to wait before dialling.
func (c *Client) begin(clientID string, cancel context.CancelCauseFunc) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[clientID]
	if s == nil {
		s = &session{}
		c.sessions[clientID] = s
	}
	if s.cancel != nil {
		return 0, errBusy
	}
	s.cancel = cancel
	if s.ended.IsZero() {
		return 0, nil
	}
	return max(0, c.settle-time.Since(s.ended)), nil
}

// end gives the client id back.
func (c *Client) end(clientID string, opened bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[clientID]
	s.cancel = nil
	if opened {
		s.ended = time.Now()
	}
}

func (c *Client) dialSocket(ctx context.Context, clientID string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, max(socketDial, c.timeout))
	defer cancel()
	base := c.base
	if rest, ok := strings.CutPrefix(base, "http"); ok {
		base = "ws" + rest
	}
	conn, resp, err := websocket.Dial(ctx, base+"/ws?clientId="+url.QueryEscape(clientID), &websocket.DialOptions{ //nolint:bodyclose // Dial closes it
		HTTPClient: c.http,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != 0 {
			return nil, &StatusError{Op: "open the socket", Status: resp.StatusCode}
		}
		return nil, err
	}
	conn.SetReadLimit(-1) // read keeps the limit, and skips what is beyond it
	return conn, nil
}

// read hands messages to fn until the connection ends.
func (c *Client) read(ctx context.Context, conn *websocket.Conn, fn func(Message)) error {
	var buf bytes.Buffer
	textMeta := false
	for {
		kind, r, err := conn.Reader(ctx)
		if err != nil {
			return err
		}
		buf.Reset()
		if buf.Cap() > keepBuffer {
			buf = bytes.Buffer{}
		}
		if _, err := buf.ReadFrom(io.LimitReader(r, maxMessage)); err != nil {
			return err
		}
		skipped, err := io.Copy(io.Discard, r)
		if err != nil {
			return err
		}
		c.lastMessage.Store(time.Now().UnixNano())
		var m Message
		switch {
		case skipped > 0:
			c.log.Warn("message of ComfyUI too large", "bytes", maxMessage+skipped)
			m = Other{Type: "too large", Binary: kind == websocket.MessageBinary}
		case kind == websocket.MessageBinary:
			m = ParseBinary(buf.Bytes(), textMeta)
		default:
			m = ParseText(buf.Bytes())
		}
		if f, ok := m.(FeatureFlags); ok {
			textMeta = f.Features.ProgressTextMeta
		}
		fn(m)
	}
}

// socketError says why a session ended: the context's own reason first.
func (c *Client) socketError(ctx context.Context, op string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var s *StatusError
	if errors.As(err, &s) {
		return err
	}
	return &ConnectError{Op: op, URL: c.base, Sent: !dialFailed(err), Err: err}
}

// ListenForever is Listen, again and again until ctx ends: after a lost connection it
// waits a second, then tries again, more and more slowly while nothing answers.
// onConnect, when not nil, is called with true when a socket is open and with false
// when it has ended, never at the same time as fn. What was said in between is lost:
// read Queue and History upon every connection.
func (c *Client) ListenForever(ctx context.Context, clientID string, fn func(Message), onConnect func(connected bool)) {
	if onConnect == nil {
		onConnect = func(bool) {}
	}
	backoff := c.backoffMin
	for ctx.Err() == nil {
		opened, err := c.listen(ctx, clientID, fn, func() { onConnect(true) })
		if opened {
			backoff = c.backoffMin
			onConnect(false)
			if ctx.Err() == nil {
				c.log.Info("socket to ComfyUI lost", "url", c.base, "reason", err)
			}
		} else {
			_ = sleep(ctx, backoff)
			backoff = min(2*backoff, c.backoffMax)
		}
	}
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
