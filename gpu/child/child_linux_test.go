package child

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"easel/gpu"
)

// TestMain lets the test binary be the child, over a sampler that behaves as
// EASEL_TEST_SAMPLER says.
func TestMain(m *testing.M) {
	if mode := os.Getenv("EASEL_TEST_SAMPLER"); mode != "" {
		_ = Serve(os.Stdin, os.Stdout, func() (gpu.Sampler, error) { return &fake{mode: mode}, nil })
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type fake struct{ mode string }

func (*fake) Source() string { return "fake" }
func (*fake) Close() error   { return nil }

func (f *fake) Sample(context.Context) (gpu.Reading, error) {
	switch f.mode {
	case "hang":
		select {}
	case "exit":
		os.Exit(127)
	case "fail":
		return gpu.Reading{}, gpu.Errorf(gpu.Mismatch, "of two versions")
	}
	return gpu.Reading{Source: "fake", Cards: []gpu.Card{{Index: os.Getpid()}}}, nil
}

func start(mode string) *Sampler {
	return New("fake", []string{"/proc/self/exe"}, append(os.Environ(), "EASEL_TEST_SAMPLER="+mode))
}

func TestOneChildForManyReadings(t *testing.T) {
	s := start("ok")
	for range 3 {
		r, err := s.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Cards[0].Index != s.PID() {
			t.Errorf("the child is %d, the reading is of %d", s.PID(), r.Cards[0].Index)
		}
	}
	if err := s.Close(); err != nil || s.PID() != 0 {
		t.Error(err)
	}
}

func TestAChildThatHangsFailsOrEnds(t *testing.T) {
	for mode, want := range map[string]string{"hang": gpu.Hung, "exit": gpu.Broken, "fail": gpu.Mismatch} {
		s := start(mode)
		s.Silence = 300 * time.Millisecond
		if mode != "hang" {
			s.Silence = 10 * time.Second
		}
		for range 2 { // it is started again
			_, err := s.Sample(t.Context())
			var e *gpu.Error
			if !errors.As(err, &e) || e.Kind != want || s.PID() != 0 {
				t.Errorf("%s: %v, pid %d", mode, err, s.PID())
			}
		}
	}
}

// While the reader that hangs cannot be ended, no second one is started.
func TestWhatWasLeftBehindIsNotDoubled(t *testing.T) {
	s := start("ok")
	if _, err := s.Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.left, s.p = s.p, nil
	_, err := s.Sample(t.Context())
	var e *gpu.Error
	if !errors.As(err, &e) || e.Kind != gpu.Hung {
		t.Errorf("%v", err)
	}
	s.left.end()
	if _, err = s.Sample(t.Context()); err != nil {
		t.Errorf("after it ended: %v", err)
	}
	_ = s.Close()
}

// The end of the input ends the child, also while a reading hangs.
func TestServeEndsWithItsInput(t *testing.T) {
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- Serve(r, io.Discard, func() (gpu.Sampler, error) { return &fake{mode: "hang"}, nil }) }()
	if _, err := io.WriteString(w, "\n"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}
