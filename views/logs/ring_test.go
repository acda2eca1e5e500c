package logs

import (
	"strings"
	"testing"

	"easel/backend"
)

func TestRingReplacesBarsAndDropsRepeats(t *testing.T) {
	var r ring
	for i, text := range []string{"a", " 10%|x| 1/10 [", " 20%|x| 2/10 [", "b", "b"} {
		n := []int64{1, 2, 2, 3, 3}[i]
		r.add(backend.LogLine{Launch: "l", N: n, Text: text, Bar: n == 2}, "new")
	}
	r.add(backend.LogLine{Launch: "l", N: 1, Text: "again"}, "new")
	r.add(backend.LogLine{Launch: "m", N: 1, Text: "c"}, "new")
	var got []string
	for s := r.first(); s < r.next; s++ {
		got = append(got, r.at(s).text)
	}
	if want := "a, 20%|x| 2/10 [,b,new,c"; strings.Join(got, ",") != want {
		t.Errorf("%q, want %q", strings.Join(got, ","), want)
	}
}

func TestRingIsBounded(t *testing.T) {
	var r ring
	for i := range 5 * maxLines {
		r.add(backend.LogLine{Launch: "l", N: int64(i + 1), Text: strings.Repeat("x", i%3000), Level: []string{"info", "error"}[i%2]}, "")
	}
	if r.len() > maxLines || r.bytes > maxBytes || cap(r.buf) > 4*maxLines {
		t.Errorf("%d lines, %d bytes, room for %d", r.len(), r.bytes, cap(r.buf))
	}
	n, bytes := 0, 0
	for s := r.first(); s < r.next; s++ {
		bytes += len(r.at(s).text)
		if r.at(s).level == "error" {
			n++
		}
	}
	if n != r.errors || bytes != r.bytes {
		t.Errorf("counted %d errors and %d bytes, kept %d and %d", n, bytes, r.errors, r.bytes)
	}
	r.add(backend.LogLine{Launch: "l", N: 1 << 40, Text: strings.Repeat("y", 1<<20)}, "")
	if l := r.at(r.next - 1); len(l.text) > maxLineText+32 || !strings.Contains(l.text, "1.0 MiB") {
		t.Errorf("a line of 1 MiB is kept with %d bytes", len(l.text))
	}
}
