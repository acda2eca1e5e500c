package tui

import (
	"context"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
)

// frameTime is the shortest time between two messages of the bridge: one drawn
// frame.
const frameTime = time.Second / 60

// framesMsg is what the engine told since the last one, in order.
type framesMsg struct{ frames []backend.Frame }

// linkMsg says how the console stands with the engine.
type linkMsg struct {
	connected bool
	err       error
}

// startMsg says what is being done to find the engine, or that it failed.
type startMsg struct {
	note    string
	err     error
	started bool // this console started it
}

// bridge carries the event stream to the program. Frames that replace each other
// (progress and previews of one job, workers, queue, cards, notices) are thinned
// to the newest; numbered events always arrive, in order.
type bridge struct {
	send func(tea.Msg)
	wake chan struct{}

	// mu guards the fields that follow.
	mu     sync.Mutex
	frames []backend.Frame // an empty Kind was replaced by a later frame
	at     map[string]int  // where in frames the newest of a kind is
	holes  int
	extra  []tea.Msg
}

func newBridge(send func(tea.Msg)) *bridge {
	return &bridge{send: send, wake: make(chan struct{}, 1), at: map[string]int{}}
}

// lossy is the name under which a frame replaces an older one, "" when it must
// not be dropped.
func lossy(f backend.Frame) string {
	switch f.Kind {
	case backend.FrameProgress:
		if f.Progress != nil {
			return "progress/" + f.Progress.Job
		}
	case backend.FramePreview:
		if f.Preview != nil {
			return "preview/" + f.Preview.Job
		}
	case backend.FrameWorkers, backend.FrameQueue, backend.FrameGPUs, backend.FrameNotices:
		return string(f.Kind)
	}
	return ""
}

// put takes a frame in.
func (b *bridge) put(f backend.Frame) {
	b.mu.Lock()
	if f.Kind == backend.FrameSnapshot {
		b.frames, b.holes = b.frames[:0], 0
		clear(b.at)
	}
	if name := lossy(f); name != "" {
		if i, ok := b.at[name]; ok {
			b.frames[i] = backend.Frame{}
			b.holes++
		}
		b.at[name] = len(b.frames)
	}
	b.frames = append(b.frames, f)
	if b.holes > 256 && b.holes > len(b.frames)/2 {
		b.compact()
	}
	b.mu.Unlock()
	b.signal()
}

// compact forgets replaced frames. mu is held.
func (b *bridge) compact() {
	kept := b.frames[:0:0]
	clear(b.at)
	for _, f := range b.frames {
		if f.Kind == "" {
			continue
		}
		if name := lossy(f); name != "" {
			b.at[name] = len(kept)
		}
		kept = append(kept, f)
	}
	b.frames, b.holes = kept, 0
}

// say takes another message in; it arrives after the frames put before it.
func (b *bridge) say(msg tea.Msg) {
	b.mu.Lock()
	b.extra = append(b.extra, msg)
	b.mu.Unlock()
	b.signal()
}

func (b *bridge) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take is what has gathered.
func (b *bridge) take() ([]backend.Frame, []tea.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holes > 0 {
		b.compact()
	}
	f, e := b.frames, b.extra
	b.frames, b.extra = nil, nil
	clear(b.at)
	return f, e
}

// run sends until ctx ends.
func (b *bridge) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		frames, extra := b.take()
		if len(frames) > 0 {
			b.send(framesMsg{frames: frames})
		}
		for _, m := range extra {
			b.send(m)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(frameTime):
		}
	}
}
