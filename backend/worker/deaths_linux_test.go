package worker

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/evidence"
	"easel/backend/keeper"
)

// staged is one way to die, and the verdict that it must get.
type staged struct {
	name string
	mode string // of the fake ComfyUI
	spec func(t *testing.T, s *Spec)
	// do brings the end about once the worker is ready and runs a job. With early
	// set it ends before that, by itself.
	do    func(t *testing.T, r *rig, w backend.Worker)
	early bool
	o     Options

	kind      string
	certainty string // "" any
	summary   string // part of it
	evidence  string // part of one line of it
	remedy    string
}

// become lets the worker's process become a shell that runs a script.
func become(script string) func(*testing.T, *rig, backend.Worker) {
	return func(t *testing.T, _ *rig, w backend.Worker) { get(t, w.URL+"/sh?run="+url.QueryEscape(script)) }
}

// says writes lines as the last ones of the log, then ends as the rest of the script
// says.
func says(lines, end string) func(*testing.T, *rig, backend.Worker) {
	return become("cat >&2 <<'X'\n" + lines + "\nX\n" + end)
}

func kill(sig syscall.Signal) func(*testing.T, *rig, backend.Worker) {
	return func(t *testing.T, _ *rig, w backend.Worker) {
		if err := syscall.Kill(*w.PID, sig); err != nil {
			t.Error(err)
		}
	}
}

// wrapper makes python a shell script that runs the real one.
func wrapper(after string) func(*testing.T, *Spec) {
	return func(t *testing.T, s *Spec) {
		if _, err := exec.LookPath("bash"); err != nil {
			t.Skip("no bash to play run.sh")
		}
		dir := t.TempDir()
		if err := os.Symlink(s.Python, filepath.Join(dir, "python")); err != nil {
			t.Fatal(err)
		}
		s.Python = filepath.Join(dir, "python")
		path := filepath.Join(dir, "run.sh")
		// The command must not be the last one, or bash becomes it.
		if err := os.WriteFile(path, []byte("#!/bin/bash\n\""+s.Python+"\" \"$@\"\ncode=$?\n[ \"$2\" = --help ] && exit $code\n"+after+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		s.Python = path
	}
}

// inside is the process that a wrapper runs.
func inside(t *testing.T, w backend.Worker) int {
	t.Helper()
	b, err := exec.Command("pgrep", "-P", strconv.Itoa(*w.PID)).Output()
	if err != nil {
		t.Skipf("no pgrep to find the child of the wrapper: %v", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// limited gives the worker a cgroup with a limit, or skips the test with the
// reason.
func limited(t *testing.T, s *Spec) {
	t.Helper()
	g, err := makeGroup("probe", "probe"+strconv.Itoa(os.Getpid()), 96<<20)
	if g.Dir != "" {
		defer removeGroup(g)
	}
	if err != nil {
		t.Skipf("a kernel kill cannot be staged here: no cgroup with a limit can be made: %v", err)
	}
	s.NoCgroup, s.MemoryLimit = false, 96<<20
}

// elsewhere has the kernel kill another program for memory.
func elsewhere(t *testing.T) {
	t.Helper()
	g, err := makeGroup("other", "other"+strconv.Itoa(os.Getpid()), 32<<20)
	if err != nil {
		t.Skipf("no cgroup with a limit can be made: %v", err)
	}
	defer removeGroup(g)
	_ = exec.Command("/bin/sh", "-c", "echo $$ > "+g.Dir+"/cgroup.procs; head -c 512M /dev/zero | tail").Run()
	if g.Read().OOMKills < 1 {
		t.Skip("the kernel killed nothing")
	}
}

func stages() []staged {
	const segv, hang = "testdata/stacks/segv.txt", "testdata/stacks/hang.txt"
	pwd, _ := os.Getwd()
	script := func(file, end string) func(*testing.T, *rig, backend.Worker) {
		return become("cat " + filepath.Join(pwd, file) + " >&2; " + end)
	}
	traceback := func(last string) string {
		return "Traceback (most recent call last):\n  File \"/opt/ComfyUI/main.py\", line 195, in prompt_worker\n" + last
	}
	stall := func(kind string) func(*testing.T, *rig, backend.Worker) {
		return func(t *testing.T, r *rig, w backend.Worker) {
			err := r.Stall(t.Context(), backend.Verdict{Kind: kind, Launch: w.Launch, Summary: "nothing moved for 10m", Evidence: []string{"no message and no log line for 10m"}})
			if err != nil {
				t.Error(err)
			}
			if _, _, ok := r.Client(); ok {
				t.Error("a worker that is being ended still gives a client")
			}
		}
	}
	return []staged{
		{
			name: "the kernel kills it in its cgroup", spec: limited, do: func(t *testing.T, _ *rig, w backend.Worker) { get(t, w.URL+"/eat") },
			kind: backend.KindHostOOM, certainty: backend.Certain, summary: "killed by the kernel: the machine's memory ran out; the cgroup had 96 MiB of 96 MiB while node 12 ran", evidence: "oom_kill of cgroup", remedy: "smaller",
		},
		{
			name: "the kernel kills what a wrapper runs", spec: func(t *testing.T, s *Spec) { limited(t, s); wrapper("exit $code")(t, s) },
			do:   func(t *testing.T, _ *rig, w backend.Worker) { get(t, w.URL+"/eat") },
			kind: backend.KindHostOOM, certainty: backend.Certain, summary: "killed by the kernel", evidence: "exit status 137 is how a shell reports signal 9 (SIGKILL); it wrote: ",
		},
		{name: "a child is killed by the kernel, then it by somebody", spec: func(t *testing.T, s *Spec) {
			limited(t, s)
			if k, err := evidence.OpenKernelLog(false); err != nil || !evidence.FirstPIDs() {
				t.Skipf("the kernel log cannot be read: %v", err)
			} else {
				k.Close()
			}
		}, do: func(t *testing.T, r *rig, w backend.Worker) {
			get(t, w.URL+"/child?run="+url.QueryEscape("head -c 512M /dev/zero | tail"))
			kill(syscall.SIGKILL)(t, r, w)
		}, kind: backend.KindKilled, summary: "by whom is not known", evidence: "(tail)"},
		{
			name: "kill 9 with a cgroup of its own", spec: limited, do: kill(syscall.SIGKILL),
			kind: backend.KindKilled, certainty: backend.Certain, summary: "not by the kernel for memory", evidence: "did not count it",
		},
		{name: "kill 9 without one", do: kill(syscall.SIGKILL), kind: backend.KindKilled, summary: "killed by signal 9 (SIGKILL), by whom is not known", evidence: "just before: ", remedy: "dmesg"},
		{
			name: "kill 9 beside an unrelated kill for memory", do: func(t *testing.T, r *rig, w backend.Worker) { elsewhere(t); kill(syscall.SIGKILL)(t, r, w) },
			kind: backend.KindKilled, certainty: backend.Likely, summary: "by whom is not known",
		},
		{name: "SIGTERM", mode: "term", do: kill(syscall.SIGTERM), kind: backend.KindKilled, summary: "SIGTERM"},
		{name: "SIGHUP", do: kill(syscall.SIGHUP), kind: backend.KindKilled, summary: "SIGHUP", remedy: "session"},
		{name: "SIGINT from outside", do: kill(syscall.SIGINT), kind: backend.KindKilled, certainty: backend.Likely, summary: "asked to stop from outside"},
		{
			name: "a crash with stacks", do: script(segv, "kill -SEGV $$"), kind: backend.KindCrash, certainty: backend.Certain,
			summary: "signal 11 (SIGSEGV) while node 12 ran, in string_at (ctypes/__init__.py:519), called by run (custom_nodes/broken_pack/nodes.py:41)", evidence: "Python: Segmentation fault", remedy: "node pack broken_pack",
		},
		{name: "an abort", do: become("kill -ABRT $$"), kind: backend.KindCrash, summary: "signal 6 (SIGABRT) while node 12 ran"},
		{name: "a wrong instruction", do: become("kill -ILL $$"), kind: backend.KindCrash, summary: "signal 4 (SIGILL)", remedy: "processor"},
		{name: "a bus error", do: become("kill -BUS $$"), kind: backend.KindCrash, summary: "signal 7 (SIGBUS)", remedy: "/dev/shm"},
		{name: "a division by zero", do: become("kill -FPE $$"), kind: backend.KindCrash, summary: "signal 8 (SIGFPE)"},
		{
			name: "an abort of CUDA", do: says("terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: an illegal memory access was encountered", "kill -ABRT $$"),
			kind: backend.KindCUDAFault, summary: "CUDA error: an illegal memory access was encountered while node 12 ran", remedy: "new GPU context",
		},
		{name: "an exception of CUDA", do: says(traceback("RuntimeError: CUDA error: device-side assert triggered"), "exit 1"), kind: backend.KindCUDAFault, summary: "device-side assert"},
		{
			name: "a full GPU", do: says(traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"), "exit 1"),
			kind: backend.KindCUDAOOM, summary: "GPU's memory was full", remedy: "smaller",
		},
		{name: "no memory for an array", do: says(traceback("MemoryError"), "exit 1"), kind: backend.KindCrash, summary: "no more memory of the machine"},
		{name: "a node calls os._exit", do: become("exit 3"), kind: backend.KindCrash, certainty: backend.Likely, summary: "exit status 3 while node 12 ran"},
		{name: "exit 0", do: become("exit 0"), kind: backend.KindUnknown, certainty: backend.Unknown, summary: "exit status 0"},
		{name: "a wrapper reports a crash", spec: wrapper("exit $code"), do: func(t *testing.T, _ *rig, w backend.Worker) {
			get(t, w.URL+"/sh?run="+url.QueryEscape("cat "+filepath.Join(pwd, segv)+" >&2; kill -SEGV $$"))
		}, kind: backend.KindCrash, summary: "signal 11 (SIGSEGV) while node 12 ran, in string_at", evidence: "Segmentation fault"},
		{name: "a wrapper reports an abort", spec: wrapper("exit $code"), do: become("kill -ABRT $$"), kind: backend.KindCrash, summary: "signal 6 (SIGABRT)", evidence: "exit status 134"},
		{name: "a wrapper writes Killed and goes on", spec: wrapper("exit 1"), do: func(t *testing.T, _ *rig, w backend.Worker) {
			if err := syscall.Kill(inside(t, w), syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}, kind: backend.KindKilled, summary: "signal 9", evidence: "the shell that ran it wrote: "},
		{name: "another program's line is not its own", do: says("x.sh: line 3: 4711 Killed                  ffmpeg -i a.mp4", "exit 1"), kind: backend.KindCrash, summary: "exit status 1"},
		{
			name: "a stall with stacks", mode: "stacks", do: stall(backend.KindStall), kind: backend.KindStall,
			summary: "nothing moved for 10m; it stood in hold (custom_nodes/slow_pack/__init__.py:12)", evidence: "no message and no log line for 10m", remedy: "node pack slow_pack",
		},
		{name: "a stall that hears nothing", mode: "deaf", do: stall(backend.KindStall), kind: backend.KindStall, summary: "nothing moved for 10m", evidence: "did not even print"},
		{name: "a broken context that still lives", mode: "stacks", do: stall(backend.KindCUDAFault), kind: backend.KindCUDAFault, summary: "nothing moved"},
		{name: "a stop that was asked for", do: func(t *testing.T, r *rig, _ backend.Worker) { _ = r.Stop(t.Context(), "Ada") }, kind: backend.KindAsked, summary: "stopped by Ada"},
		{name: "ComfyUI-Manager restarts", do: func(t *testing.T, _ *rig, w backend.Worker) { get(t, w.URL+"/exit?status=0&mark=1") }, kind: backend.KindAsked, summary: "Manager"},
		{name: "a flag it does not know", mode: "exit2", early: true, kind: backend.KindBadStart, summary: "--nosuch"},
		{name: "no torch", mode: "no-torch", early: true, kind: backend.KindBadStart, summary: "has no torch", remedy: "pip install torch"},
		{name: "a pack that exits", mode: "pack-exit", early: true, kind: backend.KindBadStart, summary: "exit status 7 while node packs were loading", remedy: ".disabled"},
		{name: "a crash before it is ready", mode: "abort", early: true, kind: backend.KindCrash, summary: "before it was ready", remedy: "--disable-all-custom-nodes"},
		{name: "a start that stands still", mode: "hang", early: true, o: Options{StartTimeout: 400 * time.Millisecond}, kind: backend.KindBadStart, summary: "had not moved"},
	}
}

// TestStagedDeaths stages each row of the verdict table with real processes. None
// may be named wrongly.
func TestStagedDeaths(t *testing.T) {
	pwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range stages() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			spec := fakeSpec(t, firstOf(c.mode, "normal"))
			spec.Environ = append(spec.Environ, "FAKE_STACKS="+filepath.Join(pwd, "testdata/stacks/hang.txt"))
			if c.spec != nil {
				c.spec(t, &spec)
			}
			o := options()
			o.StartTimeout = c.o.StartTimeout
			o.Policy.Backoff = time.Minute // one death is enough
			r := start(t, spec, newSpawner(t), o, nil)
			if !c.early {
				w := r.wait(backend.WorkerReady)
				job := "job-1"
				r.SetBusy(&job, "12")
				c.do(t, r, w)
			}
			c.check(t, r.died(1))
		})
	}
}

func (c staged) check(t *testing.T, v backend.Verdict) {
	t.Helper()
	all := strings.Join(v.Evidence, "\n")
	switch {
	case v.Kind != c.kind, c.certainty != "" && v.Certainty != c.certainty,
		!strings.Contains(v.Summary, c.summary), !strings.Contains(all, c.evidence), !strings.Contains(v.Remedy, c.remedy):
		t.Errorf("%s (%s): %s\n%s\n→ %s", v.Kind, v.Certainty, v.Summary, all, v.Remedy)
	case v.Kind != backend.KindAsked && v.Remedy == "":
		t.Errorf("%s has no remedy", v.Summary)
	case !c.early && (v.Job == nil || *v.Job != "job-1" || v.Node == nil || *v.Node != "12"):
		t.Errorf("job and node are not named: %+v", v)
	case len(v.Evidence) == 0 || v.At.IsZero() || v.Launch == "":
		t.Errorf("incomplete: %+v", v)
	}
	t.Logf("%s (%s): %s → %s", v.Kind, v.Certainty, v.Summary, v.Remedy)
}

// TestKernelKillWithoutEngine judges a kill that happened while no engine lived: the
// counter of the cgroup was kept.
func TestKernelKillWithoutEngine(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	limited(t, &spec)
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	if g := r.Guard(); g.Limit != 96<<20 || g.Group == "" || g.Note != "" {
		t.Errorf("guard %+v", g)
	}
	r.stop()
	get(t, w.URL+"/eat")
	eventually(t, func() bool { sp.mu.Lock(); defer sp.mu.Unlock(); return len(sp.ended) == 1 })
	r2 := start(t, spec, sp, options(), func(m *Manager) { m.Adopt(nil, sp.ended) })
	if v := r2.died(1); v.Kind != backend.KindHostOOM || v.Certainty != backend.Certain {
		t.Errorf("%+v", v)
	}
	r2.wait(backend.WorkerReady)
	if err := r2.Stop(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		left, _ := filepath.Glob(filepath.Join(must(baseGroup()).Dir, groupPrefix+"gpu0-"+short(w.Launch)))
		return len(left) == 0
	})
}

// TestUnseenEnd judges an end whose status nobody saw.
func TestUnseenEnd(t *testing.T) {
	sp := newSpawner(t)
	spec := fakeSpec(t, "normal")
	r := start(t, spec, sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	r.stop()
	_ = syscall.Kill(*w.PID, syscall.SIGKILL)
	eventually(t, func() bool { sp.mu.Lock(); defer sp.mu.Unlock(); return len(sp.ended) == 1 })
	r2 := start(t, spec, sp, options(), func(m *Manager) {
		m.Adopt(nil, []keeper.Ended{{Launch: w.Launch, PID: *w.PID, ExitCode: -1, At: time.Now()}})
	})
	if v := r2.died(1); v.Kind != backend.KindUnknown || v.Certainty != backend.Unknown {
		t.Errorf("%+v", v)
	}
}

// TestStartCutsTheCountdownShort starts a worker that waits for its restart.
func TestStartCutsTheCountdownShort(t *testing.T) {
	sp := newSpawner(t)
	o := options()
	o.Policy.Backoff = time.Hour
	o.Policy.Cap = time.Hour
	r := start(t, fakeSpec(t, "normal"), sp, o, nil)
	for range 2 { // the first restart is at once
		w := r.wait(backend.WorkerReady)
		get(t, w.URL+"/exit?status=3")
		r.until(func(n backend.Worker) bool { return n.Launch != w.Launch })
	}
	w := r.wait(backend.WorkerBackoff)
	if w.NextRestart.IsZero() || !strings.Contains(w.Reason, "restart 2 of 5") {
		t.Errorf("countdown %+v", w)
	}
	if err := r.Start(t.Context(), "console"); err != nil {
		t.Fatal(err)
	}
	r.wait(backend.WorkerReady)
}

// TestActivity watches a worker at work.
func TestActivity(t *testing.T) {
	r := start(t, fakeSpec(t, "normal"), newSpawner(t), options(), nil)
	w := r.wait(backend.WorkerReady)
	get(t, w.URL+"/say?text="+url.QueryEscape("Exception in thread Thread-1 (prompt_worker):\nRuntimeError: CUDA error: unspecified launch failure\n"))
	eventually(t, func() bool { return !r.Activity().ThreadDied.IsZero() && r.Activity().Fault != "" })
	a := r.Activity()
	if !a.Alive || a.Launch != w.Launch || a.RSS < 1<<20 || a.Line.IsZero() {
		t.Errorf("%+v", a)
	}
	before := a.CPU
	for range 200 {
		get(t, w.URL+"/object_info")
	}
	eventually(t, func() bool { get(t, w.URL+"/object_info"); return r.Activity().CPU > before })
	if err := r.Stop(t.Context(), "Ada"); err != nil {
		t.Fatal(err)
	}
	if a := r.Activity(); a.Alive || a.Launch != "" {
		t.Errorf("after the stop: %+v", a)
	}
	if err := r.Stall(t.Context(), backend.Verdict{}); err == nil {
		t.Error("a stopped worker can be ended")
	}
}
