package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"easel/backend"
)

// EventsOptions say where an event stream begins and what it carries.
type EventsOptions struct {
	// After is the number of the last event seen; the stream goes on above it. 0:
	// it begins with a snapshot.
	After int64
	// Previews asks for live preview pictures.
	Previews bool
}

// maxFrame bounds one frame of the event stream and one line of a log.
const maxFrame = 64 << 20

// errSilent ends a stream that missed three keep-alives.
var errSilent = errors.New("the engine sent nothing for 45 s")

// stopError is an error of the caller's own function: it ends a Watch.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

// Events reads one event stream until it ends and calls fn for each frame, in
// order, from this goroutine. It returns fn's error as it is, ctx's when that
// ended it, io.EOF when the engine closed the stream (a reader too slow, or an
// engine that stops), else what broke.
func (c *Client) Events(ctx context.Context, o EventsOptions, fn func(backend.Frame) error) error {
	err := c.events(ctx, o, nil, fn)
	var stop *stopError
	if errors.As(err, &stop) {
		return stop.err
	}
	return err
}

func (c *Client) events(ctx context.Context, o EventsOptions, opened func(), fn func(backend.Frame) error) error {
	q := url.Values{}
	if o.After > 0 {
		q.Set("after", strconv.FormatInt(o.After, 10))
	}
	if o.Previews {
		q.Set("previews", "1")
	}
	return c.lines(ctx, call{method: http.MethodGet, path: "/v1/events", query: q, once: true}, true, opened, frames(fn))
}

// frames joins lines of Server-Sent Events to frames.
func frames(fn func(backend.Frame) error) func(line []byte) error {
	var data []byte
	return func(line []byte) error {
		switch {
		case len(line) == 0:
			if len(data) == 0 {
				return nil
			}
			var f backend.Frame
			if err := json.Unmarshal(data, &f); err != nil {
				return fmt.Errorf("read a frame of the event stream: %w", err)
			}
			data = data[:0]
			if err := fn(f); err != nil {
				return &stopError{err}
			}
		case bytes.HasPrefix(line, []byte("data:")):
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(line[len("data:"):], []byte(" "))...)
		}
		return nil // comments, id and event: the frame itself says both
	}
}

// lines opens a stream of lines and calls fn with each, without its end of
// line; the slice is only good during the call. With watch a silence longer
// than three keep-alives ends it.
func (c *Client) lines(ctx context.Context, q call, watch bool, opened func(), fn func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if opened != nil {
		opened()
	}
	body := io.Reader(resp.Body)
	if watch {
		dog := newWatchdog(resp.Body, c.silent, func() { cancel(errSilent) })
		defer dog.stop()
		body = dog
	}
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 0, 64<<10), maxFrame)
	for sc.Scan() {
		if err := fn(sc.Bytes()); err != nil {
			return err
		}
	}
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return cause
	case sc.Err() != nil:
		return fmt.Errorf("%w (%s): %w", errBroken, q.path, sc.Err())
	}
	return io.EOF
}

// watchdog reads r and calls bark when no byte came for limit.
type watchdog struct {
	r     io.Reader
	limit time.Duration
	timer *time.Timer
	done  atomic.Bool
}

func newWatchdog(r io.Reader, limit time.Duration, bark func()) *watchdog {
	w := &watchdog{r: r, limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		if !w.done.Load() {
			bark()
		}
	})
	return w
}

// Read passes the bytes on and winds the clock up again.
func (w *watchdog) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.timer.Reset(w.limit)
	}
	return n, err
}

func (w *watchdog) stop() {
	w.done.Store(true)
	w.timer.Stop()
}

// Pauses between the tries of Watch.
const (
	watchPause    = 50 * time.Millisecond
	watchPauseMax = 2 * time.Second
)

// Watch reads the event stream for as long as ctx lives: when it breaks, it
// connects again and resumes after the last numbered frame, so that fn misses no
// event and sees none twice; when the engine no longer knows that point, fn gets
// a reset frame and a snapshot. onState (may be nil) is told each time the
// stream opens (true, nil) and breaks (false, why); of tries in a row that fail
// the same way only the first is told. Both are called from this goroutine.
//
// It returns fn's error when fn returns one, else ctx's.
func (c *Client) Watch(ctx context.Context, o EventsOptions, fn func(backend.Frame) error, onState func(connected bool, err error)) error {
	if onState == nil {
		onState = func(bool, error) {}
	}
	pause, told := watchPause, ""
	for {
		err := c.events(ctx, o, func() {
			pause, told = watchPause, ""
			onState(true, nil)
		}, func(f backend.Frame) error {
			if f.Seq > 0 && (f.Kind == backend.FrameSnapshot || f.Kind == backend.FrameEvent) {
				o.After = f.Seq
			}
			if f.Kind == backend.FrameReset {
				o.After = 0
			}
			return fn(f)
		})
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var f *backend.Failure
		if errors.As(err, &f) && f.Kind == backend.FailUsage {
			return err // it will be refused every time
		}
		if told != err.Error() {
			told = err.Error()
			onState(false, err)
		}
		jitter := time.Duration(rand.Int64N(int64(pause)/4 + 1))
		if err := sleep(ctx, pause+jitter); err != nil {
			return err
		}
		pause = min(pause*2, watchPauseMax)
	}
}

// Logs reads a worker's log and calls fn for each line, in order, from this
// goroutine; a progress bar comes again under the same number. Without Follow it
// returns nil at the end. It returns fn's error as it is. With Follow a stream
// that ends is io.EOF.
func (c *Client) Logs(ctx context.Context, q backend.LogQuery, fn func(backend.LogLine) error) error {
	v := url.Values{"tail": {strconv.Itoa(q.Tail)}}
	if q.Follow {
		v.Set("follow", "1")
	}
	if q.Launch != "" {
		v.Set("launch", q.Launch)
	}
	path := "/v1/workers/" + url.PathEscape(q.Worker) + "/log"
	err := c.lines(ctx, call{method: http.MethodGet, path: path, query: v, once: q.Follow}, q.Follow, nil, func(line []byte) error {
		if len(bytes.TrimSpace(line)) <= len("{}") {
			return nil // keep-alive
		}
		var l backend.LogLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("read a line of the log: %w", err)
		}
		return fn(l)
	})
	if errors.Is(err, io.EOF) && !q.Follow {
		return nil
	}
	return err
}
