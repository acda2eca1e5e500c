package sketch

import (
	"context"
	"errors"
	"image"
	"slices"
	"time"
)

// execution is one prompt being run.
type execution struct {
	w        *Worker
	it       *item
	extra    *object
	number   int64 // the count of prompts, for faults
	messages []any // for the history
	progress *progress
	executed []any
	ui       *object // what the history shows, 0.8.0
	meta     *object
	target   string // the node in which faults strike
	struck   bool
}

// work takes prompts from the queue until ctx ends or the thread dies.
func (w *Worker) work(ctx context.Context) {
	for {
		it, err := w.queue.get(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.died(raise("TypeError", "%v", err))
			}
			return
		}
		if it != nil {
			start := time.Now()
			if err := w.runPrompt(ctx, it); err != nil {
				if ctx.Err() == nil {
					w.died(asRaised(err))
				}
				return
			}
			w.logDuration(time.Since(start))
		}
		w.takeFlags()
	}
}

func (w *Worker) logDuration(d time.Duration) {
	if d > 10*time.Minute {
		w.log.info("Prompt executed in %s", time.Time{}.Add(d).Format("15:04:05"))
		return
	}
	w.log.info("Prompt executed in %.2f seconds", d.Seconds())
}

func (w *Worker) takeFlags() {
	flags := w.queue.takeFlags()
	if flags["free_memory"] {
		w.cache = newCache()
	}
	if flags["free_memory"] || flags["unload_models"] {
		w.freeMemory()
	}
}

// died logs the end of the worker thread. The prompt stays "running" for ever.
func (w *Worker) died(e *raised) {
	w.log.bar("Exception in thread Thread-1 (prompt_worker):\nTraceback (most recent call last):\n" +
		"  File \"easel sketch\", line 1, in prompt_worker\n    run(item)\n" + e.class + ": " + e.msg + "\n")
}

// runPrompt runs one prompt to its end and writes its history. An error
// return is the end of the worker thread.
func (w *Worker) runPrompt(ctx context.Context, it *item) error {
	w.interrupted.Store(false)
	extra, ok := it.extra.(*object)
	if !ok {
		return raise("TypeError", "argument of type '%s' is not iterable", pyType(it.extra))
	}
	x := &execution{w: w, it: it, extra: extra, number: w.countPrompt(), ui: newObject(), meta: newObject()}
	w.hub.setOwner(clientOf(extra), nil)
	x.message("execution_start", obj("prompt_id", it.id), false)
	w.cache.begin(w, it.prompt)
	cached := []any{}
	for _, id := range it.prompt.keys {
		if w.cache.get(id) != nil {
			cached = append(cached, id)
		}
	}
	x.message("execution_cached", obj("nodes", cached, "prompt_id", it.id), false)
	x.progress = newProgress(w.hub, it.id)
	success, err := x.runNodes(ctx)
	if err != nil {
		return err
	}
	w.hub.setNode(nil)
	w.queue.done(func(stored *item) *object { return x.history(stored, success) })
	if c := w.hub.owner(); c != nil {
		w.hub.send("executing", obj("node", nil, "prompt_id", it.id), c)
	}
	if w.opts.CacheNone {
		w.cache.results = map[string]*result{}
	}
	return nil
}

// clientOf is the client that owns a prompt: nil where it named none.
func clientOf(extra *object) *string {
	v, ok := extra.get("client_id")
	if !ok || v == nil {
		return nil
	}
	s := pyStr(v)
	return &s
}

// message sends an event to the owner (or to all, where the prompt has none
// and the event is for everybody) and keeps it for the history.
func (x *execution) message(event string, data *object, broadcast bool) {
	data.set("timestamp", nowMillis())
	x.messages = append(x.messages, []any{event, data})
	if c := x.w.hub.owner(); c != nil || broadcast {
		x.w.hub.send(event, data, c)
	}
}

func (x *execution) history(stored *item, success bool) *object {
	status := "error"
	if success {
		status = "success"
	}
	outputs, meta := x.ui, x.meta
	if !x.w.since("0.8.0") {
		outputs, meta = newObject(), newObject()
		for _, id := range x.it.prompt.keys {
			if r := x.w.cache.get(id); r != nil && r.ui != nil {
				outputs.set(id, r.ui)
				meta.set(id, r.meta)
			}
		}
	}
	return obj("prompt", stored.list(), "outputs", outputs,
		"status", obj("status_str", status, "completed", success, "messages", x.messages), "meta", meta)
}

// runNodes runs the graph. An error return is the end of the worker thread.
func (x *execution) runNodes(ctx context.Context) (success bool, err error) {
	p := newPlan(x.w, x.it.prompt, func(id string) bool { return x.w.cache.get(id) != nil })
	for _, id := range x.it.outputs {
		p.add(id.(string))
	}
	x.target = x.chooseTarget(p)
	for len(p.pending) > 0 {
		id, ok := p.next()
		if !ok {
			x.failed(p.pending[0], &raised{class: "graph.DependencyCycleError", msg: "Dependency cycle detected"}, newObject(), false)
			return false, nil
		}
		inputs := newObject()
		err := x.runNode(ctx, id, inputs)
		switch {
		case err == nil:
			p.done(id)
			continue
		case errors.Is(err, errWorkerDied), ctx.Err() != nil:
			return false, err
		case errors.Is(err, errInterrupted):
			x.w.log.info("Processing interrupted")
			x.message("execution_interrupted", obj("prompt_id", x.it.id, "node_id", id, "node_type", x.class(id).name, "executed", slices.Clone(x.executed)), true)
		default:
			x.failed(id, asRaised(err), inputs, true)
		}
		return false, nil
	}
	x.message("execution_success", obj("prompt_id", x.it.id), false)
	return true, nil
}

// chooseTarget picks the node in which the faults of a prompt strike: the
// first EaselSketch that will run, else the first node that will.
func (x *execution) chooseTarget(p *plan) string {
	first := ""
	for _, id := range p.pending {
		if x.w.cache.get(id) != nil {
			continue
		}
		if x.class(id).name == "EaselSketch" {
			return id
		}
		if first == "" || p.waits[id] == 0 {
			first = id
		}
	}
	return first
}

func (x *execution) class(id string) *class {
	n := x.it.prompt.at(id).(*object)
	return x.w.classes[n.at("class_type").(string)]
}

// failed reports an exception in a node.
func (x *execution) failed(id string, e *raised, inputs *object, log bool) {
	c := x.class(id)
	trace, tips := []string{}, ""
	if log {
		trace = e.traceback(c.name)
		x.w.log.line("!!! Exception during processing !!! " + e.msg)
		text := "Traceback (most recent call last):\n"
		for _, f := range trace {
			text += f
		}
		x.w.log.line(text + e.class + ": " + e.msg + "\n")
		tips = "\n"
	}
	if e.oom {
		tips = "\nThis error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
		x.w.log.line("Got an OOM, unloading all loaded models.")
	}
	for _, k := range inputs.keys {
		inputs.set(k, []any{asText(inputs.at(k).([]any)[0])})
	}
	current := []any{}
	for _, k := range x.it.prompt.keys {
		current = append(current, k)
	}
	x.message("execution_error", obj("prompt_id", x.it.id, "node_id", id, "node_type", c.name,
		"executed", slices.Clone(x.executed), "exception_message", e.msg+tips, "exception_type", e.class,
		"traceback", texts(trace), "current_inputs", inputs, "current_outputs", current), false)
}

// runNode runs one node, or tells that its result is at hand. shown is filled
// with the inputs, for the report of an error.
func (x *execution) runNode(ctx context.Context, id string, shown *object) error {
	if r := x.w.cache.get(id); r != nil {
		if x.w.hub.owner() != nil {
			var ui any
			if r.ui != nil {
				ui = r.ui
				x.ui.set(id, r.ui)
				x.meta.set(id, r.meta)
			}
			x.w.hub.owned("executed", obj("node", id, "display_node", id, "output", ui, "prompt_id", x.it.id))
		}
		x.progress.finish(id)
		return nil
	}
	x.progress.start(id)
	c := x.class(id)
	inputs := x.gather(id, c, shown)
	x.w.hub.setNode(&id)
	x.w.hub.owned("executing", obj("node", id, "display_node", id, "prompt_id", x.it.id))
	r, err := x.call(ctx, id, c, inputs)
	if err != nil {
		return err
	}
	if r.ui != nil {
		x.ui.set(id, r.ui)
		x.meta.set(id, r.meta)
		x.w.hub.owned("executed", obj("node", id, "display_node", id, "output", r.ui, "prompt_id", x.it.id))
	}
	x.w.cache.put(id, r)
	x.progress.finish(id)
	x.executed = append(x.executed, id)
	return nil
}

// call executes the node's code with the faults that were asked for.
func (x *execution) call(ctx context.Context, id string, c *class, inputs map[string]any) (*result, error) {
	if f := x.w.faults.take("slow-node", x.number); f != nil {
		if err := sleep(ctx, f.wait); err != nil {
			return nil, err
		}
	}
	if x.w.interrupted.CompareAndSwap(true, false) {
		return nil, errInterrupted
	}
	for _, k := range unknownLinks(x.it.prompt.at(id).(*object), c) {
		return nil, raise("TypeError", "%s.execute() got an unexpected keyword argument '%s'", c.name, k)
	}
	if id == x.target && c.name != "EaselSketch" {
		if err := x.strike(); err != nil {
			return nil, err
		}
	}
	args := &call{
		w: x.w, inputs: inputs, prompt: x.it.prompt, pngInfo: x.extra.at("extra_pnginfo"), ctx: ctx,
		prefix: x.w.cache.prefix(id, c.name),
		tick:   func(n, total int, preview func() image.Image) error { return x.tick(ctx, id, n, total, preview) },
	}
	outputs, ui, err := c.run(args)
	if err != nil {
		return nil, err
	}
	if ui != nil && x.w.faults.take("nan", x.number) != nil {
		nan, _ := parseJSON([]byte("[NaN]"))
		ui.set("value", nan)
	}
	r := &result{outputs: outputs, ui: ui}
	if ui != nil {
		r.meta = obj("node_id", id, "display_node", id, "parent_node", nil, "real_node_id", id)
	}
	return r, nil
}

// unknownLinks are linked inputs that the class does not declare: ComfyUI
// passes them on, and the node's function refuses them.
func unknownLinks(n *object, c *class) []string {
	inputs := n.at("inputs").(*object)
	var bad []string
	for _, k := range inputs.keys {
		if _, _, ok := link(inputs.vals[k]); ok && !slices.ContainsFunc(c.declared(), func(in input) bool { return in.name == k }) {
			bad = append(bad, k)
		}
	}
	return bad
}

func (x *execution) strike() error {
	if x.struck {
		return nil
	}
	x.struck = true
	return x.w.strike(x.number)
}

// tick reports progress of a node, with a preview where one is wanted. It is
// where an interrupt is noticed.
func (x *execution) tick(ctx context.Context, id string, n, total int, preview func() image.Image) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if id == x.target && 2*n >= total {
		if err := x.strike(); err != nil {
			return err
		}
	}
	if x.w.interrupted.CompareAndSwap(true, false) {
		return errInterrupted
	}
	var img image.Image
	if preview != nil && x.wantsPreviews() {
		img = preview()
	}
	x.progress.update(id, n, total)
	metadata := img != nil && x.w.hub.wantsMetadata()
	if metadata {
		x.w.hub.preview(img, obj("node_id", id, "prompt_id", x.it.id, "display_node_id", id, "parent_node_id", nil, "real_node_id", id))
	}
	x.w.hub.send("progress", obj("value", int64(n), "max", int64(total), "prompt_id", x.it.id, "node", id), x.w.hub.owner())
	if img != nil && !metadata {
		x.w.hub.preview(img, nil)
	}
	return nil
}

// wantsPreviews follows the flag, and from 0.5.0 on the prompt's own wish.
func (x *execution) wantsPreviews() bool {
	method := x.w.opts.PreviewMethod
	if m, ok := x.extra.at("preview_method").(string); ok && x.w.since("0.8.0") && m != "" && m != "default" {
		method = m
	}
	return method != "none"
}

// gather resolves the inputs of a node.
func (x *execution) gather(id string, c *class, shown *object) map[string]any {
	given := x.it.prompt.at(id).(*object).at("inputs").(*object)
	vals := map[string]any{}
	for _, k := range given.keys {
		v := given.vals[k]
		if from, slot, ok := link(v); ok {
			v = nil
			if r := x.w.cache.get(from); r != nil {
				if slot < 0 {
					slot += len(r.outputs)
				}
				if slot >= 0 && slot < len(r.outputs) {
					v = r.outputs[slot]
				}
			}
		} else if !slices.ContainsFunc(c.declared(), func(in input) bool { return in.name == k }) {
			continue // an unknown constant is left out
		}
		vals[k] = v
		shown.set(k, []any{v})
	}
	for _, k := range c.hidden() {
		var v any
		switch k {
		case "prompt":
			v = x.it.prompt
		case "extra_pnginfo":
			v = x.extra.at("extra_pnginfo")
		}
		shown.set(k, []any{v})
	}
	return vals
}

// asText is a value as current_inputs shows it: simple ones as they are,
// others as text.
func asText(v any) any {
	switch v.(type) {
	case *object, []any, *tensor:
		return pyStr(v)
	}
	return v
}

// sleep waits, or returns when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
