//go:build linux && cgo

package nvml

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"easel/gpu"
	"easel/gpu/child"
	"easel/gpu/gputest"
)

// TestMain lets the test binary be the child that loads the library.
func TestMain(m *testing.M) {
	if os.Getenv("EASEL_TEST_SAMPLER") != "" {
		if err := child.Serve(os.Stdin, os.Stdout, Open); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sampler is a child with the stand-in library.
func sampler(t *testing.T, s *gputest.Stub, env ...string) *child.Sampler {
	t.Helper()
	c := child.New(gpu.NVML, []string{"/proc/self/exe"}, append(append(s.Environ(), "EASEL_TEST_SAMPLER=1"), env...))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func sample(t *testing.T, c *child.Sampler) gpu.Reading {
	t.Helper()
	r, err := c.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTwoCardsWithAllTheirFigures(t *testing.T) {
	stub := gputest.New(t)
	stub.Set(t, "100 1000 ok 11:70 12:30", "5 1000 ok")
	c := sampler(t, stub)
	r := sample(t, c)
	if len(r.Cards) != 2 || r.Driver != "550.54.15" || r.Source != gpu.NVML {
		t.Fatalf("%+v", r)
	}
	a := r.Cards[0]
	if a.UUID != "GPU-00000000-stub" || a.Name != "Stub A10" || *a.MemoryUsed != 100 || *a.MemoryTotal != 1000 ||
		*a.Utilisation != 97 || *a.Temperature != 71 || *a.Power != 148.5 || *a.PowerLimit != 150 ||
		*a.ClockSM != 1695 || *a.ClockMemory != 6251 || *a.ECC != 2 || strings.Join(a.Throttle, ",") != "power cap,thermal (hardware)" {
		t.Errorf("%+v", a)
	}
	if len(a.Processes) != 2 || a.Processes[1].PID != 12 || *a.Processes[1].Memory != 30 {
		t.Errorf("processes %+v", a.Processes)
	}
	if p := r.Cards[1].Processes; p == nil || len(p) != 0 {
		t.Errorf("an empty list of processes came as %v", p)
	}
}

// The binding ends the process with 127 when it calls what the library lacks.
func TestMissingSymbolsAreUnknownFigures(t *testing.T) {
	stub := gputest.New(t, "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo", "processes")
	stub.Set(t, "100 1000 ok")
	c := sampler(t, stub)
	first := c.PID()
	a := sample(t, c).Cards[0]
	if a.Utilisation != nil || a.MemoryUsed != nil || a.Processes != nil || a.Temperature == nil {
		t.Errorf("%+v", a)
	}
	sample(t, c)
	if first != 0 || c.PID() == 0 {
		t.Errorf("the child ended")
	}
}

func TestLostCardKeepsItsName(t *testing.T) {
	stub := gputest.New(t)
	stub.Set(t, "100 1000 ok", "100 1000 ok")
	c := sampler(t, stub)
	sample(t, c)
	stub.Set(t, "100 1000 ok", "100 1000 lost")
	r := sample(t, c)
	b := r.Cards[1]
	if r.Cards[0].Lost || !b.Lost || b.UUID != "GPU-00000001-stub" || b.Name != "Stub A10" || b.MemoryUsed != nil || !strings.Contains(b.Note, "fell off the bus") {
		t.Errorf("%+v", b)
	}
	stub.Set(t, "100 1000 ok") // not even counted any more
	if r = sample(t, c); len(r.Cards) != 2 || !r.Cards[1].Lost {
		t.Errorf("%+v", r.Cards)
	}
	stub.Set(t, "100 1000 ok", "7 1000 ok")
	if r = sample(t, c); r.Cards[1].Lost || *r.Cards[1].MemoryUsed != 7 {
		t.Errorf("a card that came back: %+v", r.Cards[1])
	}
}

func TestNotSupportedIsUnknown(t *testing.T) {
	stub := gputest.New(t)
	stub.Set(t, "100 1000 bare")
	a := sample(t, sampler(t, stub)).Cards[0]
	if a.MemoryUsed == nil || a.Utilisation != nil || a.Temperature != nil || a.Power != nil || a.ECC != nil || a.Throttle != nil || a.Lost {
		t.Errorf("%+v", a)
	}
}

func TestCallThatHangsEndsTheChildAndNotUs(t *testing.T) {
	stub := gputest.New(t)
	stub.Set(t, "100 1000 ok")
	c := sampler(t, stub)
	sample(t, c)
	c.Silence = 200 * time.Millisecond
	stub.Set(t, "100 1000 hang")
	_, err := c.Sample(t.Context())
	var e *gpu.Error
	if !errors.As(err, &e) || e.Kind != gpu.Hung || c.PID() != 0 {
		t.Fatalf("%v, pid %d", err, c.PID())
	}
	stub.Set(t, "100 1000 ok")
	c.Silence = child.Silence
	sample(t, c) // a new child
}

func TestWhyTheCardsCannotBeRead(t *testing.T) {
	stub := gputest.New(t)
	stub.Set(t, "100 1000 ok")
	for code, want := range map[string]string{"9": gpu.NoDriver, "18": gpu.Mismatch, "999": gpu.Broken} {
		_, err := sampler(t, stub, "EASEL_NVML_INIT="+code).Sample(t.Context())
		var e *gpu.Error
		if !errors.As(err, &e) || e.Kind != want {
			t.Errorf("init returns %s: %v", code, err)
		}
	}
	none := child.New(gpu.NVML, []string{"/proc/self/exe"}, append(os.Environ(), "EASEL_TEST_SAMPLER=1"))
	if _, err := none.Sample(t.Context()); err == nil {
		t.Skip("this box has NVIDIA's library")
	} else if e := (*gpu.Error)(nil); !errors.As(err, &e) || e.Kind != gpu.NoLibrary {
		t.Errorf("without the library: %v", err)
	}
}
