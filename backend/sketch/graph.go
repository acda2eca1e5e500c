package sketch

import "slices"

// plan is the part of a graph that has still to run: the nodes that outputs
// need and that no cache has, in the order they were found.
type plan struct {
	w       *Worker
	prompt  *object
	cached  func(id string) bool
	pending []string
	waits   map[string]int      // node → how many of its sources are pending
	feeds   map[string][]string // node → nodes that wait for it, in order
}

func newPlan(w *Worker, prompt *object, cached func(string) bool) *plan {
	return &plan{w: w, prompt: prompt, cached: cached, waits: map[string]int{}, feeds: map[string][]string{}}
}

// add puts a node and what it depends on into the plan.
func (p *plan) add(id string) {
	type edge struct{ from, to string }
	stack, edges := []string{id}, []edge{}
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if slices.Contains(p.pending, id) {
			continue
		}
		p.pending = append(p.pending, id)
		n, _ := p.prompt.at(id).(*object)
		inputs, _ := n.at("inputs").(*object)
		if inputs == nil {
			continue
		}
		for _, k := range inputs.keys {
			from, _, ok := link(inputs.vals[k])
			if !ok || !p.prompt.has(from) || p.cached(from) {
				continue
			}
			stack = append(stack, from)
			edges = append(edges, edge{from, id})
		}
	}
	for _, e := range edges {
		if !slices.Contains(p.feeds[e.from], e.to) {
			p.feeds[e.from] = append(p.feeds[e.from], e.to)
			p.waits[e.to]++
		}
	}
}

func (p *plan) output(id string) bool {
	n, _ := p.prompt.at(id).(*object)
	name, _ := n.at("class_type").(string)
	c := p.w.classes[name]
	return c != nil && c.output
}

// next picks a node that can run: an output first, then one that an output
// waits for, then one two steps away from an output, else the first.
func (p *plan) next() (string, bool) {
	var ready []string
	for _, id := range p.pending {
		if p.waits[id] == 0 {
			ready = append(ready, id)
		}
	}
	if len(ready) == 0 {
		return "", false
	}
	near := []func(string) bool{
		p.output,
		func(id string) bool { return slices.ContainsFunc(p.feeds[id], p.output) },
		func(id string) bool {
			return slices.ContainsFunc(p.feeds[id], func(b string) bool { return slices.ContainsFunc(p.feeds[b], p.output) })
		},
	}
	for _, test := range near {
		if i := slices.IndexFunc(ready, test); i >= 0 {
			return ready[i], true
		}
	}
	return ready[0], true
}

// done takes a node out of the plan.
func (p *plan) done(id string) {
	p.pending = slices.DeleteFunc(p.pending, func(s string) bool { return s == id })
	for _, b := range p.feeds[id] {
		p.waits[b]--
	}
	delete(p.feeds, id)
}
