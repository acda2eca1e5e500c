package sketch

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is one failure to show on purpose.
type Fault struct {
	// Name is one of the kinds that Usage lists.
	Name string
	// Arg is the text after the "=".
	Arg string
	// Prompt is the prompt at which it strikes, the first being 1; 0: each.
	Prompt int64

	wait time.Duration
	size int64
	code int
}

// faultKind describes a fault for ParseFault and Usage.
type faultKind struct {
	name, arg, help string
	start           bool // strikes while starting; takes no @N
}

var faultKinds = []faultKind{
	{"slow-start", "DURATION", "The port opens this much later; the log moves meanwhile.", true},
	{"silent-start", "DURATION", "The port opens this much later; the log stands still.", true},
	{"import-failure", "PACK", "The log tells of a node pack that could not be imported (default: broken_pack).", true},
	{"exit-at-import", "CODE", "The process ends with this status while a node pack is imported.", true},
	{"ignore-int", "", "SIGINT does nothing.", true},
	{"ignore-term", "", "SIGTERM does nothing.", true},
	{"slow-node", "DURATION", "Every node takes this much longer and notices no interrupt meanwhile.", false},
	{"exit", "CODE", "The process ends with this status in the middle of a node.", false},
	{"signal", "NUMBER", "The process kills itself with this signal in the middle of a node.", false},
	{"cuda-oom", "", "A node fails with torch.OutOfMemoryError.", false},
	{"alloc", "SIZE", "A node takes this much memory for real and keeps it until /free.", false},
	{"dead-worker", "", "The worker thread dies in a node; HTTP goes on answering.", false},
	{"deaf-socket", "", "From this prompt on the WebSocket sends nothing; it stays open.", false},
	{"blocked-loop", "DURATION", "All of HTTP and the WebSocket stand still this long while a node runs.", false},
	{"nan", "", "What `executed` and /history tell of a node contains a bare NaN.", false},
	{"disk-full", "", "SaveImage writes part of the file, then fails with \"No space left on device\".", false},
}

// ParseFault reads NAME[=ARG][@N].
func ParseFault(s string) (Fault, error) {
	body, at, hasAt := strings.Cut(s, "@")
	name, arg, hasArg := strings.Cut(body, "=")
	f := Fault{Name: name, Arg: arg}
	i := slices.IndexFunc(faultKinds, func(k faultKind) bool { return k.name == name })
	if i < 0 {
		names := make([]string, len(faultKinds))
		for k := range faultKinds {
			names[k] = faultKinds[k].name
		}
		return f, fmt.Errorf("unknown fault %q (choose from %s)", name, strings.Join(names, ", "))
	}
	k := faultKinds[i]
	if hasAt {
		n, err := strconv.ParseInt(at, 10, 64)
		if err != nil || n < 1 || k.start {
			return f, fmt.Errorf("%s: @%s does not name a prompt (they count from 1; faults of the start take none)", name, at)
		}
		f.Prompt = n
	}
	switch {
	case k.arg == "" && hasArg:
		return f, fmt.Errorf("%s takes no value", name)
	case k.arg != "" && arg == "" && k.arg != "PACK":
		return f, fmt.Errorf("%s needs a value: %s=%s", name, name, k.arg)
	}
	return f, f.parseArg(k.arg)
}

func (f *Fault) parseArg(kind string) (err error) {
	switch kind {
	case "DURATION":
		f.wait, err = parseDuration(f.Arg)
	case "SIZE":
		f.size, err = parseSize(f.Arg)
	case "CODE", "NUMBER":
		f.code, err = strconv.Atoi(f.Arg)
		if err != nil || f.code < 0 || f.code > 255 || kind == "NUMBER" && f.code < 1 {
			err = fmt.Errorf("%q is not a number from 0 to 255", f.Arg)
		}
	case "PACK":
		if f.Arg == "" {
			f.Arg = "broken_pack"
		}
	}
	return err
}

// faults are the failures asked for.
type faults []Fault

// take gives the fault of this name that strikes at this prompt, if any.
func (fs faults) take(name string, prompt int64) *Fault {
	for i := range fs {
		if f := &fs[i]; f.Name == name && (f.Prompt == 0 || f.Prompt == prompt) {
			return f
		}
	}
	return nil
}

// since says whether a fault of this name has begun at this prompt or before.
func (fs faults) since(name string, prompt int64) bool {
	return slices.ContainsFunc(fs, func(f Fault) bool { return f.Name == name && prompt > 0 && f.Prompt <= prompt })
}

// countPrompt adds one to the count of prompts, in the state file too.
func (w *Worker) countPrompt() int64 {
	n := w.prompts.Add(1)
	if w.opts.FaultState != "" {
		if err := os.WriteFile(w.opts.FaultState, []byte(strconv.FormatInt(n, 10)), 0o644); err != nil {
			w.log.error("easel sketch: the count of prompts is not kept: %v", err)
		}
	}
	return n
}

// loadPromptCount reads the count that an earlier process left.
func (w *Worker) loadPromptCount() {
	if b, err := os.ReadFile(w.opts.FaultState); err == nil {
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		w.prompts.Store(n)
	}
}

// hog holds the memory that the alloc fault took.
type hog struct {
	mu     sync.Mutex // guards what follows
	blocks [][]byte
}

func (h *hog) take(n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	const block = 64 << 20
	for n > 0 {
		b := takeMemory(int(min(n, block)))
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		h.blocks = append(h.blocks, b)
		n -= int64(len(b))
	}
}

func (h *hog) free() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	had := len(h.blocks) > 0
	for _, b := range h.blocks {
		giveBack(b)
	}
	h.blocks = nil
	return had
}

// strike shows the faults that belong in the middle of a node.
func (w *Worker) strike(prompt int64) error {
	if f := w.faults.take("blocked-loop", prompt); f != nil {
		w.loop.Lock()
		time.Sleep(f.wait)
		w.loop.Unlock()
	}
	if f := w.faults.take("alloc", prompt); f != nil {
		w.hog.take(f.size)
	}
	if w.faults.take("cuda-oom", prompt) != nil {
		e := raise("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.99 GiB of which 3.01 GiB is free. Including non-PyTorch memory, this process has 20.97 GiB memory in use. Of the allocated memory 18.12 GiB is allocated by PyTorch, and 286.00 MiB is reserved by PyTorch but unallocated.")
		e.oom = true
		return e
	}
	if w.faults.take("dead-worker", prompt) != nil {
		return errWorkerDied
	}
	if f := w.faults.take("exit", prompt); f != nil {
		os.Exit(f.code)
	}
	if f := w.faults.take("signal", prompt); f != nil {
		w.log.faulthandler(f.code)
		if err := dieBy(f.code); err != nil {
			return raise("OSError", "%v", err)
		}
		select {} // the signal is on its way
	}
	return nil
}
