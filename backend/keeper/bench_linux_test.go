package keeper

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkEngineKilled is the time from kill -9 of the engine to the answer to a
// call made at once, with an engine that does nothing when it starts.
func BenchmarkEngineKilled(b *testing.B) {
	box := newBox(b, func(c *Config) { c.Policy = Policy{Breaker: -1, Kills: 1 << 30} }).serve()
	var now who
	for range b.N {
		was := box.engine()
		kill(b, was.PID)
		box.do("/hello", nil, &now)
	}
}

// BenchmarkWorkerKilled is the time from kill -9 of a worker to the next one
// running, by an engine that starts it as soon as it is told.
func BenchmarkWorkerKilled(b *testing.B) {
	box := newBox(b, nil).serve()
	box.engine()
	var sum time.Duration
	for n := range b.N {
		var took time.Duration
		box.do(fmt.Sprintf("/turnaround?n=%d", n), box.launchOf("x", "sleep"), &took)
		sum += took
	}
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), "ms/restart")
}
