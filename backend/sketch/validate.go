package sketch

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// verdict is what is known of one node after validation.
type verdict struct {
	ok      bool
	reasons []any
}

// validator checks one prompt. It changes the prompt as ComfyUI does:
// constants take the declared type.
type validator struct {
	w       *Worker
	prompt  *object
	done    map[string]verdict
	order   []string // of done
	current map[string]bool
}

func reason(kind, msg, details string, info *object) *object {
	return obj("type", kind, "message", msg, "details", details, "extra_info", info)
}

// checked is the outcome of validating a prompt.
type checked struct {
	err     *object // nil: at least one output can run
	outputs []any
	nodes   *object
}

// validate checks a prompt. An error return is an exception that nothing
// catches: the client gets status 500.
func (w *Worker) validate(prompt any, only []any) (checked, error) {
	p, outputs, bad, err := w.findOutputs(prompt, only)
	if err != nil || bad != nil {
		return checked{err: bad, nodes: newObject()}, err
	}
	if len(outputs) == 0 {
		return checked{err: reason("prompt_no_outputs", "Prompt has no outputs", "", newObject()), nodes: newObject()}, nil
	}
	v := &validator{w: w, prompt: p, done: map[string]verdict{}, current: map[string]bool{}}
	c := checked{nodes: newObject()}
	var lines []string
	for _, id := range outputs {
		res, exc := v.node(id)
		if exc != nil {
			res = verdict{false, []any{reason("exception_during_validation", "Exception when validating node", exc.msg,
				obj("exception_type", exc.class, "traceback", texts(exc.traceback("validate_inputs"))))}}
			v.store(id, res)
		}
		if res.ok {
			c.outputs = append(c.outputs, id)
			continue
		}
		lines = append(lines, v.report(id, res, c.nodes)...)
	}
	if len(c.outputs) == 0 {
		c.err = reason("prompt_outputs_failed_validation", "Prompt outputs failed validation", strings.Join(lines, "\n"), newObject())
	}
	return c, nil
}

func texts(s []string) []any {
	l := make([]any, len(s))
	for i := range s {
		l[i] = s[i]
	}
	return l
}

// findOutputs looks at the class of every node and lists the output nodes.
func (w *Worker) findOutputs(prompt any, only []any) (p *object, outputs []string, bad *object, err error) {
	switch t := prompt.(type) {
	case *object:
		p = t
	case []any:
		if len(t) == 0 {
			return nil, nil, nil, nil
		}
	case string:
		if t == "" {
			return nil, nil, nil, nil
		}
	}
	if p == nil {
		return nil, nil, nil, raise("TypeError", "'%s' object is not a prompt", pyType(prompt))
	}
	invalid := func(id, msg string) *object {
		return reason("invalid_prompt", msg, "Node ID '#"+id+"'", newObject())
	}
	for _, id := range p.keys {
		n, isObject := p.vals[id].(*object)
		if !isObject {
			switch p.vals[id].(type) {
			case string, []any:
				return nil, nil, invalid(id, "Cannot execute because a node is missing the class_type property."), nil
			}
			return nil, nil, nil, raise("TypeError", "argument of type '%s' is not iterable", pyType(p.vals[id]))
		}
		kind, ok := n.get("class_type")
		if !ok {
			return nil, nil, invalid(id, "Cannot execute because a node is missing the class_type property."), nil
		}
		switch kind.(type) {
		case []any, *object:
			return nil, nil, nil, raise("TypeError", "unhashable type: '%s'", pyType(kind))
		}
		name, _ := kind.(string)
		c := w.classes[name]
		if c == nil {
			return nil, nil, invalid(id, "Cannot execute because node "+pyStr(kind)+" does not exist."), nil
		}
		if c.output && (only == nil || slices.Contains(only, any(id))) {
			outputs = append(outputs, id)
		}
	}
	return p, outputs, nil, nil
}

func (v *validator) store(id string, res verdict) {
	if _, ok := v.done[id]; !ok {
		v.order = append(v.order, id)
	}
	v.done[id] = res
}

// report logs why an output cannot run, collects the errors of its nodes, and
// returns the lines for the error of the whole prompt.
func (v *validator) report(output string, res verdict, nodes *object) (lines []string) {
	log := v.w.log
	log.error("Failed to validate prompt for output %s:", output)
	if len(res.reasons) > 0 {
		log.error("* (prompt):")
		for _, r := range res.reasons {
			line := fmt.Sprintf("%s: %s", r.(*object).at("message"), r.(*object).at("details"))
			lines = append(lines, line)
			log.error("  - %s", line)
		}
	}
	for _, id := range v.order {
		d := v.done[id]
		if d.ok || len(d.reasons) == 0 {
			continue
		}
		e, known := nodes.at(id).(*object)
		if !known {
			n, _ := v.prompt.at(id).(*object)
			e = obj("errors", d.reasons, "dependent_outputs", []any{}, "class_type", n.at("class_type"))
			nodes.set(id, e)
			log.error("* %s %s:", pyStr(n.at("class_type")), id)
			for _, r := range d.reasons {
				log.error("  - %s: %s", r.(*object).at("message"), r.(*object).at("details"))
			}
		}
		e.set("dependent_outputs", append(e.at("dependent_outputs").([]any), output))
	}
	log.error("Output will be ignored")
	return lines
}

// node validates a node and what it depends on. A *raised return is an
// exception inside.
func (v *validator) node(id string) (verdict, *raised) {
	if res, ok := v.done[id]; ok {
		return res, nil
	}
	if v.current[id] { // a cycle: invalid, and nothing to say about it (as recorded)
		return verdict{}, nil
	}
	v.current[id] = true
	defer delete(v.current, id)
	n := v.prompt.at(id).(*object)
	c := v.w.classes[n.at("class_type").(string)]
	inputs, ok := n.at("inputs").(*object)
	if !ok {
		return verdict{}, raise("KeyError", "'inputs'")
	}
	res := verdict{ok: true, reasons: []any{}}
	for _, in := range c.declared() {
		val, given := inputs.get(in.name)
		if !given {
			if in.required {
				res.fail(reason("required_input_missing", "Required input is missing", in.name, obj("input_name", in.name)))
			}
			continue
		}
		if l, isList := val.([]any); isList {
			if exc := v.linked(&res, in, l); exc != nil {
				return res, exc
			}
			continue
		}
		v.constant(&res, c, in, inputs, val)
	}
	v.custom(&res, c, inputs)
	v.store(id, res)
	return res, nil
}

func (d *verdict) fail(r *object) {
	d.ok = false
	d.reasons = append(d.reasons, r)
}

// linked checks an input that comes from another node.
func (v *validator) linked(res *verdict, in input, l []any) *raised {
	if len(l) != 2 {
		res.fail(reason("bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", in.name,
			obj("input_name", in.name, "input_config", in.config(), "received_value", l)))
		return nil
	}
	got, from, exc := v.source(l)
	if exc != nil {
		return exc
	}
	if !compatible(got, in.typ) {
		res.fail(reason("return_type_mismatch", "Return type mismatch between linked nodes",
			fmt.Sprintf("%s, received_type(%s) mismatch input_type(%s)", in.name, pyStr(got), pyStr(in.typ)),
			obj("input_name", in.name, "input_config", in.config(), "received_type", got, "linked_node", l)))
		return nil
	}
	inner, exc := v.node(from)
	if exc != nil {
		res.ok = false
		v.store(from, verdict{false, []any{reason("exception_during_inner_validation", "Exception when validating inner node", exc.msg,
			obj("input_name", in.name, "input_config", in.config(), "exception_message", exc.msg, "exception_type", exc.class,
				"traceback", texts(exc.traceback("validate_inputs")), "linked_node", l))}})
		return nil
	}
	if !inner.ok {
		res.ok = false
	}
	return nil
}

// source finds the type that a link delivers.
func (v *validator) source(l []any) (typ any, from string, exc *raised) {
	from, isText := l[0].(string)
	n, known := v.prompt.at(from).(*object)
	if !isText || !known {
		return nil, "", raise("KeyError", "%s", pyRepr(l[0]))
	}
	types := v.w.classes[n.at("class_type").(string)].outputs()
	slot, ok := l[1].(int64)
	if !ok {
		return nil, "", raise("TypeError", "tuple indices must be integers or slices, not %s", pyType(l[1]))
	}
	if slot < 0 {
		slot += int64(len(types))
	}
	if slot < 0 || slot >= int64(len(types)) {
		return nil, "", raise("IndexError", "tuple index out of range")
	}
	return types[slot], from, nil
}

// compatible says whether an output type suits an input type: equal, one of
// them "*", or a type in common of two comma lists.
func compatible(got, want any) bool {
	g, ok1 := got.(string)
	w, ok2 := want.(string)
	if !ok1 || !ok2 {
		return false
	}
	if g == w || g == "*" || w == "*" {
		return true
	}
	for _, t := range strings.Split(g, ",") {
		if slices.Contains(strings.Split(w, ","), t) {
			return true
		}
	}
	return false
}

// constant converts a value to the declared type, stores it, and checks its
// limits and choices.
func (v *validator) constant(res *verdict, c *class, in input, inputs *object, val any) {
	if o, ok := val.(*object); ok && o.has("__value__") {
		val = o.at("__value__")
		inputs.set(in.name, val)
	}
	typ, _ := in.typ.(string)
	conv, exc := convert(typ, val)
	if exc != nil {
		res.fail(reason("invalid_input_type", "Failed to convert an input value to a "+typ+" value",
			fmt.Sprintf("%s, %s, %s", in.name, pyStr(val), exc.msg),
			obj("input_name", in.name, "input_config", in.config(), "received_value", val, "exception_message", exc.msg)))
		return
	}
	inputs.set(in.name, conv)
	if c.check[in.name] != nil {
		return
	}
	info := obj("input_name", in.name, "input_config", in.config(), "received_value", conv)
	if limit, ok := in.options.get("min"); ok && compare(conv, limit) < 0 {
		res.fail(reason("value_smaller_than_min", "Value "+pyStr(conv)+" smaller than min of "+pyStr(limit), in.name, info))
		return
	}
	if limit, ok := in.options.get("max"); ok && compare(conv, limit) > 0 {
		res.fail(reason("value_bigger_than_max", "Value "+pyStr(conv)+" bigger than max of "+pyStr(limit), in.name, info))
		return
	}
	v.choice(res, in, conv, info)
}

// choice checks a value against a list. 0.3.64 knows only the old form of
// lists; for the new one (COMBO) it takes anything.
func (v *validator) choice(res *verdict, in input, val any, info *object) {
	choices, isList := in.typ.([]any)
	if !isList && in.typ == "COMBO" && v.w.since("0.8.0") {
		choices, isList = in.options.at("options").([]any)
	}
	if !isList || slices.ContainsFunc(choices, func(c any) bool { return c == val }) {
		return
	}
	list := pyStr(choices)
	if len(choices) > 20 {
		list = fmt.Sprintf("(list of length %d)", len(choices))
		info.set("input_config", nil)
	}
	res.fail(reason("value_not_in_list", "Value not in list", fmt.Sprintf("%s: '%s' not in %s", in.name, pyStr(val), list), info))
}

// custom runs the checks that the class has of its own.
func (v *validator) custom(res *verdict, c *class, inputs *object) {
	for _, in := range c.declared() {
		check := c.check[in.name]
		val, given := inputs.get(in.name)
		if check == nil || !given {
			continue
		}
		if _, _, isLink := link(val); isLink {
			continue
		}
		if msg := check(v.w, val); msg != "" {
			res.fail(reason("custom_validation_failed", "Custom validation failed for node", in.name+" - "+msg, obj("input_name", in.name)))
		}
	}
}

// convert is Python's int(), float(), str() or bool() of a value.
func convert(typ string, v any) (any, *raised) {
	switch typ {
	case "INT":
		return toInt(v)
	case "FLOAT":
		return toPyFloat(v)
	case "STRING":
		return pyStr(v), nil
	case "BOOLEAN":
		return truthy(v), nil
	}
	return v, nil
}

func toInt(v any) (any, *raised) {
	switch t := v.(type) {
	case int64, *big.Int:
		return v, nil
	case bool:
		if t {
			return int64(1), nil
		}
		return int64(0), nil
	case float64:
		switch {
		case math.IsNaN(t):
			return nil, raise("ValueError", "cannot convert float NaN to integer")
		case math.IsInf(t, 0):
			return nil, raise("OverflowError", "cannot convert float infinity to integer")
		case math.Abs(t) < 1<<62:
			return int64(t), nil
		}
		b, _ := big.NewFloat(t).Int(nil)
		return b, nil
	case string:
		n, err := parseInt(strings.TrimPrefix(strings.ReplaceAll(strings.TrimSpace(t), "_", ""), "+"))
		if err != nil {
			return nil, raise("ValueError", "invalid literal for int() with base 10: %s", pyRepr(t))
		}
		return n, nil
	}
	return nil, raise("TypeError", "int() argument must be a string, a bytes-like object or a real number, not '%s'", pyType(v))
}

func toPyFloat(v any) (any, *raised) {
	switch t := v.(type) {
	case float64:
		return t, nil
	case int64:
		return float64(t), nil
	case *big.Int:
		f, _ := new(big.Float).SetInt(t).Float64()
		if math.IsInf(f, 0) {
			return nil, raise("OverflowError", "int too large to convert to float")
		}
		return f, nil
	case bool:
		if t {
			return 1.0, nil
		}
		return 0.0, nil
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(t), 64)
		if err != nil {
			return nil, raise("ValueError", "could not convert string to float: %s", pyRepr(t))
		}
		return f, nil
	}
	return nil, raise("TypeError", "float() argument must be a string or a real number, not '%s'", pyType(v))
}

// compare orders two numbers exactly; NaN compares equal to all, so that it
// breaks no limit, as in Python.
func compare(a, b any) int {
	x, ok1 := exact(a)
	y, ok2 := exact(b)
	if !ok1 || !ok2 {
		return 0
	}
	return x.Cmp(y)
}

func exact(v any) (*big.Float, bool) {
	switch t := v.(type) {
	case int64:
		return new(big.Float).SetInt64(t), true
	case *big.Int:
		return new(big.Float).SetInt(t), true
	case float64:
		if math.IsNaN(t) {
			return nil, false
		}
		return big.NewFloat(t), true
	}
	return nil, false
}
