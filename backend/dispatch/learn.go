package dispatch

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/jobs"
	"easel/backend/workflow"
)

// Bounds and keys of what is learned.
const (
	classesKey  = "learned.classes"
	shapePrefix = "learned.shape."
	classesMax  = 2000 // node classes remembered
	changedBy   = 0.1  // a figure that moved by less is not written again
)

// classStats is what nodes of one class took on this box.
type classStats struct {
	Slow float64 `json:"slow"`           // seconds, the longest seen
	Step float64 `json:"step,omitempty"` // seconds per step, a moving mean; 0 unknown
}

// Learned is what a workflow took on this box before. Zero fields are not known.
type Learned struct {
	Runs     int                `json:"runs"`
	Seconds  float64            `json:"seconds"`            // the mean of the last runs
	Nodes    map[string]float64 `json:"nodes,omitempty"`    // seconds by node id
	PeakRAM  int64              `json:"peak_ram,omitempty"` // bytes, the highest seen
	PeakVRAM int64              `json:"peak_vram,omitempty"`
}

// learned keeps what runs took, in the records.
type learned struct {
	store *jobs.Store
	log   *slog.Logger

	// mu guards the fields that follow.
	mu      sync.Mutex
	loaded  bool
	classes map[string]classStats
}

// load reads what former engines learned.
func (k *learned) load(ctx context.Context) {
	text, err := k.store.GetMeta(ctx, classesKey)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.loaded {
		return
	}
	k.loaded = err == nil
	k.classes = map[string]classStats{}
	if text != "" && json.Unmarshal([]byte(text), &k.classes) != nil {
		k.classes = map[string]classStats{} // it is learned anew
	}
}

// slowest is the longest that a node of this class ever took, in seconds; 0 when
// it was never seen.
func (k *learned) slowest(class string) float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.classes[class].Slow
}

// perStep is the seconds that a step of this class takes, 0 when unknown.
func (k *learned) perStep(class string) float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.classes[class].Step
}

// shape reads what jobs of a shape took.
func (k *learned) shape(ctx context.Context, shape string) (out Learned) {
	if shape == "" {
		return out
	}
	text, err := k.store.GetMeta(ctx, shapePrefix+shape)
	if err != nil || text == "" || json.Unmarshal([]byte(text), &out) != nil {
		return Learned{}
	}
	return out
}

// note remembers a run that ended well.
func (k *learned) note(ctx context.Context, p *prompt, took float64) {
	if k.noteClasses(p) {
		k.mu.Lock()
		raw, err := json.Marshal(k.classes)
		k.mu.Unlock()
		if err == nil {
			k.write(ctx, classesKey, raw)
		}
	}
	if p.shape == "" {
		return
	}
	was := p.known
	now := was.with(p, took)
	if !was.near(now) {
		if raw, err := json.Marshal(now); err == nil {
			k.write(ctx, shapePrefix+p.shape, raw)
		}
	}
}

func (k *learned) write(ctx context.Context, key string, raw []byte) {
	if err := k.store.SetMeta(ctx, key, string(raw)); err != nil && ctx.Err() == nil {
		k.log.Warn("remember what a job took", "err", err)
	}
}

// noteClasses takes in what the nodes of a run took, and says whether anything is
// worth writing down.
func (k *learned) noteClasses(p *prompt) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.classes == nil {
		k.classes = map[string]classStats{}
	}
	for id, sec := range p.took {
		class := p.nodeOf(id).class
		st, seen := k.classes[class]
		if class == "" || !seen && len(k.classes) >= classesMax {
			continue
		}
		if sec > st.Slow*(1+changedBy) && sec-st.Slow > 0.05 {
			st.Slow, changed = sec, true
		}
		if n := p.steps[id]; n > 1 {
			step := sec / n
			if st.Step > 0 {
				step = 0.7*st.Step + 0.3*step
			}
			changed = changed || st.Step == 0 || far(st.Step, step)
			if st.Step == 0 || far(st.Step, step) {
				st.Step = step
			}
		}
		k.classes[class] = st
	}
	return changed
}

// with is what is known after one more run.
func (w Learned) with(p *prompt, took float64) Learned {
	now := Learned{Runs: w.Runs + 1, Seconds: took, Nodes: map[string]float64{}, PeakRAM: max(w.PeakRAM, p.peakRAM), PeakVRAM: max(w.PeakVRAM, p.peakVRAM)}
	if w.Seconds > 0 && took > 0 {
		now.Seconds = 0.7*w.Seconds + 0.3*took
	}
	for id, sec := range w.Nodes {
		now.Nodes[id] = sec
	}
	for id, sec := range p.took {
		if old, ok := now.Nodes[id]; ok {
			sec = 0.7*old + 0.3*sec
		}
		now.Nodes[id] = sec
	}
	return now
}

// near reports whether two states of knowledge are about the same, so that the
// new one need not be written.
func (w Learned) near(n Learned) bool {
	if w.Runs == 0 || far(w.Seconds, n.Seconds) || far(float64(w.PeakRAM), float64(n.PeakRAM)) || far(float64(w.PeakVRAM), float64(n.PeakVRAM)) {
		return false
	}
	for id, sec := range n.Nodes {
		if old, ok := w.Nodes[id]; !ok || far(old, sec) {
			return false
		}
	}
	return true
}

// far reports whether two figures differ by more than a tenth, and by more than
// noise.
func far(a, b float64) bool {
	d := a - b
	if d < 0 {
		d = -d
	}
	return d > changedBy*max(a, b) && d > 0.02
}

// Learned is what jobs with this graph took on this box before; Runs is 0 when
// there was none.
func (d *Dispatcher) Learned(ctx context.Context, graph json.RawMessage) Learned {
	return d.learned.shape(ctx, workflow.Shape(graph))
}

// clock notes that the prompt came to another node, or to its end.
func (p *prompt) clock(before string, now time.Time) {
	if p.node == before && !p.ended {
		return
	}
	if before != "" && !p.nodeAt.IsZero() {
		id := p.own(before)
		p.took[id] += now.Sub(p.nodeAt).Seconds()
	}
	p.nodeAt = now
	if p.ended {
		p.nodeAt = time.Time{}
	}
}

// own is the node of the graph that an id belongs to: an expansion makes more.
func (p *prompt) own(id string) string {
	if _, ok := p.nodes[id]; ok {
		return id
	}
	for i := range id {
		if id[i] == '.' {
			return id[:i]
		}
	}
	return id
}

// left is how many seconds the nodes that are not done took before, with what the
// running one has done taken off; ok is false while that is not known.
func (p *prompt) left(now time.Time) (sec float64, ok bool) {
	if len(p.known.Nodes) == 0 {
		return 0, false
	}
	for id := range p.nodes {
		took, seen := p.known.Nodes[id]
		switch {
		case p.done[id] || !seen:
		case id != p.own(p.node):
			sec += took
		case p.max > 0:
			sec += took * (1 - min(p.value/p.max, 1))
		case !p.nodeAt.IsZero():
			sec += max(0, took-now.Sub(p.nodeAt).Seconds())
		default:
			sec += took
		}
	}
	return sec, true
}

// weigh sets the weights of the nodes by what they took before.
func (p *prompt) weigh() {
	if len(p.known.Nodes) == 0 {
		return
	}
	const least = 0.05 // seconds, for a node that was cached or quick
	p.total = 0
	for id, n := range p.nodes {
		n.weight = max(least, p.known.Nodes[id])
		p.nodes[id] = n
		p.total += n.weight
	}
}

// Foreign are the prompts that somebody else posted into the workers, running ones
// first, worker by worker.
func (d *Dispatcher) Foreign() []backend.ForeignPrompt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.foreignList()
}
