package jobs

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"easel/backend"
)

// inState brings a new job into a state and returns it with its open attempt.
func inState(t *testing.T, s *Store, st string) (backend.Job, int) {
	t.Helper()
	ctx := context.Background()
	in := sub("a")
	in.Hold = st == "held"
	j := submit(t, s, in)
	n := 0
	var err error
	switch st {
	case "queued", "held":
	case "sent":
		n = send(t, s, j.ID)
	case "held+sent":
		n = send(t, s, j.ID)
		act(t, s, backend.VerbHold, j.ID)
	case "running":
		n = runJob(t, s, j.ID)
	case "succeeded":
		n = runJob(t, s, j.ID)
		finish(t, s, j.ID, n)
	case "failed":
		_, err = s.Fail(ctx, j.ID, &backend.Error{Kind: backend.KindInvalid, Message: "no"})
	case "cancelled":
		act(t, s, backend.VerbCancel, j.ID)
	default:
		t.Fatalf("no state %s", st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return get(t, s, j.ID), n
}

// TestStateMachine does every thing in every state: what becomes of the job, or
// that it is refused and nothing changed.
func TestStateMachine(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	end := func(o backend.Outcome, st backend.JobState) func(string, int) error {
		return func(id string, n int) error {
			_, err := s.End(ctx, id, n, End{Outcome: o, State: st, Error: &backend.Error{Kind: "exception"}})
			return err
		}
	}
	verb := func(v backend.Verb) func(string, int) error {
		return func(id string, _ int) error {
			_, err := s.Act(ctx, backend.JobAction{Verb: v, Jobs: backend.JobFilter{IDs: []string{id}}})
			return err
		}
	}
	doing := map[string]func(id string, n int) error{
		"send": func(id string, _ int) error {
			_, _, err := s.Sent(ctx, id, backend.Attempt{PromptID: uuid.NewString()})
			return err
		},
		"start":       func(id string, n int) error { _, err := s.Started(ctx, id, n, time.Now()); return err },
		"take back":   func(id string, n int) error { _, err := s.TakeBack(ctx, id, n, "test"); return err },
		"succeed":     end(backend.OutcomeSucceeded, backend.JobSucceeded),
		"fail":        end(backend.OutcomeFailed, backend.JobFailed),
		"lose":        end(backend.OutcomeLost, backend.JobQueued),
		"stop":        end(backend.OutcomeCancelled, backend.JobCancelled),
		"refuse":      func(id string, _ int) error { _, err := s.Fail(ctx, id, &backend.Error{Kind: "invalid"}); return err },
		"cancelling":  func(id string, _ int) error { _, err := s.SetCancelling(ctx, id); return err },
		"add outputs": func(id string, n int) error { _, err := s.AddOutputs(ctx, id, n, nil); return err },
		"cancel":      verb(backend.VerbCancel), "hold": verb(backend.VerbHold), "release": verb(backend.VerbRelease),
		"clear": verb(backend.VerbClear), "promote": verb(backend.VerbPromote), "priority": verb(backend.VerbPriority),
	}
	// Only what is allowed is listed: action → state → state after.
	allowed := map[string]map[string]backend.JobState{
		"send":        {"queued": "queued"},
		"start":       {"sent": "running", "held+sent": "running"},
		"take back":   {"sent": "queued", "held+sent": "held"},
		"succeed":     {"sent": "succeeded", "held+sent": "succeeded", "running": "succeeded"},
		"fail":        {"sent": "failed", "held+sent": "failed", "running": "failed"},
		"lose":        {"sent": "queued", "held+sent": "held", "running": "queued"},
		"stop":        {"sent": "cancelled", "held+sent": "cancelled", "running": "cancelled"},
		"refuse":      {"queued": "failed", "held": "failed"},
		"cancelling":  {"sent": "queued", "held+sent": "held", "running": "running"},
		"add outputs": {"sent": "queued", "held+sent": "held", "running": "running"},
		"cancel":      {"queued": "cancelled", "held": "cancelled", "sent": "queued", "held+sent": "held", "running": "running"},
		"hold":        {"queued": "held", "sent": "held"},
		"release":     {"held": "queued", "held+sent": "queued"},
		"clear":       {"succeeded": "", "failed": "", "cancelled": ""},
		"promote":     {"queued": "queued"},
		"priority":    {"queued": "queued", "held": "held", "sent": "queued", "held+sent": "held"},
	}
	for name, do := range doing {
		for _, st := range []string{"queued", "held", "sent", "held+sent", "running", "succeeded", "failed", "cancelled"} {
			t.Run(name+" when "+st, func(t *testing.T) {
				j, n := inState(t, s, st)
				seq := s.LastSeq()
				err := do(j.ID, n)
				want, ok := allowed[name][st]
				if !ok {
					wantKind(t, err, backend.FailConflict)
					if got := get(t, s, j.ID); fmt.Sprint(got.State, len(got.Attempts)) != fmt.Sprint(j.State, len(j.Attempts)) || s.LastSeq() != seq {
						t.Errorf("refused, and still became %s", got.State)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if want == "" {
					_, err := s.Get(ctx, j.ID)
					wantKind(t, err, backend.FailNotFound)
					return
				}
				got := get(t, s, j.ID)
				if got.State != want || got.State.Final() != !got.Finished.IsZero() {
					t.Errorf("became %s (finished %v), want %s", got.State, got.Finished, want)
				}
			})
		}
	}
}

func TestOneAttemptAtATime(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	j := submit(t, s, sub("a"))
	a := backend.Attempt{PromptID: "p1"}
	if _, n, err := s.Sent(ctx, j.ID, a); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	_, _, err := s.Sent(ctx, j.ID, backend.Attempt{PromptID: "p2"})
	wantKind(t, err, backend.FailConflict)
	if _, err := s.End(ctx, j.ID, 1, End{Outcome: backend.OutcomeLost, State: backend.JobQueued}); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Sent(ctx, j.ID, a)
	wantKind(t, err, backend.FailConflict) // a prompt id is never used twice
	if _, n, err := s.Sent(ctx, j.ID, backend.Attempt{PromptID: "p2"}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	_, err = s.End(ctx, j.ID, 1, End{Outcome: backend.OutcomeSucceeded, State: backend.JobSucceeded})
	wantKind(t, err, backend.FailConflict)
	if got, n, err := s.ByPrompt(ctx, "p1"); err != nil || n != 1 || got.ID != j.ID {
		t.Errorf("p1 is attempt %d of %s, %v", n, got.ID, err)
	}
	_, _, err = s.ByPrompt(ctx, "p9")
	wantKind(t, err, backend.FailNotFound)
}

func TestLostJobLosesItsOutputsAndHonoursACancel(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	j := submit(t, s, sub("a"))
	n := runJob(t, s, j.ID)
	if _, err := s.AddOutputs(ctx, j.ID, n, []backend.Output{{Filename: "x.png"}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.End(ctx, j.ID, n, End{Outcome: backend.OutcomeLost, State: backend.JobQueued, Leftovers: []string{"x.png"}})
	if err != nil || len(got.Outputs) != 0 || len(get(t, s, j.ID).Outputs) != 0 || got.Attempts[0].Leftovers[0] != "x.png" {
		t.Fatalf("%+v, %v", got, err)
	}
	n = runJob(t, s, j.ID)
	if list := act(t, s, backend.VerbCancel, j.ID); !list[0].Cancelling || list[0].State != backend.JobRunning {
		t.Fatalf("%+v", list[0])
	}
	got, err = s.End(ctx, j.ID, n, End{Outcome: backend.OutcomeLost, State: backend.JobQueued})
	if err != nil || got.State != backend.JobCancelled || got.Cancelling {
		t.Errorf("a lost job whose cancel waited is %s, %v", got.State, err)
	}
	// The same for one that was only sent.
	j = submit(t, s, sub("a"))
	n = send(t, s, j.ID)
	act(t, s, backend.VerbCancel, j.ID)
	got, err = s.TakeBack(ctx, j.ID, n, "cancel")
	if err != nil || got.State != backend.JobCancelled || len(got.Attempts) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
