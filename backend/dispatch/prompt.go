package dispatch

import (
	"encoding/json"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// prompt is one job inside ComfyUI.
type prompt struct {
	job     backend.Job
	n       int
	id      string // prompt_id
	suspect bool   // it took a worker down before: runs alone
	started bool
	startAt time.Time
	nodes   map[string]node
	total   float64 // weight of all nodes
	shape   string  // names workflows that take about as long
	expect  float64 // seconds this workflow took before, 0 unknown

	done    map[string]bool // nodes that ended or were cached
	node    string          // that runs
	value   float64
	max     float64
	outputs map[string]json.RawMessage // of executed, by node

	success  bool // execution_success came
	err      *comfy.ExecutionError
	stopped  bool      // execution_interrupted came
	whole    bool      // all that was said of it since its start was heard
	over     bool      // it ended well and waits to be written down
	ended    bool      // any of the three, or executing null
	missing  int       // times it was in neither queue nor history
	cancelAt time.Time // when it was last interrupted
	stopAt   time.Time // when its end was first asked for
	freed    bool      // /free was asked for to end it
	forcedAt time.Time // when the worker was to be stopped to end it
	timedOut bool
	toldAt   time.Time

	sentAt time.Time
	nodeAt time.Time          // when the running node began; zero: not seen
	took   map[string]float64 // seconds of the nodes that ran, by node
	steps  map[string]float64 // steps of those that have them
	known  Learned            // what such jobs took before
	// perStep is the seconds that a step of a class takes, 0 when unknown.
	perStep  func(class string) float64
	peakRAM  int64
	peakVRAM int64
}

// node is what progress needs of a node of the graph.
type node struct {
	class, title string
	weight       float64
}

// samplerWeight is how much longer a sampling node is taken to run than another,
// while nothing is known.
const samplerWeight = 10

// readNodes lists the nodes of a graph in API format. A graph that cannot be
// read gives none: ComfyUI will say what is wrong with it.
func readNodes(graph json.RawMessage) (map[string]node, float64) {
	var g map[string]struct {
		Class string `json:"class_type"`
		Meta  struct {
			Title string `json:"title"`
		} `json:"_meta"`
	}
	nodes := map[string]node{}
	if json.Unmarshal(graph, &g) != nil {
		return nodes, 0
	}
	total := 0.0
	for id, n := range g {
		w := 1.0
		if strings.Contains(n.Class, "Sampler") || n.Class == "EaselSketch" {
			w = samplerWeight
		}
		title := n.Meta.Title
		if title == "" {
			title = n.Class
		}
		nodes[id] = node{class: comfy.Plain(n.Class, 120), title: comfy.Plain(title, 120), weight: w}
		total += w
	}
	return nodes, total
}

// weight of a node, also of one that an expansion made ("4.0.0.1" → "4").
func (p *prompt) nodeOf(id string) node {
	if n, ok := p.nodes[id]; ok {
		return n
	}
	if i := strings.IndexByte(id, '.'); i > 0 {
		return p.nodes[id[:i]]
	}
	return node{}
}

// progress is where the prompt stands now.
func (p *prompt) progress(now time.Time) backend.Progress {
	n := p.nodeOf(p.node)
	out := backend.Progress{Node: p.node, Class: n.class, Title: n.title, Value: p.value, Max: p.max}
	if p.total > 0 {
		done := 0.0
		for id := range p.done {
			done += p.nodes[id].weight
		}
		if p.max > 0 && !p.done[p.node] {
			done += n.weight * min(p.value/p.max, 1)
		}
		out.Fraction = min(done/p.total, 1)
	}
	if eta, ok := p.eta(out.Fraction, now); ok {
		out.ETAS = &eta
	}
	return out
}

// eta is how many seconds are left: by what this workflow took before, else by
// what part is done after how long, once that says anything.
func (p *prompt) eta(fraction float64, now time.Time) (float64, bool) {
	if p.startAt.IsZero() {
		return 0, false
	}
	elapsed := now.Sub(p.startAt).Seconds()
	if left, ok := p.left(now); ok && left > 0 {
		return left, true
	}
	step := 0.0
	if p.perStep != nil && p.max > 1 {
		step = p.perStep(p.nodeOf(p.node).class) * (p.max - p.value)
	}
	switch {
	case p.expect > 0 && elapsed < p.expect:
		return p.expect - elapsed, true
	case fraction >= 0.05 && fraction < 1 && elapsed > 0.5:
		return elapsed * (1 - fraction) / fraction, true
	case step > 0:
		return step, true
	}
	return 0, false
}

// apply takes in one message about this prompt and reports whether progress
// changed.
func (p *prompt) apply(m comfy.Message) bool {
	switch m := m.(type) {
	case comfy.ExecutionCached:
		for _, id := range m.Nodes {
			p.done[id] = true
		}
		return true
	case comfy.Executing:
		if m.Node == nil {
			p.ended = true
			return false
		}
		p.node, p.value, p.max = *m.Node, 0, 0
		return true
	case comfy.Progress:
		p.node, p.value, p.max = m.Node, m.Value, m.Max
		if p.steps != nil && m.Max > 1 {
			p.steps[p.own(m.Node)] = m.Max
		}
		return true
	case comfy.ProgressState:
		for _, n := range m.Nodes {
			switch n.State {
			case "finished":
				p.done[n.Node] = true
			case "running":
				if n.Node == p.node {
					p.value, p.max = n.Value, n.Max
				}
			}
		}
		return true
	case comfy.Executed:
		if len(m.Output) > 0 && string(m.Output) != "null" {
			p.outputs[m.Node] = m.Output
		}
	case comfy.ExecutionSuccess:
		p.success, p.ended = true, true
	case comfy.ExecutionError:
		if m.Terminal() {
			e := m
			p.err, p.ended = &e, true
		}
	case comfy.ExecutionInterrupted:
		p.stopped, p.ended = true, true
	}
	return false
}

// promptOf is the prompt_id a message is about, "" when it does not say.
func promptOf(m comfy.Message) string {
	switch m := m.(type) {
	case comfy.ExecutionStart:
		return m.PromptID
	case comfy.ExecutionCached:
		return m.PromptID
	case comfy.Executing:
		return m.PromptID
	case comfy.Progress:
		return m.PromptID
	case comfy.ProgressState:
		return m.PromptID
	case comfy.Executed:
		return m.PromptID
	case comfy.ExecutionSuccess:
		return m.PromptID
	case comfy.ExecutionError:
		return m.PromptID
	case comfy.ExecutionInterrupted:
		return m.PromptID
	case comfy.PreviewImage:
		return m.PromptID
	}
	return ""
}
