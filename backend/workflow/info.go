package workflow

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"easel/backend/comfy"
)

// maxInfo bounds an object_info. Real ones have 1–20 MB.
const maxInfo = 256 << 20

// ObjectInfo is what a server says of its nodes (contract §8). It may be used by
// several goroutines at once.
type ObjectInfo struct {
	// Fresh says that the lists of files are of this moment, so that a file
	// which is not in them is missing. Set it before info is shared.
	Fresh bool

	raw   map[string]json.RawMessage
	names []string

	// mu guards classes, which is filled as classes are asked for.
	mu      sync.Mutex
	classes map[string]*Class
}

// Class is one kind of node.
type Class struct {
	Name        string
	DisplayName string // Name when the server gives none
	Module      string // python_module: nodes, comfy_extras.…, custom_nodes.PACK
	Category    string
	OutputNode  bool
	Deprecated  bool
	Outputs     []Type // of the output slots
	OutputNames []string
	Inputs      []InputSpec // required first, in the server's order; no hidden ones
}

// Input finds the specification of an input by name.
func (c *Class) Input(name string) (InputSpec, bool) {
	for _, in := range c.Inputs {
		if in.Name == name {
			return in, true
		}
	}
	return InputSpec{}, false
}

// Type is the type of a socket: a name such as "IMAGE" (several with commas
// between them), or a list of choices, which older nodes use as a type.
type Type struct {
	Name string
	List json.RawMessage // the choices; nil when Name is the type
}

// String is the type as ComfyUI writes it.
func (t Type) String() string {
	if t.List != nil {
		return "COMBO"
	}
	return t.Name
}

// InputSpec is what a node takes at one input.
type InputSpec struct {
	Name       string
	Required   bool
	Type       Type
	Options    []json.RawMessage // choices of a combo, each a text or a number
	HasOptions bool              // the server lists the choices; false for remote ones
	Min, Max   json.Number       // "" without; not set for infinite ones
	Default    json.RawMessage   // nil without
	Multiline  bool
	Multi      bool   // several choices at once
	ForceInput bool   // socket only
	Upload     bool   // the value is a file of the input folder (or Folder)
	Folder     string // image_folder: input, output or temp; "" is input
	Remote     bool   // the page fetches the choices from elsewhere
	// Control reports control_after_generate: the web page changes the value
	// after each run, as it does with seeds.
	Control bool
	options json.RawMessage // the whole second element, for dynamic types
}

// Combo reports whether the input takes one of a list.
func (s InputSpec) Combo() bool { return s.Type.List != nil || s.Type.Name == "COMBO" }

// With is a copy of info with some classes as the server describes them now. Info stays as
// it is; the copy is not Fresh.
func (info *ObjectInfo) With(newer map[string]json.RawMessage) *ObjectInfo {
	out := &ObjectInfo{raw: maps.Clone(info.raw), names: slices.Clone(info.names), classes: map[string]*Class{}}
	for name, raw := range newer {
		if _, known := out.raw[name]; !known {
			out.names = append(out.names, name)
		}
		out.raw[name] = comfy.Sanitize(raw)
	}
	return out
}

// ParseObjectInfo reads an /object_info, gzipped or not. Each class is taken
// apart when it is first asked for.
func ParseObjectInfo(r io.Reader) (*ObjectInfo, error) {
	buffered := bufio.NewReader(r)
	r = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("read object_info: %w", err)
		}
		r = z
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInfo+1))
	if err != nil {
		return nil, fmt.Errorf("read object_info: %w", err)
	}
	if len(b) > maxInfo {
		return nil, fmt.Errorf("read object_info: it is larger than %d MiB", maxInfo>>20)
	}
	return parseObjectInfo(b)
}

// parseObjectInfo keeps b.
func parseObjectInfo(b []byte) (*ObjectInfo, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("read object_info: it is not JSON text in UTF-8")
	}
	b = comfy.Sanitize(b)
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil, errors.New("read object_info: it is no JSON object of classes")
	}
	info := &ObjectInfo{raw: map[string]json.RawMessage{}, classes: map[string]*Class{}}
	end, err := eachMember(b, i, maxDepth, func(m member) error {
		if b[m.value] != '{' {
			return nil
		}
		if _, twice := info.raw[m.key]; !twice {
			info.names = append(info.names, m.key)
		}
		info.raw[m.key] = json.RawMessage(b[m.value:m.end])
		return nil
	})
	if err == nil && skipSpace(b, end) < len(b) {
		err = unexpected(b, skipSpace(b, end))
	}
	if err != nil {
		return nil, fmt.Errorf("read object_info: not JSON: %w", err)
	}
	return info, nil
}

// Names are the classes in the server's order. The slice belongs to info.
func (info *ObjectInfo) Names() []string { return info.names }

// Class is one class by its exact name, nil when the server has none such.
func (info *ObjectInfo) Class(name string) *Class {
	raw, ok := info.raw[name]
	if !ok {
		return nil
	}
	info.mu.Lock()
	defer info.mu.Unlock()
	if c := info.classes[name]; c != nil {
		return c
	}
	c := parseClass(name, raw)
	info.classes[name] = c
	return c
}

// parseClass takes one class apart. What is missing or of another type than
// expected stays zero: packs put anything there.
func parseClass(name string, raw json.RawMessage) *Class {
	c := &Class{Name: name, DisplayName: name}
	for _, m := range members(raw) {
		value := json.RawMessage(raw[m.value:m.end])
		switch m.key {
		case "display_name":
			if s := text(value); s != "" {
				c.DisplayName = s
			}
		case "python_module":
			c.Module = text(value)
		case "category":
			c.Category = text(value)
		case "output_node":
			c.OutputNode = string(value) == "true"
		case "deprecated":
			c.Deprecated = string(value) == "true"
		case "output":
			for _, item := range items(value) {
				c.Outputs = append(c.Outputs, parseType(item))
			}
		case "output_name":
			for _, item := range items(value) {
				c.OutputNames = append(c.OutputNames, plain(item))
			}
		case "input":
			c.Inputs = append(parseInputs(field(value, "required"), true), parseInputs(field(value, "optional"), false)...)
		}
	}
	return c
}

// parseInputs reads {"name": [type, options], …}.
func parseInputs(raw json.RawMessage, required bool) []InputSpec {
	var list []InputSpec
	for _, m := range members(raw) {
		list = append(list, parseSpec(m.key, raw[m.value:m.end], required))
	}
	return list
}

func parseType(raw json.RawMessage) Type {
	if kindOf(raw) == '[' {
		return Type{Name: "COMBO", List: raw}
	}
	return Type{Name: plain(raw)}
}

func parseSpec(name string, raw []byte, required bool) InputSpec {
	spec := InputSpec{Name: name, Required: required}
	pair := items(raw)
	if len(pair) == 0 {
		spec.Type.Name = "*"
		return spec
	}
	spec.Type = parseType(pair[0])
	if spec.Type.List != nil {
		spec.Options, spec.HasOptions = items(spec.Type.List), true
	}
	if len(pair) < 2 {
		return spec
	}
	spec.options = pair[1]
	for _, m := range members(pair[1]) {
		spec.option(m.key, json.RawMessage(pair[1][m.value:m.end]))
	}
	return spec
}

// option reads one member of the second element of a specification.
func (s *InputSpec) option(name string, value json.RawMessage) {
	yes := string(value) == "true"
	switch name {
	case "options":
		if s.Type.Name == "COMBO" && s.Type.List == nil && kindOf(value) == '[' {
			s.Options, s.HasOptions = items(value), true
		}
	case "min":
		s.Min = limit(value)
	case "max":
		s.Max = limit(value)
	case "default":
		s.Default = value
	case "multiline":
		s.Multiline = yes
	case "multiselect", "multi_select":
		s.Multi = s.Multi || yes || kindOf(value) == '{'
	case "forceInput":
		s.ForceInput = yes
	case "image_upload", "video_upload", "animated_image_upload", "audio_upload", "file_upload":
		s.Upload = s.Upload || yes
	case "image_folder":
		s.Folder = text(value)
	case "remote", "remote_combo":
		s.Remote = kindOf(value) == '{' || yes
	case "control_after_generate":
		s.Control = yes || kindOf(value) == 's'
	}
}

// limit is a number of the specification; "" for one that is not there or was
// infinite.
func limit(raw json.RawMessage) json.Number {
	if kindOf(raw) != 'n' {
		return ""
	}
	return json.Number(raw)
}
