package worker

import (
	"strings"
	"testing"
	"time"

	"easel/backend"
)

func TestPolicy(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration, kind string, ready bool) Death {
		return Death{At: now.Add(-d), Kind: kind, Ready: ready, Ran: time.Minute}
	}
	crash := Death{At: now, Kind: backend.KindCrash, Ready: true, Ran: time.Minute}
	bad := Death{At: now, Kind: backend.KindBadStart}
	kill := Death{At: now, Kind: backend.KindKilled, Ready: true, Ran: time.Minute}
	repeat := func(d Death, n int) []Death {
		var out []Death
		for i := range n {
			d.At = now.Add(-time.Duration(n-i) * time.Second)
			out = append(out, d)
		}
		return out
	}
	quick := kill
	quick.Ran = 100 * time.Millisecond
	hopeless := bad
	hopeless.Hopeless = true
	for _, c := range []struct {
		name    string
		history []Death
		death   Death
		want    Decision
	}{
		{"the first restart is at once", nil, crash, Decision{Restart: true}},
		{"the second waits", repeat(crash, 1), crash, Decision{Restart: true, Delay: time.Second}},
		{"the wait doubles", repeat(crash, 3), crash, Decision{Restart: true, Delay: 4 * time.Second}},
		{"too many within the window need a person", repeat(crash, 5), crash, Decision{}},
		{"old ones are forgotten", []Death{ago(11*time.Minute, backend.KindCrash, true), ago(12*time.Minute, backend.KindCrash, true)}, crash, Decision{Restart: true}},
		{"a hopeless start is not repeated", nil, hopeless, Decision{}},
		{"a start that failed is tried again at once", nil, bad, Decision{Restart: true}},
		{"deaths under load do not count against starts", repeat(crash, 4), bad, Decision{Restart: true}},
		{"starts that failed do not count as deaths under load", repeat(bad, 3), crash, Decision{Restart: true}},
		{"four starts in a row are enough", repeat(bad, 3), bad, Decision{}},
		{"a ready one in between begins the count anew", append(repeat(bad, 3), crash), bad, Decision{Restart: true}},
		{"a kill from outside is at once, often", repeat(kill, 30), kill, Decision{Restart: true}},
		{"kills do not count against crashes", repeat(kill, 30), crash, Decision{Restart: true}},
		{"kills just after each start slow down", repeat(quick, 5), quick, Decision{Restart: true, Delay: time.Second}},
		{"more kills than any accident need a person", repeat(kill, 60), kill, Decision{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Policy{Jitter: -1}.Next(c.history, c.death, now)
			if got.Restart != c.want.Restart || got.Delay != c.want.Delay || got.Reason == "" {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestPolicyJitterStaysWithinCap(t *testing.T) {
	p := Policy{Attempts: 100, Backoff: time.Second, Cap: 10 * time.Second}
	var history []Death
	now := time.Now()
	for _, r := range []float64{0, 0.5, 0.999} {
		p.Rand = func() float64 { return r }
		history = nil
		for range 50 {
			d := p.Next(history, Death{At: now, Kind: backend.KindCrash, Ready: true}, now)
			if d.Delay < 0 || d.Delay > 10*time.Second || len(history) > 0 && d.Delay < 800*time.Millisecond {
				t.Fatalf("after %d deaths, rand %.1f: %s", len(history), r, d.Delay)
			}
			history = append(history, Death{At: now, Kind: backend.KindCrash, Ready: true})
		}
	}
	if s := span(100 * time.Second); s != "1m40s" || !strings.Contains(span(10*time.Minute), "10m") {
		t.Errorf("span %s", s)
	}
}

func TestTransitions(t *testing.T) {
	if err := checkTransition(backend.WorkerStopped, backend.WorkerReady); err == nil {
		t.Error("stopped → ready is allowed")
	}
	m := New(Spec{ID: "x", StateDir: t.TempDir(), Builtin: true}, nil, Options{})
	err := m.to(backend.WorkerBusy, "test")
	if err == nil || err.Error() != "a worker that is stopped cannot become busy" || m.State().State != backend.WorkerStopped {
		t.Errorf("%v, %s", err, m.State().State)
	}
	for from, list := range transitions {
		for _, to := range list {
			if _, ok := transitions[to]; !ok || from == to {
				t.Errorf("%s → %s leads nowhere", from, to)
			}
		}
	}
}
