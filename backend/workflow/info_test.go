package workflow

import (
	"bytes"
	"compress/gzip"
	"strings"
	"sync"
	"testing"
)

func TestParseObjectInfo(t *testing.T) {
	const text = `{"B":{"input":{"required":{"z":["FLOAT",{"default":1.0,"min":-Infinity,"max":2,"round":false}],"a":[["x",2],{"multi_select":{}}]},
 "optional":{"o":["COMBO",{"options":["p"],"remote":{"route":"/x"}}],"e":[]},"hidden":{"h":"PROMPT"}},
 "output":["IMAGE",["x",2]],"output_name":["i","c"],"name":"B","display_name":null,"output_node":true,"python_module":"custom_nodes.p"},
 "A":{"input":null,"output":null},"junk":1}`
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	for name, b := range map[string][]byte{"plain": []byte(text), "gzipped": packed.Bytes()} {
		t.Run(name, func(t *testing.T) {
			info, err := ParseObjectInfo(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(info.Names(), " "); got != "B A" {
				t.Errorf("names %s", got)
			}
			c := info.Class("B")
			if c == nil || c.DisplayName != "B" || !c.OutputNode || c.Module != "custom_nodes.p" || len(c.Inputs) != 4 || len(c.Outputs) != 2 {
				t.Fatalf("got %+v", c)
			}
			if in := c.Inputs[0]; in.Name != "z" || !in.Required || in.Min != "" || in.Max != "2" || string(in.Default) != "1.0" {
				t.Errorf("z: %+v", in)
			}
			if in := c.Inputs[1]; !in.Combo() || !in.Multi || len(in.Options) != 2 {
				t.Errorf("a: %+v", in)
			}
			if in := c.Inputs[2]; in.Required || !in.Remote || !in.HasOptions {
				t.Errorf("o: %+v", in)
			}
			if c.Outputs[1].String() != "COMBO" || info.Class("A") == nil || info.Class("junk") != nil || info.Class("C") != nil {
				t.Error("classes or outputs are wrong")
			}
		})
	}
}

func TestParseObjectInfoRefuses(t *testing.T) {
	for name, s := range map[string]string{"empty": "", "no JSON": "{", "list": "[]", "more": "{} {}", "broken gzip": "\x1f\x8b\x00", "not UTF-8": "{\"\xff\":1}"} {
		if _, err := ParseObjectInfo(strings.NewReader(s)); err == nil || !strings.HasPrefix(err.Error(), "read object_info: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestObjectInfoIsSharedSafely(t *testing.T) {
	info := infoOf(t, "0.3.64")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, name := range info.Names() {
				if info.Class(name) == nil {
					t.Error("lost ", name)
				}
			}
		})
	}
	wg.Wait()
}

func TestSimilar(t *testing.T) {
	names := []string{"v1-5-pruned.safetensors", "SD15/v1-5-pruned-emaonly.safetensors", "flux1-dev.safetensors", "sub/sd_xl_base_1.0.safetensors"}
	for s, want := range map[string]string{
		"v1-5-pruned-emaonly.safetensors": "SD15/v1-5-pruned-emaonly.safetensors",
		"sd_xl_base_1.0.safetensors":      "sub/sd_xl_base_1.0.safetensors",
		"FLUX1_dev.safetensors":           "flux1-dev.safetensors",
		"flux1-dv.safetensors":            "flux1-dev.safetensors",
	} {
		if got := similar(s, names, 5); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %v", s, got)
		}
	}
	if got := similar("something-else-entirely.safetensors", names, 5); len(got) > 0 {
		t.Errorf("found %v", got)
	}
}
