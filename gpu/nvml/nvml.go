//go:build linux && cgo

package nvml

import (
	"context"
	"sort"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"easel/gpu"
)

// library is the name under which every driver installs it.
const library = "libnvidia-ml.so.1"

// Sampler reads the cards by NVML. A process makes one.
type Sampler struct {
	lib    nvml.Interface
	has    map[string]bool // symbols looked up so far
	driver string
	seen   map[int]identity // cards that once answered
}

// identity is what stays known of a card that is lost.
type identity struct{ uuid, name string }

var _ gpu.Sampler = (*Sampler)(nil)

// Open loads the library and starts it. The error is a *gpu.Error.
func Open() (gpu.Sampler, error) {
	if err := preflight(); err != nil {
		return nil, err
	}
	s := &Sampler{lib: nvml.New(nvml.WithLibraryPath(library)), has: map[string]bool{}, seen: map[int]identity{}}
	if r := s.lib.Init(); r != nvml.SUCCESS {
		return nil, failure("start", r)
	}
	if s.can("nvmlSystemGetDriverVersion") {
		if v, r := s.lib.SystemGetDriverVersion(); r == nvml.SUCCESS {
			s.driver = v
		}
	}
	return s, nil
}

// preflight looks up what Init calls: the binding loads the library and calls it in
// one step, which leaves no moment in between to ask.
func preflight() error {
	l := dl.New(library, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := l.Open(); err != nil {
		return gpu.Errorf(gpu.NoLibrary, "NVML cannot be loaded: %v", err)
	}
	// It stays open: NVML is not made to be loaded twice.
	if l.Lookup("nvmlInit_v2") != nil && l.Lookup("nvmlInit") != nil {
		return gpu.Errorf(gpu.Broken, "%s has no function nvmlInit: it is not the driver's library, or cut short", library)
	}
	return nil
}

// can reports whether the library has one of the named functions: a function and
// its newer versions count as one, the binding calls the newest that is there.
func (s *Sampler) can(names ...string) bool {
	key := names[0]
	if ok, known := s.has[key]; known {
		return ok
	}
	ok := false
	for _, n := range names {
		ok = ok || s.lib.Extensions().LookupSymbol(n) == nil
	}
	s.has[key] = ok
	return ok
}

// failure is a call's return that leaves nothing to be read.
func failure(what string, r nvml.Return) *gpu.Error {
	switch r {
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return gpu.Errorf(gpu.NoDriver, "the NVIDIA driver is installed but not loaded: modprobe nvidia, or restart the box")
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return gpu.Errorf(gpu.Mismatch, "the NVIDIA driver was upgraded and the old one is still loaded: restart the box, or unload and load the kernel module")
	case nvml.ERROR_NO_PERMISSION:
		return gpu.Errorf(gpu.NoDriver, "no permission to use the NVIDIA driver: check the rights of /dev/nvidia*")
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return gpu.Errorf(gpu.NoLibrary, "NVML cannot be loaded")
	case nvml.ERROR_NOT_FOUND, nvml.ERROR_GPU_NOT_FOUND:
		return gpu.Errorf(gpu.NoDriver, "the NVIDIA driver sees no card")
	}
	return gpu.Errorf(gpu.Broken, "NVML cannot %s: %s", what, word(r))
}

// word names a return. The binding's own String would call a function of the
// library that may be missing.
func word(r nvml.Return) string {
	switch r {
	case nvml.ERROR_NOT_SUPPORTED:
		return "not supported"
	case nvml.ERROR_NO_PERMISSION:
		return "no permission"
	case nvml.ERROR_GPU_IS_LOST:
		return "the card is lost"
	case nvml.ERROR_RESET_REQUIRED:
		return "the card needs a reset"
	case nvml.ERROR_TIMEOUT:
		return "timeout"
	case nvml.ERROR_UNINITIALIZED:
		return "not initialised"
	case nvml.ERROR_UNKNOWN:
		return "unknown error"
	}
	return "error " + itoa(int(r))
}

// Source is gpu.NVML.
func (s *Sampler) Source() string { return gpu.NVML }

// Close ends NVML.
func (s *Sampler) Close() error {
	if s.can("nvmlShutdown") {
		if r := s.lib.Shutdown(); r != nvml.SUCCESS {
			return failure("end", r)
		}
	}
	return nil
}

// Sample reads every card. A card that once answered and does not now is given as
// lost.
func (s *Sampler) Sample(context.Context) (gpu.Reading, error) {
	r := gpu.Reading{At: time.Now(), Source: gpu.NVML, Driver: s.driver, Cards: []gpu.Card{}}
	if !s.can("nvmlDeviceGetCount", "nvmlDeviceGetCount_v2") || !s.can("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByIndex_v2") {
		return r, gpu.Errorf(gpu.Broken, "the driver's NVML cannot count its cards: it is too old or cut short")
	}
	n, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return r, failure("count the cards", ret)
	}
	for i := range n {
		r.Cards = append(r.Cards, s.card(i))
	}
	for i, id := range s.seen {
		if i >= n {
			r.Cards = append(r.Cards, lost(i, id, "the driver no longer lists this card: it fell off the bus; restart the box"))
		}
	}
	sort.Slice(r.Cards, func(a, b int) bool { return r.Cards[a].Index < r.Cards[b].Index })
	return r, nil
}

func lost(i int, id identity, note string) gpu.Card {
	return gpu.Card{Index: i, UUID: id.uuid, Name: id.name, Lost: true, Note: note}
}

// card reads one card.
func (s *Sampler) card(i int) gpu.Card {
	d, ret := s.lib.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return s.unreadable(i, ret)
	}
	q := &query{s: s, d: d}
	c := gpu.Card{Index: i, UUID: s.seen[i].uuid, Name: s.seen[i].name}
	if s.can("nvmlDeviceGetUUID") {
		take(q, func() (string, nvml.Return) { return d.GetUUID() }, func(v string) { c.UUID = v })
	}
	if s.can("nvmlDeviceGetName") {
		take(q, func() (string, nvml.Return) { return d.GetName() }, func(v string) { c.Name = v })
	}
	q.memory(&c)
	q.figures(&c)
	q.health(&c)
	q.processes(&c)
	if q.fatal != nvml.SUCCESS {
		return s.unreadable(i, q.fatal)
	}
	s.seen[i] = identity{c.UUID, c.Name}
	return c
}

// unreadable is a card that does not answer.
func (s *Sampler) unreadable(i int, r nvml.Return) gpu.Card {
	note := "this card cannot be read: " + word(r)
	switch r {
	case nvml.ERROR_GPU_IS_LOST:
		note = "the card fell off the bus: restart the box; if it comes again, check power and seating"
	case nvml.ERROR_RESET_REQUIRED:
		note = "the card needs a reset: stop what uses it, then nvidia-smi --gpu-reset, or restart the box"
	}
	return lost(i, s.seen[i], note)
}
