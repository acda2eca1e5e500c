package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"easel/backend/comfy"
)

// callWithin bounds the calls of an escalation: the event loop may be blocked.
const callWithin = 3 * time.Second

// escalate stops the running prompt, more and more firmly, with a countdown that
// people see: interrupt by id → /free → the worker is stopped (SIGINT → SIGTERM →
// SIGKILL of its group) and started again, so that the next job starts clean.
func (s *session) escalate(ctx context.Context, p *prompt, what string) {
	o, now := s.d.opts(), time.Now()
	if p.stopAt.IsZero() {
		p.stopAt = now
	}
	s.interrupt(ctx, p)
	age := now.Sub(p.stopAt)
	switch {
	case age < o.CancelFree:
		s.say(p, fmt.Sprintf("%s: interrupt sent, /free in %s", what, seconds(o.CancelFree-age)))
	case age < o.CancelFree+o.CancelStop:
		if !p.freed {
			p.freed = true
			s.askFree(ctx)
		}
		s.say(p, fmt.Sprintf("%s: not obeyed, the worker is stopped in %s", what, seconds(o.CancelFree+o.CancelStop-age)))
	default:
		s.force(ctx, p, what)
	}
}

// interrupt asks for the end of the running prompt, again after a while.
func (s *session) interrupt(ctx context.Context, p *prompt) {
	if time.Since(p.cancelAt) < interruptGap {
		return
	}
	p.cancelAt = time.Now()
	cctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	if err := s.c.Interrupt(cctx, p.id); err != nil && !errors.Is(err, comfy.ErrInterruptUnsupported) && ctx.Err() == nil {
		s.d.log.Warn("interrupt a prompt", "job", p.job.ID, "err", err)
	}
}

// askFree asks ComfyUI to free its memory, whatever it answers.
func (s *session) askFree(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	if err := s.c.Free(ctx, true, true); err != nil && ctx.Err() == nil {
		s.d.log.Warn("free memory", "worker", s.l.id, "err", err)
	}
}

// force has the worker restarted, since nothing else ends the prompt.
func (s *session) force(ctx context.Context, p *prompt, what string) {
	if !p.forcedAt.IsZero() && time.Since(p.forcedAt) < actAgain {
		return
	}
	p.forcedAt = time.Now()
	if p.timedOut {
		s.l.mu.Lock()
		s.l.overtime[p.id] = timeoutError(p)
		s.l.mu.Unlock()
	}
	if err := s.l.restart(ctx, what+" (ComfyUI did not obey)"); err != nil {
		s.say(p, what+": not obeyed, and the worker cannot be stopped: "+err.Error())
		return
	}
	s.say(p, what+": the worker is being stopped")
}
