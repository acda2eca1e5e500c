//go:build linux

package cmd_test

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"easel/backend"
	"easel/backend/client"
	"easel/gpu/gputest"
)

// The whole way: the driver's library (a stand-in that the test compiles), the
// sampler's process, the engine, the command line.
func TestGPUsOfTheDriversLibrary(t *testing.T) {
	stub := gputest.New(t)
	const gib = int64(1) << 30
	me := os.Getpid()
	stub.Set(t, "21474836480 25769803776 ok "+gputest.Process(me, 2*gib), "0 25769803776 bare")
	b := newBox(t, "LD_LIBRARY_PATH="+stub.Dir, "EASEL_NVML_STUB="+stub.Dir+"/cards")
	b.must("serve", "--detach")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // somebody looks: readings come twice a second
		_ = b.client().Watch(ctx, client.EventsOptions{}, func(backend.Frame) error { return nil }, func(bool, error) {})
	}()
	b.wait("the cards", func() bool { return len(b.status().GPUs) == 2 })
	var gpus []backend.GPU
	if err := json.Unmarshal([]byte(b.must("gpu", "--json")), &gpus); err != nil {
		t.Fatal(err)
	}
	g := gpus[0]
	if g.Source != "nvml" || g.UUID != "GPU-00000000-stub" || *g.Utilisation != 97 || len(g.Processes) != 1 || g.Processes[0].PID != me || g.Processes[0].Ours || g.Processes[0].User == "" {
		t.Errorf("%+v", g)
	}
	b.submit(b.sketch("a", 1, 0))
	b.wait("a mark", func() bool { return strings.Contains(b.must("gpu"), "job  ") })
	if out := b.must("gpu"); !strings.Contains(out, "others · ") || !strings.Contains(out, "slowed by power cap") || !strings.Contains(out, "(pid "+strconv.Itoa(me)) {
		t.Errorf("easel gpu:\n%s", out)
	}
	// The sampler ends with its engine's pipe, and is started again after a crash.
	var sampler int
	for _, pid := range b.processes() {
		if strings.Contains(cmdline(pid), "gpu-sampler") {
			sampler = pid
		}
	}
	if sampler == 0 {
		t.Fatal("no sampler runs")
	}
	at := b.status().GPUs[0].At
	kill(t, sampler)
	b.wait("a new reading", func() bool { gs := b.status().GPUs; return len(gs) == 2 && gs[0].At.After(at.Time) })
	stub.Set(t, "21474836480 25769803776 lost", "0 25769803776 ok")
	b.wait("the lost card", func() bool { gs := b.status().GPUs; return len(gs) == 2 && gs[0].Lost && gs[0].Note != "" })
	cancel()
	b.must("stop")
	if left := b.processes(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
