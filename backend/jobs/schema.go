package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"easel/backend"
	"easel/backend/fault"
)

// applicationID marks the file as Easel's ("Easl"), so that another program's
// database under the same name is not taken for ours.
const applicationID = 0x4561736c

// migration brings a database from version-1 to version, in one transaction.
type migration struct {
	version int
	sql     string
}

// migrations are all of them, ascending. One that has been released is never
// changed: a later one changes what it made.
var migrations = []migration{{version: 1, sql: schemaV1}}

// schemaV1 is the first schema.
//
// jobs.seq is the order of acceptance. jobs.rank orders the jobs of one owner
// at one priority and is unique in the whole table: new jobs take the next
// number of tally 'hi', a job moved to the top the next number below of 'lo'.
// jobs.ready is 1 while the job could be dispatched at once; a lane counts the
// ready jobs of one owner at one priority, kept by triggers, so that choosing
// the next job does not depend on how many wait. jobs.wake is the not-before
// time while it lies ahead, in ms since 1970, and 0 afterwards.
const schemaV1 = `
CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO tally (name, n) VALUES ('queued',0),('held',0),('running',0),
  ('succeeded',0),('failed',0),('cancelled',0),('hi',0),('lo',0);

CREATE TABLE blobs (
  id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
  refs INTEGER NOT NULL, data BLOB NOT NULL);

CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, owner TEXT NOT NULL,
  source TEXT NOT NULL, grp TEXT NOT NULL, labels TEXT NOT NULL, retry_of TEXT,
  timeout_s REAL NOT NULL, no_check INTEGER NOT NULL, graph INTEGER NOT NULL, workflow INTEGER NOT NULL,
  created INTEGER NOT NULL,
  priority INTEGER NOT NULL, rank INTEGER NOT NULL, state TEXT NOT NULL, ready INTEGER NOT NULL,
  open INTEGER NOT NULL, wake INTEGER NOT NULL, not_before INTEGER NOT NULL, cancelling INTEGER NOT NULL,
  started INTEGER NOT NULL, finished INTEGER NOT NULL, error TEXT, warnings TEXT,
  inference_s REAL, gpu_s REAL, peak_vram INTEGER, peak_ram INTEGER, events INTEGER NOT NULL);
CREATE INDEX jobs_state ON jobs (state, seq);
CREATE INDEX jobs_owner ON jobs (owner, seq);
CREATE INDEX jobs_group ON jobs (grp, seq) WHERE grp <> '';
CREATE INDEX jobs_ready ON jobs (priority, owner, rank) WHERE ready = 1;
CREATE INDEX jobs_wake ON jobs (wake) WHERE wake > 0;
CREATE INDEX jobs_open ON jobs (seq) WHERE open > 0;
CREATE INDEX jobs_finished ON jobs (finished) WHERE finished > 0;

CREATE TABLE attempts (
  job INTEGER NOT NULL, n INTEGER NOT NULL, prompt_id TEXT NOT NULL UNIQUE, worker TEXT NOT NULL, launch TEXT NOT NULL,
  sent INTEGER NOT NULL, started INTEGER NOT NULL, finished INTEGER NOT NULL, outcome TEXT NOT NULL,
  verdict TEXT, leftovers TEXT, mark INTEGER NOT NULL, served_before INTEGER NOT NULL,
  PRIMARY KEY (job, n)) WITHOUT ROWID;
CREATE TABLE outputs (
  job INTEGER NOT NULL, i INTEGER NOT NULL, n INTEGER NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (job, i)) WITHOUT ROWID;

CREATE TABLE owners (owner TEXT PRIMARY KEY, served INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE lanes (
  priority INTEGER NOT NULL, owner TEXT NOT NULL, waiting INTEGER NOT NULL,
  served INTEGER NOT NULL, since INTEGER NOT NULL,
  PRIMARY KEY (owner, priority)) WITHOUT ROWID;
CREATE INDEX lanes_order ON lanes (priority DESC, served, since);

CREATE TABLE events (
  seq INTEGER PRIMARY KEY, job INTEGER NOT NULL, job_id TEXT NOT NULL, n INTEGER NOT NULL,
  at INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT);
CREATE INDEX events_job ON events (job, n);

CREATE TABLE keys (
  owner TEXT NOT NULL, key TEXT NOT NULL, hash BLOB NOT NULL, job_id TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (owner, key)) WITHOUT ROWID;
CREATE INDEX keys_at ON keys (at);

CREATE TABLE deaths (
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, launch TEXT NOT NULL, verdict TEXT NOT NULL);
CREATE UNIQUE INDEX deaths_launch ON deaths (launch) WHERE launch <> '';

CREATE TABLE runs (shape TEXT NOT NULL, seq INTEGER NOT NULL, seconds REAL NOT NULL,
  PRIMARY KEY (shape, seq)) WITHOUT ROWID;

CREATE TRIGGER jobs_in AFTER INSERT ON jobs BEGIN
  UPDATE tally SET n = n + 1 WHERE name = NEW.state;
END;
CREATE TRIGGER jobs_out AFTER DELETE ON jobs BEGIN
  UPDATE tally SET n = n - 1 WHERE name = OLD.state;
END;
CREATE TRIGGER jobs_state_change AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
  UPDATE tally SET n = n - 1 WHERE name = OLD.state;
  UPDATE tally SET n = n + 1 WHERE name = NEW.state;
END;
CREATE TRIGGER lane_in AFTER INSERT ON jobs WHEN NEW.ready = 1 BEGIN
  INSERT INTO lanes (priority, owner, waiting, served, since)
    VALUES (NEW.priority, NEW.owner, 1, coalesce((SELECT served FROM owners WHERE owner = NEW.owner), 0), NEW.seq)
    ON CONFLICT (owner, priority) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER lane_leave AFTER UPDATE OF ready, priority ON jobs
  WHEN OLD.ready = 1 AND (NEW.ready = 0 OR OLD.priority <> NEW.priority) BEGIN
  UPDATE lanes SET waiting = waiting - 1 WHERE owner = OLD.owner AND priority = OLD.priority;
  DELETE FROM lanes WHERE owner = OLD.owner AND priority = OLD.priority AND waiting <= 0;
END;
CREATE TRIGGER lane_enter AFTER UPDATE OF ready, priority ON jobs
  WHEN NEW.ready = 1 AND (OLD.ready = 0 OR OLD.priority <> NEW.priority) BEGIN
  INSERT INTO lanes (priority, owner, waiting, served, since)
    VALUES (NEW.priority, NEW.owner, 1, coalesce((SELECT served FROM owners WHERE owner = NEW.owner), 0), NEW.seq)
    ON CONFLICT (owner, priority) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER owner_new AFTER INSERT ON owners BEGIN
  UPDATE lanes SET served = NEW.served WHERE owner = NEW.owner;
END;
CREATE TRIGGER owner_served AFTER UPDATE ON owners BEGIN
  UPDATE lanes SET served = NEW.served WHERE owner = NEW.owner;
END;
`

// migrate brings the database to the newest of list. A database that already
// holds a schema is copied beside itself first, and the copy is kept. A newer
// schema, or a file that is not ours, is refused.
func migrate(ctx context.Context, db *sql.DB, path string, list []migration, now time.Time) error {
	newest := list[len(list)-1].version
	have, err := schemaVersion(ctx, db, path)
	if err != nil {
		return err
	}
	if have > newest {
		return backend.Fail(backend.FailConflict,
			fmt.Sprintf("%s has schema version %d and this Easel knows versions up to %d", path, have, newest),
			"start the newer Easel that wrote it, or move the file away to begin with an empty queue")
	}
	if have == newest {
		return nil
	}
	if have > 0 {
		if err := keepCopy(ctx, db, path, have, now); err != nil {
			return err
		}
	}
	for _, m := range list {
		if m.version <= have {
			continue
		}
		if err := applyMigration(ctx, db, m, now); err != nil {
			return fmt.Errorf("migrate %s to schema version %d: %w", path, m.version, describe(path, err))
		}
	}
	return nil
}

// schemaVersion is the version the file has, 0 for an empty one.
func schemaVersion(ctx context.Context, db *sql.DB, path string) (int, error) {
	var appID, tables, ours int
	err := db.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT count(*) FROM sqlite_master), (SELECT count(*) FROM sqlite_master WHERE name = 'schema_version')`).Scan(&appID, &tables, &ours)
	if err != nil {
		return 0, describe(path, err)
	}
	if tables == 0 {
		return 0, nil
	}
	if appID != applicationID || ours == 0 {
		return 0, backend.Fail(backend.FailConflict, path+" is a database of another program",
			"move it away, or choose another state directory with EASEL_HOME")
	}
	var v sql.NullInt64
	if err := db.QueryRowContext(ctx, `SELECT max(version) FROM schema_version`).Scan(&v); err != nil {
		return 0, describe(path, err)
	}
	return int(v.Int64), nil
}

// keepCopy writes a whole and consistent copy of the database beside it.
func keepCopy(ctx context.Context, db *sql.DB, path string, version int, now time.Time) error {
	target := fmt.Sprintf("%s.v%d-%s", path, version, now.UTC().Format("20060102T150405.000"))
	part := target + ".part"
	if err := os.Remove(part); err != nil && !os.IsNotExist(err) {
		return describe(path, err)
	}
	if _, err := db.ExecContext(ctx, `VACUUM INTO ?`, part); err != nil {
		_ = os.Remove(part)
		return fmt.Errorf("keep a copy of %s before its migration: %w", path, describe(path, err))
	}
	if err := syncFile(part); err != nil {
		return fmt.Errorf("keep a copy of %s before its migration: %w", path, err)
	}
	if err := os.Rename(part, target); err != nil {
		return fmt.Errorf("keep a copy of %s before its migration: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// applyMigration runs one migration in a transaction of its own.
func applyMigration(ctx context.Context, db *sql.DB, m migration, now time.Time) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, m.sql); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, applicationID)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, applied) VALUES (?, ?)`, m.version, now.UnixMilli()); err != nil {
		return err
	}
	fault.Hit("migration")
	return tx.Commit()
}

// syncFile flushes a file's bytes to the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// syncDir flushes a directory's entries to the disk; where directories cannot
// be synced (Windows) it does nothing.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil && !isUnsupported(err) {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	return nil
}
