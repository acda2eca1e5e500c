//go:build linux

package engine

import (
	"image"
	"sync"
	"time"
)

// lensTime is how long a decoded picture is kept for the next part of it, and
// lensPixels the largest one that is.
const (
	lensTime   = 20 * time.Second
	lensPixels = decodePixels
)

// lens keeps the picture that somebody looks at parts of: moving over it must not
// decode it anew at each step. It lets it go soon after.
type lens struct {
	// mu guards the fields that follow.
	mu    sync.Mutex
	key   string
	img   image.Image
	timer *time.Timer
}

// get is the picture under key, nil when another or none is kept.
func (l *lens) get(key string) image.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key == "" || key != l.key {
		return nil
	}
	l.timer.Reset(lensTime)
	return l.img
}

func (l *lens) put(key string, img image.Image) {
	if key == "" || img.Bounds().Dx()*img.Bounds().Dy() > lensPixels {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
	l.key, l.img = key, img
	l.timer = time.AfterFunc(lensTime, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.key == key {
			l.key, l.img = "", nil
		}
	})
}
