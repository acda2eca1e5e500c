package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// deadly is a node pack whose node dies in the way that its input names. What it
// allocates is bounded, so that a machine where the limit does not hold survives.
const deadly = `import ctypes, os, torch
class Deadly:
    @classmethod
    def INPUT_TYPES(s):
        return {"required": {"how": ("STRING", {"default": ""})}}
    RETURN_TYPES = ()
    FUNCTION = "die"
    OUTPUT_NODE = True
    CATEGORY = "test"
    @classmethod
    def IS_CHANGED(s, how):
        return float("nan")
    def die(self, how):
        if how == "eat":
            held = []
            for _ in range(3 * 1024):
                held.append(bytearray(b"x" * (1 << 20)))
            raise MemoryError("nothing held it")
        if how == "exit":
            os._exit(3)
        if how == "segv":
            ctypes.string_at(0)
        if how == "oom":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if how == "gil":
            ctypes.PyDLL(None).sleep(600)
        return ()
NODE_CLASS_MAPPINGS = {"Deadly": Deadly}
`

// liveSpec is a real ComfyUI with one more node pack, on a mount of its own.
func liveSpec(t *testing.T, pack string) Spec {
	t.Helper()
	dir := os.Getenv("EASEL_LIVE_COMFYUI")
	if dir == "" {
		t.Skip("EASEL_LIVE_COMFYUI names no checkout")
	}
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "custom_nodes", "deadly"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "custom_nodes", "deadly", "__init__.py"), []byte(pack), 0o644); err != nil {
		t.Fatal(err)
	}
	return Spec{ID: "cpu", StateDir: t.TempDir(), ComfyUI: dir, Python: os.Getenv("EASEL_LIVE_PYTHON"), Args: []string{"--cpu"}, Data: data, NoCgroup: true}
}

// liveReady waits until a launch other than not is ready.
func liveReady(t *testing.T, r *rig, not string) backend.Worker {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w, err := r.Wait(ctx, func(w backend.Worker) bool {
		return w.State == backend.WorkerReady && w.Launch != not || w.State == backend.WorkerFailed
	})
	if err != nil || w.State != backend.WorkerReady {
		t.Fatalf("%v: %s", err, w.Reason)
	}
	return w
}

// runDeadly sends the node to a ready worker.
func runDeadly(t *testing.T, r *rig, how string) (c *comfy.Client, prompt string) {
	t.Helper()
	c, _, ok := r.Client()
	if !ok {
		t.Fatal("no client")
	}
	job := "job-" + how
	r.SetBusy(&job, "1")
	res, err := c.Post(t.Context(), comfy.PromptRequest{
		Graph: json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"Deadly","inputs":{"how":%q}}}`, how)), ClientID: "easel-test",
	})
	if err != nil {
		t.Logf("post: %v", err) // it may have died before it answered
	}
	return c, res.PromptID
}

// TestLiveDeaths lets nodes of a real ComfyUI die, and explains each.
func TestLiveDeaths(t *testing.T) {
	spec := liveSpec(t, deadly)
	if g, err := makeGroup("live", "live0000", 1536<<20); err == nil {
		removeGroup(g)
		spec.NoCgroup, spec.MemoryLimit = false, 1536<<20
	} else {
		t.Logf("without a cgroup, and so without a kernel kill: %v", err)
	}
	o := options()
	o.Policy.Attempts = 20
	r := start(t, spec, newSpawner(t), o, nil)
	n := 0
	launch := liveReady(t, r, "").Launch
	for _, c := range []struct{ how, kind, summary, remedy string }{
		{"eat", backend.KindHostOOM, "killed by the kernel: the machine's memory ran out; the cgroup had 1.5 GiB of 1.5 GiB while node 1 ran", "smaller"},
		{"exit", backend.KindCrash, "exit status 3 while node 1 ran", "a node"},
		{"segv", backend.KindCrash, "signal 11 (SIGSEGV) while node 1 ran, in string_at", "node pack deadly"},
		{"gil", backend.KindStall, "it stood in die (custom_nodes/deadly/__init__.py:", "node pack deadly"},
	} {
		if c.how == "eat" && spec.NoCgroup {
			continue
		}
		client, _ := runDeadly(t, r, c.how)
		if c.how == "gil" {
			until := time.Now().Add(20 * time.Second) // the GIL is held: nothing answers
			for blocked := false; !blocked && time.Now().Before(until); {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := client.Queue(ctx)
				blocked = err != nil
				cancel()
			}
			if err := r.Stall(t.Context(), backend.Verdict{Kind: backend.KindStall, Launch: launch, Summary: "its event loop answered nothing"}); err != nil {
				t.Fatal(err)
			}
		}
		n++
		v := r.died(n)
		t.Logf("%s (%s): %s\n%s\n→ %s", v.Kind, v.Certainty, v.Summary, strings.Join(v.Evidence, "\n"), v.Remedy)
		if v.Kind != c.kind || !strings.Contains(v.Summary, c.summary) || !strings.Contains(v.Remedy, c.remedy) {
			t.Errorf("%s: wrongly explained", c.how)
		}
		r.SetBusy(nil, "")
		launch = liveReady(t, r, launch).Launch
	}
	liveOOM(t, r)
	_ = r.Stop(t.Context(), "the test")
}

// liveOOM runs a node that finds the GPU full: the run fails, the worker lives.
func liveOOM(t *testing.T, r *rig) {
	t.Helper()
	c, prompt := runDeadly(t, r, "oom")
	var h comfy.HistoryEntry
	eventually(t, func() bool {
		e, found, err := c.History(t.Context(), prompt)
		h = e
		return err == nil && found
	})
	r.SetBusy(nil, "")
	if h.Error == nil || !h.Error.OutOfMemory() || r.State().State != backend.WorkerReady {
		t.Errorf("%+v, worker %s", h.Error, r.State().State)
	}
	eventually(t, func() bool { return hasText(r.Manager, "Got an OOM, unloading all loaded models.") })
}

// TestLivePackThatExits starts a real ComfyUI with a pack that ends it at import.
func TestLivePackThatExits(t *testing.T) {
	r := start(t, liveSpec(t, "import sys\nsys.exit(7)\n"), newSpawner(t), options(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w, err := r.Wait(ctx, func(w backend.Worker) bool { return w.State == backend.WorkerFailed })
	if err != nil {
		t.Fatal(err)
	}
	v := r.died(1)
	if v.Kind != backend.KindBadStart || !strings.Contains(v.Summary, "exit status 7 while node packs were loading") {
		t.Errorf("%+v", v)
	}
	t.Log(w.Reason)
}
