package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/process"
)

// Stall ends the running launch because of what v says of it: it shows no sign of
// life (stall), or its GPU context is broken (cuda-fault). Python first prints where
// it stands (SIGABRT), and 2 s later the whole group is killed. The end is reported
// with the kind, summary, evidence and remedy of v and with what was seen besides,
// and the restart policy decides what follows. Stall returns when that has begun;
// from then on Client gives none.
func (m *Manager) Stall(ctx context.Context, v backend.Verdict) error {
	if v.Kind == "" {
		v.Kind = backend.KindStall
	}
	return m.give(ctx, order{verb: verbStall, by: "Easel", verdict: &v})
}

// obeyStall begins to end the launch.
func (m *Manager) obeyStall(ctx context.Context, v backend.Verdict) error {
	r := &m.run
	switch {
	case r.cur == nil:
		return backend.Fail(backend.FailConflict, "worker "+m.spec.ID+" does not run", "easel status says what it is doing")
	case v.Launch != "" && v.Launch != r.cur.id:
		return backend.Fail(backend.FailConflict, "that launch of worker "+m.spec.ID+" has ended already", "another one runs")
	case r.asked != "" || r.timeout > 0 || r.stall != nil:
		return nil // it is being ended
	}
	m.mu.Lock()
	if v.Job == nil {
		v.Job, v.Node = m.running()
	}
	m.ending = true
	m.mu.Unlock()
	r.stall, r.rec.Stall, r.signals = &v, &v, 0
	m.save() // a next engine must know why it ends
	m.edit(func(w *backend.Worker) {
		w.Reason = comfy.Plain(fmt.Sprintf("%s: %s; ending it", v.Kind, firstOf(v.Summary, "no sign of life")), 400)
	})
	m.signal(ctx)
	return nil
}

// running is the job and node that run, nil for none. It needs mu.
func (m *Manager) running() (job, node *string) {
	if m.job != nil && m.node != "" {
		n := m.node
		node = &n
	}
	return m.job, node
}

// judgeStall explains an end that Stall brought about.
func judgeStall(v *backend.Verdict, e Evidence) {
	s := e.Stall
	v.Kind, v.Summary, v.Remedy = s.Kind, s.Summary, s.Remedy
	v.Certainty = firstOf(s.Certainty, backend.Likely)
	if s.Job != nil {
		v.Job, v.Node = s.Job, s.Node
	}
	if v.Summary == "" {
		v.Summary = "it showed no sign of life and was ended"
	}
	v.Evidence = append(slices.Clone(s.Evidence), v.Evidence...)
	d, ok := readDump(e.Lines)
	t, found := d.working()
	switch {
	case ok && found:
		v.Evidence = append(v.Evidence, stackLines(d.reason, t)...)
		if at := t.where(); at != "" {
			v.Summary += "; it stood " + at
		}
		if _, in := t.culprit(); in.pack() != "" && v.Remedy == "" {
			v.Remedy = fmt.Sprintf("it is started again and the job tried once more; node pack %s hung there: update it, or take it out of custom_nodes (rename it to %s.disabled)", in.pack(), in.pack())
		}
	case e.Ended.Signal == 9:
		v.Evidence = append(v.Evidence, "it did not even print its Python stacks within 2 s: it hung in the kernel or in a library")
	}
	if v.Remedy == "" {
		v.Remedy = "it is started again and the job tried once more; if the same workflow does this again, a node of it (or the driver) hangs"
	}
}

// Activity is what a worker was last seen doing.
type Activity struct {
	Launch string
	// Alive says that its process runs.
	Alive bool
	// Line is when its log moved last; zero when nothing was read.
	Line time.Time
	// Bar is the progress bar that it draws, "" when its last line is none.
	Bar string
	// ThreadDied is when the log told of an exception that ended a thread, zero when
	// it never did. The worker thread of ComfyUI ends so: the port goes on answering.
	ThreadDied time.Time
	// Fault is the log line that told of a broken GPU context, "" when none did.
	Fault string
	// CPU is the processor time that its processes have used, RSS what they have
	// resident, in bytes.
	CPU time.Duration
	RSS int64
	// VRAMUsed and VRAMTotal are of its card, in bytes; 0 when unknown.
	VRAMUsed, VRAMTotal int64
}

// Activity says what the running launch is doing. It reads a few files of /proc and
// does not wait for anything.
func (m *Manager) Activity() Activity {
	m.mu.Lock()
	cur, ext := m.cur, m.ext
	m.mu.Unlock()
	if ext != nil {
		return ext.activity()
	}
	if cur == nil {
		return Activity{}
	}
	a := Activity{Launch: cur.id, Alive: process.Alive(cur.pid, cur.ticks)}
	f := cur.follow
	f.mu.Lock()
	a.Line, a.ThreadDied, a.Fault, a.Bar = f.heard, f.threadDied, f.fault, f.shownBar
	f.mu.Unlock()
	u := cur.watch.usage()
	a.CPU, a.RSS = u.CPU, u.RSS
	a.VRAMUsed, a.VRAMTotal = cur.watch.card()
	return a
}

// threadDied reports whether a line says that an exception ended a thread.
func threadDied(text string) bool { return strings.HasPrefix(text, "Exception in thread ") }

// cudaFault reports whether a line tells of a GPU context that is broken for good.
// Having no memory left is not that, nor is finding no card at the start.
func cudaFault(text string) bool {
	i := strings.Index(text, "CUDA error: ")
	if i < 0 {
		return false
	}
	rest := text[i+len("CUDA error: "):]
	return !strings.HasPrefix(rest, "out of memory") && !strings.HasPrefix(rest, "no kernel image") &&
		!strings.HasPrefix(rest, "invalid device ordinal") && !strings.HasPrefix(rest, "no CUDA-capable")
}

// cudaMemory reports whether a line tells that the GPU's memory was full.
func cudaMemory(text string) bool {
	return strings.Contains(text, "CUDA out of memory") || strings.Contains(text, "CUDA error: out of memory") ||
		strings.HasPrefix(text, "Got an OOM") || strings.Contains(text, "HIP out of memory") ||
		outOfMemory.MatchString(text)
}
