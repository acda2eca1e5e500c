package tui

import (
	"bytes"
	"os"
	"regexp"
	"sync"
)

// sgr matches the only escape sequences that a frame may hold.
var sgr = regexp.MustCompile(`\x1b\[[0-9;:]*m`)

// lockedBuffer is a buffer that a program writes to while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

func writeFile(name string) error { return os.WriteFile(name, nil, 0o600) }
