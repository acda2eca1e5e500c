package workflow

import (
	"encoding/json"
	"slices"
	"strconv"
)

// maxGrown bounds how many inputs an autogrow template may make.
const maxGrown = 1000

// expand replaces the inputs of dynamic types (contract §8) by those that this
// node has because of its values. dynamic reports whether there were any.
func (c *checker) expand(i int, n Node, specs []InputSpec) (list []InputSpec, dynamic bool) {
	e := expansion{checker: c, index: i, node: n}
	if !slices.ContainsFunc(specs, func(s InputSpec) bool { return isDynamic(s.Type.Name) }) {
		return specs, false
	}
	e.add(specs, "", maxDepth)
	return e.list, true
}

func isDynamic(name string) bool {
	return name == "COMFY_DYNAMICCOMBO_V3" || name == "COMFY_AUTOGROW_V3" || name == "COMFY_DYNAMICSLOT_V3"
}

type expansion struct {
	checker *checker
	index   int
	node    Node
	list    []InputSpec
}

// add appends specifications, their names with a prefix.
func (e *expansion) add(specs []InputSpec, prefix string, depth int) {
	if depth <= 0 || len(e.list) > maxGrown {
		return
	}
	for _, spec := range specs {
		spec.Name = prefix + spec.Name
		switch spec.Type.Name {
		case "COMFY_DYNAMICCOMBO_V3":
			e.combo(spec, depth)
		case "COMFY_AUTOGROW_V3":
			e.grow(spec, depth)
		case "COMFY_DYNAMICSLOT_V3":
			e.list = append(e.list, spec)
			if _, ok := e.node.Input(spec.Name); ok {
				e.add(bothInputs(field(spec.options, "inputs")), spec.Name+".", depth-1)
			}
		default:
			e.list = append(e.list, spec)
		}
	}
}

// bothInputs reads {"required": …, "optional": …}.
func bothInputs(raw json.RawMessage) []InputSpec {
	return append(parseInputs(field(raw, "required"), true), parseInputs(field(raw, "optional"), false)...)
}

// combo adds a choice and the inputs that the chosen option brings.
func (e *expansion) combo(spec InputSpec, depth int) {
	e.list = append(e.list, spec)
	in, ok := e.node.Input(spec.Name)
	if !ok || in.Link != nil || kindOf(in.Value) == '[' {
		return
	}
	var keys []string
	for _, option := range items(field(spec.options, "options")) {
		key := field(option, "key")
		if equal(key, in.Value) {
			e.add(bothInputs(field(option, "inputs")), spec.Name+".", depth-1)
			return
		}
		keys = append(keys, plain(key))
	}
	choices := InputSpec{Name: spec.Name}
	for _, key := range keys {
		choices.Options = append(choices.Options, json.RawMessage(quote(key)))
	}
	f := fault{severity: SeverityError, input: spec.Name, value: plain(in.Value)}
	e.checker.add(e.index, e.checker.notInList(f, choices, e.node))
}

// grow adds the inputs that a template makes: name.PREFIX0 … or name.NAME.
func (e *expansion) grow(spec InputSpec, depth int) {
	template := field(spec.options, "template")
	least := count(field(template, "min"), 0)
	var names []string
	if list := field(template, "names"); kindOf(list) == '[' {
		for _, item := range items(list) {
			names = append(names, text(item))
		}
	} else {
		prefix := text(field(template, "prefix"))
		for i := range min(count(field(template, "max"), 100), maxGrown) {
			names = append(names, prefix+strconv.Itoa(i))
		}
	}
	model := bothInputs(field(template, "input"))
	if len(model) == 0 {
		return
	}
	for i, name := range names {
		one := model[0]
		one.Required = one.Required && i < least
		one.Name = name
		if _, live := e.node.Input(spec.Name + "." + name); live || one.Required {
			e.add([]InputSpec{one}, spec.Name+".", depth-1)
		}
	}
}

// count is a small whole number of a template, or otherwise.
func count(raw json.RawMessage, otherwise int) int {
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}
