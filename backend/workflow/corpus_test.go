package workflow

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpus is the team's collection of workflows, which users do not have.
const corpus = "../../../shared/workflows"

// TestCorpusHasNoFalseErrors checks every graph that ComfyUI's own web page made
// against the server it was made for. Model files are missing there on purpose.
// Every other error must be one that the server would give too: they were looked
// at one by one and stand in testdata/corpus-errors.golden (graphs without any
// output, sockets left open, values shifted by an old file format).
func TestCorpusHasNoFalseErrors(t *testing.T) {
	lists, _ := filepath.Glob(filepath.Join(corpus, "*", "object_info.json.gz"))
	if len(lists) == 0 {
		t.Skip("no corpus of workflows at " + corpus)
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "corpus-errors.golden"))
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(golden)), "\n") {
		expected[line] = true
	}
	graphs := 0
	for _, list := range lists {
		info := corpusInfo(t, list)
		files, _ := filepath.Glob(filepath.Join(filepath.Dir(list), "*.api*.json"))
		for _, file := range files {
			graphs++
			for _, line := range corpusErrors(t, info, file) {
				if !expected[line] {
					t.Errorf("not expected: %s", line)
				}
				delete(expected, line)
			}
		}
	}
	for line := range expected {
		t.Errorf("not found any more: %s", line)
	}
	if graphs < 400 {
		t.Errorf("only %d graphs", graphs)
	}
}

func corpusInfo(t testing.TB, path string) *ObjectInfo {
	t.Helper()
	f, err := os.Open(path)
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

// corpusErrors are the errors of one graph, a line each, but for missing models
// and for classes that the page itself did not know.
func corpusErrors(t *testing.T, info *ObjectInfo, file string) []string {
	name := filepath.Base(filepath.Dir(file)) + "/" + strings.TrimSuffix(filepath.Base(file), ".json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := Read(b)
	if err != nil {
		return []string{name + " " + err.Error()}
	}
	var lines []string
	for _, p := range Check(doc, info) {
		if p.Severity == SeverityError && p.Kind != KindMissingModel && p.Kind != KindNoClass {
			line := strings.Join([]string{name, p.Kind, p.Node, p.Class, p.Input, p.Value}, " | ")
			lines = append(lines, strings.TrimRight(line, " |"))
		}
	}
	return lines
}
