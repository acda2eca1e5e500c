package detail

import (
	"encoding/json"
	"testing"
)

func TestFactsOfAGraph(t *testing.T) {
	got := facts(json.RawMessage(`{
		"10":{"class_type":"KSampler","inputs":{"seed":18446744073709551615,"steps":20,"model":["4",0]}},
		"2":{"class_type":"CLIPTextEncode","inputs":{"text":"a cat\u001b[31m"},"_meta":{"title":"Positive"}},
		"11":{"class_type":"KSampler","inputs":{"noise_seed":7,"steps":20}}}`))
	want := []fact{
		{label: "Positive", value: "a cat", long: true},
		{label: "seed", value: "18446744073709551615, 7"},
		{label: "steps", value: "20"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	for _, bad := range []string{"", "null", "[]", `{"1":5}`, `{"1":{"inputs":[]}}`} {
		if f := facts(json.RawMessage(bad)); len(f) != 0 {
			t.Errorf("%q gave %+v", bad, f)
		}
	}
}
