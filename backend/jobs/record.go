package jobs

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"easel/backend"
)

// record is a job with what only the store knows of it.
type record struct {
	job      backend.Job
	seq      int64 // order of acceptance
	rank     int64 // order within its lane
	open     int   // n of the open attempt, 0 for none
	wake     int64 // ms since 1970 while the not-before time lies ahead
	graph    int64 // blob
	workflow int64 // blob, 0 for none
	events   int64 // JobSeq of the last event
	noCheck  bool
	fresh    bool // accepted in this transaction, the last of its lane
}

// ready reports whether the job could be dispatched at once.
func (r *record) ready() bool {
	return r.job.State == backend.JobQueued && r.open == 0 && r.wake == 0 && !r.job.Cancelling
}

// attempt is the attempt n, nil when there is none.
func (r *record) attempt(n int) *backend.Attempt {
	for i := range r.job.Attempts {
		if r.job.Attempts[i].N == n {
			return &r.job.Attempts[i]
		}
	}
	return nil
}

// jobColumns are the columns scanJob reads, in its order.
const jobColumns = `seq, id, name, owner, source, grp, labels, retry_of, timeout_s, no_check, graph, workflow, created,
	priority, rank, state, open, wake, not_before, cancelling, started, finished, error, warnings,
	inference_s, gpu_s, peak_vram, peak_ram, events`

// scanJob reads one row of jobColumns.
func scanJob(rows *sql.Rows) (*record, error) {
	r := &record{}
	j := &r.job
	var labels string
	var retryOf, errText, warnings sql.NullString
	var created, notBefore, started, finished int64
	err := rows.Scan(&r.seq, &j.ID, &j.Name, &j.Owner, &j.Source, &j.Group, &labels, &retryOf, &j.TimeoutS, &r.noCheck, &r.graph, &r.workflow, &created,
		&j.Priority, &r.rank, &j.State, &r.open, &r.wake, &notBefore, &j.Cancelling, &started, &finished, &errText, &warnings,
		&j.InferenceS, &j.GPUS, &j.PeakVRAM, &j.PeakRAM, &r.events)
	if err != nil {
		return nil, err
	}
	j.Created, j.NotBefore = backend.Millis(created), backend.Millis(notBefore)
	j.Started, j.Finished = backend.Millis(started), backend.Millis(finished)
	j.Attempts, j.Outputs, j.Labels = []backend.Attempt{}, []backend.Output{}, map[string]string{}
	if retryOf.Valid {
		j.RetryOf = &retryOf.String
	}
	return r, firstError(fromJSON(labels, &j.Labels), fromJSON(errText.String, &j.Error), fromJSON(warnings.String, &j.Warnings))
}

// fromJSON reads a column that holds JSON; an empty one leaves v alone.
func fromJSON(s string, v any) error {
	if s == "" {
		return nil
	}
	return json.Unmarshal([]byte(s), v)
}

// toJSON writes v for a column; nil pointers and empty lists become NULL.
func toJSON(v any) any {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" || string(b) == "[]" {
		return nil
	}
	return string(b)
}

// firstError is the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// load reads the job seq whole.
func (q *queries) load(seq int64) (*record, error) {
	list, err := q.loadAll([]int64{seq})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, notFound(fmt.Sprint(seq))
	}
	return list[0], nil
}

// find reads the job that id, or an unambiguous prefix of it, names.
func (q *queries) find(id string) (*record, error) {
	seq, err := q.resolve(id)
	if err != nil {
		return nil, err
	}
	return q.load(seq)
}

// resolve finds the job that id or a prefix of at least 4 characters names.
func (q *queries) resolve(id string) (int64, error) {
	prefix := strings.ToLower(strings.TrimSpace(id))
	if len(prefix) > 36 || strings.Trim(prefix, "0123456789abcdef-") != "" {
		return 0, notFound(id)
	}
	if len(prefix) < 4 {
		return 0, backend.Fail(backend.FailUsage, fmt.Sprintf("%q is too short for a job's id", id), "give at least the first 4 characters")
	}
	const most = 6
	var seqs []int64
	var ids []string
	err := q.each(`SELECT seq, id FROM jobs WHERE id >= ? AND id < ? ORDER BY id LIMIT ? + 0`, []any{prefix, prefix + "~", most}, func(rows *sql.Rows) error {
		var seq int64
		var full string
		err := rows.Scan(&seq, &full)
		seqs, ids = append(seqs, seq), append(ids, full)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case len(seqs) == 0:
		return 0, notFound(id)
	case len(seqs) == 1 || ids[0] == prefix:
		return seqs[0], nil
	}
	names := strings.Join(ids[:min(len(ids), most-1)], ", ")
	if len(ids) == most {
		names += " …"
	}
	return 0, backend.Fail(backend.FailConflict, fmt.Sprintf("%q names more than one job: %s", prefix, names), "give more of the id")
}

// loadAll reads jobs whole, in the order of seqs; those that are gone are left out.
func (q *queries) loadAll(seqs []int64) ([]*record, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	list, err := q.records(`SELECT `+jobColumns+` FROM jobs WHERE seq IN (SELECT value FROM json_each(?))`, toJSON(seqs))
	if err != nil {
		return nil, err
	}
	place := make(map[int64]int, len(seqs))
	for i, s := range seqs {
		place[s] = i
	}
	slices.SortFunc(list, func(a, b *record) int { return place[a.seq] - place[b.seq] })
	return list, nil
}

// records runs a query of jobColumns and reads attempts and outputs with it.
func (q *queries) records(query string, args ...any) ([]*record, error) {
	var list []*record
	err := q.each(query, args, func(rows *sql.Rows) error {
		r, err := scanJob(rows)
		list = append(list, r)
		return err
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list, q.fill(list)
}

// fill reads the attempts and outputs of jobs.
func (q *queries) fill(list []*record) error {
	bySeq := make(map[int64]*record, len(list))
	seqs := make([]int64, 0, len(list))
	for _, r := range list {
		bySeq[r.seq] = r
		seqs = append(seqs, r.seq)
	}
	in := toJSON(seqs)
	err := q.each(`SELECT job, n, prompt_id, worker, launch, started, finished, outcome, verdict, leftovers FROM attempts
		WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, n`, []any{in}, func(rows *sql.Rows) error {
		var seq, started, finished int64
		var a backend.Attempt
		var verdict, leftovers sql.NullString
		if err := rows.Scan(&seq, &a.N, &a.PromptID, &a.Worker, &a.Launch, &started, &finished, &a.Outcome, &verdict, &leftovers); err != nil {
			return err
		}
		a.Started, a.Finished = backend.Millis(started), backend.Millis(finished)
		j := &bySeq[seq].job
		err := firstError(fromJSON(verdict.String, &a.Verdict), fromJSON(leftovers.String, &a.Leftovers))
		j.Attempts = append(j.Attempts, a)
		return err
	})
	if err != nil {
		return err
	}
	return q.each(`SELECT job, data FROM outputs WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, i`, []any{in}, func(rows *sql.Rows) error {
		var seq int64
		var data string
		if err := rows.Scan(&seq, &data); err != nil {
			return err
		}
		var o backend.Output
		err := fromJSON(data, &o)
		j := &bySeq[seq].job
		j.Outputs = append(j.Outputs, o)
		return err
	})
}

// save writes what may change in a job's own row.
func (t *tx) save(r *record) error {
	j := &r.job
	_, err := t.exec(`UPDATE jobs SET priority = ?, rank = ?, state = ?, ready = ?, open = ?, wake = ?, not_before = ?, cancelling = ?,
		started = ?, finished = ?, error = ?, warnings = ?, inference_s = ?, gpu_s = ?, peak_vram = ?, peak_ram = ?, events = ? WHERE seq = ?`,
		j.Priority, r.rank, string(j.State), r.ready(), r.open, r.wake, j.NotBefore.Milli(), j.Cancelling,
		j.Started.Milli(), j.Finished.Milli(), toJSON(j.Error), toJSON(j.Warnings), j.InferenceS, j.GPUS, j.PeakVRAM, j.PeakRAM, r.events, r.seq)
	return err
}

// saveAttempt writes what may change in an attempt.
func (t *tx) saveAttempt(r *record, a *backend.Attempt) error {
	_, err := t.exec(`UPDATE attempts SET started = ?, finished = ?, outcome = ?, verdict = ?, leftovers = ? WHERE job = ? AND n = ?`,
		a.Started.Milli(), a.Finished.Milli(), string(a.Outcome), toJSON(a.Verdict), toJSON(a.Leftovers), r.seq, a.N)
	return err
}

// emit writes a numbered event of a job. The caller saves the record after it,
// and calls shown when the change is whole.
func (t *tx) emit(r *record, kind backend.EventKind, data map[string]any) error {
	var raw json.RawMessage
	if len(data) > 0 {
		b, err := json.Marshal(data)
		if err != nil {
			return err
		}
		raw = b
	}
	r.events++
	e := backend.Event{Seq: t.w.seq + 1, JobSeq: r.events, At: t.now, Kind: kind, JobID: r.job.ID, Data: raw}
	_, err := t.exec(`INSERT INTO events (seq, job, job_id, n, at, kind, data) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		e.Seq, r.seq, e.JobID, e.JobSeq, e.At.Milli(), string(kind), string(raw))
	if err != nil {
		return err
	}
	t.w.seq++
	t.events = append(t.events, e)
	return nil
}

// shown is the job as it is now; the events of the running op about it carry it.
func (t *tx) shown(r *record) (backend.Job, error) {
	pause := t.pause
	if pause == nil {
		pause = t.w.s.pause.Load()
	}
	pos, err := t.position(r)
	if err != nil {
		return backend.Job{}, err
	}
	j := view(r, pos, pause, t.now.Time)
	for i := t.opStart; i < len(t.events); i++ {
		if e := &t.events[i]; e.JobID == j.ID && e.Job == nil {
			e.Job = &j
		}
	}
	return j, nil
}

// view is the job of a record as others see it. pos is its place, 0 when it has
// none or none that is computed.
func view(r *record, pos int, pause *pauseState, now time.Time) backend.Job {
	j := r.job
	if pos > 0 {
		j.Position = &pos
	}
	j.WaitReason = waitReason(r, pos, pause, now)
	return j
}

// waitReason says why a job waits, as far as the queue itself is the reason: a
// missing worker is known to the engine only.
func waitReason(r *record, pos int, pause *pauseState, now time.Time) string {
	switch {
	case r.job.State != backend.JobQueued && r.job.State != backend.JobHeld:
		return ""
	case r.job.Cancelling:
		return "being cancelled"
	case r.job.State == backend.JobHeld && r.open > 0:
		return "held, being taken back from the worker"
	case r.job.State == backend.JobHeld:
		return "held"
	case r.open > 0:
		return "next in worker"
	case r.wake > 0:
		return "not before " + clock(time.UnixMilli(r.wake).In(now.Location()), now)
	case pause.Paused && pause.Reason != "":
		return "queue paused: " + pause.Reason
	case pause.Paused:
		return "queue paused"
	case pos == 1:
		return "next"
	case pos == 2:
		return "1 job before it"
	case pos > 2:
		return fmt.Sprintf("%d jobs before it", pos-1)
	}
	return fmt.Sprintf("more than %d jobs before it", PositionCap)
}

// clock is a time of day, with the day when it is not today.
func clock(at, now time.Time) string {
	if y, m, d := now.Date(); at.Year() == y && at.Month() == m && at.Day() == d {
		return at.Format("15:04")
	}
	return at.Format("Mon 2 Jan 15:04")
}
