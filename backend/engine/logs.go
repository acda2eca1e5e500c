//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"easel/backend"
)

// workerLog serves GET /v1/workers/{id}/log: one JSON object a line, kept up to
// date with follow=1.
func (e *Engine) workerLog(w http.ResponseWriter, r *http.Request) {
	wk := e.worker(r.PathValue("id"))
	if wk == nil {
		fail(w, backend.Fail(backend.FailNotFound, "there is no worker "+clip(r.PathValue("id")), "easel status lists the workers"))
		return
	}
	q := r.URL.Query()
	tail, err := strconv.Atoi(q.Get("tail"))
	if err != nil {
		tail = 200
	}
	query := backend.LogQuery{Worker: wk.id, Launch: q.Get("launch"), Tail: tail, Follow: q.Get("follow") == "1"}
	w.Header().Set("Content-Type", "application/x-ndjson")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &lineWriter{w: w, rc: http.NewResponseController(w)}
	if query.Follow {
		go out.keepAlive(ctx, cancel)
		stop := context.AfterFunc(e.closing, cancel)
		defer stop()
	}
	_ = wk.m.Logs(ctx, query, out.line)
	out.close()
}

// lineWriter writes log lines as they come, many at a time when they come fast.
type lineWriter struct {
	// mu guards the fields that follow.
	mu     sync.Mutex
	w      http.ResponseWriter
	rc     *http.ResponseController
	last   time.Time
	queued bool
	// closed says that the handler has returned: net/http panics on a writer that
	// is used after that.
	closed bool
}

func (o *lineWriter) line(l backend.LogLine) error {
	raw, err := json.Marshal(l)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.rc.SetWriteDeadline(time.Now().Add(writeWithin))
	if _, err := o.w.Write(append(raw, '\n')); err != nil {
		return err
	}
	if o.queued {
		return nil
	}
	if wait := 20*time.Millisecond - time.Since(o.last); wait > 0 {
		o.queued = true
		time.AfterFunc(wait, o.flush)
		return nil
	}
	o.last = time.Now()
	return o.rc.Flush()
}

func (o *lineWriter) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queued, o.last = false, time.Now()
	if !o.closed {
		_ = o.rc.Flush()
	}
}

// close sends what is left, and keeps timers off the writer from then on.
func (o *lineWriter) close() {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// keepAlive sends an empty object now and then, so that both ends notice a line
// that is gone.
func (o *lineWriter) keepAlive(ctx context.Context, cancel func()) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := o.ping(); err != nil {
				cancel()
				return
			}
		}
	}
}

func (o *lineWriter) ping() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(writeWithin))
	if _, err := o.w.Write([]byte("{}\n")); err != nil {
		return err
	}
	return o.rc.Flush()
}
