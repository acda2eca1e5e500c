package keeper

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"easel/backend"
)

// maxDrained is how much of a request's body is read before it is refused, in
// bytes, so that a client sees the answer and not a broken connection.
const maxDrained = 128 << 20

// down answers callers with 503 while no engine serves. It uses duplicates of the
// listeners; closing them takes nothing from the engine. The loop owns it.
type down struct {
	log     *slog.Logger
	server  *http.Server // nil while shut
	failure atomic.Pointer[backend.Failure]
}

func newDown(l *slog.Logger) *down { return &down{log: l} }

func (d *down) isOpen() bool { return d.server != nil }

// open begins to answer on the listeners with f.
func (d *down) open(from []syscall.Conn, f *backend.Failure) {
	d.failure.Store(f)
	if d.server != nil {
		return
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	d.server = &http.Server{
		Handler: http.HandlerFunc(d.answer), Protocols: &protocols, ReadTimeout: 10 * time.Second,
		ReadHeaderTimeout: 2 * time.Second, WriteTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	d.server.SetKeepAlivesEnabled(false)
	d.log.Warn("no engine serves: answering callers with 503")
	for _, c := range from {
		fd, err := unix.FcntlInt(rawFD(c), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), "listener")
		ln, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			continue
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		go func() { _ = d.server.Serve(ln) }() // ends by shut
	}
}

// answer refuses one request.
func (d *down) answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxDrained))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]*backend.Failure{"error": d.failure.Load()})
}

// shut lets the engine have the callers again. Requests being answered are
// finished.
func (d *down) shut() {
	if d.server == nil {
		return
	}
	s := d.server
	d.server = nil
	go func() { // bounded by its context
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	}()
}

// close ends every connection at once.
func (d *down) close() {
	if d.server != nil {
		_ = d.server.Close()
		d.server = nil
	}
}
