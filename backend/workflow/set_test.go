package workflow

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"easel/backend"
)

const sample = `{
 "3": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "cfg": 8, "sampler_name": "euler", "positive": ["6", 0], "steps": ["10", 0]}},
 "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}, "_meta": {"title": "Positive. Prompt"}},
 "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad"}, "_meta": {"title": "Negative"}},
 "8": {"class_type": "ResizeImageMaskNode", "inputs": {"resize_type": "scale", "resize_type.width": 5, "on": true, "list": {"__value__": [1]}, "nothing": null}},
 "10": {"class_type": "PrimitiveInt", "inputs": {"value": 20}}
}`

func TestSet(t *testing.T) {
	tests := []struct{ name, target, value, old, fresh string }{
		{"by id", "6.text", `a "dog" <ü>`, `"a cat"`, `"a \"dog\" <ü>"`},
		{"by title", "negative.text", "worse", `"bad"`, `"worse"`},
		{"by a title with a dot", "positive. prompt.text", "x", `"a cat"`, `"x"`},
		{"by class", "KSampler.cfg", "7.5", `8,`, `7.5,`},
		{"by input alone", "sampler_name", "heun", `"euler"`, `"heun"`},
		{"a seed of 64 bits", "seed", "18446744073709551614", `18446744073709551615`, `18446744073709551614`},
		{"a number is kept as written", "cfg", "7.50", `8,`, `7.50,`},
		{"a number JSON would not take", "cfg", "+.5", `8,`, `0.5,`},
		{"an input with a dot", "8.resize_type.width", "6", `: 5,`, `: 6,`},
		{"an input with a dot, alone", "resize_type.width", "6", `: 5,`, `: 6,`},
		{"yes or no", "8.on", "no", `true`, `false`},
		{"a list", "8.list", `{"__value__":[2,3]}`, `{"__value__": [1]}`, `{"__value__":[2,3]}`},
		{"null becomes what it looks like", "8.nothing", "abc", `null`, `"abc"`},
		{"the same", "7.text", "bad", `"bad"`, `"bad"`},
		{"several lines", "7.text", "a\nb", `"bad"`, `"a\nb"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			doc := read(t, sample)
			if err := Set(&doc, test.target, test.value); err != nil {
				t.Fatal(err, backend.FailureOf(err).Hint)
			}
			if want := strings.Replace(sample, test.old, test.fresh, 1); string(doc.GraphJSON) != want {
				t.Errorf("got %s", doc.GraphJSON)
			}
			if !json.Valid(doc.GraphJSON) {
				t.Error("not JSON any more")
			}
		})
	}
}

func TestSetTwice(t *testing.T) {
	doc := read(t, sample)
	for _, value := range []string{"1", "22222222222", "3"} {
		if err := Set(&doc, "seed", value); err != nil {
			t.Fatal(err)
		}
	}
	if err := Set(&doc, "6.text", "z"); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(strings.Replace(sample, "18446744073709551615", "3", 1), "a cat", "z", 1)
	if string(doc.GraphJSON) != want {
		t.Errorf("got %s", doc.GraphJSON)
	}
}

func TestSetRefuses(t *testing.T) {
	tests := []struct{ name, target, value, message, hint string }{
		{"several", "text", "x", "set text: 2 nodes have that input", "write one of 6.text (Positive. Prompt), 7.text (Negative)"},
		{"several by class", "CLIPTextEncode.text", "x", "2 nodes have that input", "7.text"},
		{"no such input", "6.txt", "x", `node 6 "Positive. Prompt" (CLIPTextEncode) has no such input`, "did you mean text?"},
		{"no such input anywhere", "quality", "x", "set quality: no node has such an input", "easel workflows params"},
		{"no such node", "66.text", "x", "set 66.text: no node has such an input", ""},
		{"linked", "steps", "30", "set steps: its value comes from node 10 (PrimitiveInt)", "set it there: 10.value (PrimitiveInt)"},
		{"no number", "seed", "many", "set seed: many is no number", "it is 18446744073709551615 now"},
		{"no finite number", "cfg", "inf", "inf is no number", ""},
		{"hexadecimal", "cfg", "0x10", "0x10 is no number", ""},
		{"neither true nor false", "8.on", "perhaps", "perhaps is neither true nor false", ""},
		{"no JSON for a list", "8.list", "[1", "[1 is no JSON", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			doc := read(t, sample)
			err := Set(&doc, test.target, test.value)
			f := backend.FailureOf(err)
			if err == nil || f.Kind != backend.FailUsage || !strings.Contains(f.Message, test.message) || !strings.Contains(f.Hint, test.hint) {
				t.Errorf("got %+v", f)
			}
			if string(doc.GraphJSON) != sample {
				t.Error("the graph was changed")
			}
		})
	}
}

func TestSplitSet(t *testing.T) {
	if target, value, err := SplitSet("6.text=a=b"); target != "6.text" || value != "a=b" || err != nil {
		t.Errorf("%s, %s, %v", target, value, err)
	}
	for _, bad := range []string{"6.text", "=x", ""} {
		if _, _, err := SplitSet(bad); err == nil || backend.FailureOf(err).Kind != backend.FailUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSeeds(t *testing.T) {
	const graph = `{
 "1": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "steps": 5}},
 "2": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": ["4", 0]}},
 "3": {"class_type": "KSampler", "inputs": {"seed": ["4", 0]}},
 "4": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
 "5": {"class_type": "EaselSketch", "inputs": {"seed": "9"}},
 "6": {"class_type": "Other", "inputs": {"seed": "word", "seed_mode": 3, "use_seed": 1.5}},
 "7": {"class_type": "KSampler", "inputs": {"seed": ["8", 0]}},
 "8": {"class_type": "Sum", "inputs": {"value": 1, "number": 2}},
 "9": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}}
}`
	doc := read(t, graph)
	var names []string
	for _, r := range FindSeeds(doc) {
		names = append(names, r.String())
	}
	if got := strings.Join(names, " "); got != "1.seed 4.value 5.seed" {
		t.Fatalf("found %s", got)
	}
	changed, err := Randomize(&doc, rand.New(rand.NewPCG(1, 2)))
	if err != nil || len(changed) != 3 {
		t.Fatalf("%v, %v", changed, err)
	}
	seen := map[string]bool{}
	for _, r := range changed {
		n, _ := doc.Graph.Node(r.Node)
		in, _ := n.Input(r.Input)
		seed, err := strconv.ParseUint(strings.Trim(string(in.Value), `"`), 10, 64)
		if err != nil || seed > 1<<50 || seen[string(in.Value)] {
			t.Errorf("%s is %s", r, in.Value)
		}
		seen[string(in.Value)] = true
	}
	n, _ := doc.Graph.Node("5")
	if in, _ := n.Input("seed"); in.Value[0] != '"' {
		t.Errorf("a seed that was a text is %s", in.Value)
	}
	if n, _ := doc.Graph.Node("1"); string(n.Inputs[1].Value) != "5" {
		t.Error("something else was changed")
	}
}

func TestRandomizeStaysWithinTheNodesLimit(t *testing.T) {
	info, err := ParseObjectInfo(strings.NewReader(`{"Small":{"input":{"required":{"seed":["INT",{"min":0,"max":3}]}},"output":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	doc := read(t, `{"1":{"class_type":"Small","inputs":{"seed":0}}}`)
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		if _, err := RandomizeFor(&doc, info, random); err != nil {
			t.Fatal(err)
		}
		n, _ := doc.Graph.Node("1")
		if len(n.Inputs[0].Value) != 1 || n.Inputs[0].Value[0] > '3' {
			t.Fatalf("drew %s", n.Inputs[0].Value)
		}
	}
}
