package worker

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"easel/backend"
)

func TestDiscover(t *testing.T) {
	dir, other := checkout(t), checkout(t)
	port, err := choosePort(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "main.py", "--port", strconv.Itoa(port))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "FAKE_COMFY=normal")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for sc := bufio.NewScanner(stderr); sc.Scan() && !strings.Contains(sc.Text(), "To see the GUI"); {
	}
	found := discover(t.Context(), []string{dir, other, filepath.Join(other, "custom_nodes"), "/nowhere"})
	server := slices.IndexFunc(found, func(f backend.FoundComfy) bool { return f.PID == cmd.Process.Pid })
	if server < 0 || found[server].URL != "http://127.0.0.1:"+strconv.Itoa(port) || found[server].Dir != dir || found[server].User == "" {
		t.Fatalf("%+v", found)
	}
	n := 0
	for _, f := range found {
		if f.Dir == dir {
			n++
		}
	}
	if n != 1 || !slices.ContainsFunc(found, func(f backend.FoundComfy) bool { return f.Dir == other && f.URL == "" }) {
		t.Errorf("%+v", found)
	}
	if l, ok := listenerOn(port); !ok || l.pid != cmd.Process.Pid || l.ticks == 0 {
		t.Errorf("listener %+v %v", l, ok)
	}
}

func TestDiscoverLeavesOutEaselsOwn(t *testing.T) {
	sp := newSpawner(t)
	r := start(t, fakeSpec(t, "normal"), sp, options(), nil)
	w := r.wait(backend.WorkerReady)
	for _, f := range discover(t.Context(), nil) {
		if f.PID == *w.PID || f.URL == w.URL {
			t.Errorf("lists its own worker: %+v", f)
		}
	}
}
