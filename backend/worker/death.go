package worker

import (
	"context"
	"fmt"
	"os"
	"time"

	"easel/backend"
	"easel/backend/keeper"
	"easel/backend/process"
)

// tailOf are the last lines of a log file, nil when it cannot be read.
func (m *Manager) tailOf(path string) []string {
	lines, err := process.ReadTail(path, tailLines)
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return out
}

// onEnded explains the end of the process and decides what follows.
func (m *Manager) onEnded(ctx context.Context, e keeper.Ended) {
	r := &m.run
	if r.cur == nil || r.cur.id != e.Launch {
		m.log.Info("the end of a launch that is not the present one", "launch", e.Launch)
		m.news.add(func() { _ = m.sp.Ack(e.Launch) })
		return
	}
	cur := r.cur
	r.timer.Stop()
	cur.cancel()
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if e.Started.IsZero() {
		e.Started = cur.started
	}
	v, c := judge(m.evidence(e))
	death := Death{At: e.At, Kind: v.Kind, Ready: cur.ready, Hopeless: c.Hopeless && !m.otherPort(c), Ran: e.At.Sub(e.Started)}
	r.cur = nil
	m.dropGroup()
	m.closed(&v)
	if c.Port {
		r.rec.Port = 0 // choose another one
	}
	m.after(ctx, v, death)
	// Only now, since a restart must not wait for a disk.
	m.report(v, e.Launch)
}

// evidence gathers what is known about the end of the present launch.
func (m *Manager) evidence(e keeper.Ended) Evidence {
	r := &m.run
	ev := Evidence{
		Ended: e, Worker: m.spec.ID, Launch: e.Launch, Ready: r.cur.ready, Timeout: r.timeout,
		Machine: r.cur.watch.end(e), Stall: r.stall, Lines: m.tailOf(r.rec.Log), Python: r.rec.Python, Dir: r.rec.Dir, Port: r.rec.Port,
	}
	if r.asked != "" {
		ev.Asked = r.asked
	} else if r.timeout == 0 {
		ev.Asked = r.rec.Asked
	}
	if _, err := os.Stat(m.sessionMark()); err == nil && !m.spec.Builtin {
		ev.Reboot = true
	}
	if ev.Stall == nil {
		ev.Stall = r.rec.Stall
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ev.Job, ev.Node = m.running()
	return ev
}

// otherPort reports whether a start that found its port taken may have another.
func (m *Manager) otherPort(c cause) bool { return c.Port && m.spec.Port == 0 }

// closed forgets the process.
func (m *Manager) closed(v *backend.Verdict) {
	r := &m.run
	r.rec.Launch, r.rec.PID, r.rec.StartTicks, r.rec.Stall = "", 0, 0, nil
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cur, m.ending = nil, false
	if m.client != nil {
		m.client.Close()
	}
	m.client = nil
	m.w.PID, m.w.Launch, m.w.URL, m.w.Started = nil, "", "", backend.Time{}
	if v.Kind != backend.KindAsked {
		m.w.LastDeath, r.rec.LastDeath = v, v
	}
}

// after brings the worker from the end of its process to what comes next.
func (m *Manager) after(ctx context.Context, v backend.Verdict, death Death) {
	r := &m.run
	again := r.again || r.rec.Again
	if m.State().State == backend.WorkerStopping {
		r.asked, r.again, r.rec.Asked, r.rec.Again = "", false, "", false
		_ = m.to(backend.WorkerStopped, v.Summary)
		if again && r.stay == "" {
			m.prepare(ctx, "restarting, "+v.Summary)
			return
		}
		m.save()
		return
	}
	r.timeout, r.stall = 0, nil
	_ = m.to(backend.WorkerExited, v.Summary)
	switch {
	case r.stay != "":
		_ = m.to(backend.WorkerStopped, r.stay)
		m.save()
	case v.Kind == backend.KindAsked: // ComfyUI-Manager, or a stop that a former engine began
		m.count()
		m.prepare(ctx, "restarting: "+v.Summary)
	default:
		m.decide(ctx, v, death)
	}
}

// count counts a restart.
func (m *Manager) count() {
	m.run.rec.Restarts++
	m.mu.Lock()
	defer m.mu.Unlock()
	m.w.Restarts = m.run.rec.Restarts
}

// decide asks the policy.
func (m *Manager) decide(ctx context.Context, v backend.Verdict, death Death) {
	r := &m.run
	now := time.Now()
	d := m.o.Policy.Next(r.rec.Deaths, death, now)
	r.rec.Deaths = append(r.rec.Deaths, death)
	if n := len(r.rec.Deaths); n > 100 {
		r.rec.Deaths = r.rec.Deaths[n-100:]
	}
	switch {
	case !d.Restart:
		reason := v.Summary
		if !death.Hopeless {
			reason += " · " + d.Reason
		}
		if v.Remedy != "" {
			reason += " · " + v.Remedy
		}
		_ = m.to(backend.WorkerFailed, reason)
		m.save()
	case d.Delay <= 0:
		m.count()
		m.prepare(ctx, fmt.Sprintf("restarting at once: %s · %s", v.Summary, d.Reason))
	default:
		m.count()
		_ = m.to(backend.WorkerBackoff, fmt.Sprintf("%s · %s, in %s", v.Summary, d.Reason, d.Delay.Round(100*time.Millisecond)))
		m.edit(func(w *backend.Worker) { w.NextRestart = backend.At(now.Add(d.Delay)) })
		r.timer.Reset(d.Delay)
		m.save()
	}
}

// report has the verdict written down, then lets the keeper forget the launch.
func (m *Manager) report(v backend.Verdict, launch string) {
	m.news.add(func() {
		if m.o.OnDeath != nil {
			m.o.OnDeath(v)
		}
		if launch == "" {
			return
		}
		if err := m.sp.Ack(launch); err != nil {
			m.log.Warn("acknowledge the end of a launch", "launch", launch, "err", err)
		}
	})
}
