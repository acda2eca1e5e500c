package worker

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/keeper"
)

// recorded are ends of a real ComfyUI 0.3.64: exit status (a signal when negative)
// and the last lines of its log.
func recorded(t *testing.T) map[string]struct {
	Exit  int      `json:"exit"`
	Lines []string `json:"lines"`
} {
	t.Helper()
	b, err := os.ReadFile("testdata/ends.json")
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]struct {
		Exit  int      `json:"exit"`
		Lines []string `json:"lines"`
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestJudgeRecordedEnds(t *testing.T) {
	ends := recorded(t)
	for name, want := range map[string]struct {
		ready          bool
		kind           string
		summary, line  string
		hopeless, port bool
	}{
		"bad_args --nosuch-option":           {false, backend.KindBadStart, "unrecognized arguments: --nosuch-option", "main.py: error: unrecognized arguments: --nosuch-option", true, false},
		"bad_args --port abc":                {false, backend.KindBadStart, "invalid int value: 'abc'", "main.py: error: argument --port: invalid int value: 'abc'", true, false},
		"bad_args --listen 203.0.113.7":      {false, backend.KindBadStart, "address it should listen on", "OSError: [Errno 99] error while attempting to bind on address ('203.0.113.7', 18188): cannot assign requested address", true, false},
		"bad_args --port 80000":              {false, backend.KindBadStart, "address it should listen on", "OverflowError: bind(): port must be 0-65535.", true, false},
		"port_in_use":                        {false, backend.KindBadStart, "port 18188 is taken", "OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 18188): address already in use", true, true},
		"sys_exit_on_import":                 {false, backend.KindBadStart, "exit status 7 while node packs were loading", "", true, false},
		"crash abort":                        {true, backend.KindCrash, "signal 6 (SIGABRT) while node 1 ran", "got prompt", false, false},
		"crash segv":                         {true, backend.KindCrash, "signal 11 (SIGSEGV)", "got prompt", false, false},
		"crash exit1":                        {true, backend.KindCrash, "exit status 1", "got prompt", false, false},
		"crash sigkill":                      {true, backend.KindKilled, "SIGKILL", "got prompt", false, false},
		"signal SIGTERM while a prompt runs": {true, backend.KindKilled, "SIGTERM", "", false, false},
		"signal SIGHUP idle":                 {true, backend.KindKilled, "SIGHUP", "", false, false},
		"signal SIGINT idle":                 {true, backend.KindKilled, "SIGINT", "Stopped server", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			rec, ok := ends[name]
			if !ok {
				t.Fatal("not recorded")
			}
			job, node := "job", "1"
			e := Evidence{
				Ended: keeper.Ended{StatusKnown: true, ExitCode: max(rec.Exit, -1), Signal: max(-rec.Exit, 0), At: time.Now()}, Ready: want.ready, Lines: rec.Lines, Port: 18188,
				Python: "/v/bin/python", Dir: "/opt/ComfyUI", Job: &job, Node: &node,
			}
			if rec.Exit >= 0 {
				e.Ended.Signal = 0
			}
			v, c := judge(e)
			if v.Kind != want.kind || !strings.Contains(v.Summary, want.summary) || v.Remedy == "" {
				t.Errorf("%+v", v)
			}
			if want.line != "" && !slices.Contains(v.Evidence, want.line) {
				t.Errorf("evidence %q", v.Evidence)
			}
			if c.Hopeless != want.hopeless || c.Port != want.port {
				t.Errorf("cause %+v", c)
			}
		})
	}
}

func TestJudgeOthers(t *testing.T) {
	exit := func(n int) keeper.Ended { return keeper.Ended{StatusKnown: true, ExitCode: n} }
	for _, c := range []struct {
		name    string
		e       Evidence
		kind    string
		summary string
	}{
		{"asked", Evidence{Ended: keeper.Ended{StatusKnown: true, Signal: 9, Ours: true, OurSignal: 9}, Asked: "Ada"}, backend.KindAsked, "stopped by Ada"},
		{"ours, by an engine before", Evidence{Ended: keeper.Ended{StatusKnown: true, Signal: 9, Ours: true, OurSignal: 9}}, backend.KindAsked, "stopped by Easel"},
		{"not seen", Evidence{Ready: true}, backend.KindUnknown, "nobody saw how"},
		{"manager", Evidence{Ended: exit(0), Ready: true, Reboot: true}, backend.KindAsked, "ComfyUI-Manager"},
		{"exit 0", Evidence{Ended: exit(0), Ready: true}, backend.KindUnknown, "exit status 0"},
		{"torch missing", Evidence{Ended: exit(1), Python: "/p", Lines: []string{"Traceback (most recent call last):", "  File \"x\"", "ModuleNotFoundError: No module named 'torch'"}}, backend.KindBadStart, "/p has no torch"},
		{"another module", Evidence{Ended: exit(1), Lines: []string{"Traceback (most recent call last):", "  File \"x\"", "ModuleNotFoundError: No module named 'yaml'"}}, backend.KindBadStart, "module yaml is missing"},
		{"no driver", Evidence{Ended: exit(1), Lines: []string{"Traceback (most recent call last):", "  File \"x\"", "RuntimeError: Found no NVIDIA driver on your system."}}, backend.KindBadStart, "no GPU"},
		{"frontend", Evidence{Ended: exit(255), Lines: []string{"********** ERROR ***********", "", "comfyui-frontend-package is not installed."}}, backend.KindBadStart, "web page package"},
		{"no custom_nodes", Evidence{Ended: exit(1), Lines: []string{"Traceback (most recent call last):", "  File \"x\"", "FileNotFoundError: [Errno 2] No such file or directory: '/mnt/data/custom_nodes'"}}, backend.KindBadStart, "directory for node packs"},
		{"assets", Evidence{Ended: exit(1), Lines: []string{"ASSETS_STARTUP_FAILED: in_use"}}, backend.KindBadStart, "in_use"},
		{"something else", Evidence{Ended: exit(1), Lines: []string{"Traceback (most recent call last):", "  File \"x\"", "ValueError: odd"}}, backend.KindBadStart, "ValueError: odd"},
	} {
		v := Judge(c.e)
		if v.Kind != c.kind || !strings.Contains(v.Summary, c.summary) {
			t.Errorf("%s: %+v", c.name, v)
		}
		b, err := json.Marshal(v)
		if err != nil || !strings.Contains(string(b), `"evidence":[`) {
			t.Errorf("%s: %s %v", c.name, b, err)
		}
	}
}
