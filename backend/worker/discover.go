package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// probeWithin bounds the question to one port: a ComfyUI on this machine that does
// not compute answers within milliseconds.
const probeWithin = 700 * time.Millisecond

// commonPorts are those on which ComfyUI is usually found, for servers whose process
// cannot be seen (another account, a container).
var commonPorts = []int{8188, 8189, 8190, 8191, 18188, 8000, 8001, 8080, 3000, 7860, 6006}

// listener is a process that listens on a TCP port of this machine. pid is 0 when
// it belongs to somebody whose processes cannot be looked into.
type listener struct {
	port   int
	pid    int
	ticks  uint64 // start time of the process
	name   string
	user   string
	python string   // its interpreter
	argv   []string // of the process
	dir    string   // the checkout it runs, "" when unknown
	easel  bool     // it is a worker of an Easel
}

// Discover looks for ComfyUIs on this machine that nobody told Easel about: servers
// that run, then checkouts in the usual places. It asks at most a few ports, and
// takes about a second at most. Easel's own workers are not listed.
func Discover(ctx context.Context) []backend.FoundComfy {
	return discover(ctx, usualPlaces())
}

func discover(ctx context.Context, places []string) []backend.FoundComfy {
	servers := candidates()
	found := probeAll(ctx, servers)
	for _, p := range comfyProcesses() { // those that run and do not listen yet
		if !slices.ContainsFunc(found, func(f backend.FoundComfy) bool { return f.PID == p.pid }) {
			found = append(found, backend.FoundComfy{Dir: p.dir, PID: p.pid, User: p.user, Python: p.python})
		}
	}
	for _, dir := range places {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || len(missingParts(real)) > 0 || slices.ContainsFunc(found, func(f backend.FoundComfy) bool { return f.Dir == real || f.Dir == dir }) {
			continue
		}
		found = append(found, backend.FoundComfy{Dir: real, Python: checkoutPython(real)})
	}
	for i := range found {
		f := &found[i]
		f.Dir, f.User, f.Python = comfy.Plain(f.Dir, 0), comfy.Plain(f.User, 64), comfy.Plain(f.Python, 0)
	}
	return found
}

// candidates are the listeners worth a question: ComfyUI by their command line, and
// strangers on a usual port.
func candidates() []listener {
	var out []listener
	for _, l := range listeners() {
		switch {
		case l.easel || ours(l.argv):
		case l.dir != "" || isComfy(l.argv):
			out = append(out, l)
		case slices.Contains(commonPorts, l.port) && (l.pid == 0 || isProxy(l.name)):
			out = append(out, l)
		}
	}
	return out
}

// isProxy reports whether a process listens for a container.
func isProxy(name string) bool {
	return slices.Contains([]string{"docker-proxy", "rootlessport", "conmon", "pasta", "slirp4netns", "ssh", "kubectl"}, name)
}

// isComfy reports whether a command line runs a main.py by Python.
func isComfy(argv []string) bool { return mainArg(argv) != "" }

// mainArg is the main.py that a command line runs, "" when it runs none.
func mainArg(argv []string) string {
	for i, a := range argv {
		if i > 0 && filepath.Base(a) == "main.py" {
			return a
		}
	}
	return ""
}

// ours reports whether a command line is that of Easel's built-in worker.
func ours(argv []string) bool { return len(argv) > 1 && argv[1] == "sketch" }

// probeAll asks the listeners side by side and returns those that are ComfyUI, in
// their order.
func probeAll(ctx context.Context, list []listener) []backend.FoundComfy {
	results := make([]*backend.FoundComfy, len(list))
	var wg sync.WaitGroup
	for i, l := range list {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = probeOne(ctx, l)
		}()
	}
	wg.Wait()
	var found []backend.FoundComfy
	for _, f := range results {
		if f != nil && !slices.ContainsFunc(found, func(o backend.FoundComfy) bool { return o.PID != 0 && o.PID == f.PID }) {
			found = append(found, *f)
		}
	}
	return found
}

func probeOne(ctx context.Context, l listener) *backend.FoundComfy {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	c := comfy.New(fmt.Sprintf("http://127.0.0.1:%d", l.port), comfy.WithTimeout(probeWithin))
	defer c.Close()
	stats, err := c.SystemStats(ctx)
	if err != nil || len(stats.Devices) == 0 && stats.Version == "" && stats.Python == "" || ours(stats.Argv) {
		return nil
	}
	return &backend.FoundComfy{Dir: l.dir, URL: c.URL(), PID: l.pid, User: l.user, Python: l.python}
}

// usualPlaces are the directories in which people keep ComfyUI.
func usualPlaces() []string {
	var places []string
	if wd, err := os.Getwd(); err == nil {
		places = append(places, wd, filepath.Join(wd, "ComfyUI"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		for _, p := range []string{"ComfyUI", "comfyui", "comfy/ComfyUI", "src/ComfyUI", "git/ComfyUI", "Documents/ComfyUI"} {
			places = append(places, filepath.Join(home, p))
		}
	}
	places = append(places, "/opt/ComfyUI", "/opt/comfyui", "/workspace/ComfyUI", "/root/ComfyUI", "/content/ComfyUI", "/app/ComfyUI",
		"/ComfyUI", "/comfyui", "/data/ComfyUI", "/mnt/data/ComfyUI", "/srv/ComfyUI", "/home/ubuntu/ComfyUI", "/basedir/ComfyUI", "/notebooks/ComfyUI", "/kaggle/working/ComfyUI")
	return slices.CompactFunc(places, strings.EqualFold)
}
