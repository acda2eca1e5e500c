package process

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// split feeds pieces and lists what is reported, bars in brackets.
func split(pieces ...string) []string {
	var got []string
	s := newSplitter(0)
	fn := func(l Line) {
		if l.Bar {
			l.Text = "[" + l.Text + "]"
		}
		got = append(got, l.Text)
	}
	for _, p := range pieces {
		s.feed([]byte(p), fn)
		s.flush(false, fn)
	}
	s.flush(true, fn)
	return got
}

func TestSplit(t *testing.T) {
	cases := []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"lines", []string{"one\ntwo\n"}, []string{"one", "two"}},
		{"a line over three pieces", []string{"o", "n", "e\n"}, []string{"one"}},
		{"empty lines are lines", []string{"\n\na\n"}, []string{"", "", "a"}},
		{"carriage return and line feed", []string{"one\r\ntwo\r\n"}, []string{"one", "two"}},
		{"the two over two pieces", []string{"one\r", "\ntwo\n"}, []string{"[one]", "one", "two"}},
		{"a bar of tqdm", []string{"\r 0%|  |", "\r 50%|# |", "\r100%|##|", "\n"}, []string{"[ 0%|  |]", "[ 50%|# |]", "[100%|##|]", "100%|##|"}},
		{"bars in one piece: the last", []string{"\r 1%\r 2%\r 3%"}, []string{"[ 3%]"}},
		{"a bar that ends in its piece", []string{"\r 1%\r100%\nnext\n"}, []string{"100%", "next"}},
		{"a bar that is wiped out", []string{"50%\r", "\r     \rdone\n"}, []string{"[50%]", "done"}},
		{"a bar closed by a bare line feed", []string{"100%\r\r\n"}, []string{"100%"}},
		{"the same bar twice", []string{"\r50%", "\r50%"}, []string{"[50%]"}},
		{"a line behind a bar", []string{"\r  0%|          | 0/20 [00:00<?, ?it/s]got prompt\nnext\n"}, []string{"  0%|          | 0/20 [00:00<?, ?it/s]", "got prompt", "next"}},
		{"a line behind a bar that was shown", []string{"\r 50%|##| 5/10 [00:01<00:01,  5.10it/s, loss=0.3]", "Prompt executed in 2.1 seconds\n"}, []string{"[ 50%|##| 5/10 [00:01<00:01,  5.10it/s, loss=0.3]]", " 50%|##| 5/10 [00:01<00:01,  5.10it/s, loss=0.3]", "Prompt executed in 2.1 seconds"}},
		{"a slow bar", []string{"\r3it [01:02:03, 12.5s/it]done\n"}, []string{"3it [01:02:03, 12.5s/it]", "done"}},
		{"a line that only looks like one", []string{"[00:01<00:02, 5it/s]text\n"}, []string{"[00:01<00:02, 5it/s]text"}},
		{"no end", []string{"Loading"}, []string{"[Loading]"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := split(c.pieces...); !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestClean(t *testing.T) {
	cases := map[string]string{
		"plain":                              "plain",
		"trailing   ":                        "trailing",
		"a\tb":                               "a    b",
		"\x1b[31mred\x1b[0m":                 "red",
		"\x1b]0;title\x07after":              "after",
		"\x1b]8;;http://x\x1b\\link":         "link",
		"\x1bPq#0;2\x1b\\sixel":              "sixel",
		"\x1b(Bset":                          "set",
		"cut \x1b[3":                         "cut",
		"bell\x07 back\b nul\x00":            "bell back nul",
		"bad \xff\xfe bytes":                 "bad \uFFFD\uFFFD bytes",
		"c1 \u009b31m":                       "c1 31m",
		"turned \u202etxt.exe":               "turned txt.exe",
		"50%|\u2588\u2588\u258c  | 5/10":     "50%|\u2588\u2588\u258c  | 5/10",
		"\u6f22\u5b57 \U0001F600 e\u0301":    "\u6f22\u5b57 \U0001F600 e\u0301",
		"\ufefffirst line of a Windows file": "first line of a Windows file",
	}
	for in, want := range cases {
		if got := Clean([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestLongLineIsCut(t *testing.T) {
	var got []Line
	s := newSplitter(0)
	for range 100 {
		s.feed([]byte(strings.Repeat("x", 4096)), func(l Line) { got = append(got, l) })
	}
	s.feed([]byte("\nnext\n"), func(l Line) { got = append(got, l) })
	if len(got) != 2 || len(got[0].Text) != maxLine+len("…") || got[1].Text != "next" {
		t.Fatalf("%d lines", len(got))
	}
	if got[0].Offset != 100*4096+1 || got[1].Offset != 100*4096+6 {
		t.Errorf("offsets %d %d", got[0].Offset, got[1].Offset)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("one\r\ntwo\r 50%\x1b[K\n"), 3)
	f.Add([]byte("\xff\x1b]0;x"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = min(max(cut, 0), len(b))
		var final [2][]string
		for i, pieces := range [][][]byte{{b}, {b[:cut], b[cut:]}} {
			s := newSplitter(0)
			fn := func(l Line) {
				if !utf8.ValidString(l.Text) {
					t.Fatalf("not UTF-8: %q", l.Text)
				}
				for _, r := range l.Text {
					if unicode.IsControl(r) {
						t.Fatalf("control character in %q", l.Text)
					}
				}
				if l.Offset > int64(len(b)) {
					t.Fatalf("offset %d of %d bytes", l.Offset, len(b))
				}
				if !l.Bar {
					final[i] = append(final[i], fmt.Sprint(l.Offset, l.Text))
				}
			}
			for _, p := range pieces {
				s.feed(p, fn)
				s.flush(false, fn)
			}
			s.flush(true, fn)
		}
		if !slices.Equal(final[0], final[1]) {
			t.Fatalf("cut at %d: %q, whole: %q", cut, final[1], final[0])
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	piece := []byte(strings.Repeat("[INFO] a line of about eighty characters, as ComfyUI and its packs write them\n", 1000))
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	s := newSplitter(0)
	for b.Loop() {
		s.feed(piece, func(Line) {})
		s.flush(false, func(Line) {})
	}
}
