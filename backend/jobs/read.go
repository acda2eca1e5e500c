package jobs

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"

	"easel/backend"
)

// allStates are the states of a job, waiting ones first.
var allStates = []backend.JobState{backend.JobRunning, backend.JobQueued, backend.JobHeld, backend.JobSucceeded, backend.JobFailed, backend.JobCancelled}

// Get returns the job that an id, or an unambiguous prefix of at least 4
// characters, names. Failures: FailNotFound, FailConflict naming the candidates,
// FailUsage for less than 4 characters.
func (s *Store) Get(ctx context.Context, id string) (job backend.Job, err error) {
	err = s.read(ctx, func(q *queries) error {
		r, err := q.find(id)
		if err != nil {
			return err
		}
		pos, err := q.position(r)
		job = view(r, pos, s.pause.Load(), s.opts.Now())
		return err
	})
	return job, err
}

// ByPrompt returns the job that a prompt id belongs to and the number of that
// attempt; FailNotFound when no recorded attempt has it.
func (s *Store) ByPrompt(ctx context.Context, promptID string) (job backend.Job, n int, err error) {
	err = s.read(ctx, func(q *queries) error {
		var seq int64
		found, err := q.row(`SELECT job, n FROM attempts WHERE prompt_id = ?`, []any{promptID}, &seq, &n)
		if err != nil {
			return err
		}
		if !found {
			return backend.Fail(backend.FailNotFound, fmt.Sprintf("no job has the prompt %.64q", promptID), "")
		}
		r, err := q.load(seq)
		if err != nil {
			return err
		}
		pos, err := q.position(r)
		job = view(r, pos, s.pause.Load(), s.opts.Now())
		return err
	})
	return job, n, err
}

// views are the jobs of records, with their positions.
func (s *Store) views(q *queries, list []*record) ([]backend.Job, error) {
	out := make([]backend.Job, 0, len(list))
	if len(list) == 0 {
		return out, nil
	}
	places, err := s.positions(q)
	if err != nil {
		return nil, err
	}
	pause, now := s.pause.Load(), s.opts.Now()
	for _, r := range list {
		out = append(out, view(r, places[r.seq], pause, now))
	}
	return out, nil
}

// List returns the jobs that a filter selects: newest first, or in the order of
// dispatch (running, sent, ready, not to run yet, held) with Order "queue". An
// id of the filter that names no job is an error.
func (s *Store) List(ctx context.Context, f backend.JobFilter) (out []backend.Job, err error) {
	err = s.read(ctx, func(q *queries) error {
		seqs, err := q.selectJobs(f)
		if err != nil {
			return err
		}
		list, err := q.loadAll(seqs)
		if err != nil {
			return err
		}
		out, err = s.views(q, list)
		return err
	})
	return out, err
}

// selectJobs lists the jobs of a filter in its order.
func (q *queries) selectJobs(f backend.JobFilter) ([]int64, error) {
	for _, st := range f.States {
		if !st.Valid() {
			return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("no state %q", st), "states: queued held running succeeded failed cancelled")
		}
	}
	if f.Order != "" && f.Order != "queue" && f.Order != "newest" {
		return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("no order %q", f.Order), "orders: newest, queue")
	}
	before := int64(math.MaxInt64)
	if f.Before != "" {
		var err error
		if before, err = q.resolve(f.Before); err != nil {
			return nil, err
		}
	}
	var out []int64
	var err error
	switch {
	case len(f.IDs) > 0:
		out, err = q.byIDs(f)
	case f.Order == "queue":
		return q.inQueueOrder(f)
	default:
		return q.newest(f, before)
	}
	if err != nil {
		return nil, err
	}
	out = slices.DeleteFunc(out, func(seq int64) bool { return seq >= before })
	if f.Order != "queue" {
		slices.SortFunc(out, func(a, b int64) int { return cmp.Compare(b, a) })
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, nil
}

// byIDs resolves the ids of a filter and keeps those that its other fields
// select, each once.
func (q *queries) byIDs(f backend.JobFilter) ([]int64, error) {
	var out []int64
	for _, id := range f.IDs {
		seq, err := q.resolve(id)
		if err != nil {
			return nil, err
		}
		var state, owner, group string
		if _, err := q.row(`SELECT state, owner, grp FROM jobs WHERE seq = ?`, []any{seq}, &state, &owner, &group); err != nil {
			return nil, err
		}
		fits := (f.Owner == "" || f.Owner == owner) && (f.Group == "" || f.Group == group) &&
			(len(f.States) == 0 || slices.Contains(f.States, backend.JobState(state)))
		if fits && !slices.Contains(out, seq) {
			out = append(out, seq)
		}
	}
	return out, nil
}

// newest lists jobs newest first. Each state is asked for by itself, so that an
// index answers however many jobs are in the others.
func (q *queries) newest(f backend.JobFilter, before int64) ([]int64, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	states := f.States
	if len(states) == 0 || len(states) >= len(allStates) {
		states = []backend.JobState{""}
	}
	var out []int64
	for _, st := range slices.Compact(slices.Sorted(slices.Values(states))) {
		where, args := []string{"seq < ?"}, []any{before}
		add := func(cond string, v any) { where, args = append(where, cond), append(args, v) }
		switch {
		case f.Group != "":
			add("grp <> '' AND grp = ?", f.Group)
			if st != "" {
				add("+state = ?", string(st))
			}
			if f.Owner != "" {
				add("+owner = ?", f.Owner)
			}
		case st != "":
			add("state = ?", string(st))
			if f.Owner != "" {
				add("+owner = ?", f.Owner)
			}
		case f.Owner != "":
			add("owner = ?", f.Owner)
		}
		err := q.each(`SELECT seq FROM jobs WHERE `+strings.Join(where, " AND ")+` ORDER BY seq DESC LIMIT ? + 0`, append(args, limit), func(rows *sql.Rows) error {
			var seq int64
			err := rows.Scan(&seq)
			out = append(out, seq)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b int64) int { return cmp.Compare(b, a) })
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, nil
}

// inQueueOrder lists running, sent, ready, waking and held jobs, in this order.
func (q *queries) inQueueOrder(f backend.JobFilter) ([]int64, error) {
	wants := func(st backend.JobState) bool { return len(f.States) == 0 || slices.Contains(f.States, st) }
	all := math.MaxInt32
	if f.Limit > 0 && f.Owner == "" && f.Group == "" {
		all = f.Limit
	}
	parts := []struct {
		state backend.JobState
		list  func() ([]int64, error)
	}{
		{backend.JobRunning, func() ([]int64, error) {
			return q.seqs(`SELECT seq FROM jobs WHERE state = 'running' ORDER BY started, seq`)
		}},
		{backend.JobQueued, q.sent},
		{backend.JobQueued, func() ([]int64, error) {
			return q.next(all)
		}},
		{backend.JobQueued, func() ([]int64, error) {
			return q.seqs(`SELECT seq FROM jobs INDEXED BY jobs_wake WHERE wake > 0 AND state = 'queued' AND open = 0 ORDER BY wake, seq`)
		}},
		{backend.JobHeld, func() ([]int64, error) {
			return q.seqs(`SELECT seq FROM jobs WHERE state = 'held' ORDER BY priority DESC, rank`)
		}},
	}
	var out []int64
	for _, p := range parts {
		if !wants(p.state) || (all < math.MaxInt32 && len(out) >= all) {
			continue
		}
		list, err := p.list()
		if err != nil {
			return nil, err
		}
		if f.Owner != "" || f.Group != "" {
			if list, err = q.only(list, f); err != nil {
				return nil, err
			}
		}
		out = append(out, list...)
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[:f.Limit]
	}
	return out, nil
}

// seqs runs a query of one number a row.
func (q *queries) seqs(query string, args ...any) ([]int64, error) {
	var out []int64
	err := q.each(query, args, func(rows *sql.Rows) error {
		var seq int64
		err := rows.Scan(&seq)
		out = append(out, seq)
		return err
	})
	return out, err
}

// only keeps the jobs of a list that belong to the filter's owner and group.
func (q *queries) only(list []int64, f backend.JobFilter) ([]int64, error) {
	keep, err := q.seqs(`SELECT seq FROM jobs WHERE seq IN (SELECT value FROM json_each(?)) AND (? = '' OR owner = ?) AND (? = '' OR grp = ?)`,
		toJSON(list), f.Owner, f.Owner, f.Group, f.Group)
	if err != nil {
		return nil, err
	}
	in := make(map[int64]bool, len(keep))
	for _, s := range keep {
		in[s] = true
	}
	return slices.DeleteFunc(list, func(s int64) bool { return !in[s] }), nil
}

// Unfinished lists the jobs with an open attempt (sent or running), oldest first:
// what a new engine has to reconcile.
func (s *Store) Unfinished(ctx context.Context) (out []backend.Job, err error) {
	err = s.read(ctx, func(q *queries) error {
		list, err := q.records(`SELECT ` + jobColumns + ` FROM jobs INDEXED BY jobs_open WHERE open > 0 ORDER BY seq`)
		if err != nil {
			return err
		}
		out, err = s.views(q, list)
		return err
	})
	return out, err
}

// Counts returns how many jobs wait, run and are held, and whether the queue is
// paused.
func (s *Store) Counts(ctx context.Context) (c backend.QueueCounts, err error) {
	err = s.read(ctx, func(q *queries) (err error) { c, err = s.counts(q); return err })
	return c, err
}

// counts is Counts on a snapshot.
func (s *Store) counts(q *queries) (backend.QueueCounts, error) {
	p := s.pause.Load()
	c := backend.QueueCounts{Paused: p.Paused, PauseReason: p.Reason}
	err := q.each(`SELECT name, n FROM tally WHERE name IN ('queued', 'running', 'held')`, nil, func(rows *sql.Rows) error {
		var name string
		var n int
		err := rows.Scan(&name, &n)
		switch backend.JobState(name) {
		case backend.JobQueued:
			c.Queued = n
		case backend.JobRunning:
			c.Running = n
		case backend.JobHeld:
			c.Held = n
		}
		return err
	})
	return c, err
}

// Overview is what a screen begins with, all of it true at event Seq.
type Overview struct {
	Seq    int64
	Counts backend.QueueCounts
	Jobs   []backend.Job // running, then the next waiting ones in the order of dispatch
	Recent []backend.Job // finished last, newest first
	Deaths []backend.Verdict
}

// Overview reads the running jobs and the next waiting ones, the recent jobs
// finished last, and as many ends of workers, in one snapshot.
func (s *Store) Overview(ctx context.Context, next, recent int) (o Overview, err error) {
	err = s.read(ctx, func(q *queries) error {
		if _, err := q.row(`SELECT coalesce(max(seq), 0) FROM events`, nil, &o.Seq); err != nil {
			return err
		}
		if o.Counts, err = s.counts(q); err != nil {
			return err
		}
		waiting, err := q.inQueueOrder(backend.JobFilter{Limit: next + o.Counts.Running})
		if err != nil {
			return err
		}
		if o.Jobs, err = s.viewsOf(q, waiting); err != nil {
			return err
		}
		done, err := q.seqs(`SELECT seq FROM jobs INDEXED BY jobs_finished WHERE finished > 0 ORDER BY finished DESC, seq DESC LIMIT ? + 0`, recent)
		if err != nil {
			return err
		}
		if o.Recent, err = s.viewsOf(q, done); err != nil {
			return err
		}
		o.Deaths, err = q.deaths(recent)
		return err
	})
	return o, err
}

// viewsOf loads jobs and shows them.
func (s *Store) viewsOf(q *queries, seqs []int64) ([]backend.Job, error) {
	list, err := q.loadAll(seqs)
	if err != nil {
		return nil, err
	}
	return s.views(q, list)
}
