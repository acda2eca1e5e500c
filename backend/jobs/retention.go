package jobs

import (
	"context"
	"database/sql"
	"time"
)

// Bounds of the upkeep.
const (
	foldEvery  = 400              // commits after which the WAL is folded into the file
	foldBytes  = 4 << 20          // or so many bytes of graphs in one commit
	foldAfter  = 5 * time.Second  // or so long after the last commit
	walMax     = 8192             // pages of WAL (32 MiB) after which the writer helps to begin it anew
	pruneStep  = 50               // rows a step of Retention removes
	shrinkStep = 64               // pages a step gives back to the file system
	stepWait   = 10 * time.Minute // how long a step may wait for an idle moment
)

// keepWAL folds what was written into the database file, beside the writer and
// without stopping it: a passive checkpoint on a connection of its own.
func (s *Store) keepWAL() {
	quiet := time.NewTimer(foldAfter)
	defer quiet.Stop()
	var seen int64
	for {
		select {
		case <-s.quit:
			return
		case <-s.tidy:
		case <-quiet.C:
			if now := s.lastSeq.Load(); now == seen {
				quiet.Reset(foldAfter)
				continue
			}
		}
		seen = s.lastSeq.Load()
		if err := s.fold(); err != nil {
			s.log.Warn("records: cannot fold the WAL", "error", describe(s.path, err))
		}
		quiet.Reset(foldAfter)
	}
}

// fold runs one passive checkpoint.
func (s *Store) fold() error {
	db, err := openDB(s.path, 1)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var busy, pages, folded sql.NullInt64
	err = db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &pages, &folded)
	if pages.Int64 > walMax {
		// Under constant load the writer is always a few pages ahead and the WAL
		// never begins anew. The writer folds these few itself, between two groups.
		s.wide.Store(true)
	}
	return err
}

// Pruned says what Retention removed.
type Pruned struct {
	Events, Jobs, Deaths, Keys int64 // rows
}

// Retention removes events, finished jobs, ends of workers and keys that are
// older than the options keep them, and gives free pages back to the file
// system. It goes in small steps that are made only while no change waits, and
// returns when all is done or ctx ends. Call it now and then, once an hour say.
func (s *Store) Retention(ctx context.Context) (p Pruned, err error) {
	now := s.opts.Now()
	before := func(keep time.Duration) int64 { return now.Add(-keep).UnixMilli() }
	steps := []struct {
		sum *int64
		fn  func(*tx) (int64, error)
	}{
		{&p.Jobs, func(t *tx) (int64, error) { return t.pruneJobs(before(s.opts.KeepJobs)) }},
		// The last event stays, since its number is the counter.
		{&p.Events, deleteStep(`DELETE FROM events WHERE seq IN
			(SELECT seq FROM events WHERE at < ? AND seq < (SELECT max(seq) FROM events) ORDER BY seq LIMIT ? + 0)`, before(s.opts.KeepEvents))},
		{&p.Deaths, deleteStep(`DELETE FROM deaths WHERE seq IN (SELECT seq FROM deaths WHERE at < ? ORDER BY seq LIMIT ? + 0)`, before(s.opts.KeepDeaths))},
		{&p.Keys, deleteStep(`DELETE FROM keys WHERE (owner, key) IN (SELECT owner, key FROM keys WHERE at < ? ORDER BY at LIMIT ? + 0)`, before(keyLife))},
	}
	for _, st := range steps {
		for {
			var n int64
			if err := s.step(ctx, func(t *tx) (err error) { n, err = st.fn(t); return err }); err != nil {
				return p, err
			}
			*st.sum += n
			if n < pruneStep {
				break
			}
		}
	}
	return p, s.shrink(ctx)
}

// step runs fn in the writer at a moment when no change waits.
func (s *Store) step(ctx context.Context, fn func(*tx) error) error {
	return s.enqueue(ctx, s.idle, "tidy the records", stepWait, &op{fn: fn, done: make(chan struct{})})
}

// deleteStep removes up to pruneStep rows that are older than before.
func deleteStep(query string, before int64) func(*tx) (int64, error) {
	return func(t *tx) (int64, error) {
		res, err := t.exec(query, before, pruneStep)
		if err != nil {
			return 0, err
		}
		return res.RowsAffected()
	}
}

// pruneJobs removes up to pruneStep jobs that ended before a moment.
func (t *tx) pruneJobs(before int64) (int64, error) {
	list, err := t.records(`SELECT `+jobColumns+` FROM jobs INDEXED BY jobs_finished WHERE finished > 0 AND finished < ? ORDER BY finished LIMIT ? + 0`, before, pruneStep)
	if err != nil {
		return 0, err
	}
	for _, r := range list {
		if err := t.remove(r); err != nil {
			return 0, err
		}
	}
	return int64(len(list)), nil
}

// shrink gives free pages back, a few at a time.
func (s *Store) shrink(ctx context.Context) error {
	for {
		var free int
		err := s.step(ctx, func(t *tx) error {
			if _, err := t.row(`PRAGMA freelist_count`, nil, &free); err != nil || free == 0 {
				return err
			}
			t.wrote = true
			return t.each(`PRAGMA incremental_vacuum(64)`, nil, func(*sql.Rows) error { return nil })
		})
		if err != nil || free <= shrinkStep {
			return err
		}
	}
}
