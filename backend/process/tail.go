package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// maxTail bounds how much of the end of a file ReadTail looks at, in bytes.
const maxTail = 64 << 20

// ReadTail returns the last n lines of a file, oldest first; n < 0 returns all
// that are kept. A last line without an end is among them, as a bar; the Offset of
// the last line is where to follow on.
func ReadTail(path string, n int) ([]Line, error) {
	if n == 0 {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	from, err := tailStart(f, st.Size(), n)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	var lines []Line
	add := func(l Line) {
		if k := len(lines); k > 0 && lines[k-1].Bar {
			lines[k-1] = l
			return
		}
		lines = append(lines, l)
		if n > 0 && len(lines) > 2*n+64 {
			lines = slices.Delete(lines, 0, len(lines)-n)
		}
	}
	fl := &Follower{f: f, fn: add, s: newSplitter(from)}
	if from > 0 {
		fl.s.skip = !startsLine(f, from)
	}
	if err := fl.Drain(); err != nil {
		return nil, err
	}
	if n > 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines, nil
}

// tailStart finds an offset from which at least the last n lines can be read.
func tailStart(f *os.File, size int64, n int) (int64, error) {
	floor := max(0, size-maxTail)
	if n < 0 {
		return floor, nil
	}
	buf := make([]byte, 64<<10)
	ends := 0
	for at := size; at > floor; {
		from := max(floor, at-int64(len(buf)))
		piece := buf[:at-from]
		if _, err := f.ReadAt(piece, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		at = from
		if piece[0] == 0 && len(bytes.Trim(piece, "\x00")) == 0 { // freed: nothing before it
			return from, nil
		}
		ends += bytes.Count(piece, []byte{'\n'})
		if ends > n { // one more than asked for: the first one may be cut
			return from, nil
		}
	}
	return floor, nil
}

// startsLine reports whether a line begins at offset.
func startsLine(f *os.File, offset int64) bool {
	b := make([]byte, 1)
	_, err := f.ReadAt(b, offset-1)
	return err == nil && b[0] == '\n'
}
