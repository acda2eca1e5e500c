//go:build linux

package cards

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/gpu"
)

// Worker is what must be known of a worker to find it on the cards.
type Worker struct {
	ID     string
	PID    int    // 0 while no process runs
	Launch string // "" while no process runs
	GPU    string // the card it is pinned to, by UUID or index; "": none
	Ready  bool   // it answers
	// Paints says that it may use a card: the built-in worker never does.
	Paints bool
}

// Hooks tie Cards to the engine. All must be quick, but for Stats.
type Hooks struct {
	Workers func() []Worker
	// Watched reports whether somebody looks at the cards now.
	Watched func() bool
	// Publish gets every reading while somebody looks, Marked all marks whenever one
	// is added.
	Publish func([]backend.GPU)
	Marked  func([]backend.GPUMark)
	// Stats asks a worker for the devices of /system_stats. It touches the card, so
	// it is called once a launch, and only where nothing else reads the cards.
	Stats func(ctx context.Context, worker string) ([]comfy.Device, error)
}

// Cards is the watch. All methods are safe for concurrent use.
type Cards struct {
	hooks Hooks
	log   *slog.Logger
	own   *owners
	wake  chan struct{} // somebody looks; holds one
	look  chan struct{} // sources may have come; holds one

	// sampling is held while a source is asked. It guards sources and asked.
	sampling sync.Mutex
	sources  []*source
	asked    map[string][]gpu.Card // by launch: what ComfyUI said

	// mu guards the fields that follow.
	mu      sync.Mutex
	list    []backend.GPU
	notes   []string
	uuids   map[int]string // cards that NVML has named, by index
	history gpu.History
	marks   []backend.GPUMark
}

// New makes the watch over the sources of this box.
func New(h Hooks, environ []string, log *slog.Logger) *Cards {
	return newCards(h, log, systemSources(environ))
}

func newCards(h Hooks, log *slog.Logger, sources []*source) *Cards {
	return &Cards{
		hooks: h, log: log, own: newOwners(), wake: make(chan struct{}, 1), look: make(chan struct{}, 1),
		sources: sources, asked: map[string][]gpu.Card{}, uuids: map[int]string{}, list: []backend.GPU{},
	}
}

// Run reads the cards until the context ends.
func (c *Cards) Run(ctx context.Context) error {
	defer c.close()
	for {
		pause := c.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var timer <-chan time.Time
		if pause > 0 {
			timer = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer:
		case <-c.wake:
		case <-c.look:
			c.sampling.Lock()
			for _, s := range c.sources {
				s.absent = false
			}
			c.sampling.Unlock()
		}
	}
}

// Wake is called when somebody begins to look, Look when a worker has become ready.
func (c *Cards) Wake() { ring(c.wake) }

// Look makes sources that were not there be looked for again.
func (c *Cards) Look() { ring(c.look) }

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

func (c *Cards) close() {
	c.sampling.Lock()
	defer c.sampling.Unlock()
	for _, s := range c.sources {
		s.close()
	}
}

// round takes one reading, and says how long to wait before the next; 0: until
// something happens.
func (c *Cards) round(ctx context.Context) time.Duration {
	r, s, again, ok := c.read(ctx)
	if ctx.Err() != nil {
		return 0
	}
	if !ok {
		r, ok = c.fromComfy(ctx)
		if !ok {
			c.take(gpu.Reading{At: time.Now()}, nil)
			return again
		}
	}
	c.take(r, c.hooks.Workers())
	if s == nil {
		return again
	}
	return s.pace(c.hooks.Watched())
}

// read asks the first source that answers. Without one, again is when to try next.
func (c *Cards) read(ctx context.Context) (r gpu.Reading, from *source, again time.Duration, ok bool) {
	c.sampling.Lock()
	defer c.sampling.Unlock()
	for i, s := range c.sources {
		now := time.Now()
		if s.absent {
			continue
		}
		if wait := s.retry.Sub(now); wait > 0 {
			if again == 0 || wait < again {
				again = wait
			}
			continue
		}
		r, err := s.sample(ctx)
		if ctx.Err() != nil {
			return r, nil, 0, false
		}
		if err != nil {
			c.failed(s, err)
			if wait := time.Until(s.retry); !s.absent && (again == 0 || wait < again) {
				again = max(wait, time.Millisecond)
			}
			continue
		}
		s.fails, s.note = 0, ""
		for _, lower := range c.sources[i+1:] {
			lower.close()
		}
		c.name(r)
		return r, s, 0, true
	}
	return r, nil, again, false
}

// failed puts a source off.
func (c *Cards) failed(s *source, err error) {
	s.close()
	e := gpu.Errorf(gpu.Broken, "%v", err)
	_ = errors.As(err, &e)
	if s.put(e, time.Now()) {
		c.log.Warn("the cards cannot be read", "source", s.name, "err", e.Message)
	}
}

// name remembers the UUIDs that NVML gives.
func (c *Cards) name(r gpu.Reading) {
	if r.Source != gpu.NVML {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, card := range r.Cards {
		if card.UUID != "" {
			c.uuids[card.Index] = card.UUID
		}
	}
}

// take files a reading and shows it.
func (c *Cards) take(r gpu.Reading, workers []Worker) {
	list := c.own.resolve(r, workers)
	c.sampling.Lock()
	notes := slices.Clone(r.Notes)
	for _, s := range c.sources {
		if s.note != "" {
			notes = append(notes, s.note)
		}
	}
	c.sampling.Unlock()
	c.mu.Lock()
	before := len(c.list)
	c.list, c.notes = list, notes
	if r.Source != "" && r.Source != gpu.ComfyUI {
		c.history.Add(r)
	}
	c.mu.Unlock()
	if (len(list) > 0 || before > 0) && c.hooks.Watched() {
		c.hooks.Publish(list)
	}
}

// Now is the cards as last read; the list is not changed later.
func (c *Cards) Now() []backend.GPU {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list
}

// Notes are sentences about what cannot be read, and why.
func (c *Cards) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notes
}

// UUIDs names the cards by their index, as NVML counts them. It asks NVML when that
// has not answered yet, but not for longer than the context lives. It is empty where
// NVML cannot tell.
func (c *Cards) UUIDs(ctx context.Context) map[int]string {
	c.mu.Lock()
	known := len(c.uuids) > 0
	c.mu.Unlock()
	if !known {
		c.sampling.Lock()
		for _, s := range c.sources {
			if s.name != gpu.NVML || s.absent || time.Now().Before(s.retry) {
				continue
			}
			if r, err := s.sample(ctx); err == nil {
				c.name(r)
			} else if ctx.Err() == nil {
				c.failed(s, err)
			}
		}
		c.sampling.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[int]string{}
	for i, u := range c.uuids {
		out[i] = u
	}
	return out
}
