package worker

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ending is by which signal ComfyUI ended, as far as that shows. Where a shell or
// another wrapper stands between, the signal shows in its exit status (128 and the
// signal) or in what it writes.
type ending struct {
	signal int    // 0: none
	pid    int    // that the shell named, 0 when it named none
	via    string // what shows it, "" for the wait status itself
}

// shellWords are what shells write about a child that a signal ended, in lower case.
var shellWords = map[string]syscall.Signal{
	"killed": syscall.SIGKILL, "segmentation fault": syscall.SIGSEGV, "aborted": syscall.SIGABRT, "bus error": syscall.SIGBUS,
	"illegal instruction": syscall.SIGILL, "floating point exception": syscall.SIGFPE, "terminated": syscall.SIGTERM,
}

// shellLine is such a line: of bash "run.sh: line 54: 531285 Killed   python -u
// main.py", of dash "Killed", of zsh "zsh: killed     python".
var shellLine = regexp.MustCompile(`^(?:[^\s:]+: )?(?:line \d+: )? *(?:(\d+) )?(?i:(Killed|Segmentation fault|Aborted|Bus error|Illegal instruction|Floating point exception|Terminated))(?: +\(core dumped\))?(?:\s+(\S.*))?$`)

// wrapped are the exit statuses by which a wrapper passes on a signal.
var wrapped = []syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGABRT, syscall.SIGBUS,
	syscall.SIGFPE, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGTERM,
}

// endingOf finds the signal. shell says that the process was a shell: only then is
// a line believed that does not fit the exit status.
func endingOf(e Evidence) ending {
	if !e.Ended.StatusKnown {
		return ending{}
	}
	if e.Ended.Signal != 0 {
		return ending{signal: e.Ended.Signal}
	}
	var ours []int
	if e.Machine != nil {
		ours = e.Machine.PIDs
	}
	line, sig, pid := lastShellLine(e.Lines, ours)
	code := e.Ended.ExitCode
	if i := slices.Index(wrapped, syscall.Signal(code-128)); code > 128 && i >= 0 {
		out := ending{signal: int(wrapped[i]), via: "exit status " + strconv.Itoa(code) + " is how a shell reports " + signalName(int(wrapped[i]))}
		if sig == out.signal {
			out.pid, out.via = pid, out.via+"; it wrote: "+line
		}
		return out
	}
	if sig != 0 && e.Machine != nil && e.Machine.Shell {
		return ending{signal: sig, pid: pid, via: "the shell that ran it wrote: " + line}
	}
	return ending{}
}

// lastShellLine finds such a line among the last three of the log that are not
// empty. One that names a command must name Python or ComfyUI, or one of the pids
// that are known to be the worker's.
func lastShellLine(lines []string, ours []int) (line string, signal, pid int) {
	seen := 0
	for i := len(lines) - 1; i >= 0 && seen < 3; i-- {
		text := strings.TrimSpace(lines[i])
		if text == "" {
			continue
		}
		seen++
		m := shellLine.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		pid, _ = strconv.Atoi(m[1])
		command := strings.ToLower(m[3])
		if command != "" && !slices.Contains(ours, pid) && !strings.Contains(command, "python") && !strings.Contains(command, "main") && !strings.Contains(command, "comfy") {
			continue
		}
		return text, int(shellWords[strings.ToLower(m[2])]), pid
	}
	return "", 0, 0
}
