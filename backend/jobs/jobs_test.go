package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"easel/backend"
)

// childEnv makes the test binary play the process that durable_test kills.
const childEnv = "EASEL_JOBS_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		childSubmits(path)
		return
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// open opens a store in a directory of its own.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "jobs.db"), o)
}

// openAt opens a store and closes it with the test.
func openAt(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// sub is a small submission of an owner.
func sub(owner string) backend.Submission {
	return backend.Submission{
		Name: "n", Owner: owner, Source: backend.SourceCLI,
		Graph: json.RawMessage(`{"1":{"class_type":"EaselSketch","inputs":{"seed":7}}}`),
	}
}

// submit accepts a job.
func submit(t testing.TB, s *Store, in backend.Submission) backend.Job {
	t.Helper()
	j, created, err := s.Submit(context.Background(), in)
	if err != nil || !created {
		t.Fatalf("submit: created %v, %v", created, err)
	}
	return j
}

// send opens an attempt.
func send(t testing.TB, s *Store, id string) int {
	t.Helper()
	_, n, err := s.Sent(context.Background(), id, backend.Attempt{PromptID: uuid.NewString(), Worker: "cpu", Launch: "l1"})
	if err != nil {
		t.Fatalf("sent: %v", err)
	}
	return n
}

// runJob opens an attempt and starts it.
func runJob(t testing.TB, s *Store, id string) int {
	t.Helper()
	n := send(t, s, id)
	if _, err := s.Started(context.Background(), id, n, time.Now()); err != nil {
		t.Fatalf("started: %v", err)
	}
	return n
}

// finish ends the open attempt well.
func finish(t testing.TB, s *Store, id string, n int) backend.Job {
	t.Helper()
	j, err := s.End(context.Background(), id, n, End{Outcome: backend.OutcomeSucceeded, State: backend.JobSucceeded, InferenceS: 1.5})
	if err != nil {
		t.Fatalf("end: %v", err)
	}
	return j
}

// get reads a job.
func get(t testing.TB, s *Store, id string) backend.Job {
	t.Helper()
	j, err := s.Get(context.Background(), id)
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return j
}

// act does something by id.
func act(t testing.TB, s *Store, v backend.Verb, ids ...string) []backend.Job {
	t.Helper()
	list, err := s.Act(context.Background(), backend.JobAction{Verb: v, Jobs: backend.JobFilter{IDs: ids}, By: "test", Delta: 1})
	if err != nil {
		t.Fatalf("%s: %v", v, err)
	}
	return list
}

// wantKind fails the test unless err is a Failure of the kind.
func wantKind(t testing.TB, err error, kind string) *backend.Failure {
	t.Helper()
	var f *backend.Failure
	if !errors.As(err, &f) || f.Kind != kind {
		t.Fatalf("want failure %s, got %v", kind, err)
	}
	return f
}

// order is the queue as short names, by the name of each job.
func order(t testing.TB, s *Store) string {
	t.Helper()
	list, err := s.Waiting(context.Background(), 100, time.Now())
	if err != nil {
		t.Fatalf("waiting: %v", err)
	}
	names := make([]string, 0, len(list))
	for i, j := range list {
		names = append(names, j.Name)
		if j.Position == nil || *j.Position != i+1 {
			t.Errorf("%s: position %v in a list, want %d", j.Name, j.Position, i+1)
		}
		if one := get(t, s, j.ID); one.Position == nil || *one.Position != i+1 {
			t.Errorf("%s: position %v by itself, want %d", j.Name, one.Position, i+1)
		}
	}
	return strings.Join(names, " ")
}

func TestLifeOfAJob(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	in := sub("ann")
	in.Labels, in.Group, in.Workflow = map[string]string{"task_id": "t1"}, "g", json.RawMessage(`{"nodes":[]}`)
	j := submit(t, s, in)
	if j.State != backend.JobQueued || j.Position == nil || *j.Position != 1 || j.WaitReason != "next" {
		t.Fatalf("accepted: %+v", j)
	}
	n := send(t, s, j.ID)
	if got := get(t, s, j.ID); got.State != backend.JobQueued || got.WaitReason != "next in worker" || got.Attempts[0].Outcome != backend.OutcomeSent {
		t.Fatalf("sent: %+v", got)
	}
	if _, err := s.Started(ctx, j.ID, n, time.Now()); err != nil {
		t.Fatal(err)
	}
	lost, err := s.End(ctx, j.ID, n, End{
		Outcome: backend.OutcomeLost, State: backend.JobQueued, InferenceS: 2,
		Verdict: &backend.Verdict{Kind: backend.KindKilled}, Leftovers: []string{"a_00001_.png"},
	})
	if err != nil || lost.State != backend.JobQueued || lost.Attempts[0].Verdict.Kind != backend.KindKilled {
		t.Fatalf("lost: %+v, %v", lost, err)
	}
	n = runJob(t, s, j.ID)
	size := int64(12)
	if _, err := s.AddOutputs(ctx, j.ID, n, []backend.Output{{Node: "9", Kind: "image", Filename: "a_00002_.png"}}); err != nil {
		t.Fatal(err)
	}
	done, err := s.End(ctx, j.ID, n, End{
		Outcome: backend.OutcomeSucceeded, State: backend.JobSucceeded, InferenceS: 3, Shape: "s",
		Outputs: []backend.Output{{Node: "9", Kind: "image", Filename: "a_00002_.png", Bytes: &size}}, PeakVRAM: 5,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, j.ID[:6]); len(done.Outputs) != 1 || len(got.Attempts) != 2 || len(got.Outputs) != 1 ||
		*got.Outputs[0].Bytes != 12 || *got.InferenceS != 5 || *got.PeakVRAM != 5 || got.GPUS != nil || got.Finished.IsZero() || got.Labels["task_id"] != "t1" {
		t.Fatalf("done: %+v", got)
	}
	graph, workflow, err := s.Graph(ctx, j.ID)
	if err != nil || string(graph) != string(in.Graph) || string(workflow) != string(in.Workflow) {
		t.Fatalf("graph %s, workflow %s, %v", graph, workflow, err)
	}
	if sec, runs, err := s.Seconds(ctx, "s"); sec != 3 || runs != 1 || err != nil {
		t.Fatalf("seconds %v of %d, %v", sec, runs, err)
	}
	events, err := s.JobEvents(ctx, j.ID)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make([]string, 0, len(events))
	for i, e := range events {
		if e.JobSeq != int64(i+1) {
			t.Errorf("event %d has number %d", i+1, e.JobSeq)
		}
		kinds = append(kinds, string(e.Kind))
	}
	want := "accepted sent started attempt-ended state sent started output attempt-ended state"
	if got := strings.Join(kinds, " "); got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

// noise is text that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('!' + rand.IntN(90))
	}
	return string(b)
}

func TestReplayFindsWhatAKeyMade(t *testing.T) {
	s := open(t, Options{})
	in := sub("me")
	in.Key = "monday"
	if _, found, err := s.Replay(t.Context(), in); found || err != nil {
		t.Fatalf("a new key: %v %v", found, err)
	}
	job, _, err := s.Submit(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	again, found, err := s.Replay(t.Context(), in)
	if err != nil || !found || again.ID != job.ID {
		t.Errorf("replay: %v %v %v", again.ID, found, err)
	}
	in.Name = "another body"
	if _, found, err := s.Replay(t.Context(), in); found || backend.FailureOf(err).Kind != backend.FailConflict {
		t.Errorf("another body: %v %v", found, err)
	}
}
