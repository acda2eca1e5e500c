package keeper

import "time"

// Policy decides when an engine that ended is started again. It is a plain
// value: ends in, decision out.
type Policy struct {
	// Breaker is how many crashes within Window open the breaker: 5 in 60 s.
	// Negative: never.
	Breaker int
	Window  time.Duration
	// Open is how long the breaker stays open before one more try: 30 s.
	Open time.Duration
	// Kills is how many kills from outside of an engine that served count as
	// nothing within Window: 60.
	Kills int
}

func (p Policy) withDefaults() Policy {
	if p.Breaker == 0 {
		p.Breaker = 5
	}
	if p.Kills == 0 {
		p.Kills = 60
	}
	durationTo(&p.Window, time.Minute)
	durationTo(&p.Open, 30*time.Second)
	return p
}

// EngineEnd is one end of an engine that nobody asked for.
type EngineEnd struct {
	At     time.Time
	Served bool // it had said that it serves
	// Foreign says that a SIGKILL ended it that was not ours: that is no sign of a
	// broken engine, so it is started again at once and does not count.
	Foreign bool
	// Hopeless says that it would fail the same way again.
	Hopeless bool
}

// Restart is a decision of a Policy.
type Restart struct {
	After   time.Duration
	Breaker bool // the breaker is open: callers are told so at once
	Reason  string
}

// backoff is the wait before the n-th start after crashes close together.
var backoff = []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second}

// Next decides about the last of ends, which are in order of time.
func (p Policy) Next(ends []EngineEnd) Restart {
	p = p.withDefaults()
	if len(ends) == 0 {
		return Restart{Reason: "first start"}
	}
	last := ends[len(ends)-1]
	if last.Hopeless {
		return Restart{After: p.Open, Breaker: true, Reason: "the engine says that it cannot serve"}
	}
	crashes, kills := 0, 0
	for _, e := range ends {
		if last.At.Sub(e.At) >= p.Window {
			continue
		}
		if e.Served && e.Foreign && kills < p.Kills {
			kills++
			continue
		}
		crashes++
	}
	switch {
	case p.Breaker > 0 && crashes >= p.Breaker:
		return Restart{After: p.Open, Breaker: true, Reason: "too many crashes close together"}
	case crashes <= 1 || last.Served && last.Foreign && crashes < 2:
		return Restart{Reason: "at once"}
	default:
		return Restart{After: backoff[min(crashes-1, len(backoff)-1)], Reason: "after a pause, since it crashed before"}
	}
}
