package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/jobs"
)

// Steps of the ladder after an out-of-memory of the GPU.
const (
	stepFree  = "free"  // freed and alone
	stepFlags = "flags" // a launch with other flags, for this job
	stepGPU   = "gpu"   // another card
)

// stepMark begins the line of a verdict's evidence that names the step chosen, so
// that it is known after a restart of Easel.
const stepMark = "next step: "

// steps are those that were chosen for a job, oldest first.
func steps(job backend.Job) []string {
	var out []string
	for _, a := range job.Attempts {
		if a.Verdict == nil || a.Verdict.Kind != backend.KindCUDAOOM {
			continue
		}
		for _, e := range a.Verdict.Evidence {
			if step, ok := strings.CutPrefix(e, stepMark); ok {
				out = append(out, step)
			}
		}
	}
	return out
}

// step is the one that a job is on, "" for a job that fits so far.
func step(job backend.Job) string {
	if list := steps(job); len(list) > 0 {
		return list[len(list)-1]
	}
	return ""
}

// outOfMemory decides what becomes of a job that did not fit into the GPU's
// memory.
func (s *session) outOfMemory(p *prompt, e *comfy.ExecutionError, end jobs.End) jobs.End {
	why := runError(p, e)
	v := &backend.Verdict{
		Kind: backend.KindCUDAOOM, Certainty: backend.Certain, Summary: why.Message, Evidence: []string{}, Remedy: why.Remedy,
		At: backend.Now(), Job: &p.job.ID, Node: &e.Node, Worker: s.l.id, Launch: s.launch,
	}
	end.Outcome, end.Verdict = backend.OutcomeFailed, v
	next := s.nextStep(p, e.Message)
	if next == "" || len(p.job.Attempts) >= maxAttempts {
		why.Remedy = "the GPU's memory was full" + s.tried(p) + ": " + smaller(s.graph(p))
		v.Remedy = why.Remedy
		end.State, end.Error = backend.JobFailed, why
		return end
	}
	v.Evidence = append(v.Evidence, stepMark+next)
	v.Remedy = map[string]string{
		stepFree: "nothing to do: it is tried again alone, with the memory freed", stepGPU: "nothing to do: another card tries it",
		stepFlags: "nothing to do: it is tried again with " + strings.Join(s.d.opts().Flags, " "),
	}[next]
	end.State, end.Outputs = backend.JobQueued, nil
	return end
}

// tried says in words what was tried before.
func (s *session) tried(p *prompt) string {
	words := map[string]string{stepFree: "alone and freed", stepFlags: "with " + strings.Join(s.d.opts().Flags, " "), stepGPU: "on another card"}
	var out []string
	for _, st := range steps(p.job) {
		out = append(out, words[st])
	}
	if len(out) == 0 {
		return ""
	}
	return ", also " + strings.Join(out, " and ")
}

// nextStep is the first step of the ladder that was not tried and could help.
func (s *session) nextStep(p *prompt, message string) string {
	done, o := steps(p.job), s.d.opts()
	for _, st := range o.Ladder {
		if slices.Contains(done, st) {
			continue
		}
		switch st {
		case stepFree:
			if s.othersHeldVRAM(p, message) {
				return st
			}
		case stepFlags:
			if _, ok := s.l.worker.(Launcher); ok && len(o.Flags) > 0 && !slices.Equal(s.l.flags(), o.Flags) {
				return st
			}
		case stepGPU:
			if s.d.otherCard(s.l) {
				return st
			}
		}
	}
	return ""
}

// figures of PyTorch's message, in GiB.
var (
	capacityRE = regexp.MustCompile(`total capacity of ([0-9.]+) ([GM])iB of which ([0-9.]+) ([GM])iB is free`)
	inUseRE    = regexp.MustCompile(`this process has ([0-9.]+) ([GM])iB memory in use`)
)

// othersHeldVRAM reports whether something else than this job may have held the
// GPU's memory: models of other jobs in the same process, or another process.
// What is not known counts as yes: freeing once does no harm.
func (s *session) othersHeldVRAM(p *prompt, message string) bool {
	if s.l.worker.State().GPU == nil || s.adopted {
		return true
	}
	for shape := range s.shapes {
		if shape != p.shape || shape == "" {
			return true
		}
	}
	c, u := capacityRE.FindStringSubmatch(message), inUseRE.FindStringSubmatch(message)
	if c == nil || u == nil {
		return true
	}
	others := size(c[1], c[2]) - size(c[3], c[4]) - size(u[1], u[2])
	return others > 0.5
}

// size is a figure in GiB.
func size(n, unit string) float64 {
	f, _ := strconv.ParseFloat(n, 64)
	if unit == "M" {
		f /= 1024
	}
	return f
}

// graph is the workflow of a prompt, nil when it cannot be read.
func (s *session) graph(p *prompt) json.RawMessage {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	graph, _, err := s.d.store.Graph(ctx, p.job.ID)
	if err != nil {
		return nil
	}
	return graph
}

// smaller proposes what would fit: half the batch, else half the frames, else a
// picture of half the area, from the values that the graph has.
func smaller(graph json.RawMessage) string {
	const general = "make batch, frames or size smaller, then try again"
	var g map[string]struct {
		Class  string                     `json:"class_type"`
		Inputs map[string]json.RawMessage `json:"inputs"`
	}
	if json.Unmarshal(graph, &g) != nil {
		return general
	}
	ids := make([]string, 0, len(g))
	for id := range g {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	value := func(id, input string) (int, bool) {
		n, err := strconv.Atoi(string(g[id].Inputs[input]))
		return n, err == nil
	}
	for _, input := range []string{"batch_size", "length", "frames", "num_frames", "video_frames"} {
		for _, id := range ids {
			if n, ok := value(id, input); ok && n > 1 {
				half := n / 2
				if input != "batch_size" && n%4 == 1 {
					half = (n-1)/8*4 + 1 // video models want 4k+1 frames
				}
				return fmt.Sprintf("try %s.%s=%d (it was %d)", id, input, max(half, 1), n)
			}
		}
	}
	for _, id := range ids {
		w, ok := value(id, "width")
		h, also := value(id, "height")
		if ok && also && w >= 128 && h >= 128 {
			return fmt.Sprintf("try %s.width=%d and %s.height=%d (it was %d×%d)", id, less(w), id, less(h), w, h)
		}
	}
	return general
}

// less is about 0.7 of a side, a multiple of 64.
func less(side int) int { return max(64, side*45/64/64*64) }

// otherCard reports whether another worker with another card could run a job.
func (d *Dispatcher) otherCard(l *lane) bool {
	own := l.worker.State().GPU
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, other := range d.lanes {
		if id == l.id {
			continue
		}
		st := other.worker.State()
		if st.State == backend.WorkerFailed || st.State == backend.WorkerStopped || st.GPU == nil {
			continue
		}
		if own == nil || *own != *st.GPU {
			return true
		}
	}
	return false
}

// notHere reports whether a job is to run on another card than this lane's.
func (l *lane) notHere(job backend.Job) bool {
	if step(job) != stepGPU || len(job.Attempts) == 0 {
		return false
	}
	return slices.ContainsFunc(job.Attempts, func(a backend.Attempt) bool {
		return a.Worker == l.id && a.Verdict != nil && a.Verdict.Kind == backend.KindCUDAOOM
	}) && l.d.otherCard(l)
}

// dressed makes the launch fit a job: the flags that it needs, or none, and free
// memory where its step says so. It returns false when the job must wait for that.
func (s *session) dressed(ctx context.Context, job backend.Job) bool {
	var want []string
	st := step(job)
	if st == stepFlags {
		want = s.d.opts().Flags
	}
	if x, ok := s.l.worker.(Launcher); ok && !slices.Equal(x.Flags(), want) {
		if len(s.inside) > 0 {
			return false
		}
		err := x.Relaunch(want)
		if err == nil {
			s.leaving = time.Now()
			return false
		}
		s.d.log.Warn("launch with other flags", "worker", s.l.id, "flags", want, "err", err)
		if want != nil {
			s.giveUp(ctx, job, "it cannot be launched with "+strings.Join(want, " ")+": "+err.Error())
			return false
		}
	}
	if st == stepFree && s.freedFor != job.ID {
		if len(s.inside) > 0 {
			return false
		}
		s.freedFor = job.ID
		s.freeAndWait(ctx)
	}
	return true
}

// giveUp fails a waiting job that did not fit and for which no step is left.
func (s *session) giveUp(ctx context.Context, job backend.Job, why string) {
	e := &backend.Error{Kind: backend.KindCUDAOOM, Message: "the GPU's memory was full", Remedy: why}
	if graph, _, err := s.d.store.Graph(ctx, job.ID); err == nil {
		e.Remedy = why + "; " + smaller(graph)
	}
	if _, err := s.d.store.Fail(ctx, job.ID, e); err != nil && ctx.Err() == nil {
		s.d.log.Error("write down the end of a job", "job", job.ID, "err", err)
	}
}

// freeAndWait asks ComfyUI to free its memory while nothing is inside, and waits
// until that shows, or for a moment.
func (s *session) freeAndWait(ctx context.Context) {
	before := s.life.use.rss()
	s.askFree(ctx)
	until := time.Now().Add(s.d.opts().FreeSettle)
	st := s.l.worker.State()
	for ctx.Err() == nil && time.Now().Before(until) {
		if st.PID != nil && before > 0 {
			if u := measureTree(*st.PID); u.ok && before-u.rss > 64<<20 {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
