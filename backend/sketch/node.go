package sketch

import (
	"context"
	"embed"
	"fmt"
	"image"
	"math"
	"math/big"
)

//go:embed specs/*.json
var specFiles embed.FS

// class is one kind of node: what /object_info says of it, and the code.
type class struct {
	name   string
	spec   *object
	output bool
	// run executes the node and returns its outputs and, of output nodes,
	// what clients are shown.
	run func(*call) (outputs []any, ui *object, err error)
	// check validates one input itself (ComfyUI's VALIDATE_INPUTS); the
	// text it returns says what is wrong.
	check map[string]func(*Worker, any) string
	// changed adds to the node's identity in the cache (IS_CHANGED).
	changed func(*Worker, *object) (string, error)
}

// call is one execution of one node.
type call struct {
	w       *Worker
	inputs  map[string]any
	prompt  *object
	pngInfo any
	prefix  string // of temporary files, one per node
	// tick reports progress. It fails when somebody interrupted the prompt.
	tick func(value, total int, preview func() image.Image) error
	ctx  context.Context // of the worker
}

// input is the declaration of one input: its type (a string, or the list of
// choices) and its options.
type input struct {
	name     string
	typ      any
	options  *object
	required bool
}

// config is the declaration as error messages quote it.
func (in input) config() any { return []any{in.typ, in.options} }

// declared lists the inputs of a class in the order of its declaration.
func (c *class) declared() []input {
	var list []input
	decl, _ := c.spec.at("input").(*object)
	for _, group := range []string{"required", "optional"} {
		g, _ := decl.at(group).(*object)
		if g == nil {
			continue
		}
		for _, name := range g.keys {
			parts := g.vals[name].([]any)
			in := input{name: name, typ: parts[0], options: newObject(), required: group == "required"}
			if len(parts) > 1 {
				in.options, _ = parts[1].(*object)
			}
			list = append(list, in)
		}
	}
	return list
}

func (c *class) outputs() []any { l, _ := c.spec.at("output").([]any); return l }

// hidden lists the hidden inputs, which tracebacks show with the others.
func (c *class) hidden() []string {
	decl, _ := c.spec.at("input").(*object)
	h, _ := decl.at("hidden").(*object)
	if h == nil {
		return nil
	}
	return h.keys
}

// loadClasses reads the declarations of a version and joins them to the code.
func loadClasses(version string) (map[string]*class, []string, error) {
	b, err := specFiles.ReadFile("specs/" + version + ".json")
	if err != nil {
		return nil, nil, fmt.Errorf("no node declarations for ComfyUI %s: %w", version, err)
	}
	v, err := parseJSON(b)
	if err != nil {
		return nil, nil, fmt.Errorf("node declarations of ComfyUI %s: %w", version, err)
	}
	classes := map[string]*class{}
	all := v.(*object)
	for _, name := range all.keys {
		c := implementations[name]
		if c.run == nil {
			return nil, nil, fmt.Errorf("node %s is declared for ComfyUI %s but has no code", name, version)
		}
		c.name, c.spec = name, all.vals[name].(*object)
		c.output, _ = c.spec.at("output_node").(bool)
		classes[name] = &c
	}
	return classes, all.keys, nil
}

// implementations is the code of every class, by name.
var implementations = map[string]class{
	"EmptyImage":               {run: runEmptyImage},
	"SaveImage":                {run: runSaveImage},
	"PreviewImage":             {run: runPreviewImage},
	"LoadImage":                {run: runLoadImage, check: map[string]func(*Worker, any) string{"image": checkLoadImage}, changed: changedLoadImage},
	"ImageScale":               {run: runImageScale},
	"ImageScaleBy":             {run: runImageScaleBy},
	"ImageInvert":              {run: runImageInvert},
	"ImageBatch":               {run: runImageBatch},
	"ImageBlend":               {run: runImageBlend},
	"ImageBlur":                {run: runImageBlur},
	"ImageCrop":                {run: runImageCrop},
	"ImagePadForOutpaint":      {run: runImagePad},
	"SolidMask":                {run: runSolidMask},
	"MaskToImage":              {run: runMaskToImage},
	"ImageToMask":              {run: runImageToMask},
	"RepeatImageBatch":         {run: runRepeatBatch},
	"ImageFromBatch":           {run: runImageFromBatch},
	"PrimitiveInt":             {run: runPrimitive},
	"PrimitiveFloat":           {run: runPrimitive},
	"PrimitiveString":          {run: runPrimitive},
	"PrimitiveStringMultiline": {run: runPrimitive},
	"PrimitiveBoolean":         {run: runPrimitive},
	"PreviewAny":               {run: runPreviewAny},
	"EaselSketch":              {run: runSketch},
}

func one(v any) ([]any, *object, error) { return []any{v}, nil, nil }

func failed(err error) ([]any, *object, error) { return nil, nil, err }

func (c *call) tensor(name string) (*tensor, error) {
	t, ok := c.inputs[name].(*tensor)
	if !ok {
		return nil, raise("AttributeError", "'%s' object has no attribute 'shape'", pyType(c.inputs[name]))
	}
	return t, nil
}

// int reads a whole number. A value that came over a link may be of another
// type, or out of the declared range: nobody checked it.
func (c *call) int(name string) int {
	switch v := c.inputs[name].(type) {
	case int64:
		return int(min(max(v, math.MinInt32), math.MaxInt32))
	case float64:
		return int(min(max(v, math.MinInt32), math.MaxInt32))
	case bool:
		if v {
			return 1
		}
	}
	return 0
}

// seed reads a 64-bit number without sign.
func (c *call) seed(name string) uint64 {
	switch v := c.inputs[name].(type) {
	case int64:
		return uint64(v)
	case *big.Int:
		return new(big.Int).And(v, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	case float64:
		return uint64(int64(v))
	}
	return 0
}

func (c *call) float(name string) float64 {
	switch v := c.inputs[name].(type) {
	case float64:
		return v
	case int64:
		return float64(v)
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		return f
	}
	return 0
}

func (c *call) text(name string) string {
	if s, ok := c.inputs[name].(string); ok {
		return s
	}
	return pyStr(c.inputs[name])
}

// pyType is the name of the Python type of a value.
func pyType(v any) string {
	switch v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case string:
		return "str"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case []any:
		return "list"
	case *tensor:
		return "Tensor"
	}
	return "dict"
}
