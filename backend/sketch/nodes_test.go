package sketch

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func run(t *testing.T, class string, inputs map[string]any) *tensor {
	t.Helper()
	out, _, err := implementations[class].run(&call{inputs: inputs})
	if err != nil {
		t.Fatalf("%s: %v", class, err)
	}
	return out[0].(*tensor)
}

func ramp(w, h int) *tensor {
	t := &tensor{b: 1, h: h, w: w, c: 3, pix: make([]float32, w*h*3)}
	for i := range t.pix {
		t.pix[i] = float32(i) / float32(len(t.pix))
	}
	return t
}

func TestScaleKeepsFlatPicturesFlat(t *testing.T) {
	flat := run(t, "EmptyImage", map[string]any{"width": int64(5), "height": int64(7), "batch_size": int64(2), "color": int64(0x336699)})
	for _, m := range []string{"nearest-exact", "bilinear", "area", "bicubic", "lanczos"} {
		for _, size := range [][2]int64{{13, 3}, {2, 2}, {5, 7}, {1, 40}} {
			out := run(t, "ImageScale", map[string]any{"image": flat, "upscale_method": m, "width": size[0], "height": size[1], "crop": "center"})
			if out.w != int(size[0]) || out.h != int(size[1]) || out.b != 2 {
				t.Fatalf("%s %v: %v", m, size, out.shape())
			}
			for i, v := range out.pix {
				if want := []float32{0x33 / 255., 0x66 / 255., 0x99 / 255.}[i%3]; math.Abs(float64(v-want)) > 1e-3 {
					t.Fatalf("%s %v: value %v, want %v", m, size, v, want)
				}
			}
		}
	}
}

// The expected values are torch's for [0, 1, 2, 3] (interpolate to 2 and to 6).
func TestScaleIsTorch(t *testing.T) {
	line := &tensor{b: 1, h: 1, w: 4, c: 1, pix: []float32{0, 1, 2, 3}}
	for _, k := range []struct {
		method string
		want   []float32
	}{
		{"bilinear", []float32{0.5, 2.5}},
		{"nearest-exact", []float32{1, 3}},
		{"area", []float32{0.5, 2.5}},
		{"bilinear", []float32{0, 0.5, 1.1666667, 1.8333333, 2.5, 3}},
		{"area", []float32{0, 0.5, 1, 2, 2.5, 3}},
	} {
		out, err := line.scale(k.method, len(k.want), 1, "")
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range out.pix {
			if math.Abs(float64(v-k.want[i])) > 1e-5 {
				t.Errorf("%s: %v, want %v", k.method, out.pix, k.want)
				break
			}
		}
	}
}

func TestImageNodes(t *testing.T) {
	img := ramp(16, 12)
	if out := run(t, "ImageCrop", map[string]any{"image": img, "x": int64(4), "y": int64(3), "width": int64(5), "height": int64(100)}); out.w != 5 || out.h != 9 || out.pix[0] != img.pix[(3*16+4)*3] {
		t.Errorf("crop: %v", out.shape())
	}
	if out := run(t, "ImagePadForOutpaint", map[string]any{"image": img, "left": int64(8), "top": int64(0), "right": int64(0), "bottom": int64(8), "feathering": int64(0)}); out.w != 24 || out.h != 20 || out.pix[0] != 0.5 || out.pix[8*3] != img.pix[0] {
		t.Errorf("pad: %v", out.shape())
	}
	if out := run(t, "ImageBatch", map[string]any{"image1": img, "image2": ramp(4, 4)}); out.b != 2 || out.w != 16 {
		t.Errorf("batch: %v", out.shape())
	}
	if out := run(t, "ImageFromBatch", map[string]any{"image": run(t, "RepeatImageBatch", map[string]any{"image": img, "amount": int64(3)}), "batch_index": int64(2), "length": int64(9)}); out.b != 1 {
		t.Errorf("from batch: %v", out.shape())
	}
	inv := run(t, "ImageInvert", map[string]any{"image": img})
	if out := run(t, "ImageBlend", map[string]any{"image1": img, "image2": inv, "blend_factor": 0.5, "blend_mode": "normal"}); math.Abs(float64(out.pix[77])-0.5) > 1e-6 {
		t.Errorf("blend: %v", out.pix[77])
	}
	if out := run(t, "ImageBlur", map[string]any{"image": img, "blur_radius": int64(2), "sigma": 1.0}); out.w != 16 || out.h != 12 {
		t.Errorf("blur: %v", out.shape())
	}
	mask := run(t, "ImageToMask", map[string]any{"image": img, "channel": "green"})
	if out := run(t, "MaskToImage", map[string]any{"mask": mask}); out.c != 3 || out.pix[0] != img.pix[1] {
		t.Errorf("mask: %v", out.shape())
	}
}

func TestTooLargeForMemory(t *testing.T) {
	_, _, err := runEmptyImage(&call{inputs: map[string]any{"width": int64(16384), "height": int64(16384), "batch_size": int64(4096), "color": int64(0)}})
	if err == nil || !strings.Contains(err.Error(), "can't allocate memory") {
		t.Errorf("%v", err)
	}
}

func TestJSONAsPython(t *testing.T) {
	for in, want := range map[string]string{
		`{"b":1,"a":[1.0,1e16,1e-5,18446744073709551615,-0.0]}`: `{"b": 1, "a": [1.0, 1e+16, 1e-05, 18446744073709551615, -0.0]}`,
		`[NaN,Infinity,-Infinity,null,true]`:                    `[NaN, Infinity, -Infinity, null, true]`,
		`"ü😀\u0001\/\ud83d\ude00"`:                              `"\u00fc\ud83d\ude00\u0001/\ud83d\ude00"`,
		`{"a":1,"a":2}`:                                         `{"a": 2}`,
	} {
		v, err := parseJSON([]byte(in))
		if err != nil || string(dumpJSON(v)) != want {
			t.Errorf("%s: %s (%v), want %s", in, dumpJSON(v), err, want)
		}
	}
	for _, bad := range []string{``, `{`, `[1,]`, `01`, `+1`, `{"a" 1}`, `"\x"`, "\"\n\"", `1 2`, strings.Repeat("[", 2000)} {
		if v, err := parseJSON([]byte(bad)); err == nil {
			t.Errorf("%.20q is read as %v", bad, v)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"a": [1, -2.5e3, "x\u00e9", null, NaN]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseJSON(b)
		if err != nil {
			return
		}
		out := dumpJSON(v)
		again, err := parseJSON(out)
		if err != nil || string(dumpJSON(again)) != string(out) {
			t.Errorf("%q becomes %q, which is read as %v (%v)", b, out, again, err)
		}
	})
}
