package dispatch

import (
	"context"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// lane is one worker's side of the dispatcher.
type lane struct {
	d      *Dispatcher
	id     string
	worker Worker

	wake   chan struct{} // something may have changed; holds one
	done   chan struct{}
	cancel context.CancelFunc
	frees  chan chan error

	// mu guards the fields that follow.
	mu     sync.Mutex
	deaths []backend.Verdict
	gone   map[string]bool            // launches that ended
	blame  map[string]backend.Verdict // on launches that we have ended, by launch
	// overtime holds why a job ends with its launch, by prompt id.
	overtime map[string]*backend.Error
	relief   relief
	rss      int64 // of the running launch, bytes; 0 unknown
	pid      int
}

func newLane(d *Dispatcher, id string, w Worker) *lane {
	return &lane{
		d: d, id: id, worker: w, wake: make(chan struct{}, 1), done: make(chan struct{}),
		frees: make(chan chan error), gone: map[string]bool{},
		blame: map[string]backend.Verdict{}, overtime: map[string]*backend.Error{},
	}
}

// poke makes the lane look again.
func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// addDeath queues the end of a launch for settling.
func (l *lane) addDeath(v backend.Verdict) {
	v = l.blamed(v)
	l.mu.Lock()
	delete(l.blame, v.Launch)
	l.deaths = append(l.deaths, v)
	l.gone[v.Launch] = true
	l.mu.Unlock()
	l.poke()
}

// end stops the lane and waits for it.
func (l *lane) end() {
	if l.cancel != nil {
		l.cancel()
		<-l.done
	}
}

// run is the lane's goroutine: settle what ended, serve what runs.
func (l *lane) run(ctx context.Context) {
	l.settleForeign(ctx)
	for ctx.Err() == nil {
		l.settleDeaths(ctx)
		if c, launch, ok := l.worker.Client(); ok && !l.isGone(launch) {
			l.serve(ctx, c, launch)
			continue
		}
		select {
		case <-ctx.Done():
		case <-l.wake:
		case reply := <-l.frees:
			reply <- backend.Fail(backend.FailWorker, "worker "+l.id+" is not ready, there is nothing to free", "easel status says what it is doing")
		}
	}
}

func (l *lane) isGone(launch string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone[launch]
}

// serve runs a session with one launch, until the launch or ctx ends.
func (l *lane) serve(ctx context.Context, c *comfy.Client, launch string) {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newSession(l, c, launch)
	var wg sync.WaitGroup
	wg.Go(func() {
		c.ListenForever(sctx, s.clientID, s.box.put, s.box.connected)
	})
	s.run(sctx)
	cancel()
	wg.Wait()
	if ctx.Err() == nil {
		// The launch ended: what the last messages said still counts.
		s.takeMail(ctx)
		s.salvage(ctx)
	}
	l.mu.Lock()
	l.rss, l.pid = 0, 0
	l.mu.Unlock()
	l.remarkOn("", "")
	l.d.setForeign(l.id, nil)
	l.worker.SetBusy(nil, "")
}

// free hands a request to the session and waits for its answer.
func (l *lane) free(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case l.frees <- reply:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return backend.Fail(backend.FailWorker, "the worker is being removed", "")
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mailbox carries what the socket says to the session. Putting never blocks;
// previews and progress replace older ones, everything else is kept in order.
type mailbox struct {
	ring chan struct{} // holds one

	// mu guards the fields that follow.
	mu      sync.Mutex
	mail    []comfy.Message
	preview *comfy.PreviewImage
	online  bool
	changed bool      // online changed since the last look
	last    time.Time // when anything came
	work    time.Time // when something about a prompt came
	waiting int       // prompts inside, as ComfyUI said last
}

func newMailbox() *mailbox { return &mailbox{ring: make(chan struct{}, 1)} }

func (b *mailbox) put(m comfy.Message) {
	b.mu.Lock()
	b.last = time.Now()
	if promptOf(m) != "" {
		b.work = b.last
	}
	switch m := m.(type) {
	case comfy.PreviewImage:
		b.preview = &m
	case comfy.Progress:
		if n := len(b.mail); n > 0 {
			if last, ok := b.mail[n-1].(comfy.Progress); ok && last.Node == m.Node && last.PromptID == m.PromptID {
				b.mail[n-1] = m
				break
			}
		}
		b.mail = append(b.mail, m)
	case comfy.Status:
		b.waiting = m.Remaining
		b.mu.Unlock()
		return
	case comfy.Text, comfy.LogEntries, comfy.FeatureFlags, comfy.Other:
		b.mu.Unlock()
		return
	default:
		b.mail = append(b.mail, m)
	}
	b.mu.Unlock()
	b.bell()
}

func (b *mailbox) connected(on bool) {
	b.mu.Lock()
	b.online, b.changed = on, true
	b.mu.Unlock()
	b.bell()
}

func (b *mailbox) bell() {
	select {
	case b.ring <- struct{}{}:
	default:
	}
}

// take empties the box. came is true when the socket has come up since the last
// look, so that something may have been missed.
func (b *mailbox) take() (mail []comfy.Message, preview *comfy.PreviewImage, online, came bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mail, preview, online, came = b.mail, b.preview, b.online, b.changed && b.online
	b.mail, b.preview, b.changed = nil, nil, false
	return mail, preview, online, came
}

// quiet is how long the socket has said nothing.
func (b *mailbox) quiet() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.last)
}

// isOnline reports whether the socket is up.
func (b *mailbox) isOnline() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.online
}

// heard is when anything came last, worked when something about a prompt did.
func (b *mailbox) heard() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *mailbox) worked() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.work
}

// remaining is how many prompts run or wait inside, as ComfyUI said last.
func (b *mailbox) remaining() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}
