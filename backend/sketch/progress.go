package sketch

// progress is the state of the nodes of one prompt, as progress_state tells it.
type progress struct {
	hub   *hub
	id    string
	nodes *object
}

func newProgress(h *hub, promptID string) *progress {
	return &progress{hub: h, id: promptID, nodes: newObject()}
}

func (p *progress) set(node string, value, limit any, state string) {
	p.nodes.set(node, obj("value", value, "max", limit, "state", state, "node_id", node, "prompt_id", p.id,
		"display_node_id", node, "parent_node_id", nil, "real_node_id", node))
	copied := newObject()
	for _, k := range p.nodes.keys {
		copied.set(k, p.nodes.vals[k])
	}
	p.hub.send("progress_state", obj("prompt_id", p.id, "nodes", copied), p.hub.owner())
}

func (p *progress) start(node string) { p.set(node, 0.0, 1.0, "running") }

func (p *progress) update(node string, n, total int) {
	p.set(node, int64(n), int64(total), "running")
}

// finish sets the value to its limit; a node that never started has 1 of 1.
func (p *progress) finish(node string) {
	var limit any = int64(1)
	if o, ok := p.nodes.at(node).(*object); ok {
		limit = o.at("max")
	}
	p.set(node, limit, limit, "finished")
}
