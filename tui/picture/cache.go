package picture

import (
	"container/list"
	"slices"
	"sync"
)

// The ids that are given out. Those below 16 are left alone: some programs between
// us and the terminal turn these colours into the basic ones.
const (
	firstID = 16
	lastID  = 255
)

// IDs gives pictures their ids in the terminal. It is safe for concurrent use.
type IDs struct {
	// mu guards the fields that follow.
	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of *holder, least recently used first
	used  [lastID + 1]bool
	next  int
}

type holder struct {
	key string
	id  int
}

// NewIDs makes an allocator that starts at some place, for instance a process id: two
// programs in one terminal share the ids, and should not begin with the same.
func NewIDs(start int) *IDs {
	n := lastID - firstID + 1
	return &IDs{byKey: map[string]*list.Element{}, order: list.New(), next: firstID + (start%n+n)%n}
}

// Get is the id of the picture key. fresh says that it was not sent yet under this id:
// transmit it. When all ids are taken, that of the picture used longest ago is
// given away, and its key returned.
func (a *IDs) Get(key string) (id int, fresh bool, evicted string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := a.byKey[key]; ok {
		a.order.MoveToBack(e)
		return e.Value.(*holder).id, false, ""
	}
	if len(a.byKey) == lastID-firstID+1 {
		oldest := a.order.Front()
		evicted = oldest.Value.(*holder).key
		a.remove(oldest)
	}
	for a.used[a.next] {
		a.step()
	}
	h := &holder{key: key, id: a.next}
	a.used[h.id] = true
	a.byKey[key] = a.order.PushBack(h)
	a.step() // a freed id rests as long as possible
	return h.id, true, evicted
}

// step moves to the next id.
func (a *IDs) step() {
	if a.next++; a.next > lastID {
		a.next = firstID
	}
}

// Release gives the id of key back: the picture was deleted in the terminal. ok is
// false when it had none.
func (a *IDs) Release(key string) (id int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.byKey[key]
	if !ok {
		return 0, false
	}
	id = e.Value.(*holder).id
	a.remove(e)
	return id, true
}

func (a *IDs) remove(e *list.Element) {
	h := e.Value.(*holder)
	a.order.Remove(e)
	delete(a.byKey, h.key)
	a.used[h.id] = false
}

// All are the ids in use, in order: delete them in the terminal on leaving.
func (a *IDs) All() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]int, 0, len(a.byKey))
	for e := a.order.Front(); e != nil; e = e.Next() {
		out = append(out, e.Value.(*holder).id)
	}
	slices.Sort(out)
	return out
}

// Reset forgets all ids, for instance after the terminal lost its pictures.
func (a *IDs) Reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.byKey)
	a.order.Init()
	a.used = [lastID + 1]bool{}
}

// Key names a picture as it is shown.
type Key struct {
	Source     string // what it is, for instance job and number of the output
	Cols, Rows int
	Protocol   Protocol
}

// Cache keeps what was made of pictures, up to a number of bytes; what was used
// longest ago goes first. It is safe for concurrent use.
type Cache struct {
	// mu guards the fields that follow.
	mu    sync.Mutex
	limit int
	bytes int
	items map[Key]*list.Element
	order *list.List // of *item, least recently used first
}

type item struct {
	key  Key
	text string
}

// itemOverhead is about what an entry takes beside its texts.
const itemOverhead = 200

// NewCache makes a Cache of at most limit bytes.
func NewCache(limit int) *Cache {
	return &Cache{limit: limit, items: map[Key]*list.Element{}, order: list.New()}
}

// Get is what was Put under the key.
func (c *Cache) Get(k Key) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return "", false
	}
	c.order.MoveToBack(e)
	return e.Value.(*item).text, true
}

// Put keeps text under the key. A text larger than the limit is not kept.
func (c *Cache) Put(k Key, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
	it := &item{key: k, text: text}
	if it.size() > c.limit {
		return
	}
	c.items[k] = c.order.PushBack(it)
	c.bytes += it.size()
	for c.bytes > c.limit {
		c.drop(c.order.Front())
	}
}

// Forget drops all that was made of a source.
func (c *Cache) Forget(source string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.items {
		if k.Source == source {
			c.drop(e)
		}
	}
}

// Bytes is how much is kept.
func (c *Cache) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

func (c *Cache) drop(e *list.Element) {
	it := e.Value.(*item)
	c.order.Remove(e)
	delete(c.items, it.key)
	c.bytes -= it.size()
}

func (i *item) size() int { return len(i.text) + len(i.key.Source) + itemOverhead }
