package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// follower runs Follow and collects what it reports.
type follower struct {
	t    *testing.T
	mu   sync.Mutex
	list []Line
	stop func()
}

func follow(t *testing.T, path string, offset int64) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t}
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, path, offset, func(l Line) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.list = append(f.list, l)
		})
	}()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follow: %v", err)
		}
	}
	t.Cleanup(cancel)
	return f
}

func (f *follower) texts() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, l := range f.list {
		list = append(list, l.Text)
	}
	return list
}

func (f *follower) want(want ...string) {
	f.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := f.texts(); slices.Equal(got, want) {
			return
		} else if time.Now().After(deadline) {
			f.t.Fatalf("got %q\nwant %q", got, want)
		}
	}
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.WriteString(text); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFollowAFileThatComesGrowsShrinksAndIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := follow(t, path, 0)
	appendTo(t, path, "one\n")
	f.want("one")
	appendTo(t, path, "two\nthr")
	f.want("one", "two", "thr") // the last as a bar, after a moment
	appendTo(t, path, "ee\n")
	f.want("one", "two", "thr", "three")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, "4\n")
	f.want("one", "two", "thr", "three", "4")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, "five, in another file\n")
	f.want("one", "two", "thr", "three", "4", "five, in another file")
	appendTo(t, path, "last words")
	f.stop()
	f.want("one", "two", "thr", "three", "4", "five, in another file", "last words")
}

func TestFollowGoesOnFromEveryOffset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "one\r\ntwo\n\r10%\r20%\nend\n")
	all := follow(t, path, 0)
	all.want("one", "two", "20%", "end")
	all.stop()
	for i, l := range all.list {
		rest := follow(t, path, l.Offset)
		rest.want(all.texts()[i+1:]...)
		rest.stop()
	}
}

func TestTrimKeepsOffsetsAndTheFollowerGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	for n := range 20000 {
		fmt.Fprintf(&text, "line %06d of a long log\n", n)
	}
	appendTo(t, path, text.String())
	f := follow(t, path, 0)
	wait := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); len(f.texts()) != n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d lines, want %d", len(f.texts()), n)
			}
		}
	}
	wait(20000)
	if err := Trim(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	if tail, err := ReadTail(path, -1); err != nil || len(tail) != 20000 {
		t.Fatalf("a small file was trimmed: %d lines, %v", len(tail), err)
	}
	if err := Trim(path, 100<<10); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, "after\n")
	wait(20001)
	f.stop()
	tail, err := ReadTail(path, -1)
	if err != nil || len(tail) < 2 || len(tail) > 5000 {
		t.Fatalf("kept %d lines, %v", len(tail), err)
	}
	if !strings.HasPrefix(tail[0].Text, "line 0") || len(tail[0].Text) != len("line 000000 of a long log") {
		t.Errorf("the first line kept is torn: %q", tail[0].Text)
	}
	if last := tail[len(tail)-1]; last.Text != "after" || last.Offset != int64(text.Len()+len("after\n")) && runtime.GOOS == "linux" {
		t.Errorf("the last line: %+v", last)
	}
	late := follow(t, path, 10) // from within what was freed
	late.want(func() (want []string) {
		for _, l := range tail {
			want = append(want, l.Text)
		}
		return want
	}()...)
	late.stop()
}

func TestReadTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var text strings.Builder
	for n := range 30000 {
		fmt.Fprintf(&text, "line %d\n", n)
	}
	text.WriteString("\r 1%\r 2%\r 3%")
	appendTo(t, path, text.String())
	for _, n := range []int{1, 2, 10, 500, 29999} {
		got, err := ReadTail(path, n)
		if err != nil || len(got) != n {
			t.Fatalf("tail %d: %d lines, %v", n, len(got), err)
		}
		if l := got[n-1]; l.Text != " 3%" || !l.Bar {
			t.Errorf("tail %d ends with %+v", n, l)
		}
		if n > 1 && got[0].Text != fmt.Sprintf("line %d", 30000-n+1) {
			t.Errorf("tail %d begins with %q", n, got[0].Text)
		}
	}
	if all, err := ReadTail(path, -1); err != nil || len(all) != 30001 {
		t.Errorf("all: %d, %v", len(all), err)
	}
	if none, err := ReadTail(path, 0); err != nil || none != nil {
		t.Errorf("none: %v, %v", none, err)
	}
	if _, err := ReadTail(path+".not", 5); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// BenchmarkFollow reads a log that is there already.
func BenchmarkFollow(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log")
	text := strings.Repeat("[INFO] a line of about eighty characters, as ComfyUI and its packs write them\n", 100_000)
	appendTo(b, path, text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		n := 0
		if err := NewFollower(path, 0, func(Line) { n++ }).Drain(); err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}
