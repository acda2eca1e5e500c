package worker

import "sync"

// news calls back in order, on one goroutine, so that a callback may take its time
// and may ask the Manager anything.
type news struct {
	// mu guards the fields that follow.
	mu     sync.Mutex
	queue  []func()
	closed bool

	wake chan struct{}
}

func newNews() *news { return &news{wake: make(chan struct{}, 1)} }

// add queues f; before run begins it waits.
func (n *news) add(f func()) {
	n.mu.Lock()
	n.queue = append(n.queue, f)
	n.mu.Unlock()
	n.poke()
}

// close lets run end as soon as everything queued was called.
func (n *news) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.poke()
}

func (n *news) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run calls until close.
func (n *news) run() {
	for {
		n.mu.Lock()
		queue, closed := n.queue, n.closed
		n.queue = nil
		n.mu.Unlock()
		for _, f := range queue {
			f()
		}
		switch {
		case len(queue) > 0:
		case closed:
			return
		default:
			<-n.wake
		}
	}
}
