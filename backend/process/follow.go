package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Waits of a Follower between two looks at its file: short while lines come, so
// that a flood is read in large pieces, longer while nothing does.
const (
	waitShort = 10 * time.Millisecond
	waitLong  = 100 * time.Millisecond
	// restAfter is how long text without an end of line waits before it is shown.
	restAfter = 500 * time.Millisecond
	// checkPath is how often it looks whether the name still means this file.
	checkPath = time.Second
	readSize  = 256 << 10
)

// Follower reads the lines of a file while another process appends to it. It
// survives a file that is not there yet, that shrinks, that is replaced, and whose
// head is freed (Trim). A file that shrank is read from its start.
type Follower struct {
	path string
	fn   func(Line)
	f    *os.File
	s    *splitter
	buf  []byte
	wait time.Duration
	// grown is when bytes came last, checked when the path was looked at last.
	grown, checked time.Time
}

// NewFollower makes a Follower of path that begins at offset and gives each line
// to fn, in order, on the goroutine that calls Run or Drain.
func NewFollower(path string, offset int64, fn func(Line)) *Follower {
	return &Follower{path: path, fn: fn, s: newSplitter(offset), wait: waitShort}
}

// Follow reads path from offset until the context ends, and returns nil then. Just
// before it returns it reads what is there.
func Follow(ctx context.Context, path string, offset int64, fn func(Line)) error {
	return NewFollower(path, offset, fn).Run(ctx)
}

// Run follows until the context ends; then it reads what is left, reports a last
// line without an end too, and returns nil. It returns early only with an error of
// reading.
func (f *Follower) Run(ctx context.Context) error {
	defer f.close()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return f.Drain()
		case now := <-t.C:
			if err := f.look(now); err != nil {
				return err
			}
			t.Reset(f.wait)
		}
	}
}

// Drain reads to the present end of the file and reports a last line without an
// end as a bar. It must not run while Run does.
func (f *Follower) Drain() error {
	if _, err := f.read(); err != nil {
		return err
	}
	f.s.flush(true, f.fn)
	return nil
}

// Offset is where to begin to read every line that is not final yet. It must not
// be called while Run runs; within fn, use the Line's.
func (f *Follower) Offset() int64 { return f.s.row }

func (f *Follower) close() {
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
}

// look reads what has come and chooses the next wait.
func (f *Follower) look(now time.Time) error {
	n, err := f.read()
	if err != nil {
		return err
	}
	if n > 0 {
		f.grown, f.wait = now, waitShort
		return nil
	}
	if now.Sub(f.grown) >= restAfter {
		f.s.flush(true, f.fn)
	}
	if now.Sub(f.checked) >= checkPath {
		f.checked = now
		f.checkReplaced()
	}
	f.wait = min(f.wait*3/2, waitLong)
	return nil
}

// read takes everything up to the end of the file and says how much that was.
func (f *Follower) read() (int64, error) {
	if err := f.open(); f.f == nil {
		return 0, err
	}
	if f.buf == nil {
		f.buf = make([]byte, readSize)
	}
	var total int64
	for {
		n, err := f.f.ReadAt(f.buf, f.s.pos)
		if n == 0 {
			return total, f.atEnd(err)
		}
		total += int64(n)
		if f.buf[0] == 0 && f.overHole(n) {
			continue
		}
		f.s.feed(f.buf[:n], f.fn)
		f.s.flush(false, f.fn)
		if n < len(f.buf) {
			return total, f.atEnd(err)
		}
	}
}

// atEnd handles the end of the file: a file that is shorter than what was read is
// read again from its start.
func (f *Follower) atEnd(err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("follow the log: %w", err)
	}
	st, err := f.f.Stat()
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	if st.Size() < f.s.pos {
		f.s.jump(0, false)
		f.wait = waitShort
	}
	return nil
}

// overHole jumps over a freed part of the file and reports whether there was one.
// Without the means to ask the file system, zeros are stepped over.
func (f *Follower) overHole(n int) bool {
	next, ok := seekData(f.f, f.s.pos)
	if !ok || next <= f.s.pos {
		zeros := 0
		for zeros < n && f.buf[zeros] == 0 {
			zeros++
		}
		next = f.s.pos + int64(zeros)
	}
	f.s.jump(next, true)
	return true
}

// open opens the file if it is not open; a missing file is no error.
func (f *Follower) open() error {
	if f.f != nil {
		return nil
	}
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("follow the log: %w", err)
	}
	f.f = file
	return nil
}

// checkReplaced goes over to a new file when the name means another one now.
func (f *Follower) checkReplaced() {
	if f.f == nil {
		return
	}
	now, err := os.Stat(f.path)
	if err != nil {
		return // it may come back; what is open can still grow
	}
	if was, err := f.f.Stat(); err == nil && !os.SameFile(was, now) {
		f.close()
		f.s.jump(0, false)
		f.wait = waitShort
	}
}
