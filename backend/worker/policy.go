package worker

import (
	"fmt"
	"math/rand/v2"
	"time"

	"easel/backend"
)

// Policy decides when a worker that ended is started again. It is a plain value:
// ends in, decision out. Zero fields take the defaults named beside them.
type Policy struct {
	// Attempts is how many ends of a worker that had been ready are answered with
	// a restart within Window: 5 in 10 minutes. One more and a person is needed.
	Attempts int
	Window   time.Duration
	// Starts is how many ends before it was ready are answered with another start,
	// counted since it was last ready: 3. A cause that would end the next start the
	// same way (a flag it does not know, a missing module) gets none.
	Starts int
	// Kills is how many kills from outside count as nothing within Window: 60. They
	// say nothing about the worker, so it is started again at once.
	Kills int
	// Backoff is the wait before the second restart, doubled for each further one up
	// to Cap: 1 s and 60 s. The first restart is at once.
	Backoff, Cap time.Duration
	// Jitter is the part of a wait that is drawn at random: 0.2 makes 1 s 0.8 to
	// 1.2 s. Negative: none.
	Jitter float64
	// Rand draws from [0,1). Nil: math/rand.
	Rand func() float64 `json:"-"`
}

// Death is what the policy knows of one end of a worker.
type Death struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"` // of the verdict
	// Ready says that it had answered before it ended.
	Ready bool `json:"ready"`
	// Hopeless says that the next start would end the same way.
	Hopeless bool `json:"hopeless,omitempty"`
	// Ran is how long the process lived.
	Ran time.Duration `json:"ran,omitempty"`
}

// Decision is what a Policy says about one end.
type Decision struct {
	Restart bool          // false: the worker is failed and waits for a person
	Delay   time.Duration // before the restart; 0 is at once
	Reason  string        // for people
}

// DefaultPolicy is the policy with the defaults filled in.
func DefaultPolicy() Policy { return Policy{}.defaults() }

func (p Policy) defaults() Policy {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	count := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	count(&p.Attempts, 5)
	count(&p.Starts, 3)
	count(&p.Kills, 60)
	set(&p.Window, 10*time.Minute)
	set(&p.Backoff, time.Second)
	set(&p.Cap, time.Minute)
	switch {
	case p.Jitter == 0:
		p.Jitter = 0.2
	case p.Jitter < 0:
		p.Jitter = 0
	}
	if p.Rand == nil {
		p.Rand = rand.Float64
	}
	return p
}

// Next decides about death. history holds the deaths before it, oldest first.
// An end that somebody asked for is not for the policy.
func (p Policy) Next(history []Death, death Death, now time.Time) Decision {
	p = p.defaults()
	switch {
	case death.Hopeless:
		return Decision{Reason: "another start would end the same way"}
	case death.Kind == backend.KindKilled:
		return p.killed(history, death, now)
	case !death.Ready:
		return p.beforeReady(history)
	}
	n := 1
	for _, d := range history {
		if d.Ready && d.Kind != backend.KindKilled && now.Sub(d.At) < p.Window {
			n++
		}
	}
	if n > p.Attempts {
		return Decision{Reason: fmt.Sprintf("it ended %d times within %s", n, span(p.Window))}
	}
	return p.restart(n, fmt.Sprintf("restart %d of %d within %s", n, p.Attempts, span(p.Window)))
}

// beforeReady counts the starts that failed since the worker was last ready.
func (p Policy) beforeReady(history []Death) Decision {
	n := 1
	for i := len(history) - 1; i >= 0 && !history[i].Ready; i-- {
		if history[i].Kind != backend.KindKilled {
			n++
		}
	}
	if n > p.Starts {
		return Decision{Reason: fmt.Sprintf("%d starts in a row ended before it was ready", n)}
	}
	return p.restart(n, fmt.Sprintf("it ended before it was ready; start %d of %d", n+1, p.Starts+1))
}

// killed lets a worker that somebody kills come back at once, unless it is killed
// again and again just after its start.
func (p Policy) killed(history []Death, death Death, now time.Time) Decision {
	n, quick := 1, 0
	for _, d := range history {
		if d.Kind == backend.KindKilled && now.Sub(d.At) < p.Window {
			n++
		}
	}
	for i := len(history) - 1; i >= 0 && history[i].Kind == backend.KindKilled && history[i].Ran < time.Second; i-- {
		quick++
	}
	reason := fmt.Sprintf("kill %d from outside within %s", n, span(p.Window))
	if n > p.Kills {
		return Decision{Reason: reason}
	}
	if death.Ran < time.Second && quick >= 5 {
		return p.restart(min(quick-3, 4), reason+", just after its start")
	}
	return Decision{Restart: true, Reason: reason}
}

// restart makes the decision for the n-th restart in a row.
func (p Policy) restart(n int, reason string) Decision {
	if n <= 1 {
		return Decision{Restart: true, Reason: reason}
	}
	d := p.Cap
	if n-2 < 20 { // beyond that the shift would be past any cap
		d = min(p.Backoff<<(n-2), p.Cap)
	}
	d = min(time.Duration(float64(d)*(1-p.Jitter+2*p.Jitter*p.Rand())), p.Cap)
	return Decision{Restart: true, Delay: d.Round(time.Millisecond), Reason: reason}
}

// span writes a duration for people: 10m, 1m40s, 45s.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	m, s := int(d/time.Minute), int(d%time.Minute/time.Second)
	switch {
	case m == 0:
		return fmt.Sprintf("%ds", s)
	case s == 0:
		return fmt.Sprintf("%dm", m)
	default:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
}
