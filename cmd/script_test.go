package cmd_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script/*.txtar. In them `easel` is the real binary,
// every script has a home of its own, and whatever engine it started is stopped
// at its end.
func TestScripts(t *testing.T) {
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			if err := os.Mkdir(home, 0o700); err != nil {
				return err
			}
			for k, v := range map[string]string{
				"PATH": filepath.Dir(bin) + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME": home, "EASEL_HOME": home,
				"LANG": "C.UTF-8", "ESC": "\x1b", "USER": "tester", "NO_COLOR": "1", "GORACE": "halt_on_error=1",
			} {
				e.Setenv(k, v)
			}
			e.Defer(func() {
				stop := exec.Command(bin, "stop")
				stop.Env = append(os.Environ(), "HOME="+home, "EASEL_HOME="+home)
				if out, err := stop.CombinedOutput(); err != nil {
					t.Errorf("stop what the script started: %v\n%s", err, out)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": scriptCode, "bigfile": scriptBigFile},
	})
}

// scriptCode is `code N COMMAND…`: the command must end with exit code N. Its
// output is compared with stdout and stderr as after exec.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = "none: " + err.Error()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = strconv.Itoa(exit.ExitCode())
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// scriptBigFile is `bigfile FILE BYTES`: a graph of that size, most of it the text
// of one input.
func scriptBigFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: bigfile file bytes")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := bytes.Repeat([]byte("x"), size)
	graph := append([]byte(`{"1":{"class_type":"EaselSketch","inputs":{"text":"`), text...)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), append(graph, `"}}}`...), 0o600))
}
