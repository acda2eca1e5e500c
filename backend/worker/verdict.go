package worker

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"easel/backend"
	"easel/backend/keeper"
)

// Evidence is what is known about one end of a worker process.
type Evidence struct {
	Ended  keeper.Ended
	Worker string
	Launch string
	// Ready says that it had answered before it ended.
	Ready bool
	// Asked is who had asked for its end and why, in words; "" when nobody had.
	Asked string
	// Stall is why Easel ended it, nil when it did not.
	Stall *backend.Verdict
	// Reboot says that ComfyUI-Manager left its mark that it wants a restart.
	Reboot bool
	// Timeout is the start timeout that it was ended for; 0: it was not.
	Timeout time.Duration
	// Lines are the last lines of its log, oldest first.
	Lines []string
	// Job and Node are what ran, nil when nothing did.
	Job, Node *string
	// Python, Dir and Port say how it had been started.
	Python, Dir string
	Port        int
	// Machine is what the machine told, nil when nothing was read.
	Machine *Machine
}

// evidenceLines is how many lines of the log a verdict keeps.
const evidenceLines = 12

// Judge explains an end of a worker from the evidence, which it keeps.
func Judge(e Evidence) backend.Verdict {
	v, _ := judge(e)
	return v
}

// judge also says whether another start would end the same way, and why a start
// failed.
func judge(e Evidence) (backend.Verdict, cause) {
	v := backend.Verdict{
		At: backend.At(e.Ended.At), Worker: e.Worker, Launch: e.Launch, Job: e.Job, Node: e.Node,
		Evidence: []string{}, Certainty: backend.Certain,
	}
	if v.At.IsZero() {
		v.At = backend.Now()
	}
	if e.Ended.StatusKnown {
		if e.Ended.Signal != 0 {
			v.Signal = &e.Ended.Signal
		} else {
			v.ExitCode = &e.Ended.ExitCode
		}
	}
	end := endingOf(e)
	v.Evidence = append(v.Evidence, how(e.Ended))
	if end.via != "" {
		v.Evidence = append(v.Evidence, end.via)
	}
	var c cause
	switch {
	case e.Stall != nil && e.Asked == "":
		judgeStall(&v, e)
	case e.Timeout > 0:
		c = judgeTimeout(&v, e)
	case e.Asked != "" || e.Ended.Ours:
		judgeAsked(&v, e)
	case !e.Ended.StatusKnown:
		judgeUnseen(&v, e)
	case end.signal == int(syscall.SIGKILL):
		judgeKill(&v, e, end)
	case end.signal == int(syscall.SIGTERM), end.signal == int(syscall.SIGHUP), end.signal == int(syscall.SIGINT):
		judgeKilled(&v, end)
	case end.signal != 0:
		judgeCrash(&v, e, end)
	case e.Reboot:
		v.Kind = backend.KindAsked
		v.Summary = "ComfyUI-Manager asked for a restart"
	case !e.Ready:
		c = judgeStart(&v, e)
	default:
		judgeExit(&v, e)
	}
	if v.Kind != backend.KindAsked {
		v.Evidence = append(v.Evidence, e.Machine.figures()...)
	}
	lines := e.Lines
	if end.signal != 0 { // what matters of the stacks is in the verdict already
		lines = beforeDump(lines)
	}
	v.Evidence = append(v.Evidence, lastLines(lines)...)
	return v, c
}

// how says in words how a process ended.
func how(e keeper.Ended) string {
	var s string
	switch {
	case !e.StatusKnown:
		s = "exit status not seen"
	case e.Signal != 0:
		s = "ended by " + signalName(e.Signal)
	default:
		s = fmt.Sprintf("exit status %d", e.ExitCode)
	}
	if e.Ours {
		s += "; Easel had sent " + signalName(e.OurSignal)
	}
	if !e.Started.IsZero() && e.At.After(e.Started) {
		s += fmt.Sprintf(", %s after its start", e.At.Sub(e.Started).Round(100*time.Millisecond))
	}
	if e.MaxRSS > 0 {
		s += ", at most " + gib(e.MaxRSS) + " of memory"
	}
	return s
}

// signalNames are the signals by which processes end.
var signalNames = map[int]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS",
	8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
}

func signalName(n int) string {
	if name, ok := signalNames[n]; ok {
		return fmt.Sprintf("signal %d (%s)", n, name)
	}
	return fmt.Sprintf("signal %d", n)
}

func judgeAsked(v *backend.Verdict, e Evidence) {
	v.Kind = backend.KindAsked
	v.Summary = "stopped by " + firstOf(e.Asked, "Easel")
}

func judgeTimeout(v *backend.Verdict, e Evidence) cause {
	v.Kind = backend.KindBadStart
	v.Summary = fmt.Sprintf("it was not ready, and its log had not moved for %s", span(e.Timeout))
	c := cause{Line: lastLine(e.Lines), Remedy: "look at its last log line: a node pack that waits for the network or for a lock keeps it there"}
	v.Remedy = c.Remedy
	return c
}

func judgeStart(v *backend.Verdict, e Evidence) cause {
	c := badStart(startFacts{Lines: e.Lines, Exit: e.Ended.ExitCode, Python: e.Python, Dir: e.Dir, Port: e.Port})
	v.Kind = backend.KindBadStart
	v.Summary = c.Summary
	v.Remedy = c.Remedy
	if !c.Sure {
		v.Certainty = backend.Likely
	}
	if c.Line != "" {
		v.Evidence = append(v.Evidence, c.Line)
	}
	return c
}

// lineLength is how much of a line a verdict keeps, in runes.
const lineLength = 300

// lastLines are the last lines of the log that say something.
func lastLines(lines []string) []string {
	var out []string
	for _, l := range lines {
		if strings.TrimSpace(l) == "" {
			continue
		}
		if r := []rune(l); len(r) > lineLength {
			l = string(r[:lineLength]) + "…"
		}
		out = append(out, l)
	}
	if len(out) > evidenceLines {
		out = out[len(out)-evidenceLines:]
	}
	return out
}

func lastLine(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); l != "" {
			return l
		}
	}
	return ""
}

func hasLine(lines []string, text string) bool {
	for _, l := range lines {
		if strings.TrimSpace(l) == text {
			return true
		}
	}
	return false
}

// startFacts is what the reasons of a bad start are read from.
type startFacts struct {
	Lines       []string
	Exit        int
	Python, Dir string
	Port        int
}

// cause is why a start failed.
type cause struct {
	Line    string // the log line that matters
	Summary string
	Remedy  string
	// Hopeless says that the same start would fail again.
	Hopeless bool
	// Port says that the port was taken: another one would do.
	Port bool
	// Sure says that the log names the reason.
	Sure bool
	// Passing says that the next start may well do.
	Passing bool
}

// reasons are the known ways in which a start fails, most telling first. find
// matches one line; its groups are the arguments of say.
var reasons = []struct {
	find *regexp.Regexp
	say  func(f startFacts, m []string) cause
}{
	{regexp.MustCompile(`^(?:main\.py|easel sketch): error: (.*)$`), func(f startFacts, m []string) cause {
		remedy := "correct worker.args (or worker.command); `easel config check` names the flags this ComfyUI has"
		if flag, ok := strings.CutPrefix(m[1], "unrecognized arguments: "); ok {
			remedy = "take " + flag + " out of worker.args, or update ComfyUI"
		}
		return cause{Summary: "ComfyUI refused its command line: " + m[1], Remedy: remedy}
	}},
	{regexp.MustCompile(`(?i)address already in use|port \d+ is (?:already )?in use|\[Errno 98\]`), func(f startFacts, _ []string) cause {
		return cause{Port: true, Summary: fmt.Sprintf("port %d is taken by another program", f.Port), Remedy: "end the other program, or set worker.port = 0 for a free one"}
	}},
	{regexp.MustCompile(`\[Errno 99\]|cannot assign requested address|bind\(\): port must be`), func(_ startFacts, _ []string) cause {
		return cause{Summary: "the address it should listen on does not exist on this machine", Remedy: "take --listen and --port out of worker.args; Easel sets them"}
	}},
	{regexp.MustCompile(`ASSETS_STARTUP_FAILED: *(\w+)`), func(_ startFacts, m []string) cause {
		return cause{Summary: "its database could not be opened: " + m[1], Remedy: "another ComfyUI uses the same database (in_use, locked), or it is damaged: end the other one, or add --disable-assets to worker.args"}
	}},
	{regexp.MustCompile(`No module named '?(torch|torchvision|torchaudio)\b`), func(f startFacts, m []string) cause {
		return cause{Summary: f.Python + " has no " + m[1], Remedy: "name the right interpreter with worker.python, or install it: " + f.Python + " -m pip install torch torchvision torchaudio"}
	}},
	{regexp.MustCompile(`(?i)comfyui-frontend-package is not installed|No module named 'comfyui_frontend_package'`), func(f startFacts, _ []string) cause {
		return cause{Summary: "its web page package is missing", Remedy: requirements(f)}
	}},
	{regexp.MustCompile(`ModuleNotFoundError: No module named '([^']+)'`), func(f startFacts, m []string) cause {
		return cause{Summary: "Python module " + m[1] + " is missing", Remedy: requirements(f) + "; or name another interpreter with worker.python"}
	}},
	{regexp.MustCompile(`Found no NVIDIA driver|Torch not compiled with CUDA enabled|no CUDA-capable device|No CUDA GPUs are available`), func(_ startFacts, _ []string) cause {
		return cause{Summary: "it finds no GPU it can use", Remedy: "check nvidia-smi and worker.gpus; without a GPU add --cpu to worker.args"}
	}},
	{regexp.MustCompile(`CUDA out of memory|CUDA error: out of memory`), func(_ startFacts, _ []string) cause {
		return cause{Passing: true, Summary: "the GPU's memory was full when it started", Remedy: "see who holds it (easel gpu, nvidia-smi) and end that; another worker on the same card does this, too"}
	}},
	{regexp.MustCompile(`(?:CUDA|HIP) error: (.*)`), func(_ startFacts, m []string) cause {
		return cause{Passing: true, Summary: "the GPU or its driver failed when it started: " + m[1], Remedy: "check nvidia-smi and dmesg (Xid); no kernel image means that the installed torch does not fit this card"}
	}},
	{regexp.MustCompile(`(?:FileNotFoundError|NotADirectoryError).*'([^']*custom_nodes)/?'`), func(_ startFacts, m []string) cause {
		return cause{Summary: "its directory for node packs is missing", Remedy: "mkdir -p " + m[1]}
	}},
	{regexp.MustCompile(`(?:FileNotFoundError|NotADirectoryError|PermissionError|OSError: \[Errno (?:13|28|30)\]).*`), func(_ startFacts, m []string) cause {
		return cause{Summary: "a file or directory it needs cannot be used", Remedy: "make that path exist and writable for this user"}
	}},
	{regexp.MustCompile(`can't open file '([^']+)'`), func(_ startFacts, m []string) cause {
		return cause{Summary: m[1] + " is not there", Remedy: "name a ComfyUI checkout with worker.comfyui"}
	}},
	{regexp.MustCompile(`SyntaxError: .*`), func(f startFacts, _ []string) cause {
		return cause{Summary: f.Python + " cannot read this ComfyUI", Remedy: "it may be too old a Python: name another with worker.python"}
	}},
}

func requirements(f startFacts) string {
	return fmt.Sprintf("%s -m pip install -r %s", firstOf(f.Python, "python3"), filepath.Join(f.Dir, "requirements.txt"))
}

// badStart finds why a process ended by itself before it was ready. Only the end of
// the log counts: a pack that failed to import stops nothing.
func badStart(f startFacts) cause {
	tail, trace := finalLines(f.Lines)
	for _, r := range reasons {
		for i := len(tail) - 1; i >= 0; i-- {
			if m := r.find.FindStringSubmatch(tail[i]); m != nil {
				c := r.say(f, m)
				c.Line, c.Hopeless, c.Sure = strings.TrimSpace(tail[i]), !c.Passing, true
				return c
			}
		}
	}
	var log startLog
	for _, l := range f.Lines {
		log.facts(l)
	}
	line := lastLine(tail)
	switch {
	case trace != "":
		return cause{Line: trace, Summary: "it ended before it was ready: " + trace, Remedy: "its log has the whole traceback; " + requirements(f) + " often helps"}
	case f.Exit == 2:
		return cause{Line: line, Hopeless: true, Summary: "it refused its command line (exit status 2)", Remedy: "correct worker.args; its last log lines say which flag"}
	case log.Loading && !log.Loaded:
		return cause{
			Line: line, Hopeless: true,
			Summary: fmt.Sprintf("it ended with exit status %d while node packs were loading: one of them ends the process when it is imported", f.Exit),
			Remedy:  "start once with worker.args = [\"--disable-all-custom-nodes\"], then take the pack that was imported last out of custom_nodes (rename it to NAME.disabled)",
		}
	default:
		return cause{Line: line, Summary: fmt.Sprintf("it ended with exit status %d before it was ready", f.Exit), Remedy: "its last log lines say more"}
	}
}

// finalLines are the lines of the log that belong to its end: the last traceback
// if the log ends with one, whose last line is returned too, else the last few.
func finalLines(lines []string) (tail []string, trace string) {
	last := len(lines) - 1
	for last >= 0 && strings.TrimSpace(lines[last]) == "" {
		last--
	}
	if last < 0 {
		return nil, ""
	}
	for i := last; i >= max(0, last-400); i-- {
		if !strings.HasPrefix(lines[i], traceHead) {
			continue
		}
		end := traceEnd(lines, i)
		if last-end > 3 || slices.ContainsFunc(lines[end:last+1], packCause.MatchString) {
			break // other lines follow: that one was caught
		}
		return lines[i : last+1], strings.TrimSpace(lines[end])
	}
	from := max(0, last-4)
	for i := last; i >= from; i-- {
		if packCause.MatchString(lines[i]) { // what is above it was caught by ComfyUI
			from = i + 1
		}
	}
	return lines[from : last+1], ""
}

// traceEnd is the index of the line that names the exception of the traceback at
// i.
func traceEnd(lines []string, i int) int {
	for i++; i < len(lines); i++ {
		if lines[i] != "" && !strings.HasPrefix(lines[i], " ") {
			return i
		}
	}
	return len(lines) - 1
}
