package jobs

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"easel/backend"
)

// actStep is how many jobs one commit of an action changes, so that an action on
// a whole queue does not keep submissions waiting.
const actStep = 100

// moveMax is how many jobs one action moves: all in one commit, since their
// order among each other counts.
const moveMax = 1000

// verb is what an action does to one job.
type verb struct {
	words  string             // "job … cannot WORDS"
	states []backend.JobState // in which it means something
	extra  func(*record) bool // a further condition, nil for none
	apply  func(*tx, *record, backend.JobAction) error
	moves  bool // works on all jobs at once, in the order of the queue
}

// verbs say what each verb does; moves are made by move.
var verbs = map[backend.Verb]verb{
	backend.VerbCancel: {words: "be cancelled", states: []backend.JobState{backend.JobQueued, backend.JobHeld, backend.JobRunning}, apply: applyCancel},
	backend.VerbHold: {
		words: "be held", states: []backend.JobState{backend.JobQueued}, apply: applyHold,
		extra: func(r *record) bool { return !r.job.Cancelling },
	},
	backend.VerbRelease: {
		words: "be released", states: []backend.JobState{backend.JobHeld, backend.JobQueued}, apply: applyRelease,
		extra: func(r *record) bool { return r.job.State == backend.JobHeld || r.wake > 0 },
	},
	backend.VerbPriority: {words: "change its priority", states: []backend.JobState{backend.JobQueued, backend.JobHeld}, apply: applyPriority},
	backend.VerbRetry:    {words: "be retried before it ended", states: finalStates, apply: nil},
	backend.VerbClear:    {words: "be cleared before it ended", states: finalStates, apply: applyClear},
	backend.VerbPromote:  {words: "be moved", states: []backend.JobState{backend.JobQueued}, extra: (*record).ready, moves: true},
	backend.VerbUp:       {words: "be moved", states: []backend.JobState{backend.JobQueued}, extra: (*record).ready, moves: true},
	backend.VerbDown:     {words: "be moved", states: []backend.JobState{backend.JobQueued}, extra: (*record).ready, moves: true},
	backend.VerbBottom:   {words: "be moved", states: []backend.JobState{backend.JobQueued}, extra: (*record).ready, moves: true},
}

// finalStates are the states that never change again.
var finalStates = []backend.JobState{backend.JobSucceeded, backend.JobFailed, backend.JobCancelled}

// Act does something to the selected jobs and returns them as they are then; of a
// retry, the new jobs; of a clear, the jobs as they were. By id, a job in the
// wrong state is an error and nothing is done; otherwise such jobs are left out.
// A retry without ids and states takes failed and cancelled jobs only.
//
// Cancel ends jobs without an open attempt at once; those with one get
// Cancelling and are returned, and the dispatcher ends them. A sent job that is
// held becomes held with its attempt still open: the dispatcher takes it back.
// Moves act among the ready jobs of the same owner and priority.
func (s *Store) Act(ctx context.Context, a backend.JobAction) ([]backend.Job, error) {
	v, ok := verbs[a.Verb]
	if !ok {
		return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("no verb %q", a.Verb),
			"verbs: cancel retry hold release promote up down bottom priority clear")
	}
	targets, err := s.targets(ctx, a, v)
	if err != nil {
		return nil, err
	}
	step := actStep
	if v.moves {
		if step = len(targets); step > moveMax {
			return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("%d jobs cannot be moved at once, %d can", step, moveMax), "name fewer, or change their priority")
		}
	}
	out := make([]backend.Job, 0, len(targets))
	for part := range slices.Chunk(targets, max(step, 1)) {
		var done []backend.Job
		err := s.do(ctx, "record the action", longPatience, func(t *tx) (err error) {
			done, err = t.act(part, a, v)
			return err
		})
		if err != nil {
			return out, err
		}
		out = append(out, done...)
	}
	return out, nil
}

// targets lists the jobs an action is for, in the order it is done: that of the
// queue for moves, the oldest first for the rest.
func (s *Store) targets(ctx context.Context, a backend.JobAction, v verb) (out []int64, err error) {
	f := a.Jobs
	if len(f.IDs) == 0 && len(f.States) == 0 {
		f.States = v.states
		if a.Verb == backend.VerbRetry {
			f.States = []backend.JobState{backend.JobFailed, backend.JobCancelled}
		}
	}
	if v.moves && len(f.IDs) == 0 {
		f.Order = "queue"
	}
	err = s.read(ctx, func(q *queries) error {
		if out, err = q.selectJobs(f); err != nil || v.moves {
			return err
		}
		slices.Sort(out)
		return nil
	})
	return out, err
}

// act does an action to some jobs. It refuses before it writes.
func (t *tx) act(seqs []int64, a backend.JobAction, v verb) ([]backend.Job, error) {
	all, err := t.loadAll(seqs)
	if err != nil {
		return nil, err
	}
	list := all[:0]
	for _, r := range all {
		switch {
		case slices.Contains(v.states, r.job.State) && (v.extra == nil || v.extra(r)):
			list = append(list, r)
		case len(a.Jobs.IDs) > 0:
			return nil, wrongState(r, v.words)
		}
	}
	out := make([]backend.Job, 0, len(list))
	if v.moves {
		return t.moveAll(list, a)
	}
	for _, r := range list {
		j, err := t.actOne(r, a, v)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// actOne does an action that concerns one job at a time.
func (t *tx) actOne(r *record, a backend.JobAction, v verb) (backend.Job, error) {
	if a.Verb == backend.VerbRetry {
		return t.retry(r)
	}
	if err := v.apply(t, r, a); err != nil {
		return backend.Job{}, err
	}
	if a.Verb != backend.VerbClear {
		if err := t.save(r); err != nil {
			return backend.Job{}, err
		}
	}
	return t.shown(r)
}

// by are the details of an event that a person caused.
func by(a backend.JobAction) map[string]any {
	data := map[string]any{}
	if a.By != "" {
		data["by"] = a.By
	}
	return data
}

func applyCancel(t *tx, r *record, a backend.JobAction) error {
	if r.open > 0 {
		return t.markCancelling(r, a.By)
	}
	return t.settle(r, backend.JobCancelled, by(a))
}

func applyHold(t *tx, r *record, a backend.JobAction) error {
	return t.settle(r, backend.JobHeld, by(a))
}

func applyRelease(t *tx, r *record, a backend.JobAction) error {
	r.wake, r.job.NotBefore = 0, backend.Time{}
	if r.job.State == backend.JobHeld {
		return t.settle(r, backend.JobQueued, by(a))
	}
	data := by(a)
	data["from"], data["to"], data["reason"] = r.job.State, r.job.State, "released"
	return t.emit(r, backend.EventState, data)
}

func applyPriority(t *tx, r *record, a backend.JobAction) error {
	p := clampPriority(r.job.Priority + clampPriority(a.Delta))
	if p == r.job.Priority {
		return nil
	}
	data := by(a)
	data["verb"], data["from"], data["to"] = a.Verb, r.job.Priority, p
	r.job.Priority = p
	return t.emit(r, backend.EventMoved, data)
}

func applyClear(t *tx, r *record, a backend.JobAction) error {
	if err := t.emit(r, backend.EventCleared, by(a)); err != nil {
		return err
	}
	return t.remove(r)
}

// remove takes a job out of the records, with its attempts and outputs and the
// graph if nobody else uses it. Its events and its key stay for their time. The
// files it produced are not touched.
func (t *tx) remove(r *record) error {
	for _, q := range []string{`DELETE FROM attempts WHERE job = ?`, `DELETE FROM outputs WHERE job = ?`, `DELETE FROM jobs WHERE seq = ?`} {
		if _, err := t.exec(q, r.seq); err != nil {
			return err
		}
	}
	return firstError(t.dropBlob(r.graph), t.dropBlob(r.workflow))
}

// retry accepts a new job that does the same as r, graph with its seed included.
func (t *tx) retry(r *record) (backend.Job, error) {
	old := r.job
	n := &newJob{record: record{graph: r.graph, workflow: r.workflow, noCheck: r.noCheck, job: backend.Job{
		ID: uuid.NewString(), Name: old.Name, Owner: old.Owner, Source: old.Source, Priority: old.Priority, Labels: old.Labels,
		Group: old.Group, TimeoutS: old.TimeoutS, RetryOf: &old.ID, Created: t.now, State: backend.JobQueued,
		Attempts: []backend.Attempt{}, Outputs: []backend.Output{},
	}}}
	return t.insert(n)
}

// moveAll moves jobs. list is in the order of selection: of the queue without
// ids, of the ids otherwise, which is put right here.
func (t *tx) moveAll(list []*record, a backend.JobAction) ([]backend.Job, error) {
	slices.SortFunc(list, func(x, y *record) int {
		if x.job.Priority != y.job.Priority {
			return y.job.Priority - x.job.Priority
		}
		return compare(x.rank, y.rank)
	})
	order := slices.Clone(list)
	if a.Verb == backend.VerbDown || a.Verb == backend.VerbPromote {
		slices.Reverse(order) // the last first, so that their own order stays
	}
	stuck := map[int64]bool{} // selected jobs that cannot move further
	for _, r := range order {
		moved, err := t.move(r, list, stuck, a.Verb)
		if err != nil {
			return nil, err
		}
		if !moved {
			stuck[r.seq] = true
			continue
		}
		data := by(a)
		data["verb"] = a.Verb
		if err := firstError(t.emit(r, backend.EventMoved, data), t.save(r)); err != nil {
			return nil, err
		}
	}
	out := make([]backend.Job, 0, len(list))
	for _, r := range list {
		j, err := t.shown(r)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, nil
}

// move gives one job its new rank and reports whether it moved. The caller saves
// it.
func (t *tx) move(r *record, selected []*record, stuck map[int64]bool, v backend.Verb) (bool, error) {
	earlier := v == backend.VerbUp || v == backend.VerbPromote
	other, err := t.neighbour(r, earlier)
	if err != nil || other == 0 || stuck[other] {
		return false, err // the first, the last, or behind one that cannot move
	}
	switch v {
	case backend.VerbPromote:
		r.rank = t.top()
		return true, nil
	case backend.VerbBottom:
		r.rank = t.bottom()
		return true, nil
	}
	return true, t.swap(r, other, selected)
}

// neighbour is the ready job just before or after r in its lane, 0 for none.
func (t *tx) neighbour(r *record, earlier bool) (seq int64, err error) {
	query := `SELECT seq FROM jobs INDEXED BY jobs_ready WHERE ready = 1 AND priority = ? AND owner = ? AND rank > ? ORDER BY rank LIMIT 1`
	if earlier {
		query = `SELECT seq FROM jobs INDEXED BY jobs_ready WHERE ready = 1 AND priority = ? AND owner = ? AND rank < ? ORDER BY rank DESC LIMIT 1`
	}
	_, err = t.row(query, []any{r.job.Priority, r.job.Owner, r.rank}, &seq)
	return seq, err
}

// swap exchanges the ranks of two jobs of a lane.
func (t *tx) swap(r *record, other int64, selected []*record) error {
	var rank int64
	if _, err := t.row(`SELECT rank FROM jobs WHERE seq = ?`, []any{other}, &rank); err != nil {
		return err
	}
	if _, err := t.exec(`UPDATE jobs SET rank = ? WHERE seq = ?`, r.rank, other); err != nil {
		return err
	}
	for _, x := range selected {
		if x.seq == other {
			x.rank = r.rank
		}
	}
	r.rank = rank
	return nil
}

// compare orders two numbers.
func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
