//go:build linux

package cards

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"easel/gpu"
	"easel/gpu/child"
	"easel/gpu/smi"
)

// source is one way to read the cards.
type source struct {
	name   string
	open   func() (gpu.Sampler, error)
	watch  time.Duration // between two readings while somebody looks
	rest   time.Duration // and while nobody does
	s      gpu.Sampler   // nil while closed
	absent bool          // not on this box, as far as was seen
	retry  time.Time     // after a failure: not before
	fails  int           // in a row
	note   string        // why it does not work, when a person should know
}

// The paces. The engine's history needs a reading in each of its bins.
const (
	watched = 500 * time.Millisecond
	resting = gpu.Step
)

// Pauses after failures.
const (
	soon     = time.Second
	later    = time.Minute
	mostLate = 10 * time.Minute
)

func (s *source) pace(looked bool) time.Duration {
	if looked {
		return s.watch
	}
	return s.rest
}

func (s *source) sample(ctx context.Context) (gpu.Reading, error) {
	if s.s == nil {
		opened, err := s.open()
		if err != nil {
			return gpu.Reading{}, err
		}
		s.s = opened
	}
	r, err := s.s.Sample(ctx)
	if err == nil && len(r.Cards) == 0 {
		err = gpu.Errorf(gpu.NoDriver, "%s sees no card", s.name)
	}
	return r, err
}

// close ends the sampler. One with something left behind that hangs is kept, so
// that no second one is started beside it.
func (s *source) close() {
	if s.s == nil {
		return
	}
	_ = s.s.Close() // what cannot be ended is said by the next reading
}

// put puts the source off after a failure, and reports whether that is news.
func (s *source) put(e *gpu.Error, now time.Time) bool {
	s.fails++
	before := s.note
	switch e.Kind {
	case gpu.NoLibrary, gpu.NoDriver:
		s.absent, s.note, s.fails = true, "", 0
		return false
	case gpu.Mismatch:
		s.absent, s.note = true, e.Message
	case gpu.Broken:
		s.retry = now.Add(soon)
		if s.fails > 1 {
			s.retry = now.Add(s.delay())
			s.note = e.Message
		}
	default:
		s.retry, s.note = now.Add(s.delay()), e.Message
	}
	return s.note != before
}

// delay doubles with every failure in a row.
func (s *source) delay() time.Duration {
	return min(later<<min(s.fails-1, 8), mostLate)
}

// systemSources are the sources of this box, best first.
func systemSources(environ []string) []*source {
	own := func(name string) gpu.Sampler {
		return child.New(name, []string{"/proc/self/exe", "gpu-sampler", name}, environ)
	}
	return []*source{
		{name: gpu.NVML, watch: watched, rest: resting, open: func() (gpu.Sampler, error) {
			if !nvidia(environ) {
				return nil, gpu.Errorf(gpu.NoLibrary, "there is no NVIDIA driver")
			}
			return own(gpu.NVML), nil
		}},
		{name: gpu.SMI, watch: 2 * time.Second, rest: 3 * resting, open: smi.Open},
		{name: gpu.AMDGPU, watch: watched, rest: resting, open: func() (gpu.Sampler, error) {
			if m, _ := filepath.Glob("/sys/class/drm/card[0-9]*/device/mem_info_vram_total"); len(m) == 0 {
				return nil, gpu.Errorf(gpu.NoLibrary, "there is no card of the amdgpu driver")
			}
			return own(gpu.AMDGPU), nil
		}},
	}
}

// nvidia reports whether it is worth starting a process that loads NVIDIA's
// library: the library can be seen, or the driver's devices are there.
func nvidia(environ []string) bool {
	const lib = "libnvidia-ml.so.1"
	for _, dev := range []string{"/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version"} {
		if _, err := os.Stat(dev); err == nil {
			return true
		}
	}
	dirs := []string{"/usr/lib64", "/usr/lib", "/lib64", "/lib", "/usr/local/lib"}
	for _, v := range environ {
		if list, ok := strings.CutPrefix(v, "LD_LIBRARY_PATH="); ok {
			dirs = append(dirs, filepath.SplitList(list)...)
		}
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, lib)); err == nil {
			return true
		}
	}
	cache, err := os.ReadFile("/etc/ld.so.cache")
	return err == nil && bytes.Contains(cache, []byte(lib+"\x00"))
}
