package sketch

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
)

// item is one prompt in the queue.
type item struct {
	number  any // int64 from the counter, or the float64 the client chose
	id      string
	prompt  *object
	extra   any // *object; nil is possible and deadly, as in ComfyUI
	outputs []any
}

// list is the item as /queue and /history show it.
func (it *item) list() []any {
	return []any{it.number, it.id, it.prompt, it.extra, it.outputs}
}

func (it *item) clone() *item {
	c := *it
	c.prompt, c.extra, c.outputs = clone(it.prompt).(*object), clone(it.extra), slices.Clone(it.outputs)
	return &c
}

var errNotOrdered = errors.New("'<' not supported between instances of 'dict' and 'dict'")

// before orders prompts by number, then by id. Two different prompts that
// agree in both have no order: ComfyUI then fails with errNotOrdered.
func (it *item) before(o *item) (bool, error) {
	if a, b := toFloat(it.number), toFloat(o.number); a != b {
		return a < b, nil
	}
	if it.id != o.id {
		return it.id < o.id, nil
	}
	if !bytes.Equal(dumpJSON(it.prompt), dumpJSON(o.prompt)) || !bytes.Equal(dumpJSON(it.extra), dumpJSON(o.extra)) {
		return false, errNotOrdered
	}
	return false, nil
}

func toFloat(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// queue holds the prompts that wait, the one that runs and the history.
type queue struct {
	changed func() // sends a status message; called with mu held

	mu      sync.Mutex // guards what follows
	heap    []*item
	running []*item
	wake    chan struct{}
	flags   map[string]bool
	entries map[string]*object // history by prompt id
	order   []string
}

const maxHistory = 10000

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), flags: map[string]bool{}, entries: map[string]*object{}}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// put adds a prompt. After errNotOrdered it is in the queue all the same.
func (q *queue) put(it *item) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.heap = append(q.heap, it)
	if err := q.up(len(q.heap) - 1); err != nil {
		return err
	}
	q.changed()
	q.signal()
	return nil
}

func (q *queue) up(i int) error {
	for i > 0 {
		parent := (i - 1) / 2
		less, err := q.heap[i].before(q.heap[parent])
		if err != nil || !less {
			return err
		}
		q.heap[i], q.heap[parent] = q.heap[parent], q.heap[i]
		i = parent
	}
	return nil
}

func (q *queue) down(i int) error {
	for {
		child := 2*i + 1
		if child >= len(q.heap) {
			return nil
		}
		if child+1 < len(q.heap) {
			less, err := q.heap[child+1].before(q.heap[child])
			if err != nil {
				return err
			}
			if less {
				child++
			}
		}
		less, err := q.heap[child].before(q.heap[i])
		if err != nil || !less {
			return err
		}
		q.heap[i], q.heap[child] = q.heap[child], q.heap[i]
		i = child
	}
}

// get waits for the next prompt, or for a flag to be set; then item is nil.
func (q *queue) get(ctx context.Context) (*item, error) {
	for {
		q.mu.Lock()
		if len(q.heap) > 0 {
			it, err := q.pop()
			q.mu.Unlock()
			return it, err
		}
		flagged := len(q.flags) > 0
		q.mu.Unlock()
		if flagged {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.wake:
		}
	}
}

func (q *queue) pop() (*item, error) {
	first, last := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[last]
	q.heap = q.heap[:last]
	if err := q.down(0); err != nil {
		return nil, err
	}
	q.running = append(q.running, first.clone())
	q.changed()
	return first, nil
}

// done moves the running prompt to the history.
func (q *queue) done(result func(*item) *object) {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := *q.running[0] // readers of the queue may still hold the other
	it := &kept
	it.extra = clone(it.extra)
	q.running = slices.Clone(q.running[1:])
	if len(q.order) > maxHistory {
		delete(q.entries, q.order[0])
		q.order = q.order[1:]
	}
	if e, ok := it.extra.(*object); ok {
		for _, k := range secrets {
			e.del(k)
		}
	}
	if _, ok := q.entries[it.id]; !ok {
		q.order = append(q.order, it.id)
	}
	q.entries[it.id] = result(it)
	q.changed()
}

// secrets are keys of extra_data that no one is told of.
var secrets = []string{"auth_token_comfy_org", "api_key_comfy_org"}

func (q *queue) remaining() int { return len(q.heap) + len(q.running) }

func (q *queue) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.remaining()
}

// snapshot lists what runs and what waits, the latter in heap order.
func (q *queue) snapshot() (running, pending []*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.running), slices.Clone(q.heap)
}

func (q *queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.heap = nil
	q.changed()
}

func (q *queue) remove(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, it := range q.heap {
		if it.id != id {
			continue
		}
		if len(q.heap) == 1 { // ComfyUI wipes the queue then, which tells twice
			q.changed()
		}
		q.heap = slices.Delete(q.heap, i, i+1)
		for k := len(q.heap)/2 - 1; k >= 0; k-- {
			_ = q.down(k)
		}
		q.changed()
		return
	}
}

// history lists entries, oldest first. With maxItems >= 0 and offset < 0 it
// gives the last ones.
func (q *queue) history(maxItems, offset int) *object {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := newObject()
	if offset < 0 && maxItems >= 0 {
		offset = len(q.order) - maxItems
	}
	for i, id := range q.order {
		if i < offset {
			continue
		}
		out.set(id, q.entries[id])
		if maxItems >= 0 && len(out.keys) >= maxItems {
			break
		}
	}
	return out
}

func (q *queue) entry(id string) (*object, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, ok := q.entries[id]
	return e, ok
}

func (q *queue) forget(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.entries[id]; ok {
		delete(q.entries, id)
		q.order = slices.DeleteFunc(q.order, func(s string) bool { return s == id })
	}
}

func (q *queue) forgetAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries, q.order = map[string]*object{}, nil
}

func (q *queue) setFlag(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flags[name] = true
	q.signal()
}

func (q *queue) takeFlags() map[string]bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.flags
	q.flags = map[string]bool{}
	return f
}
