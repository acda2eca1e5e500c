package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/process"
	"easel/config/near"
)

// arity is how many values a flag takes, as argparse writes it.
type arity byte

const (
	arityNone arity = '0' // --cpu
	arityOne  arity = '1' // --port PORT
	arityMay  arity = '?' // --listen [IP]
	arityAny  arity = '*' // --fast [FAST ...]
	arityMany arity = '+' // --whitelist-custom-nodes A [A ...]
)

// Flags are what an install's own --help lists: name (with its dashes) to how
// many values it takes. Which flags exist differs by version, and ComfyUI ends
// with exit 2 upon one it does not know.
type Flags map[string]arity

// helpTimeout bounds `python main.py --help`, which takes 50 ms with a warm disk
// and many seconds from a cold network mount.
const helpTimeout = 2 * time.Minute

var (
	helpOption = regexp.MustCompile(`^ {1,4}(-[\w-].*)$`)
	helpUsage  = regexp.MustCompile(`(?:\[|\| |\()(--[A-Za-z][\w-]*)([^\]|)]*)`)
)

// parseHelp reads the output of argparse's --help.
func parseHelp(text string) Flags {
	flags := Flags{}
	usage, options, found := strings.Cut(text, "\noptions:")
	if !found {
		usage, options, _ = strings.Cut(text, "\noptional arguments:") // Python before 3.10
	}
	for _, m := range helpUsage.FindAllStringSubmatch(usage, -1) {
		flags[m[1]] = arityOf(m[2])
	}
	for line := range strings.Lines(options) {
		m := helpOption.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if m == nil {
			continue
		}
		head, _, _ := strings.Cut(m[1], "  ") // the description begins after two blanks
		var names []string
		values := ""
		for part := range strings.SplitSeq(head, ", ") {
			name, rest, _ := strings.Cut(part, " ")
			if !strings.HasPrefix(name, "-") {
				continue // a comma within the values
			}
			names = append(names, name)
			if rest != "" {
				values = part[len(name):]
			}
		}
		for _, name := range names {
			flags[name] = arityOf(values)
		}
	}
	return flags
}

// arityOf reads argparse's notation of values.
func arityOf(s string) arity {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return arityNone
	case strings.HasSuffix(s, "...]") && strings.HasPrefix(s, "["):
		return arityAny
	case strings.Contains(s, " ...") || strings.HasSuffix(s, "..."):
		return arityMany
	case strings.HasPrefix(s, "[") && (strings.HasPrefix(s, "[{") || !strings.Contains(s, ",")):
		return arityMay // but [a,b] is how ComfyUI spells a choice of a or b
	default:
		return arityOne
	}
}

// Has reports whether the flag (with its dashes) is listed.
func (f Flags) Has(name string) bool { _, ok := f[name]; return ok }

// Check refuses arguments that ComfyUI would end upon, by name. what says where
// they come from, as "worker.args".
func (f Flags) Check(args []string, what string) error {
	open := arityNone // of the flag whose values may follow
	last := ""
	for _, a := range args {
		if !isFlag(a) {
			switch open {
			case arityNone:
				return f.stray(a, last, what)
			case arityOne, arityMay:
				open = arityNone
			}
			continue
		}
		if open == arityOne {
			return missingValue(last, what)
		}
		name, _, inline := strings.Cut(a, "=")
		kind, ok := f[name]
		if !ok {
			return f.unknown(name, what)
		}
		if inline && kind == arityNone {
			return backend.Fail(backend.FailUsage, fmt.Sprintf("%s: %s takes no value", what, name), "write "+name+" alone")
		}
		last, open = name, kind
		if inline {
			open = arityNone
		}
	}
	if open == arityOne {
		return missingValue(last, what)
	}
	return nil
}

func missingValue(flag, what string) error {
	return backend.Fail(backend.FailUsage, fmt.Sprintf("%s: %s has no value", what, flag), "write the value after "+flag)
}

func (f Flags) stray(value, after, what string) error {
	hint := "take it out"
	if after != "" {
		hint = fmt.Sprintf("%s takes no such value; take %q out", after, value)
	}
	return backend.Fail(backend.FailUsage, fmt.Sprintf("%s: ComfyUI takes no argument %q", what, value), hint)
}

func (f Flags) unknown(name, what string) error {
	hint := fmt.Sprintf("take %s out of %s, or update ComfyUI", name, what)
	if near := f.nearest(name); near != "" {
		hint = fmt.Sprintf("did you mean %s? Else %s", near, hint)
	}
	return backend.Fail(backend.FailUsage, fmt.Sprintf("%s: this ComfyUI has no flag %s", what, name), hint)
}

// nearest is the listed flag most like name, "" when none is like it.
func (f Flags) nearest(name string) string {
	best, bestDist := "", len(name)/3+1
	for _, flag := range slices.Sorted(func(yield func(string) bool) {
		for k := range f {
			if !yield(k) {
				return
			}
		}
	}) {
		d := near.Distance(name, flag)
		if strings.HasPrefix(flag, name) && len(name) > 4 {
			d = 1 // argparse would take the abbreviation
		}
		if d < bestDist {
			best, bestDist = flag, d
		}
	}
	return best
}

// isFlag reports whether an argument is a flag; "-1" is a number and "-" a name.
func isFlag(a string) bool {
	return len(a) > 1 && a[0] == '-' && !(a[1] >= '0' && a[1] <= '9') && a[1] != '.'
}

// installMark changes when an install or its interpreter does: names, sizes and
// times of the files that decide which flags exist.
func installMark(python, main string) string {
	h := sha256.New()
	dir := filepath.Dir(main)
	for _, path := range []string{python, main, filepath.Join(dir, "comfy", "cli_args.py"), filepath.Join(dir, "comfyui_version.py")} {
		fmt.Fprintf(h, "%s\x00", path)
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(h, "%d %d\x00", info.Size(), info.ModTime().UnixNano())
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// probeFlags asks an install for its flags, or remembers what it said when neither
// it nor its interpreter has changed since. cacheDir "" remembers nothing.
func probeFlags(ctx context.Context, python, main string, env []string, cacheDir string) (Flags, error) {
	mark := installMark(python, main)
	cache := filepath.Join(cacheDir, "flags-"+mark+".json")
	if cacheDir != "" {
		if b, err := os.ReadFile(cache); err == nil {
			var known map[string]string
			if json.Unmarshal(b, &known) == nil && len(known) > 0 {
				return flagsOf(known), nil
			}
		}
	}
	flags, err := askHelp(ctx, python, main, env)
	if err != nil {
		return nil, err
	}
	if cacheDir != "" {
		known := make(map[string]string, len(flags))
		for k, v := range flags {
			known[k] = string(v)
		}
		if b, err := json.Marshal(known); err == nil {
			_ = writeFile(cache, b) // only saves time: asked again when it is not there
		}
	}
	return flags, nil
}

func flagsOf(known map[string]string) Flags {
	flags := make(Flags, len(known))
	for k, v := range known {
		if v != "" {
			flags[k] = arity(v[0])
		}
	}
	return flags
}

// askHelp runs `python main.py --help`, which ends before torch is imported.
func askHelp(ctx context.Context, python, main string, env []string) (Flags, error) {
	ctx, cancel := context.WithTimeout(ctx, helpTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, main, "--help")
	cmd.Dir = filepath.Dir(main)
	cmd.Env = append(slices.Clone(env), "COLUMNS=200", "LC_ALL=C.UTF-8")
	cmd.WaitDelay = time.Second
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	flags := parseHelp(stdout.String())
	if err == nil && flags.Has("--port") {
		return flags, nil
	}
	what := fmt.Sprintf("%s main.py --help in %s did not list ComfyUI's flags", python, cmd.Dir)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, backend.Fail(backend.FailWorker, what+" within "+span(helpTimeout), "is the disk with "+cmd.Dir+" reachable?")
	case err == nil:
		return nil, backend.Fail(backend.FailWorker, what, cmd.Dir+" may not be a ComfyUI checkout: name one with worker.comfyui")
	}
	line, hint := helpFailure(stderr.String(), python, cmd.Dir)
	return nil, backend.Fail(backend.FailWorker, fmt.Sprintf("%s: %s", what, firstOf(line, err.Error())), hint)
}

// helpFailure picks the line that matters from what --help wrote before it
// failed, and says what to do.
func helpFailure(stderr, python, dir string) (line, hint string) {
	var lines []string
	for l := range strings.Lines(stderr) {
		if t := process.Clean([]byte(strings.TrimRight(l, "\r\n"))); t != "" {
			lines = append(lines, t)
		}
	}
	c := badStart(startFacts{Lines: lines, Exit: 1, Python: python, Dir: dir})
	return c.Line, firstOf(c.Remedy, "run that command by hand to see why; another interpreter is named with worker.python")
}

// firstOf is the first of its arguments that is not empty.
func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
