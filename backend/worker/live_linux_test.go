package worker

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"easel/backend"
)

// TestLive supervises a real ComfyUI: EASEL_LIVE_COMFYUI names a checkout,
// EASEL_LIVE_PYTHON its interpreter.
func TestLive(t *testing.T) {
	dir := os.Getenv("EASEL_LIVE_COMFYUI")
	if dir == "" {
		t.Skip("EASEL_LIVE_COMFYUI names no checkout")
	}
	spec := Spec{ID: "cpu", StateDir: t.TempDir(), ComfyUI: dir, Python: os.Getenv("EASEL_LIVE_PYTHON"), Args: []string{"--cpu"}}
	p := plan(t, spec)
	t.Logf("argv %q, version %s", p.Argv, p.Version)
	sp := newSpawner(t)
	r := start(t, spec, sp, Options{}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w, err := r.Wait(ctx, func(w backend.Worker) bool { return w.State == backend.WorkerReady || w.State == backend.WorkerFailed })
	if err != nil || w.State != backend.WorkerReady {
		t.Fatalf("%v: %s", err, w.Reason)
	}
	t.Logf("%s · %s · packs %+v", w.Reason, w.ComfyUI.Version, w.Packs)
	info, err := r.ObjectInfo(ctx)
	if err != nil || !strings.Contains(string(info), `"KSampler"`) {
		t.Errorf("object_info: %d bytes, %v", len(info), err)
	}
	r.stop()
	r2 := start(t, spec, sp, Options{}, func(m *Manager) { m.Adopt(sp.living(), nil) })
	a, err := r2.Wait(ctx, func(w backend.Worker) bool { return w.State == backend.WorkerReady })
	if err != nil || a.Launch != w.Launch {
		t.Fatalf("adopted %s, was %s: %v", a.Launch, w.Launch, err)
	}
	if err := r2.Stop(ctx, "the test"); err != nil || !strings.HasPrefix(sp.signals(), "SIGINT") {
		t.Errorf("stop: %v", err)
	}
	t.Logf("stopped by %s", sp.signals()) // more than SIGINT only on a machine that is very busy
	if v := r2.died(1); v.Kind != backend.KindAsked {
		t.Errorf("verdict %+v", v)
	}
	spec.Args = []string{"--cpu", "--disable-all-custom-nodes", "--nosuch-flag"}
	if _, err := MakePlan(ctx, spec); err == nil || !strings.Contains(err.Error(), "--nosuch-flag") {
		t.Errorf("an unknown flag: %v", err)
	}
}
