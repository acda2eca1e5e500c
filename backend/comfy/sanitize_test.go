package comfy

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestSanitize(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain is untouched", `{"a":[1,2.5,null]}`, `{"a":[1,2.5,null]}`},
		{"a bare NaN", `{"a":NaN}`, `{"a":null}`},
		{"infinities", `[Infinity,-Infinity, NaN ]`, `[null,null, null ]`},
		{"at the ends", `NaN`, `null`},
		{"strings are untouched", `{"NaN":"Infinity","b":"say \"NaN\" \\","c":NaN}`, `{"NaN":"Infinity","b":"say \"NaN\" \\","c":null}`},
		{"only in strings", `{"a":"-Infinity"}`, `{"a":"-Infinity"}`},
		{"longer words stay", `{"a":NaNs,"b":xNaN,"c":Infinity2}`, `{"a":NaNs,"b":xNaN,"c":Infinity2}`},
		{"seeds stay exact", `{"seed":18446744073709551615,"x":NaN}`, `{"seed":18446744073709551615,"x":null}`},
		{"an open string", `["NaN`, `["NaN`},
		{"ends with a backslash", `[NaN,"\`, `[null,"\`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := []byte(tc.in)
			got := Sanitize(in)
			if string(got) != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if string(in) != tc.in {
				t.Error("the input was changed")
			}
		})
	}
}

func TestSanitizeCopiesOnlyWhenItMust(t *testing.T) {
	in := []byte(`{"a":1}`)
	if got := Sanitize(in); &got[0] != &in[0] {
		t.Error("input without NaN was copied")
	}
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{`{"a":NaN}`, `[-Infinity,"NaN"]`, `"\`, `--Infinity`, `1NaN`, `{"a":"\\"NaN}`, "\"NaN", `[1e5,Infinity]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got := Sanitize(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if json.Valid(b) && !bytes.Equal(got, b) {
			t.Fatalf("valid JSON was changed: %q → %q", b, got)
		}
		if again := Sanitize(got); !bytes.Equal(again, got) {
			t.Fatalf("not idempotent: %q → %q → %q", b, got, again)
		}
	})
}
