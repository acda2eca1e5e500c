package worker

import (
	"strings"
	"testing"

	"easel/backend"
	"easel/backend/evidence"
	"easel/backend/keeper"
)

const gibi = int64(1) << 30

// TestKillNine holds the rules of host-oom, certain and likely, to what a machine
// may tell.
func TestKillNine(t *testing.T) {
	const pid = 531285
	moved := func(path string, before, after int64) Moved {
		return Moved{Path: path, Before: before, After: after, Usage: -1}
	}
	ownKill := evidence.OOMKill{PID: pid, Name: "python3", Group: "/k8s", Text: "Memory cgroup out of memory: Killed process 531285 (python3)"}
	other := evidence.OOMKill{PID: 99, Name: "stress", Text: "Out of memory: Killed process 99 (stress)"}
	own := func(before, after int64) *Moved { m := moved("/a/easel-gpu0-1", before, after); return &m }
	child := evidence.OOMKill{PID: 77, Name: "ffmpeg", Task: "/real/root/a/easel-gpu0-1", Text: "Killed process 77 (ffmpeg)"}
	for _, c := range []struct {
		name      string
		m         *Machine
		kind      string
		certainty string
		summary   string
	}{
		{"nothing is known", nil, backend.KindKilled, backend.Likely, "by whom is not known"},
		{"its own counter moved", &Machine{Own: own(0, 1), RSS: 29 * gibi, Free: gibi, Total: 31 * gibi}, backend.KindHostOOM, backend.Certain, "the machine had 30.0 GiB of 31.0 GiB in use"},
		{"its own counter stood still, that of others moved", &Machine{Own: own(4, 4), System: moved("", 8, 9), RSS: 29 * gibi, Free: 0, Total: 31 * gibi}, backend.KindKilled, backend.Certain, "not by the kernel for memory"},
		{"a line names it", &Machine{KernelLog: true, FirstPIDs: true, Kills: []evidence.OOMKill{other, ownKill}, Free: -1}, backend.KindHostOOM, backend.Certain, "killed by the kernel"},
		{"a line with its number, of other pids", &Machine{KernelLog: true, Kills: []evidence.OOMKill{ownKill}, Free: -1, System: moved("", 1, 2)}, backend.KindKilled, backend.Likely, ""},
		{"a child was killed in its own cgroup", &Machine{Own: own(0, 1), KernelLog: true, FirstPIDs: true, Kills: []evidence.OOMKill{child}, Free: gibi}, backend.KindKilled, backend.Certain, ""},
		{"a child, and then it", &Machine{Own: own(0, 2), KernelLog: true, FirstPIDs: true, Kills: []evidence.OOMKill{child}, Free: gibi}, backend.KindHostOOM, backend.Certain, ""},
		{"a shared cgroup, and it was larger than what was free", &Machine{Shared: []Moved{{Path: "/pod", Before: 0, After: 1, Usage: 30 * gibi, Limit: 31 * gibi}}, RSS: 28 * gibi, Free: 90 * gibi}, backend.KindHostOOM, backend.Likely, "the cgroup had 30.0 GiB of 31.0 GiB"},
		{"a shared cgroup, and it was small", &Machine{Shared: []Moved{{Path: "/pod", Before: 0, After: 1, Usage: 10 * gibi, Limit: 31 * gibi}}, RSS: gibi, Free: 90 * gibi}, backend.KindKilled, backend.Likely, ""},
		{"the whole machine, and it was larger than what was free", &Machine{System: moved("", 3, 4), RSS: 20 * gibi, Free: 2 * gibi, Total: 31 * gibi}, backend.KindHostOOM, backend.Likely, "the machine had 29.0 GiB of 31.0 GiB in use"},
		{"the whole machine, and it was small", &Machine{System: moved("", 3, 4), RSS: gibi, Free: 12 * gibi, Total: 31 * gibi}, backend.KindKilled, backend.Likely, ""},
		{"the whole machine, and the log names another", &Machine{System: moved("", 3, 4), RSS: 20 * gibi, Free: 2 * gibi, KernelLog: true, FirstPIDs: true, Kills: []evidence.OOMKill{other}}, backend.KindKilled, backend.Likely, ""},
		{"nothing was seen before", &Machine{System: Moved{Before: -1, After: 9}, RSS: 0, Free: -1}, backend.KindKilled, backend.Likely, ""},
		{"systemd-oomd", &Machine{Own: &Moved{Path: "/x", OOMD: 1}, Free: -1}, backend.KindHostOOM, backend.Certain, "systemd-oomd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Judge(Evidence{Ready: true, Machine: c.m, Ended: keeper.Ended{PID: pid, StatusKnown: true, Signal: 9}})
			if v.Kind != c.kind || v.Certainty != c.certainty || !strings.Contains(v.Summary, c.summary) || v.Remedy == "" {
				t.Errorf("%s (%s): %s %q", v.Kind, v.Certainty, v.Summary, v.Evidence)
			}
		})
	}
}

func TestUnseenButNamed(t *testing.T) {
	m := &Machine{FirstPIDs: true, Kills: []evidence.OOMKill{{PID: 5, Text: "Out of memory: Killed process 5 (python)"}}, Free: -1}
	v := Judge(Evidence{Machine: m, Ready: true, Ended: keeper.Ended{PID: 5, ExitCode: -1}})
	if v.Kind != backend.KindHostOOM || v.Certainty != backend.Certain {
		t.Errorf("%+v", v)
	}
	v = Judge(Evidence{Machine: &Machine{Own: &Moved{Path: "/e", Before: 0, After: 1}, Free: -1}, Ready: true, Ended: keeper.Ended{PID: 5, ExitCode: -1}})
	if v.Kind != backend.KindHostOOM || v.Certainty != backend.Likely {
		t.Errorf("%+v", v)
	}
}

func TestShellLines(t *testing.T) {
	for _, c := range []struct {
		line   string
		signal int
		pid    int
	}{
		{"run.sh: line 54: 531285 Killed                  python -u main_run.py", 9, 531285}, // EAS's FAQ
		{"Killed", 9, 0}, // dash
		{"/x/run.sh: line 2:   812 Segmentation fault      (core dumped) python main.py --listen", 11, 812},
		{"bash: line 1: 7 Aborted                 python3 main.py", 6, 7},
		{"zsh: killed     python main.py", 9, 0},
		{"run.sh: line 3: 9 Killed                  ffmpeg -i in.mp4", 0, 0},
		{"job 12 was Killed by somebody", 0, 0},
		{"Aborted!", 0, 0},
	} {
		_, sig, pid := lastShellLine([]string{"got prompt", c.line, ""}, nil)
		if sig != c.signal || pid != c.pid {
			t.Errorf("%q: signal %d pid %d", c.line, sig, pid)
		}
	}
	// Without a shell in between, and with another exit status, such a line is a
	// node's.
	v := Judge(Evidence{Ready: true, Machine: &Machine{Free: -1}, Lines: []string{"x: line 1: 7 Killed   python a.py"}, Ended: keeper.Ended{StatusKnown: true, ExitCode: 1}})
	if v.Kind != backend.KindCrash {
		t.Errorf("%+v", v)
	}
}

func TestXidIsTheWorkers(t *testing.T) {
	m := &Machine{FirstPIDs: true, PIDs: []int{4711}, Xids: []evidence.Xid{{PID: 4711, Code: 31, Text: "NVRM: Xid (PCI:0000:3b:00): 31, pid=4711"}}, Free: -1}
	e := Evidence{Ready: true, Machine: m, Ended: keeper.Ended{PID: 4711, StatusKnown: true, Signal: 11}}
	if v := Judge(e); v.Kind != backend.KindCUDAFault || !strings.Contains(v.Summary, "Xid 31") {
		t.Errorf("%+v", v)
	}
	m.PIDs = []int{9}
	if v := Judge(e); v.Kind != backend.KindCrash {
		t.Errorf("another's Xid: %+v", v)
	}
}

func TestCUDALines(t *testing.T) {
	for line, want := range map[string][2]bool{ // fault, memory
		"RuntimeError: CUDA error: an illegal memory access was encountered":      {true, false},
		"torch.AcceleratorError: CUDA error: unspecified launch failure":          {true, false},
		"RuntimeError: CUDA error: out of memory":                                 {false, true},
		"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB": {false, true},
		"torch.cuda.OutOfMemoryError: Allocation on device":                       {false, true},
		"Got an OOM, unloading all loaded models.":                                {false, true},
		"RuntimeError: CUDA error: no kernel image is available for execution":    {false, false},
		"MemoryError": {false, false},
		"For debugging consider passing CUDA_LAUNCH_BLOCKING=1": {false, false},
	} {
		if cudaFault(line) != want[0] || cudaMemory(line) != want[1] {
			t.Errorf("%q: fault %v, memory %v", line, cudaFault(line), cudaMemory(line))
		}
	}
}
