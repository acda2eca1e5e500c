package dispatch

import (
	"context"
	"slices"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/fault"
	"easel/backend/jobs"
)

// review looks at what people asked for since: cancels, time limits, and whether
// the prompt that waits inside should still be the next.
func (s *session) review(ctx context.Context) {
	for _, p := range append([]*prompt(nil), s.inside...) {
		job, err := s.d.store.Get(ctx, p.job.ID)
		if err != nil {
			continue
		}
		p.job = job
		switch {
		case job.Cancelling && p.started:
			s.escalate(ctx, p, "cancelling")
		case job.Cancelling:
			s.recallPrompt(ctx, p, "cancelled")
		case p.started && job.TimeoutS > 0 && time.Since(p.startAt).Seconds() > job.TimeoutS:
			p.timedOut = true
			s.escalate(ctx, p, "over its time limit")
		case !p.started && s.overtaken(ctx, p):
			fault.Hit("taking-back")
			s.recallPrompt(ctx, p, "the order changed")
		}
	}
}

// overtaken reports whether a prompt that waits inside should not be the next
// any more: the queue was paused, memory is to be freed, it was held, or another
// job now comes before it.
func (s *session) overtaken(ctx context.Context, p *prompt) bool {
	if paused, _ := s.d.store.Paused(); paused || len(s.freeing) > 0 || s.wantsQuiet() {
		return true
	}
	if p.job.State == backend.JobHeld {
		return true
	}
	before, err := s.d.store.Overtaken(ctx, p.job.ID)
	if err != nil || !before {
		return false
	}
	// What came before it may be a job for another card.
	next, err := s.d.store.Waiting(ctx, lookAhead, time.Now())
	return err == nil && !slices.ContainsFunc(next, s.l.notHere)
}

// recallPrompt takes a waiting prompt out of ComfyUI. Only when it is neither
// pending nor running is it back; one that has started meanwhile stays.
func (s *session) recallPrompt(ctx context.Context, p *prompt, why string) {
	if err := s.c.DeletePending(ctx, p.id); err != nil {
		return
	}
	q, err := s.c.Queue(ctx)
	if err != nil {
		return
	}
	if running, pending := q.Find(p.id); running || pending {
		return
	}
	if entry, found, err := s.c.History(ctx, p.id); err != nil {
		return
	} else if found {
		s.endBy(ctx, p, entry)
		return
	}
	if p.job.Cancelling {
		s.end(ctx, p, jobs.End{Outcome: backend.OutcomeCancelled, State: backend.JobCancelled, At: time.Now()})
		return
	}
	s.takeBack(ctx, p, why)
}

// doubtful reports whether a prompt inside has ended or was posted without an
// answer, so that waiting for messages would not do.
func (s *session) doubtful() bool {
	for _, p := range s.inside {
		if p.ended || p.missing > 0 {
			return true
		}
	}
	return false
}

// reconcile compares what we think is inside with what ComfyUI says: /queue
// first, then /history, since the other order misses a prompt that ends in
// between. A prompt that is twice in neither has never arrived.
func (s *session) reconcile(ctx context.Context) {
	if len(s.inside) == 0 && !s.haunted() {
		return
	}
	s.looked = time.Now()
	q, err := s.askQueue(ctx)
	if err != nil {
		return
	}
	s.sort(q)
	s.chase(ctx, q)
	for _, p := range append([]*prompt(nil), s.inside...) {
		running, pending := q.Find(p.id)
		switch {
		case running:
			p.missing = 0
			if !p.started {
				s.unheard("a start")
			}
			s.onStart(ctx, p, time.Now())
		case pending:
			p.missing = 0
		default:
			s.missed(ctx, p)
		}
	}
}

// missed handles a prompt that /queue does not hold.
func (s *session) missed(ctx context.Context, p *prompt) {
	entry, found, err := s.c.History(ctx, p.id)
	if err != nil {
		return
	}
	if found {
		if !p.ended {
			s.unheard("an end")
		}
		s.endBy(ctx, p, entry)
		return
	}
	if p.success || p.err != nil || p.stopped {
		s.endBy(ctx, p, heard(p))
		return
	}
	if p.missing++; p.missing < 2 {
		return
	}
	if p.started {
		s.vanished(ctx, p)
		return
	}
	if p.job.Cancelling {
		s.end(ctx, p, jobs.End{Outcome: backend.OutcomeCancelled, State: backend.JobCancelled, At: time.Now()})
		return
	}
	s.takeBack(ctx, p, "the worker never got it")
}

// vanished handles a prompt that had started and is now nowhere: somebody
// cleared ComfyUI's history, or its end was not recorded. It is run again.
func (s *session) vanished(ctx context.Context, p *prompt) {
	v := &backend.Verdict{
		Kind: backend.KindUnknown, Certainty: backend.Unknown, At: backend.Now(), Worker: s.l.id, Launch: s.launch,
		Summary:  "ComfyUI no longer knows this prompt",
		Evidence: []string{"it is twice neither in /queue nor in /history of the same process"},
		Remedy:   "nothing to do: the job is tried again",
	}
	e := lost(p.job, p.n, v)
	s.end(ctx, p, e)
}

// haunted reports whether prompts that we gave up might still turn up.
func (s *session) haunted() bool {
	for _, on := range s.ghosts {
		if on {
			return true
		}
	}
	return false
}

// chase takes prompts out of ComfyUI that we gave up and that arrived late.
func (s *session) chase(ctx context.Context, q comfy.Queue) {
	for id, on := range s.ghosts {
		if !on {
			continue
		}
		switch running, pending := q.Find(id); {
		case pending:
			_ = s.c.DeletePending(ctx, id)
		case running:
			_ = s.c.Interrupt(ctx, id)
		}
	}
}

// answerFrees asks ComfyUI to free its memory once nothing is sent ahead: with a
// prompt waiting it would act only after that one.
func (s *session) answerFrees(ctx context.Context) {
	if len(s.freeing) == 0 {
		return
	}
	for _, p := range s.inside {
		if !p.started {
			return // being taken back
		}
	}
	err := s.c.Free(ctx, true, true)
	for _, reply := range s.freeing {
		reply <- err
	}
	s.freeing = nil
}

// refuseFrees answers those who still wait when the session ends.
func (s *session) refuseFrees() {
	for _, reply := range s.freeing {
		reply <- backend.Fail(backend.FailWorker, "the worker ended before its memory was freed", "its memory is free now")
	}
	s.freeing = nil
}
