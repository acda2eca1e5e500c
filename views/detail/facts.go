package detail

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"easel/tui/text"
	"easel/tui/widget"
)

// fact is one thing that a graph says about its picture.
type fact struct {
	label string
	value string
	long  bool // prose: wrapped under its label
}

// node is as much of a graph's node as facts needs.
type node struct {
	Class  string                     `json:"class_type"`
	Inputs map[string]json.RawMessage `json:"inputs"`
	Meta   struct {
		Title string `json:"title"`
	} `json:"_meta"`
}

// Bounds of what is taken out of a graph.
const (
	maxFacts    = 40
	maxFactText = 2000 // bytes
)

// proseInputs are inputs that people write prompts into; shortInputs are figures
// and names worth a line, in the order they are shown.
var (
	proseInputs = []string{"text", "prompt", "positive", "negative", "text_g", "text_l", "t5xxl", "clip_l", "positive_prompt", "negative_prompt"}
	shortInputs = []string{"seed", "noise_seed", "steps", "cfg", "guidance", "sampler_name", "scheduler", "denoise", "width", "height", "batch_size", "length", "ckpt_name", "unet_name", "lora_name", "model_name"}
)

// facts reads what a person wants to know beside a picture out of a graph in API
// format: prompt texts, seeds, sampler settings, models. The order is that of the
// node numbers; a broken graph gives none.
func facts(graph json.RawMessage) []fact {
	var nodes map[string]node
	if json.Unmarshal(bytes.TrimSpace(graph), &nodes) != nil {
		return nil
	}
	ids := make([]string, 0, len(nodes))
	for id := range nodes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, byNumber)
	var prose, short []fact
	for _, id := range ids {
		n := nodes[id]
		prose = append(prose, n.prose()...)
		short = append(short, n.short()...)
		if len(prose)+len(short) > maxFacts {
			break
		}
	}
	return append(prose, merge(short)...)
}

func byNumber(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX == nil && errY == nil {
		return x - y
	}
	return strings.Compare(a, b)
}

func (n node) prose() []fact {
	var out []fact
	for _, in := range proseInputs {
		var s string
		if json.Unmarshal(n.Inputs[in], &s) != nil || strings.TrimSpace(s) == "" {
			continue
		}
		label := text.T("prompt")
		if n.Meta.Title != "" {
			label = widget.Clean(n.Meta.Title)
		} else if strings.HasPrefix(in, "negative") {
			label = text.T("negative")
		}
		out = append(out, fact{label: label, value: widget.CleanLong(s, maxFactText), long: true})
	}
	return out
}

func (n node) short() []fact {
	var out []fact
	for _, in := range shortInputs {
		raw := bytes.TrimSpace(n.Inputs[in])
		if len(raw) == 0 || raw[0] == '[' || raw[0] == '{' { // a link
			continue
		}
		v := string(raw)
		var s string
		if json.Unmarshal(raw, &s) == nil {
			v = s
		}
		out = append(out, fact{label: shortLabel(in), value: widget.Clean(v)})
	}
	return out
}

func shortLabel(in string) string {
	switch in {
	case "seed", "noise_seed":
		return text.T("seed")
	case "sampler_name":
		return text.T("sampler")
	case "ckpt_name", "unet_name", "model_name":
		return text.T("model")
	case "lora_name":
		return text.T("lora")
	case "batch_size":
		return text.T("batch")
	}
	return widget.Clean(in)
}

// merge joins facts of one label into one line and leaves out what was said.
func merge(in []fact) []fact {
	var out []fact
	for _, f := range in {
		i := slices.IndexFunc(out, func(o fact) bool { return o.label == f.label })
		switch {
		case i < 0:
			out = append(out, f)
		case !slices.Contains(strings.Split(out[i].value, ", "), f.value):
			out[i].value += ", " + f.value
		}
	}
	return out
}
