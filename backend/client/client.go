// Package client is the typed client of Easel's control API: HTTP with JSON
// over the engine's unix socket, or over ssh to another box. It is the only
// door by which the command line, the console and the views reach the engine.
//
// It keeps no state besides its connections and is safe for concurrent use. It
// does not start an engine; package cmd does that.
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"easel/backend"
)

// base is the address in request lines. The dialler decides where bytes go, the
// host part only has to be one that the engine takes for local.
const base = "http://localhost"

// Limits of waiting. A call has no limit of its own besides its context; these
// bound what would otherwise hang for ever.
const (
	dialTimeout  = 5 * time.Second
	retryPause   = 40 * time.Millisecond
	streamSilent = 45 * time.Second // three missed keep-alives of 15 s
)

// Client calls one engine.
type Client struct {
	hc     *http.Client
	closer func() error  // ends what the dialler holds (ssh), nil for nothing
	silent time.Duration // a stream without a byte for this long is taken for dead
}

// Unix is a client of the engine of this box whose state lives in stateDir. No
// connection is made before the first call.
func Unix(stateDir string) *Client {
	return New(func(ctx context.Context) (net.Conn, error) {
		conn, err := dialSocket(ctx, stateDir)
		if err != nil {
			return nil, notRunning(err, filepath.Join(stateDir, socketName))
		}
		return conn, nil
	})
}

// New is a client over connections that dial makes; each carries HTTP/1.1.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return dial(ctx)
		},
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true, // the wire is a socket of this box
	}
	return &Client{hc: &http.Client{Transport: t}, silent: streamSilent}
}

// Close ends idle connections and what the client started (ssh). Calls in
// flight over ssh break.
func (c *Client) Close() error {
	c.hc.CloseIdleConnections()
	if c.closer != nil {
		return c.closer()
	}
	return nil
}

// NotRunningError says that nothing listens where the engine should: no engine
// runs. It also is a *backend.Failure of kind engine-down.
type NotRunningError struct {
	Where string // the socket, or the address of the box
	Err   error  // what the system said
	fail  *backend.Failure
}

// Error says where the engine was looked for and why that failed.
func (e *NotRunningError) Error() string { return e.fail.Message }

// Unwrap gives the failure and the cause, for errors.As and errors.Is.
func (e *NotRunningError) Unwrap() []error { return []error{e.fail, e.Err} }

// IsNotRunning reports whether err means that no engine runs, as opposed to one
// that refused or broke off.
func IsNotRunning(err error) bool {
	var e *NotRunningError
	return errors.As(err, &e)
}

// IsPassing reports whether err is of the kind that a restart of the engine
// makes: a broken connection, or an engine that does not serve at the moment.
// Doing the same again later may succeed.
func IsPassing(err error) bool {
	if IsNotRunning(err) {
		return false
	}
	var f *backend.Failure
	if errors.As(err, &f) {
		return f.Kind == backend.FailEngineDown || f.Kind == backend.FailBusy
	}
	return errors.Is(err, errBroken)
}

func notRunning(err error, where string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &NotRunningError{Where: where, Err: err, fail: backend.Fail(backend.FailEngineDown,
			"no engine runs (nothing listens on "+where+")",
			"`easel serve --detach` starts one; `easel run FILE` and `easel` do it by themselves")}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w", backend.Fail(backend.FailEngineDown, "the engine's socket "+where+" may not be opened: "+err.Error(),
			"it belongs to another account; log in as that one, or set EASEL_HOME to a directory of your own"))
	}
	return fmt.Errorf("connect to the engine at %s: %w", where, err)
}
