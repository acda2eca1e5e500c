//go:build linux

package cmd_test

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the database, read as another Easel would
)

// tiny is a workflow that takes no time.
const tiny = `{"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
 "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "tiny"}}}`

// tinyFile writes the workflow outside of every home.
func tinyFile(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "tiny.json")
	if err := os.WriteFile(p, []byte(tiny), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// move gives the box another home.
func (b *box) move(home string) {
	for i, kv := range b.env {
		if strings.HasPrefix(kv, "EASEL_HOME=") {
			b.env[i] = "EASEL_HOME=" + home
		}
	}
	b.home = home
}

// refused demands an exit code, an error with these words, and a hint.
func (b *box) refused(code int, words string, args ...string) {
	b.t.Helper()
	r := b.easel(args...)
	said := false
	for line := range strings.Lines(r.err) {
		said = said || strings.HasPrefix(line, "easel: ") && strings.Contains(line, words)
	}
	if r.code != code || !said || !strings.Contains(r.err, "\nhint: ") {
		b.t.Errorf("easel %s: exit code %d, want %d and %q with a hint\n%s", strings.Join(args, " "), r.code, code, words, r.err)
	}
}

// mountTmpfs mounts a file system in memory, or skips the test.
func mountTmpfs(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestReadOnlyStateDirectory(t *testing.T) {
	b := newBox(t)
	file := tinyFile(t)
	b.move(mountTmpfs(t, unix.MS_RDONLY, ""))
	b.refused(1, "mounted read-only", "run", file)
	b.refused(1, "mounted read-only", "serve", "--detach")
	b.refused(1, "mounted read-only", "serve")
	if r := b.easel("status"); r.code != 4 {
		t.Errorf("status: exit code %d, want 4", r.code)
	}
}

// TestFullDisk fills the disk under a running engine. What was accepted stays,
// what cannot be kept is refused, and with room again all goes on.
func TestFullDisk(t *testing.T) {
	b := newBox(t, "EASEL_GUARD_MIN_FREE_DISK=0") // it is smaller than the floor
	file := tinyFile(t)
	disk := mountTmpfs(t, 0, "size=4m")
	b.move(filepath.Join(disk, "home"))
	defer b.easel("stop") // before the disk goes
	if err := os.Mkdir(b.home, 0o700); err != nil {
		t.Fatal(err)
	}
	if r := b.easel("run", file); r.code != 0 {
		t.Fatalf("run: %d\n%s", r.code, r.err)
	}
	filler := filepath.Join(disk, "filler")
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=1k").CombinedOutput(); err == nil {
		t.Fatalf("the disk took everything: %s", out)
	}
	// Another graph each time: one that is known needs less room.
	b.refused(1, "full", "run", file, "--set", "width=128")
	if r := b.easel("run", file, "--set", "width=160", "--json"); r.code != 1 || !strings.Contains(r.out, `{"error":{"kind":"disk"`) {
		t.Errorf("run --json on a full disk: %d %s", r.code, r.out)
	}
	if r := b.easel("stop"); r.code != 0 {
		t.Errorf("stop on a full disk: %d\n%s", r.code, r.err)
	}
	b.refused(1, "full", "run", file, "--set", "width=192")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if r := b.easel("run", file, "--set", "width=256"); r.code != 0 {
		t.Errorf("run with room again: %d\n%s", r.code, r.err)
	}
	r := b.easel("jobs", "ls", "--json")
	if got := strings.Count(r.out, `"state":"succeeded"`); got != 2 || strings.Count(r.out, `"retry_of"`) != 2 {
		t.Errorf("%d jobs succeeded, want the 2 that were accepted:\n%s", got, r.out)
	}
}

// TestLongStateDirectory has a path that no socket address holds.
func TestLongStateDirectory(t *testing.T) {
	b := newBox(t)
	file := tinyFile(t)
	home := filepath.Join(b.home, strings.Repeat("long", 40))
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	outer := b.home
	b.move(home)
	defer func() { b.easel("stop"); b.move(outer) }()
	if r := b.easel("run", file); r.code != 0 {
		t.Fatalf("run: %d\n%s", r.code, r.err)
	}
	if r := b.easel("status"); r.code != 0 {
		t.Errorf("status: %d\n%s", r.code, r.err)
	}
}

func TestTwoEnginesOnOneStateDirectory(t *testing.T) {
	b := newBox(t)
	if r := b.easel("serve", "--detach", "--json"); r.code != 0 || !strings.Contains(r.out, `"started":true`) {
		t.Fatalf("serve: %d %s%s", r.code, r.out, r.err)
	}
	pid := b.status().Keeper.PID
	b.refused(1, fmt.Sprintf("(pid %d) already runs", pid), "serve")
	if r := b.easel("serve", "--detach", "--json"); r.code != 0 || !strings.Contains(r.out, fmt.Sprintf(`{"pid":%d,"started":false`, pid)) {
		t.Errorf("serve --detach again: %d %s", r.code, r.out)
	}
}

// TestForeignDatabase: one of a newer Easel and one that is none are refused and
// left as they are.
func TestForeignDatabase(t *testing.T) {
	b := newBox(t)
	file := tinyFile(t)
	db := filepath.Join(b.home, "jobs.db")
	if err := os.WriteFile(db, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.refused(1, "is not a database", "run", file)
	if got, err := os.ReadFile(db); err != nil || !strings.HasPrefix(string(got), "no database") {
		t.Errorf("the file was touched: %v", err)
	}
	if err := os.Remove(db); err != nil {
		t.Fatal(err)
	}
	if r := b.easel("run", file); r.code != 0 {
		t.Fatalf("run: %d\n%s", r.code, r.err)
	}
	b.easel("stop")
	newerDatabase(t, db)
	b.refused(1, "schema version 999", "run", file)
	b.refused(1, "schema version 999", "serve", "--detach")
	b.refused(1, "schema version 999", "serve")
}

// newerDatabase makes a database look like one of a later Easel.
func newerDatabase(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `INSERT INTO schema_version (version, applied) VALUES (999, 1)`); err != nil {
		t.Fatal(err)
	}
}
