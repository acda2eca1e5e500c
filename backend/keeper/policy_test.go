package keeper

import (
	"testing"
	"time"
)

func TestPolicy(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	crash := func(at time.Duration) EngineEnd { return EngineEnd{At: start.Add(at), Served: true} }
	killed := func(at time.Duration) EngineEnd {
		return EngineEnd{At: start.Add(at), Served: true, Foreign: true}
	}
	many := func(n int, every time.Duration, f func(time.Duration) EngineEnd) (list []EngineEnd) {
		for i := range n {
			list = append(list, f(time.Duration(i)*every))
		}
		return list
	}
	cases := []struct {
		name    string
		ends    []EngineEnd
		after   time.Duration
		breaker bool
	}{
		{"the first start is at once", nil, 0, false},
		{"after one crash it is back at once", many(1, 0, crash), 0, false},
		{"after two it waits a little", many(2, time.Second, crash), 100 * time.Millisecond, false},
		{"the fifth within a minute opens the breaker", many(5, time.Second, crash), 30 * time.Second, true},
		{"five in five minutes do not", many(5, time.Minute, crash), 0, false},
		{"kills from outside count for nothing", many(40, time.Second, killed), 0, false},
		{"but not without end", many(70, 100*time.Millisecond, killed), 30 * time.Second, true},
		{"a hopeless start is not repeated at once", []EngineEnd{{At: start, Hopeless: true}}, 30 * time.Second, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := Policy{}.Next(c.ends)
			if got.After != c.after || got.Breaker != c.breaker || got.Reason == "" {
				t.Errorf("got %+v", got)
			}
		})
	}
}
