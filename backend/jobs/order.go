package jobs

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"time"

	"easel/backend"
)

// lane counts the ready jobs of one owner at one priority.
type lane struct {
	priority int
	owner    string
	waiting  int
	served   int64 // event at which the owner was last served, 0 for never
	since    int64 // job that opened the lane; decides between owners never served
}

// place is one turn of dispatch: the index-th job of a lane.
type place struct{ lane, index int }

// schedule says in which order the first n turns go round the lanes: the highest
// priority first, in it the owner served least recently, who then goes to the
// end. lanes come in the order of queries.lanes.
func schedule(lanes []lane, n int) []place {
	out := make([]place, 0, min(n, 1024))
	turns := map[string]int{} // owner → turn at which the schedule serves it last
	for from := 0; from < len(lanes) && len(out) < n; {
		to := from
		for to < len(lanes) && lanes[to].priority == lanes[from].priority {
			to++
		}
		ring := make([]int, 0, to-from)
		for i := from; i < to; i++ {
			ring = append(ring, i)
		}
		if from > 0 { // earlier turns have changed who was served when
			slices.SortStableFunc(ring, func(a, b int) int {
				return cmp.Compare(turns[lanes[a].owner], turns[lanes[b].owner])
			})
		}
		for round := 0; len(ring) > 0 && len(out) < n; round++ {
			next := ring[:0]
			for _, l := range ring {
				if len(out) == n {
					return out
				}
				out = append(out, place{lane: l, index: round})
				turns[lanes[l].owner] = len(out)
				if round+1 < lanes[l].waiting {
					next = append(next, l)
				}
			}
			ring = next
		}
		from = to
	}
	return out
}

// lanes reads as many lanes as n turns can involve: those of the highest
// priority first, and in each the owner served least recently first. Twice n
// are enough, since a turn at a higher priority puts at most one owner back.
func (q *queries) lanes(n int) ([]lane, error) {
	var list []lane
	err := q.each(`SELECT priority, owner, waiting, served, since FROM lanes ORDER BY priority DESC, served, since LIMIT ? + 0`, []any{2 * n}, func(rows *sql.Rows) error {
		var l lane
		err := rows.Scan(&l.priority, &l.owner, &l.waiting, &l.served, &l.since)
		list = append(list, l)
		return err
	})
	return list, err
}

// next lists the first n ready jobs in the order of dispatch. Its cost depends
// on n, not on how many wait.
func (q *queries) next(n int) ([]int64, error) {
	lanes, err := q.lanes(n)
	if err != nil {
		return nil, err
	}
	plan := schedule(lanes, n)
	most := map[int]int{}
	for _, p := range plan {
		most[p.lane] = p.index + 1
	}
	seqs := make(map[int][]int64, len(most))
	for l, count := range most {
		err := q.each(`SELECT seq FROM jobs INDEXED BY jobs_ready WHERE ready = 1 AND priority = ? AND owner = ? ORDER BY rank LIMIT ? + 0`,
			[]any{lanes[l].priority, lanes[l].owner, count}, func(rows *sql.Rows) error {
				var seq int64
				err := rows.Scan(&seq)
				seqs[l] = append(seqs[l], seq)
				return err
			})
		if err != nil {
			return nil, err
		}
	}
	out := make([]int64, 0, len(plan))
	for _, p := range plan {
		if list := seqs[p.lane]; p.index < len(list) {
			out = append(out, list[p.index])
		}
	}
	return out, nil
}

// sent lists the queued jobs whose prompt is already inside a worker, in the
// order they were sent.
func (q *queries) sent() ([]int64, error) {
	var out []int64
	err := q.each(`SELECT j.seq FROM jobs j INDEXED BY jobs_open JOIN attempts a ON a.job = j.seq AND a.n = j.open
		WHERE j.open > 0 AND j.state = 'queued' ORDER BY a.mark`, nil, func(rows *sql.Rows) error {
		var seq int64
		err := rows.Scan(&seq)
		out = append(out, seq)
		return err
	})
	return out, err
}

// position is the place of a job in the queue, 1 for the next; 0 when it does
// not wait for its turn or is past PositionCap.
func (q *queries) position(r *record) (int, error) {
	if r.job.State != backend.JobQueued || r.wake > 0 || (r.open == 0 && !r.ready()) {
		return 0, nil
	}
	sent, err := q.sent()
	if err != nil {
		return 0, err
	}
	if r.open > 0 {
		return slices.Index(sent, r.seq) + 1, nil
	}
	return q.placeAfter(r, len(sent))
}

// placeAfter is the position of a ready job behind so many sent ones.
func (q *queries) placeAfter(r *record, sent int) (int, error) {
	room := PositionCap - sent
	lanes, err := q.lanes(room)
	if err != nil {
		return 0, err
	}
	own := slices.IndexFunc(lanes, func(l lane) bool { return l.priority == r.job.Priority && l.owner == r.job.Owner })
	if own < 0 {
		return 0, nil
	}
	index := lanes[own].waiting - 1 // a new job is the last of its lane
	if !r.fresh {
		_, err = q.row(`SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE ready = 1 AND priority = ? AND owner = ? AND rank < ? LIMIT ? + 0)`,
			[]any{r.job.Priority, r.job.Owner, r.rank, room}, &index)
	}
	if err != nil || before(lanes, own, index) >= room {
		return 0, err
	}
	for i, p := range schedule(lanes, room) {
		if p.index == index && p.lane == own {
			return sent + i + 1, nil
		}
	}
	return 0, nil
}

// before is how many jobs certainly come before the index-th of a lane. It costs
// less than to go through their turns.
func before(lanes []lane, own, index int) int {
	n := index
	for i, l := range lanes {
		switch {
		case l.priority > lanes[own].priority:
			n += l.waiting
		case l.priority == lanes[own].priority && i != own:
			n += min(l.waiting, index)
		}
	}
	return n
}

// positions are the places of the first PositionCap jobs, by seq. They are kept
// until the next event, since nothing else moves a job.
func (s *Store) positions(q *queries) (map[int64]int, error) {
	var seq int64
	if _, err := q.row(`SELECT coalesce(max(seq), 0) FROM events`, nil, &seq); err != nil {
		return nil, err
	}
	s.placesMu.Lock()
	defer s.placesMu.Unlock()
	if s.places != nil && s.placesSeq == seq {
		return s.places, nil
	}
	sent, err := q.sent()
	if err != nil {
		return nil, err
	}
	ready, err := q.next(max(PositionCap-len(sent), 0))
	if err != nil {
		return nil, err
	}
	places := make(map[int64]int, len(sent)+len(ready))
	for i, seq := range append(sent, ready...) {
		places[seq] = i + 1
	}
	s.places, s.placesSeq = places, seq
	return places, nil
}

// Waiting lists up to n jobs that may be dispatched at now, the next one first:
// priority, then the owner served least recently, then position. Jobs that are
// held, sent or not to run yet are not among them; whether the queue is paused
// is not considered. The cost does not depend on how many jobs wait.
func (s *Store) Waiting(ctx context.Context, n int, now time.Time) ([]backend.Job, error) {
	if at, ok, err := s.NextWake(ctx, now); err != nil {
		return nil, err
	} else if ok && !at.After(now) {
		if err := s.do(ctx, "wake the jobs whose time has come", longPatience, func(t *tx) error { return t.wakeUp(now) }); err != nil {
			return nil, err
		}
	}
	var out []backend.Job
	err := s.read(ctx, func(q *queries) error {
		sent, err := q.sent()
		if err != nil {
			return err
		}
		seqs, err := q.next(n)
		if err != nil {
			return err
		}
		list, err := q.loadAll(seqs)
		pause, at := s.pause.Load(), s.opts.Now()
		for i, r := range list {
			pos := len(sent) + i + 1
			if pos > PositionCap {
				pos = 0
			}
			out = append(out, view(r, pos, pause, at))
		}
		return err
	})
	return out, err
}

// NextWake is the earliest not-before time of a queued job that was not woken
// yet, which may have passed already; false when there is none.
func (s *Store) NextWake(ctx context.Context, _ time.Time) (time.Time, bool, error) {
	var ms sql.NullInt64
	err := s.read(ctx, func(q *queries) error {
		_, err := q.row(`SELECT min(wake) FROM jobs INDEXED BY jobs_wake WHERE wake > 0`, nil, &ms)
		return err
	})
	if err != nil || !ms.Valid {
		return time.Time{}, false, err
	}
	return time.UnixMilli(ms.Int64), true, nil
}

// wakeUp makes the jobs ready whose not-before time has come.
func (t *tx) wakeUp(now time.Time) error {
	list, err := t.records(`SELECT `+jobColumns+` FROM jobs INDEXED BY jobs_wake WHERE wake > 0 AND wake <= ? ORDER BY wake LIMIT 500`, now.UnixMilli())
	if err != nil {
		return err
	}
	for _, r := range list {
		r.wake = 0
		if err := t.emit(r, backend.EventState, map[string]any{"from": r.job.State, "to": r.job.State, "reason": "its time has come"}); err != nil {
			return err
		}
		if err := t.save(r); err != nil {
			return err
		}
		if _, err := t.shown(r); err != nil {
			return err
		}
	}
	return nil
}
