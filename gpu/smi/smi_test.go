package smi

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"easel/gpu"
)

// fake puts a stand-in nvidia-smi, a shell script, first on the path.
func fake(t *testing.T, script string) gpu.Sampler {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in is a shell script")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The refusal and the values are as driver 535 prints them.
func TestTwoCardsOfADriverThatLacksAField(t *testing.T) {
	s := fake(t, `case "$1" in
*clocks_event_reasons.active*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.'; echo; exit 2;;
--query-gpu=*) cat <<X
0, GPU-aaaa, NVIDIA A10, 19800, 23028, 97, 71, 148.20, 150.00, 1695, 6251, 0, 535.104.05, 0x0000000000000044
1, GPU-bbbb, NVIDIA GeForce RTX 3090, 1, 24576, [N/A], 30, [N/A], 350.00, 210, 405, [N/A], 535.104.05, 0x0000000000000001
X
;;
*) echo 'GPU-aaaa, 4711, 18534, /usr/bin/python3, really'; echo 'GPU-aaaa, 12, [N/A], [Not Found]';;
esac`)
	r, err := s.Sample(t.Context())
	if err != nil || len(r.Cards) != 2 || r.Driver != "535.104.05" {
		t.Fatalf("%v %+v", err, r)
	}
	a, b := r.Cards[0], r.Cards[1]
	if *a.MemoryUsed != 19800<<20 || *a.Utilisation != 97 || *a.Power != 148.2 || *a.ECC != 0 || strings.Join(a.Throttle, ",") != "power cap,thermal (hardware)" {
		t.Errorf("%+v", a)
	}
	if b.Utilisation != nil || b.Power != nil || b.ECC != nil || len(b.Throttle) != 0 || *b.ClockSM != 210 {
		t.Errorf("%+v", b)
	}
	if p := a.Processes; len(p) != 2 || p[0].PID != 4711 || *p[0].Memory != 18534<<20 || p[0].Name != "/usr/bin/python3, really" || p[1].Memory != nil || p[1].Name != "" {
		t.Errorf("%+v", p)
	}
}

func TestLostCard(t *testing.T) {
	s := fake(t, `case "$1" in --query-gpu=*) echo "0, GPU-a, A10, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], 550.1, [GPU is lost], [GPU is lost]";; esac`)
	r, err := s.Sample(t.Context())
	if err != nil || len(r.Cards) != 1 || !r.Cards[0].Lost || r.Cards[0].Note == "" || r.Cards[0].MemoryUsed != nil {
		t.Errorf("%v %+v", err, r)
	}
}

func TestWhyTheCardsCannotBeRead(t *testing.T) {
	for said, want := range map[string]string{
		"Failed to initialize NVML: Driver/library version mismatch":                                         gpu.Mismatch,
		"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the …": gpu.NoDriver,
		"No devices were found": gpu.NoDriver,
		"out of paper":          gpu.Broken,
	} {
		_, err := fake(t, `echo "`+said+`"; exit 9`).Sample(t.Context())
		var e *gpu.Error
		if !errors.As(err, &e) || e.Kind != want {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0, GPU-a, A10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 550, 0x4, 0x4\n", "GPU-a, 1, 2, x\n")
	f.Fuzz(func(_ *testing.T, card, proc string) {
		c, _, _ := parseCard(fields, card)
		parseProcesses([]gpu.Card{c}, proc)
	})
}
