package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"easel/backend"
)

func TestIdempotencyKeys(t *testing.T) {
	now := time.Now()
	s := open(t, Options{Now: func() time.Time { return now }, Limit: 2})
	ctx := context.Background()
	in := sub("a")
	in.Key = "k1"
	first := submit(t, s, in)

	spaced := in
	spaced.Graph = json.RawMessage(strings.ReplaceAll(string(in.Graph), ",", ", "))
	spaced.Warnings = []string{"found by a check"}
	for _, same := range []backend.Submission{in, spaced} {
		j, created, err := s.Submit(ctx, same)
		if err != nil || created || j.ID != first.ID {
			t.Errorf("the same again made %s (created %v), %v", j.ID, created, err)
		}
	}
	other := in
	other.Priority = 3
	_, _, err := s.Submit(ctx, other)
	if f := wantKind(t, err, backend.FailConflict); !strings.Contains(f.Message, short(first.ID)) {
		t.Errorf("the refusal does not name the first job: %s", f.Message)
	}
	// Another owner's key is another key, and a full queue does not refuse a job it has.
	in.Owner = "b"
	submit(t, s, in)
	in.Owner = "a"
	if _, created, err := s.Submit(ctx, in); created || err != nil {
		t.Errorf("in a full queue: created %v, %v", created, err)
	}
	in.Key = "k2"
	_, _, err = s.Submit(ctx, in)
	wantKind(t, err, backend.FailFull)
	// A job that was cleared is not run again by a late repetition.
	act(t, s, backend.VerbCancel, first.ID)
	act(t, s, backend.VerbClear, first.ID)
	in.Key = "k1"
	_, _, err = s.Submit(ctx, in)
	wantKind(t, err, backend.FailConflict)
	now = now.Add(keyLife)
	if _, created, err := s.Submit(ctx, in); !created || err != nil {
		t.Errorf("after a day: created %v, %v", created, err)
	}
}

func TestOneKeyOfManyCallersMakesOneJob(t *testing.T) {
	s := open(t, Options{})
	in := sub("a")
	in.Key = "k"
	ids := make(chan string, 32)
	var wg sync.WaitGroup
	for range cap(ids) {
		wg.Go(func() {
			j, _, err := s.Submit(context.Background(), in)
			if err != nil {
				t.Error(err)
			}
			ids <- j.ID
		})
	}
	wg.Wait()
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first {
			t.Errorf("two jobs, %s and %s", first, id)
		}
	}
}

func TestBadSubmissions(t *testing.T) {
	s := open(t, Options{})
	for name, in := range map[string]backend.Submission{
		"no graph":     {},
		"not JSON":     {Graph: json.RawMessage(`{"1":`)},
		"no object":    {Graph: json.RawMessage(`[1]`)},
		"bad workflow": {Graph: json.RawMessage(`{}`), Workflow: json.RawMessage(`{`)},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.Submit(context.Background(), in)
			wantKind(t, err, backend.FailInvalid)
		})
	}
	if s.LastSeq() != 0 {
		t.Error("something was written down")
	}
}

func TestIDsByPrefix(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	ids := []string{"abcd0000-0000-4000-8000-000000000001", "abcd1111-0000-4000-8000-000000000001", "ffff0000-0000-4000-8000-000000000001"}
	for _, id := range ids {
		err := s.do(ctx, "insert", time.Minute, func(tx *tx) error {
			n, err := s.prepareJob(sub("a"))
			if err != nil {
				return err
			}
			n.job.ID = id
			_, err = tx.insert(n)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"ffff": ids[2], "ABCD0": ids[0], ids[1]: ids[1], " abcd1 ": ids[1]} {
		if got := get(t, s, prefix); got.ID != want {
			t.Errorf("%q is %s", prefix, got.ID)
		}
	}
	_, err := s.Get(ctx, "abcd")
	if f := wantKind(t, err, backend.FailConflict); !strings.Contains(f.Message, ids[0]) || !strings.Contains(f.Message, ids[1]) {
		t.Errorf("candidates are not named: %s", f.Message)
	}
	for id, kind := range map[string]string{
		"abc": backend.FailUsage, "": backend.FailUsage, "1234": backend.FailNotFound, "xyz%": backend.FailNotFound,
		ids[0] + "0": backend.FailNotFound, "'; DROP": backend.FailNotFound,
	} {
		_, err := s.Get(ctx, id)
		wantKind(t, err, kind)
		_, _, err = s.Graph(ctx, id)
		wantKind(t, err, kind)
	}
}

func TestListFilters(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	ids := named(t, s, 0, "a1", "b1", "a2", "b2", "a3")
	in := sub("c")
	in.Name, in.Group, in.Hold = "c1", "g", true
	ids["c1"] = submit(t, s, in).ID
	runJob(t, s, ids["a1"])
	act(t, s, backend.VerbCancel, ids["a2"])
	send(t, s, ids["b1"])
	st := func(list ...backend.JobState) []backend.JobState { return list }
	tests := []struct {
		name string
		f    backend.JobFilter
		want string
	}{
		{"all, newest first", backend.JobFilter{}, "c1 a3 b2 a2 b1 a1"},
		{"limit", backend.JobFilter{Limit: 2}, "c1 a3"},
		{"before", backend.JobFilter{Before: ids["b2"], Limit: 2}, "a2 b1"},
		{"owner", backend.JobFilter{Owner: "a"}, "a3 a2 a1"},
		{"owner and state", backend.JobFilter{Owner: "a", States: st(backend.JobQueued)}, "a3"},
		{"group", backend.JobFilter{Group: "g"}, "c1"},
		{"group and another owner", backend.JobFilter{Group: "g", Owner: "a"}, ""},
		{"states", backend.JobFilter{States: st(backend.JobQueued, backend.JobHeld, backend.JobQueued)}, "c1 a3 b2 b1"},
		{"states, limit, before", backend.JobFilter{States: st(backend.JobQueued, backend.JobHeld), Limit: 2, Before: ids["c1"]}, "a3 b2"},
		{"queue", backend.JobFilter{Order: "queue"}, "a1 b1 a3 b2 c1"},
		{"queue of an owner", backend.JobFilter{Order: "queue", Owner: "b", Limit: 1}, "b1"},
		{"queued in order", backend.JobFilter{Order: "queue", States: st(backend.JobQueued), Limit: 2}, "b1 a3"},
		{"ids", backend.JobFilter{IDs: []string{ids["a1"], ids["b2"][:13], ids["a1"]}}, "b2 a1"},
		{"ids and state", backend.JobFilter{IDs: []string{ids["a1"], ids["b2"]}, States: st(backend.JobRunning)}, "a1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := s.List(ctx, tt.f)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, j := range list {
				names = append(names, j.Name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	for _, bad := range []backend.JobFilter{{States: st("done")}, {Order: "size"}} {
		_, err := s.List(ctx, bad)
		wantKind(t, err, backend.FailUsage)
	}
	o, err := s.Overview(ctx, 2, 5)
	if err != nil || o.Seq != s.LastSeq() || len(o.Jobs) != 3 || o.Jobs[0].Name != "a1" || len(o.Recent) != 1 || o.Recent[0].Name != "a2" {
		t.Errorf("overview %+v, %v", o, err)
	}
	if want := (backend.QueueCounts{Queued: 3, Running: 1, Held: 1}); o.Counts != want {
		t.Errorf("counts %+v", o.Counts)
	}
}

func TestRetryAndClear(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	in := sub("a")
	in.Group, in.Priority, in.Labels, in.NoCheck, in.Workflow = "g", 4, map[string]string{"x": "y"}, true, json.RawMessage(`{"w":1}`)
	ok, bad := submit(t, s, in), submit(t, s, in)
	finish(t, s, ok.ID, runJob(t, s, ok.ID))
	if _, err := s.Fail(ctx, bad.ID, &backend.Error{Kind: "invalid"}); err != nil {
		t.Fatal(err)
	}
	// By filter only what failed is tried again.
	again, err := s.Act(ctx, backend.JobAction{Verb: backend.VerbRetry, Jobs: backend.JobFilter{Group: "g"}})
	if err != nil || len(again) != 1 {
		t.Fatal(again, err)
	}
	n := again[0]
	graph, workflow, err := s.Graph(ctx, n.ID)
	noCheck, err2 := s.NoCheck(ctx, n.ID)
	if err != nil || err2 != nil || *n.RetryOf != bad.ID || n.Group != "g" || n.Priority != 4 || n.Labels["x"] != "y" || n.Owner != "a" || !noCheck ||
		n.State != backend.JobQueued || n.Error != nil || string(graph) != string(in.Graph) || string(workflow) != string(in.Workflow) {
		t.Errorf("retried: %+v, graph %s, %v %v", n, graph, err, err2)
	}
	if list := act(t, s, backend.VerbRetry, ok.ID); *list[0].RetryOf != ok.ID {
		t.Errorf("a job that ended well, by id: %+v", list[0])
	}
	_, err = s.Act(ctx, backend.JobAction{Verb: backend.VerbRetry, Jobs: backend.JobFilter{IDs: []string{n.ID}}})
	wantKind(t, err, backend.FailConflict)

	cleared, err := s.Act(ctx, backend.JobAction{Verb: backend.VerbClear})
	if err != nil || len(cleared) != 2 {
		t.Fatal(cleared, err)
	}
	if blobs, refs := countBlobs(t, s); blobs != 2 || refs != 4 {
		t.Errorf("%d graphs with %d users", blobs, refs)
	}
	if list, _ := s.List(ctx, backend.JobFilter{}); len(list) != 2 {
		t.Errorf("%d jobs are left", len(list))
	}
	if _, err := s.Act(ctx, backend.JobAction{Verb: backend.VerbCancel}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Act(ctx, backend.JobAction{Verb: backend.VerbClear}); err != nil {
		t.Fatal(err)
	}
	if blobs, _ := countBlobs(t, s); blobs != 0 {
		t.Errorf("%d graphs are left without a job", blobs)
	}
	_, err = s.Act(ctx, backend.JobAction{Verb: "dance"})
	wantKind(t, err, backend.FailUsage)
}

// countBlobs is how many graphs are stored, and for how many users.
func countBlobs(t *testing.T, s *Store) (n, refs int) {
	t.Helper()
	if err := s.readDB.QueryRow(`SELECT count(*), coalesce(sum(refs), 0) FROM blobs`).Scan(&n, &refs); err != nil {
		t.Fatal(err)
	}
	return n, refs
}

func TestActionOnAWrongJobDoesNothing(t *testing.T) {
	s := open(t, Options{})
	ids := named(t, s, 0, "a1", "a2")
	act(t, s, backend.VerbCancel, ids["a2"])
	_, err := s.Act(context.Background(), backend.JobAction{Verb: backend.VerbHold, Jobs: backend.JobFilter{IDs: []string{ids["a1"], ids["a2"]}}})
	wantKind(t, err, backend.FailConflict)
	if got := get(t, s, ids["a1"]); got.State != backend.JobQueued {
		t.Errorf("the first is %s", got.State)
	}
	// Without ids it is left out.
	list, err := s.Act(context.Background(), backend.JobAction{Verb: backend.VerbHold})
	if err != nil || len(list) != 1 || list[0].ID != ids["a1"] {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestCancelWholeQueueInSteps(t *testing.T) {
	s := open(t, Options{})
	fillQueue(t, s, 3*actStep+1, 3)
	list, err := s.Act(context.Background(), backend.JobAction{Verb: backend.VerbCancel})
	if err != nil || len(list) != 3*actStep+1 {
		t.Fatal(len(list), err)
	}
	if c, err := s.Counts(context.Background()); err != nil || c.Queued != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	var lanes int
	if err := s.readDB.QueryRow(`SELECT count(*) FROM lanes`).Scan(&lanes); err != nil || lanes != 0 {
		t.Errorf("%d lanes without a job, %v", lanes, err)
	}
}

func TestLiveEventsAreWholeAndInOrder(t *testing.T) {
	s := open(t, Options{})
	events, cancel := s.Subscribe(10_000)
	defer cancel()
	slow, _ := s.Subscribe(1)
	const callers, each = 16, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for range each {
				j := submit(t, s, sub(fmt.Sprint(c)))
				finish(t, s, j.ID, runJob(t, s, j.ID))
			}
		})
	}
	wg.Wait()
	const perJob = 5 // accepted sent started attempt-ended state
	states := map[string]backend.JobState{}
	for seq := int64(1); seq <= callers*each*perJob; seq++ {
		e := <-events
		if e.Seq != seq || e.Job == nil || e.Job.ID != e.JobID {
			t.Fatalf("event %d is %+v", seq, e)
		}
		states[e.JobID] = e.Job.State
	}
	for id, st := range states {
		if st != backend.JobSucceeded {
			t.Errorf("the last that was heard of %s is %s", id, st)
		}
	}
	kept, err := s.Events(context.Background(), 0, 0)
	if err != nil || len(kept) != callers*each*perJob || s.LastSeq() != kept[len(kept)-1].Seq {
		t.Errorf("%d events kept, last %d, %v", len(kept), s.LastSeq(), err)
	}
	<-slow
	if _, open := <-slow; open {
		t.Error("a reader that is too slow keeps its stream")
	}
	cancel()
	if _, open := <-events; open {
		t.Error("cancelled, and still open")
	}
}

func TestAGraphIsStoredOnce(t *testing.T) {
	s := open(t, Options{})
	in := sub("a")
	in.Graph = graphOf(64<<10, 1)
	for range 10 {
		submit(t, s, in)
	}
	if blobs, refs := countBlobs(t, s); blobs != 1 || refs != 10 {
		t.Errorf("%d graphs with %d users", blobs, refs)
	}
	var size int
	if err := s.readDB.QueryRow(`SELECT length(data) FROM blobs`).Scan(&size); err != nil || size > 32<<10 {
		t.Errorf("it takes %d bytes, %v", size, err)
	}
}

func TestRetention(t *testing.T) {
	now := time.Now()
	s := open(t, Options{Now: func() time.Time { return now }})
	ctx := context.Background()
	in := sub("a")
	in.Key = "k"
	old := submit(t, s, in)
	finish(t, s, old.ID, runJob(t, s, old.ID))
	waiting := submit(t, s, sub("a"))
	for i := range 2 * pruneStep {
		if err := s.AddDeath(ctx, backend.Verdict{Kind: backend.KindCrash, Launch: fmt.Sprint(i), At: backend.At(now)}); err != nil {
			t.Fatal(err)
		}
	}
	last := s.LastSeq()
	now = now.Add(15 * 24 * time.Hour)
	p, err := s.Retention(ctx)
	if err != nil || p.Events != last-1 || p.Keys != 1 || p.Jobs != 0 || p.Deaths != 0 {
		t.Errorf("after 15 days %+v, %v", p, err)
	}
	now = now.Add(80 * 24 * time.Hour)
	if p, err = s.Retention(ctx); err != nil || p.Jobs != 1 {
		t.Errorf("after 95 days %+v, %v", p, err)
	}
	_, err = s.Get(ctx, old.ID)
	wantKind(t, err, backend.FailNotFound)
	now = now.Add(300 * 24 * time.Hour)
	if p, err = s.Retention(ctx); err != nil || p.Deaths != 2*pruneStep {
		t.Errorf("after 395 days %+v, %v", p, err)
	}
	if got := get(t, s, waiting.ID); got.State != backend.JobQueued {
		t.Errorf("the waiting job is %s", got.State)
	}
	// The numbers go on, also over a restart.
	path := s.path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path, Options{})
	submit(t, s, sub("a"))
	if s.LastSeq() != last+1 {
		t.Errorf("event %d, want %d", s.LastSeq(), last+1)
	}
}

func TestDeathsAndMeta(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	for i, v := range []backend.Verdict{{Launch: "l1", Kind: "crash"}, {Launch: "l1", Kind: "unknown"}, {Launch: "l2", Kind: "asked"}, {Kind: "a"}, {Kind: "b"}} {
		if err := s.AddDeath(ctx, v); err != nil {
			t.Fatal(i, err)
		}
	}
	list, err := s.Deaths(ctx, 10)
	if err != nil || len(list) != 4 || list[0].Kind != "b" || list[3].Kind != "crash" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.SetMeta(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if v, err := s.GetMeta(ctx, "k"); v != "v" || err != nil {
		t.Error(v, err)
	}
	if v, err := s.GetMeta(ctx, "none"); v != "" || err != nil {
		t.Error(v, err)
	}
}

func TestASecondProcessIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	a, b := openAt(t, path, Options{}), openAt(t, path, Options{})
	for range 5 { // an engine that leaves and its successor overlap for a moment
		submit(t, a, sub("a"))
		submit(t, b, sub("b"))
	}
	events, err := a.Events(context.Background(), 0, 0)
	if err != nil || len(events) != 10 || events[9].Seq != 10 {
		t.Errorf("%d events, %v", len(events), err)
	}
}
