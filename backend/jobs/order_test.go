package jobs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"easel/backend"
)

// named submits jobs "owner+name", all of one priority.
func named(t *testing.T, s *Store, priority int, names ...string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for _, n := range names {
		in := sub(n[:1])
		in.Name, in.Priority = n, priority
		ids[n] = submit(t, s, in).ID
	}
	return ids
}

func TestOrderOfDispatch(t *testing.T) {
	s := open(t, Options{})
	ids := named(t, s, 0, "a1", "a2", "a3", "b1", "b2", "c1")
	named(t, s, 5, "a9")
	named(t, s, -1, "d1")
	if got := order(t, s); got != "a9 b1 c1 a1 b2 a2 a3 d1" {
		t.Errorf("order %s", got)
	}
	// b is served: the others come before it, whoever waits longest first.
	n := runJob(t, s, ids["b1"])
	if got := order(t, s); got != "a9 c1 b2 a1 a2 a3 d1" {
		t.Errorf("after b: %s", got)
	}
	finish(t, s, ids["b1"], n)
	// A sent job is first, and gives its turn back when it is taken back.
	n = send(t, s, ids["c1"])
	if got := get(t, s, ids["c1"]); *got.Position != 1 {
		t.Errorf("sent: position %v", *got.Position)
	}
	if got := get(t, s, ids["b2"]); *got.Position != 3 {
		t.Errorf("behind the sent and a9: position %v", *got.Position)
	}
	if _, err := s.TakeBack(context.Background(), ids["c1"], n, "test"); err != nil {
		t.Fatal(err)
	}
	if got := order(t, s); got != "a9 c1 b2 a1 a2 a3 d1" {
		t.Errorf("after taking back: %s", got)
	}
}

func TestEveryOwnerGetsItsTurn(t *testing.T) {
	s := open(t, Options{})
	var names []string
	for i := range 9 {
		names = append(names, fmt.Sprint("a", i))
	}
	named(t, s, 0, append(names, "b0", "b1", "c0")...)
	var served []string
	for range 12 {
		next, err := s.Waiting(context.Background(), 1, time.Now())
		if err != nil || len(next) != 1 {
			t.Fatal(next, err)
		}
		served = append(served, next[0].Name)
		finish(t, s, next[0].ID, runJob(t, s, next[0].ID))
	}
	if got := strings.Join(served, " "); got != "a0 b0 c0 a1 b1 a2 a3 a4 a5 a6 a7 a8" {
		t.Errorf("served %s", got)
	}
}

func TestMoves(t *testing.T) {
	tests := []struct {
		name  string
		verb  backend.Verb
		which string
		want  string
	}{
		{"up one place", backend.VerbUp, "a3", "a1 a3 a2 a4 a5"},
		{"up at the top stays", backend.VerbUp, "a1", "a1 a2 a3 a4 a5"},
		{"down one place", backend.VerbDown, "a3", "a1 a2 a4 a3 a5"},
		{"down at the bottom stays", backend.VerbDown, "a5", "a1 a2 a3 a4 a5"},
		{"to the top", backend.VerbPromote, "a4", "a4 a1 a2 a3 a5"},
		{"to the bottom", backend.VerbBottom, "a2", "a1 a3 a4 a5 a2"},
		{"two neighbours up", backend.VerbUp, "a4 a3", "a1 a3 a4 a2 a5"},
		{"two neighbours down", backend.VerbDown, "a2 a3", "a1 a4 a2 a3 a5"},
		{"two to the top keep their order", backend.VerbPromote, "a5 a3", "a3 a5 a1 a2 a4"},
		{"two to the bottom keep their order", backend.VerbBottom, "a3 a1", "a2 a4 a5 a1 a3"},
		{"up against the top", backend.VerbUp, "a1 a2 a4", "a1 a2 a4 a3 a5"},
		{"down against the bottom", backend.VerbDown, "a5 a4 a2", "a1 a3 a2 a4 a5"},
		{"higher priority", backend.VerbPriority, "a4", "a4 a1 a2 a3 a5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Options{})
			ids := named(t, s, 0, "a1", "a2", "a3", "a4", "a5")
			var which []string
			for _, w := range strings.Fields(tt.which) {
				which = append(which, ids[w])
			}
			if list := act(t, s, tt.verb, which...); len(list) != len(which) {
				t.Errorf("%d jobs back, want %d", len(list), len(which))
			}
			if got := order(t, s); got != tt.want {
				t.Errorf("order %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMovesActAmongTheOwnersJobs(t *testing.T) {
	s := open(t, Options{})
	ids := named(t, s, 0, "a1", "b1", "a2", "b2", "a3", "b3")
	act(t, s, backend.VerbPromote, ids["b3"])
	if got := order(t, s); got != "a1 b3 a2 b1 a3 b2" {
		t.Errorf("order %s", got)
	}
	act(t, s, backend.VerbUp, ids["a3"])
	if got := order(t, s); got != "a1 b3 a3 b1 a2 b2" {
		t.Errorf("order %s", got)
	}
}

func TestOvertaken(t *testing.T) {
	s := open(t, Options{})
	ctx := context.Background()
	ids := named(t, s, 0, "a1", "a2", "b1")
	send(t, s, ids["a1"])
	check := func(when string, want bool) {
		t.Helper()
		if got, err := s.Overtaken(ctx, ids["a1"]); got != want || err != nil {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	check("at first", false)
	act(t, s, backend.VerbUp, ids["a2"]) // already first among those that wait
	check("another was moved to where it was", false)
	act(t, s, backend.VerbPriority, ids["b1"])
	check("one of a higher priority", true)
}

func TestNotBeforeAndHold(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	s := open(t, Options{Now: func() time.Time { return now }})
	ctx := context.Background()
	in := sub("a")
	in.NotBefore = backend.At(now.Add(time.Hour))
	late := submit(t, s, in)
	in.NotBefore, in.Hold = backend.Time{}, true
	held := submit(t, s, in)
	if late.WaitReason != "not before 13:00" || held.WaitReason != "held" || late.Position != nil || held.Position != nil {
		t.Errorf("%q %q", late.WaitReason, held.WaitReason)
	}
	if list, err := s.Waiting(ctx, 5, now); err != nil || len(list) != 0 {
		t.Fatalf("waiting %v, %v", list, err)
	}
	if at, ok, err := s.NextWake(ctx, now); err != nil || !ok || !at.Equal(now.Add(time.Hour)) {
		t.Fatalf("next wake %v %v %v", at, ok, err)
	}
	now = now.Add(time.Hour)
	if list, err := s.Waiting(ctx, 5, now); err != nil || len(list) != 1 || list[0].ID != late.ID || list[0].NotBefore.IsZero() {
		t.Fatalf("waiting %v, %v", list, err)
	}
	if _, ok, err := s.NextWake(ctx, now); ok || err != nil {
		t.Error("nothing sleeps, and still something is to be woken", err)
	}
	act(t, s, backend.VerbRelease, held.ID)
	if list, err := s.Waiting(ctx, 5, now); err != nil || len(list) != 2 {
		t.Fatalf("waiting %v, %v", list, err)
	}
	in.Hold, in.NotBefore = false, backend.At(now.Add(48*time.Hour))
	far := submit(t, s, in)
	if far.WaitReason != "not before Fri 27 Nov 13:00" {
		t.Errorf("%q", far.WaitReason)
	}
	if list := act(t, s, backend.VerbRelease, far.ID); !list[0].NotBefore.IsZero() || *list[0].Position != 3 || list[0].WaitReason != "2 jobs before it" {
		t.Errorf("released: %+v", list[0])
	}
}

// TestScheduleAgreesWithServing compares the plan with what comes out when each
// turn is taken by itself, over random queues.
func TestScheduleAgreesWithServing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var lanes []lane
		for p := 3; p > 0; p-- {
			for o := range rnd.IntN(5) {
				lanes = append(lanes, lane{priority: p, owner: fmt.Sprint(o), waiting: 1 + rnd.IntN(4), served: int64(o), since: int64(o)})
			}
		}
		plan := schedule(lanes, 1000)
		served, taken := map[string]int64{}, map[int]int{}
		for i := range lanes {
			served[lanes[i].owner] = lanes[i].served
		}
		for turn, p := range plan {
			best := -1
			for i, l := range lanes {
				if taken[i] == l.waiting || (best >= 0 && l.priority < lanes[best].priority) {
					continue
				}
				if best < 0 || l.priority > lanes[best].priority || served[l.owner] < served[lanes[best].owner] {
					best = i
				}
			}
			if best != p.lane || taken[best] != p.index {
				t.Fatalf("turn %d is lane %d, job %d; want lane %d, job %d of %+v", turn, p.lane, p.index, best, taken[best], lanes)
			}
			taken[best]++
			served[lanes[best].owner] = int64(1000 + turn)
		}
		for n := range plan {
			if got := schedule(lanes, n); len(got) != n || (n > 0 && got[n-1] != plan[n-1]) {
				t.Fatalf("the first %d of the plan differ", n)
			}
		}
	}
}

func TestPositionsEndAtTheCap(t *testing.T) {
	s := open(t, Options{})
	fillQueue(t, s, PositionCap+1, 1)
	list, err := s.List(context.Background(), backend.JobFilter{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	last := list[0]
	if last.Position != nil || last.WaitReason != "more than 1000 jobs before it" {
		t.Errorf("the last has position %v, %q", last.Position, last.WaitReason)
	}
	if p := list[1].Position; p == nil || *p != PositionCap {
		t.Errorf("the one before has position %v", p)
	}
	if one := get(t, s, list[1].ID); one.Position == nil || *one.Position != PositionCap {
		t.Errorf("by itself it has position %v", one.Position)
	}
}
