//go:build linux

package engine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/cards"
	"easel/backend/comfy"
	"easel/config"
)

// namedWithin bounds the wait for the cards' UUIDs before workers are started.
const namedWithin = 2 * time.Second

// newCards makes the watch over the cards.
func (e *Engine) newCards() *cards.Cards {
	return cards.New(cards.Hooks{
		Workers: e.cardWorkers,
		Watched: func() bool { any, _ := e.hub.watched(); return any },
		Publish: func(list []backend.GPU) { e.hub.publish(backend.Frame{Kind: backend.FrameGPUs, GPUs: list}) },
		Marked:  func(list []backend.GPUMark) { e.hub.publish(backend.Frame{Kind: backend.FrameMarks, Marks: list}) },
		Stats:   e.workerDevices,
	}, e.opts.Environ, e.log)
}

// cardWorkers are the workers as the watch over the cards needs them.
func (e *Engine) cardWorkers() []cards.Worker {
	states := e.workerStates()
	out := make([]cards.Worker, 0, len(states))
	for _, st := range states {
		w := cards.Worker{
			ID: st.ID, Launch: st.Launch, Paints: !st.Builtin && st.ID != "cpu",
			Ready: st.State == backend.WorkerReady || st.State == backend.WorkerBusy,
		}
		if st.PID != nil {
			w.PID = *st.PID
		}
		if st.GPU != nil {
			w.GPU = *st.GPU
		}
		out = append(out, w)
	}
	return out
}

// workerDevices asks a worker for its devices.
func (e *Engine) workerDevices(ctx context.Context, id string) ([]comfy.Device, error) {
	w := e.worker(id)
	if w == nil {
		return nil, fmt.Errorf("there is no worker %s", id)
	}
	c, _, ok := w.m.Client()
	if !ok {
		return nil, fmt.Errorf("worker %s does not answer", id)
	}
	stats, err := c.SystemStats(ctx)
	return stats.Devices, err
}

// cardNames are the UUIDs of the cards by index, as far as they matter for the
// workers of cfg. Whoever sets CUDA_VISIBLE_DEVICES counts cards in his own way:
// then an index stays one.
func (e *Engine) cardNames(ctx context.Context, cfg config.Config) map[int]string {
	w := cfg.Worker
	if w.URL != "" || w.Builtin || w.ComfyUI == "" && w.Command == "" || onCPU(w) {
		return nil
	}
	for _, v := range e.opts.Environ {
		if strings.HasPrefix(v, "CUDA_VISIBLE_DEVICES=") {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, namedWithin)
	defer cancel()
	return e.cards.UUIDs(ctx)
}

// pin names card n for a worker: by its UUID where NVML knows it, since CUDA does
// not count as NVML does, else by its index. alone says that it is the only worker:
// card 0 of a box with one needs no pin, and a box without any must not get one.
func pin(n int, names map[int]string, alone bool) string {
	if alone && n == 0 && len(names) < 2 {
		return ""
	}
	if uuid := names[n]; uuid != "" {
		return uuid
	}
	return strconv.Itoa(n)
}

// markWorker marks on the time line that a worker was started again.
func (e *Engine) markWorker(w *worker) {
	st := w.m.State()
	w.mu.Lock()
	again := st.Launch != "" && w.marked != "" && w.marked != st.Launch
	if st.Launch != "" {
		w.marked = st.Launch
	}
	w.mu.Unlock()
	if again {
		e.cards.Mark(backend.GPUMark{Kind: backend.MarkRestart, Text: "worker " + w.id + " started again", Worker: w.id})
	}
	if st.State == backend.WorkerReady {
		e.cards.Look()
	}
}

// markDeath marks the end of a worker that nobody asked for.
func (e *Engine) markDeath(w *worker, v backend.Verdict) {
	m := backend.GPUMark{At: v.At, Kind: backend.MarkDeath, Text: v.Summary, Worker: w.id}
	switch v.Kind {
	case backend.KindAsked:
		return
	case backend.KindHostOOM, backend.KindCUDAOOM:
		m.Kind = backend.MarkOOM
	}
	if v.Job != nil {
		m.Job = *v.Job
	}
	e.cards.Mark(m)
}

// markEvent marks that a job began, or that it ran out of the card's memory.
func (e *Engine) markEvent(ev backend.Event) {
	if ev.Job == nil {
		return
	}
	switch ev.Kind {
	case backend.EventStarted:
		m := backend.GPUMark{At: ev.At, Kind: backend.MarkJob, Text: ev.Job.Name, Job: ev.JobID}
		if n := len(ev.Job.Attempts); n > 0 {
			m.Worker = ev.Job.Attempts[n-1].Worker
		}
		e.cards.Mark(m)
	case backend.EventAttempt:
		if n := len(ev.Job.Attempts); n > 0 {
			if v := ev.Job.Attempts[n-1].Verdict; v != nil && v.Kind == backend.KindCUDAOOM {
				e.cards.Mark(backend.GPUMark{At: ev.At, Kind: backend.MarkOOM, Text: v.Summary, Job: ev.JobID, Worker: v.Worker})
			}
		}
	}
}
