package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"easel/backend"
)

// Outputs lists what jobs made: those of the job accepted last first, each job's
// in its own order, at most f.Limit of them (0: all). What lies in the trash is
// left out. f.Before is a Next of an earlier page; next is "" at the end. Text and
// Plain of the filter are not looked at here: the caller knows the graphs.
func (s *Store) Outputs(ctx context.Context, f backend.AssetFilter) (out []backend.Asset, next string, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	err = s.read(ctx, func(q *queries) error {
		w, err := q.assetWhere(f)
		if err != nil {
			return err
		}
		if err := q.assetsBefore(w, f.Before); err != nil {
			return err
		}
		query := `SELECT j.id, j.name, j.owner, j.grp, j.state, j.finished, j.inference_s, o.i, o.data FROM ` + w.from +
			` WHERE ` + strings.Join(w.conds, " AND ") + ` ORDER BY o.job DESC, o.i LIMIT ? + 0`
		out = nil
		return q.each(query, append(w.args, limit), func(rows *sql.Rows) error {
			a, err := scanAsset(rows)
			out = append(out, a)
			return err
		})
	})
	if err == nil && limit > 0 && len(out) == limit {
		last := out[limit-1]
		next = last.Job + "/" + strconv.Itoa(last.N)
	}
	return out, next, err
}

// CountOutputs is how many outputs a filter selects, its Before, Limit and Text
// left aside.
func (s *Store) CountOutputs(ctx context.Context, f backend.AssetFilter) (n int, err error) {
	err = s.read(ctx, func(q *queries) error {
		w, err := q.assetWhere(f)
		if err != nil {
			return err
		}
		_, err = q.row(`SELECT count(*) FROM `+w.from+` WHERE `+strings.Join(w.conds, " AND "), w.args, &n)
		return err
	})
	return n, err
}

// assetQuery is the part of a query that a filter makes.
type assetQuery struct {
	from  string
	conds []string
	args  []any
}

func (w *assetQuery) add(cond string, args ...any) {
	w.conds, w.args = append(w.conds, cond), append(w.args, args...)
}

// assetWhere makes the conditions of a filter. The list is walked from the newest
// output on, or from the jobs of a group or a time where an index has them.
func (q *queries) assetWhere(f backend.AssetFilter) (*assetQuery, error) {
	w := &assetQuery{from: `outputs o CROSS JOIN jobs j ON j.seq = o.job`}
	w.add(`o.data NOT LIKE '%"trashed":%'`)
	if f.Group != "" {
		w.from = `jobs j INDEXED BY jobs_group CROSS JOIN outputs o ON o.job = j.seq`
		w.add(`j.grp <> '' AND j.grp = ?`, f.Group)
	}
	if f.Job != "" {
		seq, err := q.resolve(f.Job)
		if err != nil {
			return nil, err
		}
		w.add(`o.job = ?`, seq)
	}
	if f.Owner != "" {
		w.add(`j.owner = ?`, f.Owner)
	}
	if len(f.States) > 0 {
		for _, st := range f.States {
			if !st.Valid() {
				return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("no state %.40q", st), "states: queued held running succeeded failed cancelled")
			}
		}
		w.add(`j.state IN (SELECT value FROM json_each(?))`, toJSON(f.States))
	}
	if len(f.Kinds) > 0 {
		w.add(`json_extract(o.data, '$.kind') IN (SELECT value FROM json_each(?))`, toJSON(f.Kinds))
	}
	if !f.Since.IsZero() {
		w.add(`(j.finished >= ? OR j.finished = 0)`, f.Since.Milli())
	}
	if !f.Until.IsZero() {
		w.add(`j.finished > 0 AND j.finished < ?`, f.Until.Milli())
	}
	return w, nil
}

// assetsBefore adds the place where the page before ended.
func (q *queries) assetsBefore(w *assetQuery, before string) error {
	if before == "" {
		return nil
	}
	id, num, _ := strings.Cut(before, "/")
	n, err := strconv.Atoi(num)
	if err != nil || n < 0 {
		return backend.Fail(backend.FailUsage, fmt.Sprintf("before must be the `next` of an earlier page, not %.80q", before), "")
	}
	seq, err := q.resolve(id)
	if err != nil {
		return err
	}
	w.add(`o.job <= ? AND (o.job < ? OR o.i > ?)`, seq, seq, n)
	return nil
}

func scanAsset(rows *sql.Rows) (backend.Asset, error) {
	var a backend.Asset
	var finished int64
	var secs sql.NullFloat64
	var data string
	if err := rows.Scan(&a.Job, &a.Name, &a.Owner, &a.Group, &a.State, &finished, &secs, &a.N, &data); err != nil {
		return a, err
	}
	if a.Finished = backend.Millis(finished); secs.Valid {
		a.InferenceS = &secs.Float64
	}
	return a, fromJSON(data, &a.Output)
}

// ChangeOutput writes output n (from 0) of a job anew as fn leaves it. It is for
// what happens to a file after its job: the trash.
func (s *Store) ChangeOutput(ctx context.Context, id string, n int, fn func(*backend.Output)) (o backend.Output, err error) {
	_, err = s.change(ctx, "record an output", id, func(t *tx, r *record) error {
		if n < 0 || n >= len(r.job.Outputs) {
			return backend.Fail(backend.FailNotFound, fmt.Sprintf("job %s has no output %d", short(r.job.ID), n), "")
		}
		r.job.Outputs = slices.Clone(r.job.Outputs)
		fn(&r.job.Outputs[n])
		o = r.job.Outputs[n]
		_, err := t.exec(`UPDATE outputs SET data = ? WHERE job = ? AND i = ?`, toJSON(o), r.seq, n)
		return err
	})
	return o, err
}
