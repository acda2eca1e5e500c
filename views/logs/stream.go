package logs

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
)

// Pauses of the stream.
const (
	frame      = 33 * time.Millisecond // lines are gathered this long before they are shown
	retryPause = time.Second
	firstTail  = 2000
)

// stream reads one worker's log until its context ends and gathers lines for the
// screen. Lines may be dropped when the screen is slower than the log: the newest
// are kept and the loss is counted.
type stream struct {
	svc  Service
	wake chan struct{} // holds one token when there is something

	// mu guards the fields that follow.
	mu      sync.Mutex
	lines   []backend.LogLine
	bytes   int
	dropped int
	err     error
}

// linesMsg is what was gathered. gen ties it to the stream it came from.
type linesMsg struct {
	gen     int
	lines   []backend.LogLine
	dropped int
	err     error // why the log cannot be read at the moment
	ended   bool
}

func newStream(svc Service) *stream { return &stream{svc: svc, wake: make(chan struct{}, 1)} }

// run reads until ctx ends, connecting again when the stream breaks.
func (s *stream) run(ctx context.Context, worker string) {
	for ctx.Err() == nil {
		err := s.svc.Logs(ctx, backend.LogQuery{Worker: worker, Tail: firstTail, Follow: true}, func(l backend.LogLine) error {
			s.put(l)
			return ctx.Err()
		})
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		s.signal()
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

func (s *stream) put(l backend.LogLine) {
	l.Text = truncated(l.Text)
	s.mu.Lock()
	s.err = nil
	if n := len(s.lines); n > 0 && l.Bar && s.lines[n-1].N == l.N && s.lines[n-1].Launch == l.Launch {
		s.bytes += len(l.Text) - len(s.lines[n-1].Text)
		s.lines[n-1] = l
	} else {
		s.lines = append(s.lines, l)
		s.bytes += len(l.Text)
	}
	if len(s.lines) > maxLines || s.bytes > maxBytes {
		half := len(s.lines) / 2
		s.dropped += half
		for _, o := range s.lines[:half] {
			s.bytes -= len(o.Text)
		}
		s.lines = append(s.lines[:0:0], s.lines[half:]...)
	}
	s.mu.Unlock()
	s.signal()
}

// truncated bounds a line before it waits, keeping its length known.
func truncated(s string) string {
	if len(s) > maxLineText*4 {
		return cut(s)
	}
	return s
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait is the command that answers with the next gathered lines: at most one
// answer a frame.
func (s *stream) wait(ctx context.Context, gen int) tea.Cmd {
	return func() tea.Msg {
		select {
		case <-ctx.Done():
			return linesMsg{gen: gen, ended: true}
		case <-s.wake:
		}
		select {
		case <-ctx.Done():
		case <-time.After(frame):
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		m := linesMsg{gen: gen, lines: s.lines, dropped: s.dropped, err: s.err}
		s.lines, s.bytes, s.dropped = nil, 0, 0
		return m
	}
}
