package worker

import (
	"os"
	"strings"
	"testing"

	"easel/backend"
)

func helpFlags(t *testing.T) Flags {
	t.Helper()
	b, err := os.ReadFile("testdata/help-0.3.64.txt")
	if err != nil {
		t.Fatal(err)
	}
	return parseHelp(string(b))
}

func TestParseHelp(t *testing.T) {
	f := helpFlags(t)
	for name, want := range map[string]arity{
		"-h": arityNone, "--help": arityNone, "--listen": arityMay, "--port": arityOne, "--cpu": arityNone, "--lowvram": arityNone,
		"--fast": arityAny, "--whitelist-custom-nodes": arityMany, "--verbose": arityMay, "--temp-directory": arityOne,
		"--default-hashing-function": arityOne, "--fp8_e4m3fn-text-enc": arityNone, "--extra-model-paths-config": arityMany,
		"--preview-method": arityOne, "--disable-auto-launch": arityNone, "--database-url": arityOne,
	} {
		if f[name] != want {
			t.Errorf("%s: %q, want %q", name, f[name], want)
		}
	}
	if len(f) < 70 || len(f) > 90 {
		t.Errorf("%d flags", len(f))
	}
}

func TestFlagsCheck(t *testing.T) {
	f := helpFlags(t)
	for _, args := range [][]string{
		{"--cpu"}, {"--fast"}, {"--fast", "fp16_accumulation", "cublas_ops", "--cpu"}, {"--whitelist-custom-nodes", "a", "b"}, {"--reserve-vram=1.5"}, {"--reserve-vram", "-1"}, {"--verbose", "DEBUG"}, nil,
	} {
		if err := f.Check(args, "worker.args"); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, c := range []struct{ args, message, hint string }{
		{"--enable-manager", "no flag --enable-manager", "update ComfyUI"},
		{"--lowvramm", "no flag --lowvramm", "did you mean --lowvram?"},
		{"--disable-all-custom", "no flag", "did you mean --disable-all-custom-nodes?"},
		{"--cpu 3", `no argument "3"`, "--cpu takes no such value"},
		{"--preview-size", "no value", "--preview-size"},
		{"--cpu=1", "takes no value", "--cpu alone"},
		{"--verbose DEBUG INFO", `no argument "INFO"`, ""},
		{"x", `no argument "x"`, ""},
	} {
		err := f.Check(strings.Fields(c.args), "worker.args")
		if err == nil || !strings.Contains(err.Error(), c.message) || !strings.Contains(backend.FailureOf(err).Hint, c.hint) {
			t.Errorf("%s: %v · %v", c.args, err, backend.FailureOf(err))
		}
	}
}
