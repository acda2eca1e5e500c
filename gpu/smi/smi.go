// Package smi reads NVIDIA cards by the program nvidia-smi, where the library
// cannot be used. Each reading starts the program; it is for a pace of seconds.
package smi

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"easel/gpu"
)

// within bounds one run of the program; after it, it is killed.
const within = 5 * time.Second

// fields are what is asked of each card. One that this nvidia-smi does not know is
// left out from then on.
var fields = []string{
	"index", "uuid", "name", "memory.used", "memory.total", "utilization.gpu", "temperature.gpu", "power.draw",
	"enforced.power.limit", "clocks.sm", "clocks.mem", "ecc.errors.uncorrected.aggregate.total", "driver_version",
	"clocks_event_reasons.active", "clocks_throttle_reasons.active",
}

// Sampler runs nvidia-smi.
type Sampler struct {
	path string
	ask  []string      // fields that it knows
	left *exec.Cmd     // a run that cannot be ended
	done chan struct{} // closed when left has ended
}

var _ gpu.Sampler = (*Sampler)(nil)

// Open finds the program. The error is a *gpu.Error.
func Open() (gpu.Sampler, error) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil, gpu.Errorf(gpu.NoLibrary, "there is no nvidia-smi")
	}
	return &Sampler{path: path, ask: slices.Clone(fields)}, nil
}

// Source is gpu.SMI.
func (s *Sampler) Source() string { return gpu.SMI }

// Close does nothing: no process lives between two readings.
func (s *Sampler) Close() error { return nil }

// unknownField is how nvidia-smi refuses a query.
var unknownField = regexp.MustCompile(`Field "([^"]+)" is not a valid field`)

// Sample runs the program twice: for the cards, and for the processes.
func (s *Sampler) Sample(ctx context.Context) (gpu.Reading, error) {
	var out string
	for {
		var err error
		out, err = s.run(ctx, "--query-gpu="+strings.Join(s.ask, ","), "--format=csv,noheader,nounits")
		if m := unknownField.FindStringSubmatch(out); m != nil && slices.Contains(s.ask, m[1]) {
			s.ask = slices.DeleteFunc(s.ask, func(f string) bool { return f == m[1] })
			continue
		}
		if err != nil {
			return gpu.Reading{}, err
		}
		break
	}
	r := gpu.Reading{At: time.Now(), Source: gpu.SMI, Cards: []gpu.Card{}}
	for line := range strings.Lines(out) {
		if c, driver, ok := parseCard(s.ask, line); ok {
			r.Cards = append(r.Cards, c)
			if r.Driver == "" {
				r.Driver = driver
			}
		}
	}
	if len(r.Cards) == 0 {
		return r, gpu.Errorf(gpu.NoDriver, "nvidia-smi lists no card: %s", oneLine(out))
	}
	if out, err := s.run(ctx, "--query-compute-apps=gpu_uuid,pid,used_gpu_memory,process_name", "--format=csv,noheader,nounits"); err == nil {
		parseProcesses(r.Cards, out)
	}
	return r, nil
}

// run runs the program once. What it printed is returned with an error too. A run
// that cannot be ended is left behind, and no other is started meanwhile.
func (s *Sampler) run(ctx context.Context, args ...string) (string, error) {
	if s.left != nil {
		select {
		case <-s.done:
			s.left = nil
		default:
			return "", gpu.Errorf(gpu.Hung, "nvidia-smi (pid %d) hangs in the driver and cannot be ended", s.left.Process.Pid)
		}
	}
	cmd := exec.Command(s.path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return "", gpu.Errorf(gpu.Broken, "start nvidia-smi: %v", err)
	}
	done := make(chan struct{})
	var ended error // read once done is closed
	go func() {
		ended = cmd.Wait()
		close(done)
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return out.String(), explain(ended, out.String())
	case <-timer.C:
		return "", s.abandon(cmd, done, gpu.Errorf(gpu.Hung, "nvidia-smi did not answer for %s", within))
	case <-ctx.Done():
		return "", s.abandon(cmd, done, ctx.Err())
	}
}

// abandon kills a run; when it cannot be ended it is remembered.
func (s *Sampler) abandon(cmd *exec.Cmd, done chan struct{}, why error) error {
	_ = cmd.Process.Kill()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		s.left, s.done = cmd, done
	}
	return why
}

// explain is why nvidia-smi failed, nil when it did not.
func explain(err error, out string) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case strings.Contains(out, "Driver/library version mismatch"):
		return gpu.Errorf(gpu.Mismatch, "the NVIDIA driver was upgraded and the old one is still loaded: restart the box")
	case strings.Contains(out, "couldn't communicate with the NVIDIA driver"):
		return gpu.Errorf(gpu.NoDriver, "nvidia-smi cannot reach the NVIDIA driver: it is not loaded (modprobe nvidia, or restart the box)")
	case strings.Contains(out, "No devices were found"):
		return gpu.Errorf(gpu.NoDriver, "nvidia-smi sees no card")
	case errors.As(err, &exit) && strings.TrimSpace(out) != "":
		return gpu.Errorf(gpu.Broken, "nvidia-smi: %s", oneLine(out))
	}
	return gpu.Errorf(gpu.Broken, "nvidia-smi: %v", err)
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

// parseCard reads one line of --query-gpu.
func parseCard(ask []string, line string) (c gpu.Card, driver string, ok bool) {
	f := strings.Split(strings.TrimSpace(line), ", ")
	if len(f) != len(ask) {
		return c, "", false
	}
	at := func(name string) string {
		if i := slices.Index(ask, name); i >= 0 {
			return strings.TrimSpace(f[i])
		}
		return ""
	}
	n, err := strconv.Atoi(at("index"))
	if err != nil {
		return c, "", false
	}
	c = gpu.Card{
		Index: n, UUID: plain(at("uuid")), Name: plain(at("name")),
		MemoryUsed: mib(at("memory.used")), MemoryTotal: mib(at("memory.total")),
		Utilisation: number(at("utilization.gpu")), Temperature: number(at("temperature.gpu")),
		Power: number(at("power.draw")), PowerLimit: number(at("enforced.power.limit")),
		ClockSM: number(at("clocks.sm")), ClockMemory: number(at("clocks.mem")),
		Throttle: throttle(at("clocks_event_reasons.active"), at("clocks_throttle_reasons.active")),
	}
	if v := number(at("ecc.errors.uncorrected.aggregate.total")); v != nil {
		c.ECC = gpu.Known(int64(*v))
	}
	switch {
	case strings.Contains(line, "GPU is lost"):
		c.Lost, c.Note = true, "the card fell off the bus: restart the box; if it comes again, check power and seating"
	case strings.Contains(line, "GPU requires reset"):
		c.Lost, c.Note = true, "the card needs a reset: stop what uses it, then nvidia-smi --gpu-reset, or restart the box"
	}
	return c, plain(at("driver_version")), true
}

// plain is a value, "" where nvidia-smi writes [N/A], [Not Supported], ERR! …
func plain(s string) string {
	if strings.HasPrefix(s, "[") || s == "N/A" || s == "ERR!" {
		return ""
	}
	return s
}

func number(s string) *float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func mib(s string) *int64 {
	if v := number(s); v != nil && *v >= 0 {
		return gpu.Known(int64(*v) << 20)
	}
	return nil
}

// words are the bits of the reasons, as package nvml names them.
var words = []struct {
	bit  uint64
	word string
}{
	{0x4, "power cap"},
	{0x8, "hardware slowdown"},
	{0x10, "sync boost"},
	{0x20, "thermal (software)"},
	{0x40, "thermal (hardware)"},
	{0x80, "power brake"},
}

// throttle reads the first mask that is one.
func throttle(masks ...string) []string {
	for _, m := range masks {
		bits, err := strconv.ParseUint(strings.TrimPrefix(m, "0x"), 16, 64)
		if m == "" || err != nil {
			continue
		}
		out := []string{}
		for _, w := range words {
			if bits&w.bit != 0 {
				out = append(out, w.word)
			}
		}
		return out
	}
	return nil
}

// parseProcesses puts the lines of --query-compute-apps under their cards.
func parseProcesses(cards []gpu.Card, out string) {
	for i := range cards {
		cards[i].Processes = []gpu.Process{}
	}
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSpace(line), ", ", 4)
		if len(f) < 3 {
			continue
		}
		pid, err := strconv.Atoi(f[1])
		i := slices.IndexFunc(cards, func(c gpu.Card) bool { return c.UUID == f[0] })
		if err != nil || i < 0 {
			continue
		}
		p := gpu.Process{PID: pid, Memory: mib(f[2])}
		if len(f) == 4 {
			p.Name = plain(f[3])
		}
		cards[i].Processes = append(cards[i].Processes, p)
	}
}
