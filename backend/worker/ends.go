package worker

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"

	"easel/backend"
)

// judgeUnseen explains an end whose status nobody saw. The kernel's own word still
// counts.
func judgeUnseen(v *backend.Verdict, e Evidence) {
	o := oomOf(e.Machine, []int{e.Ended.PID})
	if o.certainty == "" || o.certainty == backend.Likely {
		v.Kind, v.Certainty = backend.KindUnknown, backend.Unknown
		v.Summary = "the worker ended and nobody saw how: its parent had ended before it"
		v.Remedy = "none needed; its last log lines are below"
		v.Evidence = append(v.Evidence, o.evidence...)
		return
	}
	hostOOM(v, e, o)
	if _, named := e.Machine.named([]int{e.Ended.PID}); !named {
		v.Certainty = backend.Likely // a child of it may have been meant
	}
}

// judgeKill explains an end by signal 9 that Easel did not send.
func judgeKill(v *backend.Verdict, e Evidence, end ending) {
	pids := []int{e.Ended.PID}
	switch {
	case end.pid != 0:
		pids = append(pids, end.pid)
	case end.via != "" && e.Machine != nil: // a wrapper: one of its children
		pids = append(pids, e.Machine.inside()...)
	}
	o := oomOf(e.Machine, pids)
	if o.certainty != "" {
		hostOOM(v, e, o)
		return
	}
	v.Kind, v.Certainty = backend.KindKilled, backend.Likely
	v.Summary = "killed by signal 9 (SIGKILL), by whom is not known"
	v.Remedy = "it is started again; if nobody did that, the kernel may have: look for \"Killed process\" in dmesg or journalctl -k"
	v.Evidence = append(v.Evidence, o.evidence...)
	if m := e.Machine; m != nil && m.Own != nil && m.Own.known() {
		v.Certainty = backend.Certain
		v.Summary = "killed by signal 9 (SIGKILL) from outside, not by the kernel for memory; by whom is not known"
		v.Remedy = "none needed if that was a person or a script; it is started again"
		v.Evidence = append(v.Evidence, fmt.Sprintf("oom_kill of its own cgroup %s did not count it (%d)", m.Own.Path, m.Own.After))
	}
}

// hostOOM is the verdict on a worker that was killed because memory ran out.
func hostOOM(v *backend.Verdict, e Evidence, o oom) {
	v.Kind, v.Certainty = backend.KindHostOOM, o.certainty
	v.Summary = "killed by " + o.by + ": the machine's memory ran out"
	if o.had != "" {
		v.Summary += "; " + o.had
	}
	v.Summary += during(e)
	v.Evidence = append(v.Evidence, o.evidence...)
	v.Remedy = "make batch, frames or size of that workflow smaller, or let ComfyUI keep less (worker.args: --cache-none, --disable-smart-memory), or take a machine with more memory"
	switch m := e.Machine; {
	case !e.Ready:
		v.Remedy = "it did not even start: end other programs that hold memory, take node packs out, or take a machine with more memory"
	case m.Total > 0 && m.Free >= 0 && m.RSS > 0 && m.Total-m.Free > 3*m.RSS && m.Free < m.Total/8:
		v.Remedy = fmt.Sprintf("other programs held %s: end them (ps aux --sort -rss shows them), or make that workflow smaller", gib(m.Total-m.Free-m.RSS))
	}
}

// during names the node that ran.
func during(e Evidence) string {
	s := ""
	if e.Node != nil && *e.Node != "" {
		s = " while node " + *e.Node + " ran"
	}
	if !e.Ready {
		s += " before it was ready"
	}
	return s
}

// judgeKilled explains an end by a signal that asks.
func judgeKilled(v *backend.Verdict, end ending) {
	v.Kind = backend.KindKilled
	v.Summary = fmt.Sprintf("killed from outside with %s; not by Easel", signalName(end.signal))
	v.Remedy = "none needed if that was a person or a script; it is started again"
	if end.signal == int(syscall.SIGHUP) {
		v.Remedy = "a terminal or a session was closed: nothing to do, it is started again"
	}
}

// crashRemedies are what some signals tell more than others.
var crashRemedies = map[int]string{
	int(syscall.SIGILL): "it ran an instruction that this processor does not have: the installed torch, or a library of a node pack, is built for another one; install one that fits",
	int(syscall.SIGBUS): "a file that it had mapped was cut short, or its disk or /dev/shm is full: check df, and the model files of this workflow",
	int(syscall.SIGFPE): "a library divided by zero: a node got a size of zero, or a pack is broken; look at the inputs of that node",
}

// judgeCrash explains an end by a signal that means a fault of the program.
func judgeCrash(v *backend.Verdict, e Evidence, end ending) {
	if judgeCUDA(v, e) {
		return
	}
	v.Kind = backend.KindCrash
	v.Summary = "it crashed: " + signalName(end.signal) + during(e)
	v.Remedy = firstOf(crashRemedies[end.signal], "it is started again; if one job does this twice, a node of it (or the driver) is at fault")
	if !e.Ready {
		v.Remedy = "a node pack or the installed torch crashes while it loads: try worker.args = [\"--disable-all-custom-nodes\"] once to see which"
	}
	d, ok := readDump(e.Lines)
	if !ok {
		return
	}
	t, ok := d.crashed()
	if !ok {
		v.Evidence = append(v.Evidence, "Python: "+d.reason)
		return
	}
	v.Evidence = append(v.Evidence, stackLines(d.reason, t)...)
	if at := t.where(); at != "" {
		v.Summary += ", " + at
	}
	if _, in := t.culprit(); in.pack() != "" {
		v.Remedy = fmt.Sprintf("node pack %s crashed: update it, or take it out of custom_nodes (rename it to %s.disabled); it is started again meanwhile", in.pack(), in.pack())
	}
}

// recentLines is how far from the end of the log a line still tells of the end.
const recentLines = 40

// recent are the last lines that are not empty, newest first.
func recent(lines []string) []string {
	var out []string
	for i := len(lines) - 1; i >= 0 && len(out) < recentLines; i-- {
		if strings.TrimSpace(lines[i]) != "" {
			out = append(out, lines[i])
		}
	}
	return out
}

// judgeCUDA explains an end by a fault of the GPU, or by its full memory, and says
// whether it was one. A broken context ends the process with abort, an exception or
// a crash of the driver's library.
func judgeCUDA(v *backend.Verdict, e Evidence) bool {
	for _, l := range recent(e.Lines) {
		if cudaFault(l) {
			v.Kind = backend.KindCUDAFault
			v.Summary = "the GPU context broke: " + strings.TrimSpace(l[strings.Index(l, "CUDA error: "):]) + during(e)
			v.Remedy = cudaFaultRemedy
			v.Evidence = append(v.Evidence, l)
			addXids(v, e)
			return true
		}
	}
	if x, ok := e.Machine.xid(); ok {
		v.Kind = backend.KindCUDAFault
		v.Summary = fmt.Sprintf("the GPU reported a fault of this worker: Xid %d%s", x.Code, during(e))
		v.Remedy = cudaFaultRemedy
		addXids(v, e)
		return true
	}
	return false
}

const cudaFaultRemedy = "it is started again with a new GPU context; if one workflow does this each time, a node or a wrong input is at fault (an index out of range), if it happens with any, the card or its driver: nvidia-smi -q, dmesg"

func addXids(v *backend.Verdict, e Evidence) {
	if e.Machine == nil {
		return
	}
	for _, x := range e.Machine.Xids {
		v.Evidence = append(v.Evidence, "kernel log: "+x.Text)
	}
}

// outOfMemory is the exception of a full GPU.
var outOfMemory = regexp.MustCompile(`^(?:torch\.)?(?:cuda\.)?OutOfMemoryError(?::|$)`)

// hostMemory are lines of a program that found no memory of the machine.
var hostMemory = regexp.MustCompile(`^MemoryError(?::|$)|std::bad_alloc|can't allocate memory|not enough memory|Cannot allocate memory`)

// judgeExit explains an end by itself of a worker that had been ready.
func judgeExit(v *backend.Verdict, e Evidence) {
	if e.Ended.ExitCode == 0 {
		judgeExitZero(v, e)
		return
	}
	if judgeCUDA(v, e) {
		return
	}
	_, trace := finalLines(e.Lines)
	v.Kind, v.Certainty = backend.KindCrash, backend.Likely
	v.Summary = fmt.Sprintf("it ended by itself with exit status %d", e.Ended.ExitCode) + during(e)
	v.Remedy = "it is started again; a node or a library that it uses ended the process: its last log lines say more"
	switch {
	case cudaMemory(trace):
		v.Kind = backend.KindCUDAOOM
		v.Summary = "the GPU's memory was full, and it ended itself" + during(e)
		v.Remedy = "make batch, frames or size of that workflow smaller, or end what else holds the card's memory; it is started again"
	case hostMemory.MatchString(trace):
		v.Summary = "it found no more memory of the machine and ended itself" + during(e)
		v.Remedy = "make batch, frames or size of that workflow smaller, or take a machine with more memory; it is started again"
	}
	if trace != "" {
		v.Summary += ": " + trace
		v.Evidence = append(v.Evidence, trace)
	}
}

// judgeExitZero explains an end with exit status 0.
func judgeExitZero(v *backend.Verdict, e Evidence) {
	if hasLine(e.Lines, "Stopped server") {
		v.Kind, v.Certainty = backend.KindKilled, backend.Likely
		v.Summary = "it was asked to stop from outside (SIGINT) and did; not by Easel"
		v.Remedy = "none needed; it is started again"
		return
	}
	v.Kind, v.Certainty = backend.KindUnknown, backend.Unknown
	v.Summary = "it ended by itself with exit status 0" + during(e)
	v.Remedy = "a node or ComfyUI-Manager may have asked for that; it is started again"
}
