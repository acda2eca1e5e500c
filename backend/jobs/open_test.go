package jobs

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"easel/backend"
)

// v2 is a later schema as one may come: a new column, filled from what is there.
var v2 = migration{version: 2, sql: `ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';
UPDATE jobs SET colour = 'red' WHERE owner = 'ann';`}

func TestMigrationKeepsACopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	ctx := context.Background()
	old, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := submit(t, old, sub("ann"))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, path, Options{migrations: append(migrations[:1:1], v2)})
	var colour string
	if err := s.readDB.QueryRow(`SELECT colour FROM jobs`).Scan(&colour); err != nil || colour != "red" {
		t.Errorf("colour %q, %v", colour, err)
	}
	if got := get(t, s, j.ID); got.Owner != "ann" {
		t.Errorf("%+v", got)
	}
	copies, err := filepath.Glob(path + ".v1-*")
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies %v, %v", copies, err)
	}
	kept := openAt(t, copies[0], Options{})
	if got := get(t, kept, j.ID); got.Owner != "ann" {
		t.Errorf("in the copy: %+v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The older Easel refuses what the newer one made, and names both versions.
	_, err = Open(ctx, path, Options{})
	if f := wantKind(t, err, backend.FailConflict); !strings.Contains(f.Message, "version 2") || !strings.Contains(f.Message, "up to 1") {
		t.Errorf("refused with %q", f.Message)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	ctx := context.Background()
	old, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := submit(t, old, sub("ann"))
	_ = old.Close()
	broken := migration{version: 2, sql: v2.sql + `UPDATE nowhere SET x = 1;`}
	if _, err := Open(ctx, path, Options{migrations: append(migrations[:1:1], broken)}); err == nil {
		t.Fatal("a broken migration went through")
	}
	s := openAt(t, path, Options{})
	get(t, s, j.ID)
}

func TestWhatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, b []byte) string {
		if err := os.WriteFile(in(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	foreign := func() string {
		db, err := sql.Open("sqlite", in("foreign.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		if _, err := db.Exec(`CREATE TABLE things (x)`); err != nil {
			t.Fatal(err)
		}
		return in("foreign.db")
	}
	broken := func() string {
		s, err := Open(context.Background(), in("broken.db"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		submit(t, s, sub("a"))
		_ = s.Close()
		b, err := os.ReadFile(in("broken.db"))
		if err != nil {
			t.Fatal(err)
		}
		for i := 100; i < len(b); i++ {
			b[i] = 0xff
		}
		return write("broken.db", b)
	}
	if err := os.Mkdir(in("folder.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, kind, says string
	}{
		{"not a database", write("text.db", []byte(strings.Repeat("just text ", 1000))), backend.FailDisk, "is not a database"},
		{"another program's", foreign(), backend.FailConflict, "another program"},
		{"damaged", broken(), backend.FailDisk, "damaged"},
		{"a directory", in("folder.db"), backend.FailDisk, "is a directory"},
		{"no directory", in("none/jobs.db"), backend.FailDisk, "does not exist"},
		{"a file for a directory", in("text.db") + "/jobs.db", backend.FailDisk, "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(context.Background(), tt.path, Options{})
			f := wantKind(t, err, tt.kind)
			if !strings.Contains(f.Message, tt.says) || f.Hint == "" {
				t.Errorf("says %q, hint %q", f.Message, f.Hint)
			}
		})
	}
}

func TestPathWithOddCharacters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%20é")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	submit(t, openAt(t, filepath.Join(dir, "jobs.db"), Options{}), sub("a"))
	if _, err := os.Stat(filepath.Join(dir, "jobs.db")); err != nil {
		t.Error(err)
	}
}
