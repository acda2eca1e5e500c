//go:build linux

package engine

import (
	"bytes"
	"cmp"
	"container/list"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lukechampine.com/blake3"

	"easel/backend"
	"easel/backend/client"
)

// Sizes of the caches of finished pictures: a person scrolls back and forth over the
// same ones, and comes back the next day.
const (
	thumbBytes = 8 << 20   // in memory
	thumbDisk  = 128 << 20 // on disk
	maxKept    = 256 << 10 // of one picture
)

// thumbs keeps finished pictures in memory and in files, those used last. What
// cannot be kept on disk is made again.
type thumbs struct {
	dir string // "" keeps nothing on disk

	// mu guards the fields that follow.
	mu    sync.Mutex
	items map[string]*list.Element
	order *list.List // of thumb, used longest ago first
	bytes int
	disk  int64 // bytes in dir, -1 while not counted
}

type thumb struct {
	key string
	client.Shown
}

func newThumbs(dir string) *thumbs {
	return &thumbs{dir: dir, items: map[string]*list.Element{}, order: list.New(), disk: -1}
}

// thumbKey names a picture of a file as it is now; "" when the file cannot be told
// from a later one.
func thumbKey(f io.Reader, o backend.Output, a pictureAsk) string {
	file, ok := f.(*os.File)
	if !ok {
		return ""
	}
	st, err := file.Stat()
	if err != nil {
		return ""
	}
	sum := blake3.Sum256(fmt.Appendf(nil, "1\x00%s\x00%d\x00%d\x00%+v", o.Path, st.Size(), st.ModTime().UnixNano(), a))
	return hex.EncodeToString(sum[:16])
}

func (c *thumbs) get(key string) (client.Shown, bool) {
	if key == "" {
		return client.Shown{}, false
	}
	c.mu.Lock()
	e, ok := c.items[key]
	if ok {
		c.order.MoveToBack(e)
		s := e.Value.(thumb).Shown
		c.mu.Unlock()
		return s, true
	}
	c.mu.Unlock()
	s, ok := c.load(key)
	if ok {
		c.keep(key, s)
	}
	return s, ok
}

func (c *thumbs) put(key string, s client.Shown) {
	if key == "" || len(s.PNG) > maxKept {
		return
	}
	c.keep(key, s)
	c.store(key, s)
}

// keep holds a picture in memory.
func (c *thumbs) keep(key string, s client.Shown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushBack(thumb{key, s})
	c.bytes += len(s.PNG)
	for c.bytes > thumbBytes {
		e := c.order.Front()
		t := e.Value.(thumb)
		c.order.Remove(e)
		delete(c.items, t.key)
		c.bytes -= len(t.PNG)
	}
}

func (c *thumbs) path(key string) string { return filepath.Join(c.dir, key) }

// load reads a picture from disk: a line of JSON with what is known of it, then the
// PNG.
func (c *thumbs) load(key string) (client.Shown, bool) {
	if c.dir == "" {
		return client.Shown{}, false
	}
	b, err := os.ReadFile(c.path(key))
	if err != nil {
		return client.Shown{}, false
	}
	head, png, ok := bytes.Cut(b, []byte("\n"))
	var s client.Shown
	if !ok || json.Unmarshal(head, &s) != nil || !bytes.HasSuffix(png, []byte("IEND\xaeB`\x82")) {
		return client.Shown{}, false // cut short by a kill: made again
	}
	s.PNG = png
	now := time.Now()
	_ = os.Chtimes(c.path(key), now, now) // used last
	return s, true
}

// store writes a picture to disk, and throws out the ones used longest ago when
// there are too many.
func (c *thumbs) store(key string, s client.Shown) {
	if c.dir == "" {
		return
	}
	png := s.PNG
	s.PNG = nil
	head, err := json.Marshal(s)
	if err != nil || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	b := append(append(head, '\n'), png...)
	tmp, err := os.CreateTemp(c.dir, ".new-")
	if err != nil {
		return
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err != nil || cerr != nil || os.Rename(tmp.Name(), c.path(key)) != nil {
		_ = os.Remove(tmp.Name()) // a full disk: nothing is lost but time
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.disk >= 0 {
		c.disk += int64(len(b))
	}
	if c.disk < 0 || c.disk > thumbDisk {
		c.disk = prune(c.dir, thumbDisk, thumbDisk*3/4)
	}
}

// prune counts the files of dir, and when they are more than most bytes removes the
// ones used longest ago until least are left.
func prune(dir string, most, least int64) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return -1
	}
	var infos []os.FileInfo
	var sum int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			infos = append(infos, info)
			sum += info.Size()
		}
	}
	if sum <= most {
		return sum
	}
	slices.SortFunc(infos, func(a, b os.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for _, info := range infos {
		if sum <= least {
			break
		}
		if os.Remove(filepath.Join(dir, info.Name())) == nil {
			sum -= info.Size()
		}
	}
	return sum
}
