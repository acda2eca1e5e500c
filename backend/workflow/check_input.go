package workflow

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"
)

// input looks at one declared input of a node.
func (c *checker) input(i int, n Node, spec InputSpec) {
	in, ok := n.Input(spec.Name)
	switch {
	case !ok:
		if spec.Required {
			c.add(i, fault{
				kind: KindMissingInput, severity: SeverityError, input: spec.Name,
				message: "it is required (" + clip(spec.Type.String(), 60) + ") and missing", fix: missingFix(spec),
			})
		}
	case kindOf(in.Value) == '[':
		if source, ok := c.link(i, in, SeverityError); ok {
			c.linked(i, in, spec, source)
		}
	default:
		c.constant(i, n, in, spec)
	}
}

func missingFix(spec InputSpec) string {
	if len(spec.Default) > 0 && kindOf(spec.Default) != '{' {
		return "set it; the node's own default is " + clip(plain(spec.Default), 60)
	}
	if spec.Combo() && len(spec.Options) > 0 {
		return "set it, for example to " + clip(plain(spec.Options[0]), 60)
	}
	return "connect it, or set a value"
}

// linked compares the type that a link brings with the one that is wanted.
func (c *checker) linked(i int, in Input, spec InputSpec, source int) {
	c.uses[i] = append(c.uses[i], source)
	from := c.graph.nodes[source]
	class := c.info.Class(from.Class)
	if class == nil {
		return // said at that node
	}
	slot := in.Link.Slot
	if slot < 0 || slot >= len(class.Outputs) {
		c.add(i, fault{
			kind: KindBadLink, severity: SeverityError, input: in.Name, value: plain(in.Value),
			message: fmt.Sprintf("it takes output %d of %s, which has %d, counted from 0", slot, from.label(), len(class.Outputs)),
			fix:     "connect it again and export the workflow",
		})
		return
	}
	received := class.Outputs[slot]
	severity := compare(received, spec.Type)
	if severity == "" {
		return
	}
	c.add(i, fault{
		kind: KindTypeMismatch, severity: severity, input: in.Name, value: plain(in.Value),
		message: fmt.Sprintf("it takes %s, and output %d of %s is %s", clip(spec.Type.String(), 60), slot, from.label(), clip(received.String(), 60)),
		fix:     c.mismatchFix(class, spec.Type),
	})
}

// mismatchFix names the outputs of the same node that would fit.
func (c *checker) mismatchFix(class *Class, wanted Type) string {
	for slot, t := range class.Outputs {
		if compare(t, wanted) == "" {
			return fmt.Sprintf("output %d of the same node would fit", slot)
		}
	}
	return "connect it to an output of type " + clip(wanted.String(), 60)
}

// compare says how bad it is when a link brings one type and another is wanted:
// "" when they go together (contract §5.1: one common type is enough, and * and
// match types take anything).
func compare(received, wanted Type) string {
	switch {
	case received.List != nil && wanted.List != nil:
		if sameJSON(received.List, wanted.List) {
			return ""
		}
		return SeverityError
	case received.List != nil && wanted.Name == "COMBO":
		return ""
	case wanted.List != nil && received.Name == "COMBO":
		return SeverityWarning // versions differ
	}
	if anyType(received.Name) || anyType(wanted.Name) {
		return ""
	}
	if received.List == nil && wanted.List == nil {
		for part := range strings.SplitSeq(received.Name, ",") {
			for other := range strings.SplitSeq(wanted.Name, ",") {
				if strings.TrimSpace(part) == strings.TrimSpace(other) {
					return ""
				}
			}
		}
	}
	return SeverityError
}

// anyType reports whether a type, or one of several, goes with everything.
func anyType(name string) bool {
	if name == "COMFY_MATCHTYPE_V3" || name == "COMFY_DYNAMICSLOT_V3" {
		return true
	}
	for part := range strings.SplitSeq(name, ",") {
		if strings.TrimSpace(part) == "*" {
			return true
		}
	}
	return false
}

// sameJSON compares two lists item by item.
func sameJSON(a, b json.RawMessage) bool {
	return slices.EqualFunc(items(a), items(b), func(x, y json.RawMessage) bool { return equal(x, y) })
}

// equal compares two scalars as Python does: 1 is 1.0.
func equal(a, b json.RawMessage) bool {
	if kindOf(a) != kindOf(b) {
		return false
	}
	switch kindOf(a) {
	case 's':
		return text(a) == text(b)
	case 'n':
		x, ok := rational(string(a))
		y, also := rational(string(b))
		return ok && also && x.Cmp(y) == 0
	}
	return string(a) == string(b)
}

// constant looks at a value that stands in the workflow itself.
func (c *checker) constant(i int, n Node, in Input, spec InputSpec) {
	value := in.Value
	if kindOf(value) == '{' {
		if inner := field(value, "__value__"); inner != nil {
			value = inner
		}
	}
	f := fault{severity: SeverityError, input: in.Name, value: plain(value)}
	switch {
	case spec.Upload || fileInputs[n.Class] == in.Name:
		c.file(i, n, value, spec)
	case spec.Combo():
		c.choice(i, value, spec, f)
	case spec.Type.Name == "INT" || spec.Type.Name == "FLOAT":
		c.number(i, value, spec, f)
	case sockets[spec.Type.Name]:
		f.kind, f.severity = KindConstantSocket, SeverityWarning
		f.message = "it takes a link to a node that makes " + spec.Type.Name + ", not a value"
		f.fix = "connect it"
		c.add(i, f)
	}
}

// fileInputs are inputs without an upload flag that nevertheless take any file
// of the input folder: those nodes look for it themselves.
var fileInputs = map[string]string{"LoadLatent": "latent"}

// sockets are types that no value can be of.
var sockets = map[string]bool{
	"MODEL": true, "CLIP": true, "VAE": true, "CONDITIONING": true, "LATENT": true, "IMAGE": true, "MASK": true, "CONTROL_NET": true,
	"CLIP_VISION": true, "CLIP_VISION_OUTPUT": true, "STYLE_MODEL": true, "UPSCALE_MODEL": true, "SAMPLER": true, "SIGMAS": true,
	"GUIDER": true, "NOISE": true, "AUDIO": true, "VIDEO": true, "GLIGEN": true,
}

// number looks at a value for INT or FLOAT. Python's int() and float() take
// texts of digits too.
func (c *checker) number(i int, value json.RawMessage, spec InputSpec, f fault) {
	n, ok := pythonNumber(value, spec.Type.Name == "INT")
	if !ok {
		f.kind = KindBadValue
		what := "a number"
		if spec.Type.Name == "INT" {
			what = "a whole number"
		}
		f.message = clip(string(value), 60) + " is not " + what
		f.fix = "write " + what + missingDefault(spec)
		c.add(i, f)
		return
	}
	if n == nil {
		return // inf or nan: no limit can be compared
	}
	if least, ok := rational(spec.Min.String()); ok && n.Cmp(least) < 0 {
		f.kind = KindTooSmall
		f.message = clip(plain(value), 60) + " is smaller than " + spec.Min.String() + ", the least it takes"
		f.fix = "set it to " + spec.Min.String() + " or more"
		c.add(i, f)
	}
	if most, ok := rational(spec.Max.String()); ok && n.Cmp(most) > 0 {
		f.kind = KindTooBig
		f.message = clip(plain(value), 60) + " is bigger than " + spec.Max.String() + ", the most it takes"
		f.fix = "set it to " + spec.Max.String() + " or less"
		c.add(i, f)
	}
}

func missingDefault(spec InputSpec) string {
	if len(spec.Default) == 0 {
		return ""
	}
	return "; the node's own default is " + clip(plain(spec.Default), 60)
}

// pythonNumber is what int() or float() makes of a value; nil and true for
// infinity and NaN, which a FLOAT may be.
func pythonNumber(value json.RawMessage, whole bool) (*big.Rat, bool) {
	var n *big.Rat
	switch kindOf(value) {
	case 'b':
		n = new(big.Rat)
		if string(value) == "true" {
			n.SetInt64(1)
		}
		return n, true
	case 'n':
		var ok bool
		if n, ok = rational(string(value)); !ok {
			return nil, !whole
		}
	case 's':
		s := strings.TrimSpace(text(value))
		if strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
			return nil, false
		}
		s = strings.ReplaceAll(s, "_", "")
		if whole {
			integer, ok := new(big.Int).SetString(strings.TrimPrefix(s, "+"), 10)
			if !ok || len(s) > 400 {
				return nil, false
			}
			return new(big.Rat).SetInt(integer), true
		}
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) || strings.ContainsAny(s, "xXpP") {
			return nil, false
		}
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, true
		}
		return new(big.Rat).SetFloat64(f), true
	default:
		return nil, false
	}
	if whole {
		n = new(big.Rat).SetInt(new(big.Int).Quo(n.Num(), n.Denom()))
	}
	return n, true
}

// rational is a JSON number, exactly; false for one whose exponent is beyond
// any double, and for "".
func rational(s string) (*big.Rat, bool) {
	if s == "" || len(s) > 1000 {
		return nil, false
	}
	if f, err := strconv.ParseFloat(s, 64); err != nil || math.IsInf(f, 0) || f == 0 && strings.ContainsAny(s, "eE") {
		return new(big.Rat), err == nil && f == 0
	}
	return new(big.Rat).SetString(s)
}

// choice looks at a value for a combo.
func (c *checker) choice(i int, value json.RawMessage, spec InputSpec, f fault) {
	if !spec.HasOptions {
		return // remote: only the server and the web page know the choices
	}
	values := []json.RawMessage{value}
	if spec.Multi && kindOf(value) == '[' {
		values = items(value)
	}
	for _, v := range values {
		if slices.ContainsFunc(spec.Options, func(o json.RawMessage) bool { return equal(o, v) }) {
			continue
		}
		f.value = plain(v)
		c.add(i, c.notInList(f, spec, c.graph.nodes[i]))
	}
}

// notInList is the fault of a value that is none of the choices.
func (c *checker) notInList(f fault, spec InputSpec, n Node) fault {
	names := make([]string, len(spec.Options))
	models := isModel(f.value)
	for j, o := range spec.Options {
		names[j] = plain(o)
		models = models || isModel(names[j])
	}
	shown := `"` + clip(f.value, 100) + `"`
	f.candidates = c.suggest(f.value, names, 5)
	f.kind = KindNotInList
	if models {
		f.kind = KindMissingModel
		f.message = shown + " is not among the models of this worker"
		if len(names) == 0 {
			f.message = shown + " is missing: this worker has no such models at all"
		}
		f.fix = "put the file into " + modelFolder(n.Class, spec.Name)
		if len(f.candidates) > 0 {
			f.fix = "use " + clip(strings.Join(f.candidates, " or "), 160) + ", or " + f.fix
		}
		return f
	}
	f.message = shown + " is none of its choices"
	switch {
	case len(f.candidates) > 0:
		f.fix = "did you mean " + clip(strings.Join(f.candidates, " or "), 160) + "?"
	case len(names) == 0:
		f.message = shown + " cannot be chosen: the worker's list is empty"
		f.fix = "add what it chooses from, then restart the worker"
	case len(names) <= 12:
		f.candidates = names
		f.fix = "choose " + clip(strings.Join(names, ", "), 200)
	default:
		f.candidates = names[:5]
		f.fix = fmt.Sprintf("choose one of %d: %s …", len(names), clip(strings.Join(names[:5], ", "), 160))
	}
	return f
}

func isModel(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".gguf", ".onnx":
		return true
	}
	return false
}

// modelFolders are the folders under models/ by the name of the input.
var modelFolders = []struct{ class, input, folder string }{
	{"CLIPVision", "clip_name", "clip_vision"},
	{"Upscale", "model_name", "upscale_models"},
	{"Hypernetwork", "", "hypernetworks"},
	{"Diffusers", "", "diffusers"},
	{"AudioEncoder", "", "audio_encoders"},
	{"GLIGEN", "", "gligen"},
	{"PhotoMaker", "", "photomaker"},
	{"", "ckpt_name", "checkpoints"},
	{"", "lora_name", "loras"},
	{"", "vae_name", "vae"},
	{"", "control_net_name", "controlnet"},
	{"", "unet_name", "diffusion_models"},
	{"", "clip_name", "text_encoders"},
	{"", "text_encoder", "text_encoders"},
	{"", "style_model_name", "style_models"},
}

// modelFolder says where a model for an input belongs.
func modelFolder(class, input string) string {
	for _, m := range modelFolders {
		if strings.Contains(class, m.class) && strings.HasPrefix(input, m.input) {
			return "models/" + m.folder + " (then restart the worker, or let it load new models)"
		}
	}
	return "its folder under models/ (then restart the worker, or let it load new models)"
}

// file looks at a value that names a file of the input folder.
func (c *checker) file(i int, n Node, value json.RawMessage, spec InputSpec) {
	name := plain(value)
	known := slices.ContainsFunc(spec.Options, func(o json.RawMessage) bool { return equal(o, value) })
	elsewhere := strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, "]") || spec.Folder != "" && spec.Folder != "input"
	if known || elsewhere || !spec.HasOptions || kindOf(value) != 's' || leadsOut(name, true) {
		return
	}
	names := make([]string, len(spec.Options))
	for j, o := range spec.Options {
		names[j] = plain(o)
	}
	f := fault{
		kind: KindMissingFile, severity: SeverityWarning, input: spec.Name, value: name, candidates: c.suggest(name, names, 5),
		message: `"` + clip(name, 100) + `" is not in the worker's input folder`,
		fix:     "upload it: easel run … --set " + clip(n.ID, 40) + "." + clip(spec.Name, 40) + "=./FILE",
	}
	if c.info.Fresh {
		f.severity = SeverityError
	} else {
		f.message += " as far as known"
	}
	if len(f.candidates) > 0 {
		f.fix = "did you mean " + clip(strings.Join(f.candidates, " or "), 160) + "? Otherwise " + f.fix
	}
	c.add(i, f)
}

// paths refuses values of Load nodes that lead out of the input folder: some
// ComfyUI follow them (contract §9).
func (c *checker) paths(i int) {
	n := c.graph.nodes[i]
	var class *Class
	if c.info != nil {
		class = c.info.Class(n.Class)
	}
	for _, in := range n.Inputs {
		if kindOf(in.Value) != 's' && kindOf(in.Value) != '{' {
			continue
		}
		value := in.Value
		if inner := field(value, "__value__"); inner != nil {
			value = inner
		}
		file, listed := strings.HasPrefix(n.Class, "Load") && in.Name == "image", false
		if class != nil {
			spec, declared := class.Input(in.Name)
			listed = declared && slices.ContainsFunc(spec.Options, func(o json.RawMessage) bool { return equal(o, value) })
			file = declared && (spec.Upload || fileInputs[n.Class] == in.Name || strings.HasPrefix(n.Class, "Load") && spec.Combo())
		}
		if !file && !strings.HasPrefix(n.Class, "Load") || kindOf(value) != 's' {
			continue
		}
		name := text(value)
		if leadsOut(name, false) || file && !listed && leadsOut(name, true) {
			c.add(i, fault{
				kind: KindUnsafePath, severity: SeverityError, fixed: true, input: in.Name, value: name,
				message: `"` + clip(name, 100) + `" leads out of the worker's input folder, and is refused`,
				fix:     "put the file into the input folder and name it from there",
			})
		}
	}
}

// leadsOut reports whether a file's name has a part "..", or, with absolute,
// begins at a root or a drive.
func leadsOut(name string, absolute bool) bool {
	name = strings.TrimSpace(strings.ReplaceAll(name, `\`, "/"))
	for part := range strings.SplitSeq(name, "/") {
		// "x.png [output]" may follow: the part before it counts.
		if part, _, _ = strings.Cut(part, " ["); strings.TrimSpace(part) == ".." {
			return true
		}
	}
	drive := len(name) >= 2 && name[1] == ':' && (name[0]|0x20) >= 'a' && (name[0]|0x20) <= 'z'
	return absolute && (strings.HasPrefix(name, "/") || strings.HasPrefix(name, "~") || drive)
}

// undeclared looks at inputs that the class does not have. Constants are
// ignored by the server; links are handed to the node.
func (c *checker) undeclared(i int, n Node, specs []InputSpec, dynamic bool) {
	for _, in := range n.Inputs {
		if slices.ContainsFunc(specs, func(s InputSpec) bool { return s.Name == in.Name }) || kindOf(in.Value) != '[' || dynamic && strings.Contains(in.Name, ".") {
			continue
		}
		names := make([]string, len(specs))
		for j, s := range specs {
			names[j] = s.Name
		}
		f := fault{
			kind: KindUnknownInput, severity: SeverityWarning, input: in.Name, value: plain(in.Value), candidates: c.suggest(in.Name, names, 3),
			message: "the node has no such input, and a link to it usually fails when it runs", fix: "remove the link",
		}
		if len(f.candidates) > 0 {
			f.fix = "did you mean " + clip(strings.Join(f.candidates, " or "), 160) + "?"
		}
		c.add(i, f)
	}
}
