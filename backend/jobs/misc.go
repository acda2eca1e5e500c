package jobs

import (
	"context"
	"database/sql"
	"fmt"

	"easel/backend"
)

// runsKept is how many past durations are remembered for one shape.
const runsKept = 21

// pauseKey is where the pause is kept in meta.
const pauseKey = "queue.paused"

// SetPaused pauses the queue or lets it go on, with the reason in words; it
// outlives the engine. Nothing that runs is touched.
func (s *Store) SetPaused(ctx context.Context, paused bool, reason string) error {
	if !paused {
		reason = ""
	}
	p := &pauseState{Paused: paused, Reason: reason}
	return s.do(ctx, "pause the queue", longPatience, func(t *tx) error {
		t.pause = p
		return t.setMeta(pauseKey, fmt.Sprint(toJSON(p)))
	})
}

// loadPause reads the pause at the start.
func (s *Store) loadPause(ctx context.Context) error {
	p := &pauseState{}
	text, err := s.GetMeta(ctx, pauseKey)
	if err == nil {
		err = fromJSON(text, p)
	}
	s.pause.Store(p)
	return err
}

// GetMeta returns a small value kept beside the jobs, "" when there is none.
func (s *Store) GetMeta(ctx context.Context, key string) (value string, err error) {
	err = s.read(ctx, func(q *queries) error {
		_, err := q.row(`SELECT value FROM meta WHERE key = ?`, []any{key}, &value)
		return err
	})
	return value, err
}

// SetMeta keeps a small value beside the jobs.
func (s *Store) SetMeta(ctx context.Context, key, value string) error {
	return s.do(ctx, "record "+key, longPatience, func(t *tx) error { return t.setMeta(key, value) })
}

// setMeta is SetMeta inside a transaction.
func (t *tx) setMeta(key, value string) error {
	_, err := t.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	return err
}

// AddDeath records the end of a worker. A launch ends once: a second verdict on
// it is dropped, so that an engine that crashed before it acknowledged one may
// record it again.
func (s *Store) AddDeath(ctx context.Context, v backend.Verdict) error {
	return s.do(ctx, "record the end of a worker", longPatience, func(t *tx) error {
		at := v.At
		if at.IsZero() {
			at = t.now
		}
		_, err := t.exec(`INSERT OR IGNORE INTO deaths (at, launch, verdict) VALUES (?, ?, ?)`, at.Milli(), v.Launch, toJSON(v))
		return err
	})
}

// Deaths returns the last ends of workers, newest first; no limit when 0.
func (s *Store) Deaths(ctx context.Context, limit int) (out []backend.Verdict, err error) {
	if limit <= 0 {
		limit = -1
	}
	err = s.read(ctx, func(q *queries) (err error) { out, err = q.deaths(limit); return err })
	return out, err
}

// deaths is Deaths on a snapshot.
func (q *queries) deaths(limit int) ([]backend.Verdict, error) {
	out := []backend.Verdict{}
	err := q.each(`SELECT verdict FROM deaths ORDER BY seq DESC LIMIT ? + 0`, []any{limit}, func(rows *sql.Rows) error {
		var text string
		var v backend.Verdict
		err := rows.Scan(&text)
		if err == nil {
			err = fromJSON(text, &v)
		}
		out = append(out, v)
		return err
	})
	return out, err
}

// learn remembers how long a successful attempt took.
func (t *tx) learn(e End) error {
	if e.Shape == "" || e.Outcome != backend.OutcomeSucceeded || e.InferenceS <= 0 {
		return nil
	}
	if _, err := t.exec(`INSERT OR REPLACE INTO runs (shape, seq, seconds) VALUES (?, ?, ?)`, e.Shape, t.w.seq, e.InferenceS); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM runs WHERE shape = ? AND seq <= (SELECT seq FROM runs WHERE shape = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)`,
		e.Shape, e.Shape, runsKept)
	return err
}

// Seconds is the median of how long the last successful attempts of a shape took
// inside ComfyUI (see End.Shape), and of how many; 0 and 0 when there was none.
func (s *Store) Seconds(ctx context.Context, shape string) (median float64, runs int, err error) {
	var list []float64
	err = s.read(ctx, func(q *queries) error {
		return q.each(`SELECT seconds FROM runs WHERE shape = ? ORDER BY seconds`, []any{shape}, func(rows *sql.Rows) error {
			var v float64
			err := rows.Scan(&v)
			list = append(list, v)
			return err
		})
	})
	n := len(list)
	if err != nil || n == 0 {
		return 0, 0, err
	}
	return (list[(n-1)/2] + list[n/2]) / 2, n, nil
}
