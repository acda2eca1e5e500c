package worker

import (
	"strings"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/keeper"
)

// What systemd 252 and docker 28 print; the fields are those of the manual pages and
// of systemd's src/core/unit.c.
const (
	unitRuns = "Restart=on-failure\nMainPID=4711\nNRestarts=0\nOOMPolicy=stop\nResult=success\nExecMainStartTimestampMonotonic=51000000\n" +
		"ExecMainExitTimestampMonotonic=0\nExecMainPID=4711\nExecMainCode=0\nExecMainStatus=0\nLoadState=loaded\nActiveState=active\nSubState=running\n" +
		"InvocationID=0123456789abcdef0123456789abcdef\n"
	journalExit = `{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795593600000000","PRIORITY":"5","SYSLOG_IDENTIFIER":"systemd","_PID":"1","UNIT":"comfyui.service",` +
		`"INVOCATION_ID":"0123456789abcdef0123456789abcdef","MESSAGE_ID":"98e322203f7a4ed290d09fe03c09fe15","EXIT_CODE":"killed","EXIT_STATUS":"9","COMMAND":"ExecStart",` +
		`"MESSAGE":"comfyui.service: Main process exited, code=killed, status=9/KILL"}`
	journalOOM = `{"__CURSOR":"s=1;i=1","__REALTIME_TIMESTAMP":"1795593600000000","UNIT":"comfyui.service","INVOCATION_ID":"0123456789abcdef0123456789abcdef",` +
		`"MESSAGE_ID":"fe6faa94e7774663a0da52717891d8ef","MESSAGE":"comfyui.service: A process of this unit has been killed by the OOM killer."}`
	journalResult = `{"__CURSOR":"s=1;i=3","__REALTIME_TIMESTAMP":"1795593600100000","UNIT":"comfyui.service","INVOCATION_ID":"0123456789abcdef0123456789abcdef",` +
		`"MESSAGE_ID":"d9b373ed55a64feb8242e02dbe79a49c","UNIT_RESULT":"%s","MESSAGE":"comfyui.service: Failed with result '%s'."}`
	journalStop = `{"__CURSOR":"s=1;i=4","__REALTIME_TIMESTAMP":"1795593599000000","UNIT":"comfyui.service","INVOCATION_ID":"0123456789abcdef0123456789abcdef",` +
		`"MESSAGE_ID":"de5b426a63be47a7b6ac3eaac82e2f6f","JOB_TYPE":"restart","MESSAGE":"Stopping ComfyUI..."}`
)

// unitWith is the unit with other values.
func unitWith(pairs ...string) string {
	out := unitRuns
	for i := 0; i < len(pairs); i += 2 {
		from := strings.Index(out, pairs[i]+"=")
		to := from + strings.IndexByte(out[from:], '\n')
		out = out[:from] + pairs[i] + "=" + pairs[i+1] + out[to:]
	}
	return out
}

// again is the unit when systemd has started it again.
func again() string {
	return unitWith("MainPID", "4800", "ExecMainPID", "4800", "NRestarts", "1", "InvocationID", "ffffffffffffffffffffffffffffffff")
}

// unitEnded is the unit when its process has ended.
func unitEnded(result, code, status string, more ...string) string {
	return unitWith(append([]string{
		"MainPID", "0", "Result", result, "ExecMainCode", code, "ExecMainStatus", status, "ExecMainExitTimestampMonotonic", "99000000",
		"ActiveState", "failed", "SubState", "failed",
	}, more...)...)
}

func result(s string) string { return strings.ReplaceAll(journalResult, "%s", s) }

func TestFateOfUnit(t *testing.T) {
	was := parseUnit([]byte(unitRuns))
	for _, c := range []struct {
		name, now       string
		journal         []string
		kind, certainty string
		summary         string
	}{
		{"killed for memory", unitEnded("oom-kill", "2", "9"), []string{journalOOM, journalExit, result("oom-kill")}, backend.KindHostOOM, backend.Certain, "killed by the kernel: the machine's memory ran out"},
		{"killed for memory, started again since", again(), []string{journalOOM, journalExit, result("oom-kill")}, backend.KindHostOOM, backend.Certain, "killed by the kernel"},
		{"killed for memory with OOMPolicy=continue", unitEnded("signal", "2", "9", "OOMPolicy", "continue"), []string{journalOOM, journalExit, result("signal")}, backend.KindHostOOM, backend.Certain, "killed by the kernel"},
		{"killed", unitEnded("signal", "2", "9"), []string{journalExit, result("signal")}, backend.KindKilled, backend.Likely, "killed by signal 9 (SIGKILL), by whom is not known"},
		{"killed, started again since", again(), []string{journalExit, result("signal")}, backend.KindKilled, backend.Likely, "killed by signal 9"},
		{"crashed", unitEnded("core-dump", "3", "11"), nil, backend.KindCrash, backend.Certain, "signal 11 (SIGSEGV)"},
		{"exit", unitEnded("exit-code", "1", "3"), nil, backend.KindCrash, backend.Likely, "exit status 3"},
		{"stopped", unitEnded("success", "2", "15", "ActiveState", "inactive", "SubState", "dead"), nil, backend.KindAsked, backend.Certain, "stopped by systemd, as somebody asked it to"},
		{"restarted", again(), []string{journalStop, strings.NewReplacer("9/KILL", "15/TERM", `"9"`, `"15"`).Replace(journalExit)}, backend.KindAsked, backend.Certain, "stopped by systemd"},
		{"watchdog", unitEnded("watchdog", "2", "6"), nil, backend.KindStall, backend.Certain, "watchdog"},
		{"started again, and no journal", again(), nil, backend.KindUnknown, backend.Unknown, "its end was seen, how is not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var entries []journalEntry
			for _, line := range c.journal {
				e, ok := parseJournal([]byte(line))
				if !ok {
					t.Fatalf("not read: %s", line)
				}
				entries = append(entries, e)
			}
			f := fateOfUnit("comfyui.service", was, parseUnit([]byte(c.now)), entries)
			v := judgeOutside(Evidence{Ended: keeper.Ended{At: time.Now()}, Ready: true, Lines: []string{"got prompt", "loading the model"}}, f, "it ended")
			if v.Kind != c.kind || v.Certainty != c.certainty || !strings.Contains(v.Summary, c.summary) {
				t.Errorf("%s (%s): %s", v.Kind, v.Certainty, v.Summary)
			}
			all := strings.Join(v.Evidence, "\n")
			if !strings.Contains(all, "loading the model") {
				t.Errorf("the last lines are not kept: %q", v.Evidence)
			}
			if strings.Contains(v.Remedy, "it is started again") || c.kind == backend.KindKilled && !strings.Contains(v.Remedy, "systemd starts it again (Restart=on-failure)") {
				t.Errorf("remedy: %s", v.Remedy)
			}
		})
	}
	if f := fateOfUnit("comfyui.service", was, was, nil); !f.StillThere {
		t.Errorf("a unit that runs: %+v", f)
	}
}

const dockerRuns = `[{"Id":"5f6d0c2a9b1e4d7f8a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f","State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,` +
	`"OOMKilled":false,"Dead":false,"Pid":4711,"ExitCode":0,"Error":"","StartedAt":"2026-11-25T03:00:00.123456789Z","FinishedAt":"0001-01-01T00:00:00Z"},` +
	`"Name":"/comfy","RestartCount":0,"HostConfig":{"RestartPolicy":{"Name":"unless-stopped","MaximumRetryCount":0}}}]`

// dockerEnded is what docker says after an end.
func dockerEnded(code, oom string) string {
	return strings.NewReplacer(`"Status":"running","Running":true`, `"Status":"exited","Running":false`, `"OOMKilled":false`, `"OOMKilled":`+oom, `"Pid":4711,"ExitCode":0`,
		`"Pid":0,"ExitCode":`+code, `"FinishedAt":"0001-01-01T00:00:00Z"`, `"FinishedAt":"2026-11-25T03:12:00Z"`).Replace(dockerRuns)
}

// dockerLine is a line of docker events.
func dockerLine(action, attributes string) string {
	return `{"status":"` + action + `","id":"5f6d0c2a9b1e","Type":"container","Action":"` + action + `","Actor":{"ID":"5f6d0c2a9b1e4d7f8a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f",` +
		`"Attributes":{"image":"comfy:latest","name":"comfy"` + attributes + `}},"scope":"local","time":1795576320,"timeNano":1795576320000000000}`
}

func TestFateOfContainer(t *testing.T) {
	was, err := parseContainer([]byte(dockerRuns))
	if err != nil {
		t.Fatal(err)
	}
	restarted := strings.NewReplacer("03:00:00.123456789Z", "03:12:01Z", `"RestartCount":0`, `"RestartCount":1`, "4711", "4800").Replace(dockerRuns)
	for _, c := range []struct {
		name, now       string
		events          []string
		kind, certainty string
		summary         string
	}{
		{"killed for memory", dockerEnded("137", "true"), nil, backend.KindHostOOM, backend.Certain, "killed by the kernel: the machine's memory ran out"},
		{"started again since", restarted, []string{dockerLine("oom", ""), dockerLine("die", `,"exitCode":"137"`), dockerLine("start", "")}, backend.KindHostOOM, backend.Certain, "killed by the kernel"},
		{"a child was killed for memory", dockerEnded("1", "true"), nil, backend.KindHostOOM, backend.Likely, "memory ran out"},
		{"killed", dockerEnded("137", "false"), nil, backend.KindKilled, backend.Likely, "signal 9"},
		{"crashed", dockerEnded("139", "false"), nil, backend.KindCrash, backend.Certain, "signal 11"},
		{"exit", dockerEnded("1", "false"), nil, backend.KindCrash, backend.Likely, "exit status 1"},
		{"stopped", dockerEnded("137", "false"), []string{dockerLine("kill", `,"signal":"15"`), dockerLine("kill", `,"signal":"9"`), dockerLine("die", `,"exitCode":"137"`), dockerLine("stop", "")}, backend.KindAsked, backend.Certain, "stopped by docker"},
		{"started again, and no events", restarted, nil, backend.KindUnknown, backend.Unknown, "how is not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, err := parseContainer([]byte(c.now))
			if err != nil {
				t.Fatal(err)
			}
			f := fateOfContainer("comfy", was, now, parseEvents([]byte(strings.Join(c.events, "\n"))))
			v := judgeOutside(Evidence{Ended: keeper.Ended{At: time.Now()}, Ready: true}, f, "it ended")
			if v.Kind != c.kind || v.Certainty != c.certainty || !strings.Contains(v.Summary, c.summary) {
				t.Errorf("%s (%s): %s, of %q", v.Kind, v.Certainty, v.Summary, v.Evidence)
			}
		})
	}
	if f := fateOfContainer("comfy", was, was, nil); !f.StillThere {
		t.Errorf("a container that runs: %+v", f)
	}
}

func TestParseJournal(t *testing.T) {
	for line, want := range map[string]string{
		`{"MESSAGE":"got prompt","__CURSOR":"s=1"}`:                  "got prompt",
		`{"MESSAGE":[49,48,37,13,50,48,37],"__CURSOR":"s=2"}`:        "10%\r20%",
		`{"MESSAGE":null,"__CURSOR":"s=3"}`:                          "",
		`{"MESSAGE":["first","second"],"__CURSOR":"s=4"}`:            "first",
		`{"MESSAGE":"x","_SYSTEMD_INVOCATION_ID":"a","EXIT_CODE":1}`: "x",
	} {
		if e, ok := parseJournal([]byte(line)); !ok || e.Text != want || e.Systemd {
			t.Errorf("%s: %+v", line, e)
		}
	}
	if _, ok := parseJournal([]byte("-- No entries --")); ok {
		t.Error("read a line that is no entry")
	}
}
