// Package gputest makes a stand-in for NVIDIA's driver library, for tests: a shared
// library, compiled on the spot, that the real binding loads. A box without a C
// compiler skips such tests and says why.
package gputest

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed stub.c.txt
var source []byte

// Stub is a directory with a stand-in libnvidia-ml.so.1, and the file that says
// what it answers.
type Stub struct {
	Dir   string
	state string
}

// New compiles the library. It lacks the named functions of the source that can be
// left out: nvmlDeviceGetUtilizationRates, nvmlDeviceGetMemoryInfo, processes.
func New(t testing.TB, without ...string) *Stub {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("there is no gcc to compile the stand-in for NVIDIA's library with")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "stub.c")
	if err := os.WriteFile(src, source, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-shared", "-fPIC", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), src}
	for _, w := range without {
		args = append(args, "-DWITHOUT_"+w)
	}
	if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("compile the stand-in: %v\n%s", err, out)
	}
	return &Stub{Dir: dir, state: filepath.Join(dir, "cards")}
}

// Set says what the cards are from now on, one line each: "used total mode
// pid:bytes …" with mode ok, lost, bare or hang.
func (s *Stub) Set(t testing.TB, cards ...string) {
	t.Helper()
	tmp := s.state + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(cards, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, s.state); err != nil {
		t.Fatal(err)
	}
}

// Environ is the environment in which a process loads the library.
func (s *Stub) Environ() []string {
	return append(os.Environ(), "LD_LIBRARY_PATH="+s.Dir, "EASEL_NVML_STUB="+s.state)
}

// Process is one holder of a card's memory, as Set takes it.
func Process(pid int, bytes int64) string { return fmt.Sprintf("%d:%d", pid, bytes) }
