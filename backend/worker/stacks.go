package worker

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// What Python's faulthandler prints when a signal ends it: a reason, then the stack
// of each thread, innermost call first.
var (
	fatalLine  = regexp.MustCompile(`^Fatal Python error: (.*)$`)
	threadLine = regexp.MustCompile(`^(Current thread|Thread) 0x[0-9a-f]+`)
	frameLine  = regexp.MustCompile(`^  File "([^"]*)", line (\d+|\?\?\?) in (.*)$`)
)

// frame is one Python call.
type frame struct {
	file, line, function string
}

func (f frame) String() string {
	return fmt.Sprintf("%s (%s:%s)", f.function, shortPath(f.file), f.line)
}

// pack is the node pack that the frame belongs to, "" when to none.
func (f frame) pack() string {
	_, after, ok := strings.Cut(filepath.ToSlash(f.file), "/custom_nodes/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(after, "/")
	return name
}

// shortPath is the part of a path by which people know the file.
func shortPath(path string) string {
	path = filepath.ToSlash(path)
	for _, mark := range []string{"/custom_nodes/", "/site-packages/", "/dist-packages/"} {
		if i := strings.LastIndex(path, mark); i >= 0 {
			if mark == "/custom_nodes/" {
				return path[i+1:]
			}
			return path[i+len(mark):]
		}
	}
	parts := strings.Split(path, "/")
	return strings.Join(parts[max(0, len(parts)-2):], "/")
}

// thread is the stack of one thread.
type thread struct {
	current bool // the one that the signal met
	lines   []string
	frames  []frame // innermost first
}

// works reports whether the thread is the one of ComfyUI that runs nodes.
func (t thread) works() bool {
	for _, f := range t.frames {
		if f.function == "prompt_worker" || f.pack() != "" || strings.HasSuffix(f.file, "/execution.py") {
			return true
		}
	}
	return false
}

// culprit is the innermost call of the thread, and the innermost one within a node
// pack.
func (t thread) culprit() (inner, inPack frame) {
	for i, f := range t.frames {
		if i == 0 {
			inner = f
		}
		if f.pack() != "" {
			return inner, f
		}
	}
	return inner, frame{}
}

// dump is what faulthandler printed.
type dump struct {
	reason  string // "Segmentation fault"
	threads []thread
}

// dumpStart is where the last dump begins, -1 when there is none.
func dumpStart(lines []string) int {
	for i := len(lines) - 1; i >= 0; i-- {
		if fatalLine.MatchString(lines[i]) {
			return i
		}
	}
	return -1
}

// beforeDump are the lines before the last dump.
func beforeDump(lines []string) []string {
	if from := dumpStart(lines); from >= 0 {
		return lines[:from]
	}
	return lines
}

// readDump finds the last dump in the log; ok is false when there is none.
func readDump(lines []string) (dump, bool) {
	from := dumpStart(lines)
	if from < 0 {
		return dump{}, false
	}
	d := dump{reason: fatalLine.FindStringSubmatch(lines[from])[1]}
	for _, l := range lines[from+1:] {
		switch m := threadLine.FindStringSubmatch(l); {
		case m != nil:
			d.threads = append(d.threads, thread{current: m[1] == "Current thread", lines: []string{l}})
		case len(d.threads) == 0:
		default:
			if f := frameLine.FindStringSubmatch(l); f != nil {
				t := &d.threads[len(d.threads)-1]
				t.frames = append(t.frames, frame{file: f[1], line: f[2], function: f[3]})
				t.lines = append(t.lines, l)
			}
		}
	}
	return d, true
}

// crashed is the thread that a crash happened in.
func (d dump) crashed() (thread, bool) {
	for _, t := range d.threads {
		if t.current && len(t.frames) > 0 {
			return t, true
		}
	}
	return thread{}, false
}

// working is the thread that runs nodes, else the one with the signal.
func (d dump) working() (thread, bool) {
	for _, t := range d.threads {
		if t.works() {
			return t, true
		}
	}
	return d.crashed()
}

// where says in which call a thread was, for a summary.
func (t thread) where() string {
	inner, in := t.culprit()
	switch {
	case inner == frame{}:
		return ""
	case in == frame{} || in == inner:
		return "in " + inner.String()
	}
	return fmt.Sprintf("in %s, called by %s", inner, in)
}

// stackLines are the lines of a thread that a verdict keeps.
func stackLines(reason string, t thread) []string {
	out := []string{"Python: " + reason}
	for i, l := range t.lines {
		if i > 12 {
			break
		}
		out = append(out, l)
	}
	return out
}
