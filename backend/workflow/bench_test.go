package workflow

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// chain is a graph of n nodes, one feeding the next.
func chain(n int) string {
	var b strings.Builder
	b.WriteString(`{"0":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}}`)
	for i := 1; i < n-1; i++ {
		fmt.Fprintf(&b, `,"%d":{"class_type":"ImageInvert","inputs":{"image":["%d",0]},"_meta":{"title":"Invert"}}`, i, i-1)
	}
	fmt.Fprintf(&b, `,"%d":{"class_type":"SaveImage","inputs":{"images":["%d",0],"filename_prefix":"x"}}}`, n-1, n-2)
	return b.String()
}

func BenchmarkReadAndCheck(b *testing.B) {
	info := infoOf(b, "0.8.0")
	for _, n := range []int{10, 100, 10_000} {
		file := []byte(chain(n))
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				doc, err := Read(file)
				if err != nil {
					b.Fatal(err)
				}
				if problems := Check(doc, info); len(problems) > 0 {
					b.Fatal(problems[0])
				}
			}
		})
	}
}

// BenchmarkParseObjectInfo reads an object_info of some 20 MB: a real one many
// times over, under other names.
func BenchmarkParseObjectInfo(b *testing.B) {
	one, err := os.ReadFile(filepath.Join("testdata", "object_info-0.8.0.json"))
	if err != nil {
		b.Fatal(err)
	}
	one = bytes.TrimSpace(one)
	var all bytes.Buffer
	all.WriteString(`{"first":{}`)
	for i := 0; all.Len() < 20<<20; i++ {
		all.WriteByte(',')
		all.Write(bytes.ReplaceAll(one[1:len(one)-1], []byte("\n\""), fmt.Appendf(nil, "\n\"%d", i)))
	}
	all.WriteByte('}')
	b.SetBytes(int64(all.Len()))
	for b.Loop() {
		if _, err := ParseObjectInfo(bytes.NewReader(all.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadLargeText(b *testing.B) {
	file := []byte(`{"1":{"class_type":"A","inputs":{"x":"` + strings.Repeat("a", 32<<20) + `"}}}`)
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if _, err := Read(file); err != nil {
			b.Fatal(err)
		}
	}
}

func TestALongChainIsChecked(t *testing.T) {
	doc := read(t, chain(maxNodes))
	if problems := Check(doc, infoOf(t, "0.3.64")); len(problems) > 0 {
		t.Error(problems[0])
	}
}

// TestAHostileGraphIsCheckedInBoundedTime gives every node a fault that is
// costly to explain.
func TestAHostileGraphIsCheckedInBoundedTime(t *testing.T) {
	var b strings.Builder
	const nodes = maxNodes / 5
	for i := range nodes {
		fmt.Fprintf(&b, `,"%d":{"class_type":"ImageInvret%d","inputs":{"image":["%d",0],"x":["0",0]}}`, i, i, (i+1)%nodes)
	}
	doc := read(t, "{"+b.String()[1:]+"}")
	start := time.Now()
	problems := Check(doc, infoOf(t, "0.3.64"))
	if len(problems) != maxProblems || problems[0].Severity != SeverityError {
		t.Errorf("%d problems", len(problems))
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := Read([]byte(chain(maxNodes + 1))); err == nil || !strings.Contains(err.Error(), "100001 nodes") {
		t.Errorf("too many nodes: %v", err)
	}
}
