//go:build linux

package engine

import (
	"sync"

	"easel/backend"
)

// subscriberEvents is how many events wait for one reader before its stream is
// ended; it resumes from the records then.
const subscriberEvents = 256

// hub fans frames out to the readers of the event stream. Nothing waits for a
// reader: durable events are queued up to a bound, everything else is state
// that replaces itself.
type hub struct {
	// mu guards subs and closed.
	mu     sync.Mutex
	subs   map[*subscriber]struct{}
	closed bool
}

func newHub() *hub { return &hub{subs: map[*subscriber]struct{}{}} }

// subscriber is one reader's mailbox.
type subscriber struct {
	bell     chan struct{} // holds one
	previews bool

	// mu guards the fields that follow.
	mu     sync.Mutex
	events []backend.Frame
	state  map[string]backend.Frame // newest of each lossy kind
	order  []string                 // keys of state, oldest first
	over   bool                     // too slow, or the hub is closed
}

// subscribe adds a reader. The caller calls leave.
func (h *hub) subscribe(previews bool) *subscriber {
	s := &subscriber{bell: make(chan struct{}, 1), previews: previews, state: map[string]backend.Frame{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.over = true
		s.ring()
		return s
	}
	h.subs[s] = struct{}{}
	return s
}

func (h *hub) leave(s *subscriber) {
	h.mu.Lock()
	delete(h.subs, s)
	h.mu.Unlock()
}

// publish gives f to every reader.
func (h *hub) publish(f backend.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.put(f)
	}
}

// watched reports whether anybody reads, and whether anybody wants previews.
func (h *hub) watched() (any, previews bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		any, previews = true, previews || s.previews
	}
	return any, previews
}

// close says goodbye to every reader and ends the streams.
func (h *hub) close(goodbye *backend.Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subs {
		if goodbye != nil {
			s.put(*goodbye)
		}
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		s.ring()
	}
	h.subs = map[*subscriber]struct{}{}
}

// put queues a frame. It never blocks.
func (s *subscriber) put(f backend.Frame) {
	if f.Kind == backend.FramePreview && !s.previews {
		return
	}
	s.mu.Lock()
	switch f.Kind {
	case backend.FrameEvent, backend.FrameStopping:
		if len(s.events) >= subscriberEvents {
			s.over = true
			break
		}
		s.events = append(s.events, f)
	default:
		key := string(f.Kind)
		if f.Progress != nil {
			key += f.Progress.Job
		}
		if _, has := s.state[key]; !has {
			s.order = append(s.order, key)
		}
		s.state[key] = f
	}
	s.mu.Unlock()
	s.ring()
}

func (s *subscriber) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// take empties the mailbox: events in order, then the newest of the rest.
func (s *subscriber) take() (frames []backend.Frame, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames = s.events
	s.events = nil
	for _, key := range s.order {
		frames = append(frames, s.state[key])
	}
	s.order = s.order[:0]
	clear(s.state)
	return frames, s.over
}

// cutOff ends every stream; the readers come back and resume.
func (h *hub) cutOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		s.ring()
	}
	h.subs = map[*subscriber]struct{}{}
}
