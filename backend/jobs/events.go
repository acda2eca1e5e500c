package jobs

import (
	"context"
	"database/sql"
	"encoding/json"

	"easel/backend"
)

// subscriber is one reader of the live events.
type subscriber struct {
	ch chan backend.Event
}

// Events returns up to limit events above after, oldest first, without their
// jobs; no limit when 0. Older ones than the retention are gone: the first
// returned then is not after+1.
func (s *Store) Events(ctx context.Context, after int64, limit int) (out []backend.Event, err error) {
	if limit <= 0 {
		limit = -1
	}
	err = s.read(ctx, func(q *queries) (err error) {
		out, err = q.events(`SELECT seq, job_id, n, at, kind, data FROM events WHERE seq > ? ORDER BY seq LIMIT ? + 0`, after, limit)
		return err
	})
	return out, err
}

// JobEvents returns the kept events of one job, oldest first.
func (s *Store) JobEvents(ctx context.Context, id string) (out []backend.Event, err error) {
	err = s.read(ctx, func(q *queries) error {
		seq, err := q.resolve(id)
		if err != nil {
			return err
		}
		out, err = q.events(`SELECT seq, job_id, n, at, kind, data FROM events WHERE job = ? ORDER BY n`, seq)
		return err
	})
	return out, err
}

// events runs a query of events.
func (q *queries) events(query string, args ...any) ([]backend.Event, error) {
	out := []backend.Event{}
	err := q.each(query, args, func(rows *sql.Rows) error {
		var e backend.Event
		var at int64
		var data string
		if err := rows.Scan(&e.Seq, &e.JobID, &e.JobSeq, &at, &e.Kind, &data); err != nil {
			return err
		}
		e.At = backend.Millis(at)
		if data != "" {
			e.Data = json.RawMessage(data)
		}
		out = append(out, e)
		return nil
	})
	return out, err
}

// LastSeq is the number of the last event on disk, 0 when there was none.
func (s *Store) LastSeq() int64 { return s.lastSeq.Load() }

// Subscribe streams the events from now on, in the order of their commits and
// after them, each with its job as it was then; readers share that job and must
// not change it. A reader that lets buffer events pile up loses the stream: its
// channel is closed, and it resumes with Events. The channel also closes with the
// store. cancel ends the subscription; it may be called more than once.
func (s *Store) Subscribe(buffer int) (events <-chan backend.Event, cancel func()) {
	sub := &subscriber{ch: make(chan backend.Event, max(buffer, 1))}
	s.subMu.Lock()
	defer s.subMu.Unlock()
	if s.subs == nil { // closed
		close(sub.ch)
		return sub.ch, func() {}
	}
	s.subs[sub] = struct{}{}
	return sub.ch, func() { s.drop(sub) }
}

// drop ends a subscription.
func (s *Store) drop(sub *subscriber) {
	s.subMu.Lock()
	defer s.subMu.Unlock()
	if _, ok := s.subs[sub]; ok {
		delete(s.subs, sub)
		close(sub.ch)
	}
}

// deliver hands committed events to the subscribers without waiting for any.
func (s *Store) deliver(events []backend.Event) {
	s.subMu.Lock()
	defer s.subMu.Unlock()
next:
	for sub := range s.subs {
		for _, e := range events {
			select {
			case sub.ch <- e:
			default:
				delete(s.subs, sub)
				close(sub.ch)
				continue next
			}
		}
	}
}

// closeSubs ends all subscriptions for good.
func (s *Store) closeSubs() {
	s.subMu.Lock()
	defer s.subMu.Unlock()
	for sub := range s.subs {
		close(sub.ch)
	}
	s.subs = nil
}
