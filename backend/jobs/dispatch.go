package jobs

import "context"

// Paused reports whether the queue is paused, and why.
func (s *Store) Paused() (paused bool, reason string) {
	p := s.pause.Load()
	return p.Paused, p.Reason
}

// Overtaken reports whether another job should now run before a job whose prompt
// was sent ahead: one of a higher priority, or one that somebody moved before it
// among its owner's jobs. The owners' turns do not count, since being sent has
// cost this one its turn already. An id that names no job is not overtaken. The
// cost does not depend on how many jobs wait.
func (s *Store) Overtaken(ctx context.Context, id string) (over bool, err error) {
	err = s.read(ctx, func(q *queries) error {
		var priority, rank int64
		var owner string
		found, err := q.row(`SELECT priority, owner, rank FROM jobs WHERE id = ?`, []any{id}, &priority, &owner, &rank)
		if err != nil || !found {
			return err
		}
		var n int
		over, err = q.row(`SELECT 1 FROM lanes WHERE priority > ? LIMIT 1`, []any{priority}, &n)
		if err != nil || over {
			return err
		}
		over, err = q.row(`SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE ready = 1 AND priority = ? AND owner = ? AND rank < ? LIMIT 1`, []any{priority, owner, rank}, &n)
		return err
	})
	return over, err
}
