package dispatch

import (
	"context"
	"fmt"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// Times of watching.
const (
	lookWithin  = 10 * time.Second // for one look at /queue
	dropGap     = 30 * time.Second // between two drops of a deaf socket
	actAgain    = time.Minute      // when a stalled worker could not be ended
	slowestOver = 4                // times what a node ever took
)

// watching is what a session knows about signs of life.
type watching struct {
	use      sampler
	silent   time.Time // since when ComfyUI answers no request; zero: it does
	warned   time.Time // when the stall was warned of; zero: it was not
	warnedOf string    // prompt id
	acted    time.Time // when the end was last asked for
	dropped  time.Time // when the socket was last dropped
}

// watch looks for signs of life, asks for the truth when the socket has been quiet
// for a while (it may be deaf, and a prompt may have ended unheard), and acts upon
// silence.
func (s *session) watch(ctx context.Context) {
	s.sample()
	s.lookAtOthers(ctx)
	if len(s.inside) > 0 || s.haunted() {
		if (s.box.quiet() >= quietFor || s.doubtful()) && time.Since(s.looked) >= missingAgain {
			s.reconcile(ctx)
		}
	}
	s.checkStall(ctx, time.Now())
}

// sample measures the process.
func (s *session) sample() {
	st := s.l.worker.State()
	if st.PID == nil || st.Launch != s.launch {
		return
	}
	s.life.use.add(*st.PID, s.d.opts().IdleWindow)
	rss := s.life.use.rss()
	s.l.mu.Lock()
	s.l.rss, s.l.pid = rss, *st.PID
	s.l.mu.Unlock()
	if p := s.running(); p != nil {
		p.peakRAM = max(p.peakRAM, rss)
		p.peakVRAM = max(p.peakVRAM, s.l.activity().VRAM)
	}
}

// askQueue reads /queue, and notes whether ComfyUI answers at all.
func (s *session) askQueue(ctx context.Context) (comfy.Queue, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, min(lookWithin, s.d.opts().LoopLimit))
	defer cancel()
	q, err := s.c.Queue(ctx)
	switch {
	case err == nil:
		s.life.silent = time.Time{}
	case s.life.silent.IsZero():
		s.life.silent = began
	}
	return q, err
}

// unheard notes that something happened which the socket should have told: it is
// deaf, and a new one is opened.
func (s *session) unheard(what string) {
	if s.box.quiet() < quietFor || time.Since(s.life.dropped) < dropGap || !s.box.isOnline() {
		return
	}
	s.life.dropped = time.Now()
	s.d.log.Warn("the socket to ComfyUI is deaf: opening a new one", "worker", s.l.id, "unheard", what)
	s.c.Drop(s.clientID)
}

// first is the prompt that should be moving: the one that runs, else the one
// that waits longest.
func (s *session) first() *prompt {
	if p := s.running(); p != nil {
		return p
	}
	if len(s.inside) > 0 {
		return s.inside[0]
	}
	return nil
}

// signs are the signs of life of the prompt that should be moving.
type signs struct {
	p      *prompt
	silent time.Duration // without a message or a log line
	limit  time.Duration
	idle   bool // neither CPU nor disk are used
	known  bool // whether that could be seen
	load   float64
	loop   time.Duration // for how long no request was answered
	died   bool          // the log told of a thread that died
}

// signsOf gathers the signs of life of p.
func (s *session) signsOf(p *prompt, now time.Time) signs {
	o, act := s.d.opts(), s.l.activity()
	moved := p.sentAt
	for _, t := range []time.Time{p.startAt, p.nodeAt, s.box.worked(), act.Line} {
		if t.After(moved) {
			moved = t
		}
	}
	g := signs{p: p, silent: now.Sub(moved), limit: o.StallLimit, died: act.ThreadDied.After(p.sentAt)}
	slow := s.d.learned.slowest(p.nodeOf(p.node).class)
	g.limit = max(g.limit, time.Duration(slowestOver*slow*float64(time.Second)))
	if g.died {
		g.limit = min(g.limit, o.ThreadLimit)
	}
	g.idle, g.known, g.load = s.life.use.idle(o.IdleWindow)
	if !s.life.silent.IsZero() && !s.box.heard().After(s.life.silent) {
		g.loop = now.Sub(s.life.silent)
	}
	return g
}

// checkStall warns of a job that shows no sign of life, and has its worker ended
// when the warning changed nothing.
func (s *session) checkStall(ctx context.Context, now time.Time) {
	o, p := s.d.opts(), s.first()
	if p == nil || o.StallLimit <= 0 || p.started && (p.job.Cancelling || p.timedOut) {
		s.calm()
		return
	}
	g := s.signsOf(p, now)
	blocked := g.loop >= o.LoopLimit
	switch {
	case g.silent < g.limit || !g.idle && !blocked:
		s.calm()
		if blocked {
			s.say(p, fmt.Sprintf("its event loop has answered nothing for %s", seconds(g.loop)))
		} else if g.silent >= g.limit {
			s.say(p, fmt.Sprintf("no message and no log line for %s, but it is at work: left alone", seconds(g.silent)))
		}
		return
	case s.runsOthers():
		s.say(p, fmt.Sprintf("a prompt of somebody else has shown no sign of life for %s; Easel ends none of others", seconds(g.silent)))
		return
	}
	if s.life.warned.IsZero() || s.life.warnedOf != p.id {
		s.life.warned, s.life.warnedOf = now, p.id
		s.d.log.Warn("a job shows no sign of life", "worker", s.l.id, "job", p.job.ID, "silent", g.silent)
	}
	if left := o.StallGrace - now.Sub(s.life.warned); left > 0 {
		s.say(p, fmt.Sprintf("no sign of life for %s: the worker is restarted in %s unless it moves", seconds(g.silent), seconds(left)))
		return
	}
	s.endStalled(ctx, g, now)
}

// calm takes a warning back.
func (s *session) calm() {
	s.life.warned, s.life.warnedOf = time.Time{}, ""
}

// endStalled has the worker ended, with the evidence.
func (s *session) endStalled(ctx context.Context, g signs, now time.Time) {
	if now.Sub(s.life.acted) < actAgain {
		return
	}
	s.life.acted = now
	v := s.stallVerdict(g)
	s.d.log.Warn("ending a worker that shows no sign of life", "worker", s.l.id, "launch", s.launch, "evidence", v.Evidence)
	if err := s.l.stall(ctx, v); err != nil {
		s.say(g.p, "no sign of life, and it cannot be ended: "+err.Error())
		return
	}
	s.say(g.p, "no sign of life: the worker is being restarted")
}

// stallVerdict puts the evidence into words.
func (s *session) stallVerdict(g signs) backend.Verdict {
	p, o := g.p, s.d.opts()
	v := backend.Verdict{
		Kind: backend.KindStall, Certainty: backend.Likely, At: backend.Now(), Worker: s.l.id, Launch: s.launch,
		Evidence: []string{fmt.Sprintf("no message and no log line for %s (limit %s)", seconds(g.silent), seconds(g.limit))},
		Remedy:   "nothing to do: it was restarted and the job is tried again; if it happens again, look at the node that ran and at the last log lines",
	}
	switch {
	case g.loop >= o.LoopLimit:
		v.Summary = fmt.Sprintf("its event loop answered nothing for %s", seconds(g.loop))
		v.Evidence = append(v.Evidence, fmt.Sprintf("/queue has not answered for %s", seconds(g.loop)))
	case g.died:
		v.Summary, v.Certainty = "its worker thread died: the port answers, jobs wait, nothing runs", backend.Certain
		v.Evidence = append(v.Evidence, "the log tells of an exception in a thread", "/queue still answers and shows the prompt")
	default:
		v.Summary = fmt.Sprintf("no sign of life for %s: the port answers, nothing moves", seconds(g.silent))
		v.Evidence = append(v.Evidence, "/queue still answers and shows the prompt")
	}
	if g.known {
		v.Evidence = append(v.Evidence, fmt.Sprintf("it used %.0f %% of one core", 100*g.load))
	}
	if p.started {
		job, node := p.job.ID, p.node
		v.Job = &job
		if node != "" {
			v.Node = &node
			v.Evidence = append(v.Evidence, fmt.Sprintf("node %s (%s) ran", node, p.nodeOf(node).class))
		}
	}
	return v
}

// say remarks on the worker and a prompt inside it, until the next look.
func (s *session) say(p *prompt, text string) {
	s.said = true
	job := ""
	if p != nil {
		job = p.job.ID
	}
	s.l.remarkOn(job, text)
}
