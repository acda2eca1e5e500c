package workflow

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"easel/backend"
)

func infoOf(t testing.TB, version string) *ObjectInfo {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "object_info-"+version+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := ParseObjectInfo(f)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func read(t testing.TB, s string) Doc {
	t.Helper()
	doc, err := Read([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// recorded is one entry of testdata/post_prompt_errors-*.json.
type recorded struct {
	Request json.RawMessage `json:"request"`
	Status  int             `json:"status"`
	Error   string          `json:"error"`
	Errors  [][3]string     `json:"errors"`
}

// sameAs lists which of ComfyUI's error types a kind stands for.
var sameAs = map[string][]string{
	KindMissingInput: {"required_input_missing"},
	KindNoInputs:     {"exception_during_inner_validation", "exception_during_validation"},
	KindBadLink:      {"bad_linked_input", "exception_during_validation"},
	KindTypeMismatch: {"return_type_mismatch"},
	KindBadValue:     {"invalid_input_type"},
	KindTooSmall:     {"value_smaller_than_min"},
	KindTooBig:       {"value_bigger_than_max"},
	KindNotInList:    {"value_not_in_list"},
	KindMissingModel: {"value_not_in_list"},
	KindMissingFile:  {"custom_validation_failed"},
}

// accounts reports whether a problem says the same as a recorded error. An
// exception is recorded at the node that asked, with no input, or with its own.
func accounts(p backend.Problem, e [3]string) bool {
	if !slices.Contains(sameAs[p.Kind], e[1]) {
		return false
	}
	return strings.HasPrefix(e[1], "exception") || p.Node == e[0] && p.Input == e[2]
}

func TestCheckAgreesWithRecordedRefusals(t *testing.T) {
	for _, version := range []string{"0.3.64", "0.8.0"} {
		b, err := os.ReadFile(filepath.Join("testdata", "post_prompt_errors-"+version+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]recorded
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		info := infoOf(t, version)
		info.Fresh = true
		for name, r := range all {
			if !bytes.Contains(r.Request, []byte(`"prompt"`)) || r.Status == 500 {
				continue // nothing about the graph
			}
			t.Run(version+"/"+name, func(t *testing.T) { agree(t, info, r) })
		}
	}
}

func agree(t *testing.T, info *ObjectInfo, r recorded) {
	doc, err := Read(r.Request)
	if err != nil {
		if r.Status != 400 {
			t.Errorf("accepted with %d, and Read says %v", r.Status, err)
		}
		return
	}
	problems := Check(doc, info)
	refused := Failure(problems) != nil
	if refused != (r.Status == 400) {
		t.Errorf("answered %d, and Check says %v", r.Status, Describe(problems))
	}
	for _, e := range r.Errors {
		if !slices.ContainsFunc(problems, func(p backend.Problem) bool { return accounts(p, e) }) {
			t.Errorf("not found: %v in %v", e, Describe(problems))
		}
	}
	for _, p := range problems {
		if p.Severity != SeverityError || len(sameAs[p.Kind]) == 0 {
			continue
		}
		if !slices.ContainsFunc(r.Errors, func(e [3]string) bool { return accounts(p, e) }) {
			t.Errorf("found too much: %s", p.Message)
		}
	}
}

const imageNode = `"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}}`

func TestCheckNamesNodeInputAndRemedy(t *testing.T) {
	tests := []struct {
		name, graph string
		want        backend.Problem // compared as far as set; Message and Fix by their parts
	}{
		{
			"unknown class", `{` + imageNode + `,"2":{"class_type":"PreviewImag","inputs":{"images":["1",0]},"_meta":{"title":"Show"}}}`,
			backend.Problem{Severity: "error", Kind: KindUnknownClass, Node: "2", Title: "Show", Class: "PreviewImag", Message: `node 2 "Show" (PreviewImag): this worker has no such node`, Fix: "did you mean PreviewImage"},
		},
		{
			"class without a name", `{"1":{"inputs":{"UNKNOWN":"x"}}}`,
			backend.Problem{Severity: "error", Kind: KindNoClass, Node: "1", Fix: "the web page that exported it did not know the class"},
		},
		{
			"missing model with candidates", `{"4":{"class_type":"VAELoader","inputs":{"vae_name":"sub/TAESD.safetensors"}},"2":{"class_type":"PreviewImage","inputs":{"images":["4",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindMissingModel, Node: "4", Input: "vae_name", Value: "sub/TAESD.safetensors", Fix: "put the file into models/vae"},
		},
		{
			"value not in a list", `{"3":{"class_type":"ImageScale","inputs":{"image":["1",0],"upscale_method":"lanczoss","width":1,"height":1,"crop":"disabled"}},` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":["3",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindNotInList, Node: "3", Input: "upscale_method", Value: "lanczoss", Fix: "did you mean lanczos?", Candidates: []string{"lanczos"}},
		},
		{
			"type", `{"1":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":64,"batch_size":1}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindTypeMismatch, Node: "2", Input: "images", Message: "it takes IMAGE, and output 0 of node 1 (EmptyLatentImage) is LATENT"},
		},
		{
			"another output fits", `{"1":{"class_type":"LoadImage","inputs":{"image":"example.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",1]}}}`,
			backend.Problem{Severity: "error", Kind: KindTypeMismatch, Node: "2", Fix: "output 0 of the same node would fit"},
		},
		{
			"path upwards", `{"1":{"class_type":"LoadImage","inputs":{"image":"../../etc/x.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindUnsafePath, Node: "1", Input: "image", Message: `"../../etc/x.png" leads out of the worker's input folder`},
		},
		{
			"path upwards with backslashes and a folder", `{"1":{"class_type":"LoadImage","inputs":{"image":"a\\..\\..\\x.png [output]"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindUnsafePath, Node: "1"},
		},
		{
			"absolute path", `{"1":{"class_type":"LoadImage","inputs":{"image":"/etc/x.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindUnsafePath, Node: "1"},
		},
		{
			"path upwards in a node that does not run", `{` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}},"9":{"class_type":"LoadImageMask","inputs":{"image":"../x.png","channel":"alpha"}}}`,
			backend.Problem{Severity: "error", Kind: KindUnsafePath, Node: "9"},
		},
		{
			"path upwards in a wrapped value", `{"1":{"class_type":"LoadImage","inputs":{"image":{"__value__":".."}}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindUnsafePath, Node: "1"},
		},
		{
			"missing file may have come since", `{"1":{"class_type":"LoadImage","inputs":{"image":"exampel.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "warning", Kind: KindMissingFile, Node: "1", Input: "image", Candidates: []string{"example.png"}},
		},
		{
			"ring", `{"1":{"class_type":"ImageInvert","inputs":{"image":["3",0]}},"3":{"class_type":"ImageInvert","inputs":{"image":["1",0]}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindCycle, Message: "the nodes feed each other in a ring"},
		},
		{"no output", `{` + imageNode + `}`, backend.Problem{Severity: "error", Kind: KindNoOutput, Fix: "add a node such as SaveImage"}},
		{
			"number as a quoted id", `{` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":[1,0]}}}`,
			backend.Problem{Severity: "error", Kind: KindBadLink, Message: "the node's id must be in quotes"},
		},
		{
			"constant in a socket", `{"2":{"class_type":"PreviewImage","inputs":{"images":"x.png"}}}`,
			backend.Problem{Severity: "warning", Kind: KindConstantSocket, Node: "2", Input: "images"},
		},
		{
			"link to an unknown input", `{` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":["1",0],"image":["1",0]}}}`,
			backend.Problem{Severity: "warning", Kind: KindUnknownInput, Node: "2", Input: "image", Fix: "did you mean images?"},
		},
		{
			"fault in one branch of two", `{` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}},"4":{"class_type":"PreviewImage","inputs":{}}}`,
			backend.Problem{Severity: "warning", Kind: KindMissingInput, Node: "4", Message: "what needs it is left out, the rest runs"},
		},
		{
			"fault in a node that does not run", `{` + imageNode + `,"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}},"4":{"class_type":"EmptyImage","inputs":{}}}`,
			backend.Problem{Severity: "note", Kind: KindMissingInput, Node: "4"},
		},
		{
			"a title with control characters", `{"2":{"class_type":"PreviewImage","inputs":{},"_meta":{"title":"a\u001b[31mb\u202ec"}}}`,
			backend.Problem{Severity: "error", Kind: KindMissingInput, Title: `a\x1b[31mb\u202ec`, Message: `node 2 "a\x1b[31mb\u202ec" (PreviewImage): images: it is required`},
		},
		{
			"seed above 64 bits", `{"1":{"class_type":"KSampler","inputs":{"seed":18446744073709551616}},"2":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`,
			backend.Problem{Severity: "error", Kind: KindTooBig, Input: "seed", Message: "18446744073709551616 is bigger than 18446744073709551615"},
		},
	}
	info := infoOf(t, "0.3.64")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := Check(read(t, test.graph), info)
			if !slices.ContainsFunc(problems, func(p backend.Problem) bool { return matches(p, test.want) }) {
				text, _ := json.MarshalIndent(problems, "", " ")
				t.Errorf("not found: %+v in\n%s", test.want, text)
			}
		})
	}
}

func matches(p, want backend.Problem) bool {
	same := func(got, want string) bool { return want == "" || got == want }
	return same(p.Severity, want.Severity) && same(p.Kind, want.Kind) && same(p.Node, want.Node) && same(p.Title, want.Title) &&
		same(p.Class, want.Class) && same(p.Input, want.Input) && same(p.Value, want.Value) &&
		strings.Contains(p.Message, want.Message) && strings.Contains(p.Fix, want.Fix) &&
		(want.Candidates == nil || slices.Equal(p.Candidates, want.Candidates))
}

func TestCheckDynamicInputs(t *testing.T) {
	const frame = `{"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},"2":{"class_type":"SaveImage","inputs":{"images":["3",0],"filename_prefix":"x"}},"3":`
	tests := []struct {
		name, node string
		want       []string // kind and input of the errors
	}{
		{"combo, right", `{"class_type":"ResizeImageMaskNode","inputs":{"input":["1",0],"resize_type":"scale dimensions","resize_type.width":5,"resize_type.height":6,"resize_type.crop":"center","scale_method":"area"}}`, nil},
		{"combo, child missing and child wrong", `{"class_type":"ResizeImageMaskNode","inputs":{"input":["1",0],"resize_type":"scale dimensions","resize_type.width":-5,"resize_type.crop":"center","scale_method":"area"}}`, []string{"too-small resize_type.width", "missing-input resize_type.height"}},
		{"combo, unknown option", `{"class_type":"ResizeImageMaskNode","inputs":{"input":["1",0],"resize_type":"scale by dimension","scale_method":"area"}}`, []string{"not-in-list resize_type"}},
		{"autogrow, right", `{"class_type":"BatchImagesNode","inputs":{"images.image0":["1",0],"images.image1":["1",0],"images.image7":["1",0]}}`, nil},
		{"autogrow, too few", `{"class_type":"BatchImagesNode","inputs":{"images.image0":["1",0]}}`, []string{"missing-input images.image1"}},
		{"match type", `{"class_type":"ComfySwitchNode","inputs":{"switch":true,"on_false":["1",0],"on_true":["1",0]}}`, nil},
	}
	info := infoOf(t, "0.8.0")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			problems := Check(read(t, frame+test.node+"}"), info)
			for _, p := range problems {
				got = append(got, p.Kind+" "+p.Input)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v: %v", got, test.want, Describe(problems))
			}
		})
	}
}

func TestCheckWithoutAServer(t *testing.T) {
	problems := Check(read(t, `{"1":{"class_type":"LoadImage","inputs":{"image":"../x"}},"2":{"class_type":"A","inputs":{"x":["9",0]}},"3":{"inputs":{}}}`), nil)
	var got []string
	for _, p := range problems {
		got = append(got, p.Severity+" "+p.Kind+" "+p.Node)
	}
	if want := []string{"error unsafe-path 1", "error no-class 3", "warning bad-link 2"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestFailureNamesTheFirstErrors(t *testing.T) {
	problems := Check(read(t, `{"1":{"class_type":"EmptyImage","inputs":{}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`), infoOf(t, "0.3.64"))
	f := Failure(problems)
	if f == nil || f.Kind != backend.FailInvalid || len(f.Problems) != 4 || f.Hint == "" {
		t.Fatalf("got %+v", f)
	}
	want := "the workflow cannot run: node 1 (EmptyImage): width: it is required (INT) and missing"
	if !strings.HasPrefix(f.Message, want) || !strings.HasSuffix(f.Message, "; and 1 more") {
		t.Errorf("got %s", f.Message)
	}
	if Failure(nil) != nil {
		t.Error("nothing wrong is a failure")
	}
	if lines := Describe(problems); len(lines) != 4 || !strings.Contains(lines[0], " — set it; the node's own default is 512") {
		t.Errorf("got %q", lines)
	}
}

func TestNumbersAreReadAsPythonDoes(t *testing.T) {
	tests := []struct {
		value string
		whole bool
		want  string // "" refused, "inf" without a limit
	}{
		{`64.9`, true, "64"},
		{`-0.5`, true, "0"},
		{`"64"`, true, "64"},
		{`" 6_4 "`, true, "64"},
		{`"64.5"`, true, ""},
		{`"0x10"`, true, ""},
		{`true`, true, "1"},
		{`null`, true, ""},
		{`{}`, true, ""},
		{`18446744073709551615`, true, "18446744073709551615"},
		{`1e400`, true, ""},
		{`"1e3"`, false, "1000"},
		{`"inf"`, false, "inf"},
		{`1e400`, false, "inf"},
		{`"wide"`, false, ""},
		{`0.5`, false, "1/2"},
	}
	for _, test := range tests {
		n, ok := pythonNumber(json.RawMessage(test.value), test.whole)
		got := ""
		switch {
		case ok && n == nil:
			got = "inf"
		case ok:
			got = n.RatString()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.value, got, test.want)
		}
	}
}

// TestCheckLooksAgainAtListsOfFiles: a file that came after the lists were read
// is found by reading its class again; one that is not there is an error then.
func TestCheckLooksAgainAtListsOfFiles(t *testing.T) {
	const class = `{"input":{"required":{"image":[["%s"],{"image_upload":true}]}},"output":["IMAGE","MASK"],"output_node":true,"name":"LoadImage"}`
	old, err := ParseObjectInfo(strings.NewReader(`{"LoadImage":` + strings.ReplaceAll(class, "%s", "old.png") + `}`))
	if err != nil {
		t.Fatal(err)
	}
	doc := read(t, `{"1":{"class_type":"LoadImage","inputs":{"image":"new.png"}}}`)
	found := Check(doc, old)
	if got := Stale(found); len(got) != 1 || got[0] != "LoadImage" {
		t.Fatalf("classes to read again: %q, want LoadImage; problems: %v", got, found)
	}
	for name, want := range map[string]int{"new.png": 0, "other.png": 1} {
		fresh := old.With(map[string]json.RawMessage{"LoadImage": json.RawMessage(strings.ReplaceAll(class, "%s", name))})
		fresh.Fresh = true
		errs := 0
		for _, p := range Check(doc, fresh) {
			if p.Severity == SeverityError {
				errs++
			}
		}
		if errs != want {
			t.Errorf("with %s in the folder: %d errors, want %d", name, errs, want)
		}
	}
	if len(Stale(Check(doc, old))) != 1 {
		t.Error("the old lists were changed")
	}
}
