package jobs

import "context"

// Paused reports whether the queue is paused, and why.
func (s *Store) Paused() (paused bool, reason string) {
	if p := s.pause.Load(); p != nil {
		return p.Paused, p.Reason
	}
	return false, ""
}

// Overtaken reports whether another job should now run before a job whose prompt
// was sent ahead: one of a higher priority, or one that somebody moved before it
// among its owner's jobs. The owners' turns do not count, since being sent has
// cost this one its turn already.
func (s *Store) Overtaken(ctx context.Context, id string) (over bool, err error) {
	err = s.read(ctx, func(q *queries) error {
		var n int
		_, err := q.row(`SELECT count(*) FROM (SELECT 1 FROM jobs r, jobs j WHERE j.id = ? AND r.ready = 1
			AND (r.priority > j.priority OR (r.priority = j.priority AND r.owner = j.owner AND r.rank < j.rank)) LIMIT 1)`, []any{id}, &n)
		over = n > 0
		return err
	})
	return over, err
}
