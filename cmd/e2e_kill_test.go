//go:build linux

package cmd_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/backend"
)

// TestFaultPoints hits each named point once with each victim that can be hit
// there, and counts: the job ends once, well.
func TestFaultPoints(t *testing.T) {
	// kick is what makes the point come by, after the first job runs.
	type point struct {
		name string
		kick func(*box)
	}
	points := []point{
		{"after-post-before-commit", nil},
		{"after-success-before-history", nil},
		{"before-state-written", nil},
		{"worker.adoption", killEngine},
		{"before-reconcile", killEngine},
		{"taking-back", promoteOther},
	}
	type hit struct {
		point
		action string
	}
	hits := []hit{
		{point{"keeper.after-fork", nil}, "kill-self"},
		{point{"keeper.adoption", killKeeper}, "kill-self"},
	}
	for _, p := range points {
		for _, action := range []string{"kill-self", "kill-parent", "kill-worker"} {
			hits = append(hits, hit{p, action})
		}
	}
	for _, p := range hits {
		t.Run(p.name+"/"+p.action, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, "EASEL_FAULT="+p.name+"="+p.action)
			var ids []string
			for i := range 3 {
				seconds := 0.5
				if p.kick != nil && i == 0 {
					seconds = 4 // it must still run when the kick comes
				}
				ids = append(ids, b.submitPatiently(b.sketch(fmt.Sprintf("p%d", i), i, seconds)))
			}
			if p.kick != nil {
				b.waitState(ids[0], backend.JobRunning)
				p.kick(b)
			}
			for _, id := range ids {
				b.waitState(id, backend.JobSucceeded)
			}
			b.checkOnce(ids)
			marks, _ := os.ReadDir(b.home)
			if !slices.ContainsFunc(marks, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "fault") }) {
				t.Errorf("the point %s was never reached", p.name)
			}
		})
	}
}

func killKeeper(b *box) { _ = syscall.Kill(b.status().Keeper.PID, syscall.SIGKILL) }

func killEngine(b *box) { _ = syscall.Kill(b.status().Engine.PID, syscall.SIGKILL) }

func promoteOther(b *box) {
	id := b.submitPatiently(b.sketch("rush", 99, 0.1), "--priority", "5")
	b.waitState(id, backend.JobSucceeded)
}

// submitPatiently submits with a key, and again while the engine is away: a
// request in flight at a kill breaks, its key makes the second one the same job.
func (b *box) submitPatiently(file string, args ...string) string {
	b.t.Helper()
	key := fmt.Sprintf("k%d", rand.Uint64())
	var last result
	for range 50 {
		last = b.easel(append([]string{"run", file, "--detach", "--json", "--key", key}, args...)...)
		if last.code == 0 {
			return jobID(b.t, last.out)
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Fatalf("submit: exit %d\n%s%s", last.code, last.out, last.err)
	return ""
}

func jobID(t testing.TB, out string) string {
	t.Helper()
	_, rest, ok := strings.Cut(out, `"id":`)
	rest = strings.TrimLeft(rest, ` "`)
	if !ok || len(rest) < 36 {
		t.Fatalf("no job in %q", out)
	}
	return rest[:36]
}

// checkOnce looks at the records and the files: every job ended once, done or
// explained, and a done one has its picture.
func (b *box) checkOnce(ids []string) (done, explained int) {
	b.t.Helper()
	for _, id := range ids {
		j := b.job(id)
		wins := 0
		for _, a := range j.Attempts {
			if a.Outcome == backend.OutcomeSucceeded {
				wins++
			}
			if a.Outcome.Open() {
				b.t.Errorf("job %s: attempt %d is still %s", id, a.N, a.Outcome)
			}
			if a.Outcome == backend.OutcomeLost && a.Verdict == nil {
				b.t.Errorf("job %s: attempt %d is lost and nobody says why", id, a.N)
			}
		}
		switch {
		case j.State == backend.JobSucceeded && wins == 1 && len(j.Outputs) > 0:
			if _, err := os.Stat(j.Outputs[0].Path); err != nil {
				b.t.Errorf("job %s is done and its picture is not there: %v", id, err)
			}
			done++
		case j.State == backend.JobFailed && j.Error != nil && wins == 0:
			explained++
		default:
			b.t.Errorf("job %s ended as %s with %d successful attempts, %d outputs, error %v", id, j.State, wins, len(j.Outputs), j.Error)
		}
	}
	return done, explained
}

func TestRandomKills(t *testing.T) {
	kills := 12
	if testing.Short() {
		kills = 4
	}
	randomKills(t, kills, 3*kills/2)
}

// TestSoakRandomKills is the long one: EASEL_SOAK=1, EASEL_KILLS, EASEL_SEED.
func TestSoakRandomKills(t *testing.T) {
	if os.Getenv("EASEL_SOAK") == "" {
		t.Skip("a soak: make soak runs it")
	}
	kills := 100
	if n, err := strconv.Atoi(os.Getenv("EASEL_KILLS")); err == nil {
		kills = n
	}
	randomKills(t, kills, 2*kills)
}

// randomKills kills worker, engine and keeper at random moments while jobs run,
// and counts.
func randomKills(t *testing.T, kills, jobs int) {
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("EASEL_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := newBox(t)
	b.must("serve", "--detach")
	b.workerPID()
	var ids []string
	for i := range jobs {
		ids = append(ids, b.submitPatiently(b.sketch(fmt.Sprintf("k%d", i), i, 0.2+rnd.Float64()*0.5)))
	}
	hit := map[string]int{}
	for range kills {
		time.Sleep(time.Duration(100+rnd.IntN(900)) * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		st, err := b.client().Status(ctx)
		cancel()
		if err != nil {
			continue // everything is on its way back
		}
		victims := map[string]int{"engine": st.Engine.PID, "keeper": st.Keeper.PID}
		if len(st.Workers) > 0 && st.Workers[0].PID != nil {
			victims["worker"] = *st.Workers[0].PID
		}
		name := []string{"worker", "worker", "engine", "engine", "keeper"}[rnd.IntN(5)]
		if pid := victims[name]; pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil {
			hit[name]++
		}
	}
	b.waitFinal(ids, 5*time.Minute)
	done, explained := b.checkOnce(ids)
	t.Logf("kills %v; accepted %d = done %d + explained %d", hit, len(ids), done, explained)
	if done+explained != len(ids) {
		t.Errorf("accepted %d, done %d, explained %d", len(ids), done, explained)
	}
}

// waitFinal waits until every job has ended.
func (b *box) waitFinal(ids []string, within time.Duration) {
	b.t.Helper()
	end := time.Now().Add(within)
	for time.Now().Before(end) {
		open := 0
		for _, id := range ids {
			if !b.job(id).State.Final() {
				open++
				break
			}
		}
		if open == 0 {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	b.t.Fatalf("jobs are still open after %v", within)
}
