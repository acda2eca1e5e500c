package jobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"easel/backend"
)

// smallDisk mounts a tmpfs of so many bytes, or skips the test with the reason.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		t.Skip("cannot mount a small disk here: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestFullDisk fills the disk under the queue: each submission is refused with the
// reason or is there afterwards, and with space again the queue goes on.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 2<<20)
	s := openAt(t, filepath.Join(dir, "jobs.db"), Options{})
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	_ = f.Truncate(func() int64 { st, _ := f.Stat(); return st.Size() - 200<<10 }())
	_ = f.Close()
	var accepted []string
	refused := false
	for i := range 1000 {
		in := sub("a")
		in.Name = noise(2000)
		j, _, err := s.Submit(context.Background(), in)
		if err != nil {
			wantKind(t, err, backend.FailDisk)
			refused = true
			if i > len(accepted)+5 {
				break
			}
			continue
		}
		accepted = append(accepted, j.ID)
	}
	if !refused || len(accepted) == 0 {
		t.Fatalf("%d accepted, refused %v", len(accepted), refused)
	}
	for _, id := range accepted {
		get(t, s, id)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	submit(t, s, sub("a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, s.path, Options{})
	c, err := s.Counts(context.Background())
	if err != nil || c.Queued != len(accepted)+1 {
		t.Errorf("%d accepted, %d in the records, %v", len(accepted)+1, c.Queued, err)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := smallDisk(t, 1<<20)
	s, err := Open(context.Background(), filepath.Join(dir, "jobs.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1048576"); err != nil {
		t.Skip("cannot make it read-only here: ", err)
	}
	for _, name := range []string{"jobs.db", "new.db"} {
		_, err := Open(context.Background(), filepath.Join(dir, name), Options{})
		if f := wantKind(t, err, backend.FailDisk); f.Hint == "" {
			t.Errorf("%s: %q without a hint", name, f.Message)
		}
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 64<<10)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), filepath.Join(dir, "jobs.db"), Options{})
	wantKind(t, err, backend.FailDisk)
}
