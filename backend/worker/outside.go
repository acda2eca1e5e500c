package worker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"easel/backend/comfy"
)

// Kinds of a place.
const (
	placeJournal = "journal"
	placeDocker  = "docker"
	placeFile    = "file"
)

// place is where a ComfyUI of somebody else writes its log, which for the first two
// also says who runs it and so who knows how it ended.
type place struct {
	kind string // journal, docker, file; "" for ComfyUI's own /internal/logs
	name string // unit, container or path
}

// placeOf reads worker.log.
func placeOf(text string) place {
	kind, name, found := strings.Cut(text, ":")
	switch {
	case text == "":
		return place{}
	case found && (kind == placeJournal || kind == placeDocker):
		if kind == placeJournal && !strings.Contains(name, ".") {
			name += ".service" // as systemctl reads a name without a type
		}
		return place{kind, name}
	}
	return place{placeFile, text}
}

// String names the place in a sentence.
func (p place) String() string {
	switch p.kind {
	case placeJournal:
		return "systemd unit " + p.name
	case placeDocker:
		return "container " + p.name
	case placeFile:
		return p.name
	}
	return "its own log"
}

// unitProps are the properties that `systemctl show` is asked for.
const unitProps = "LoadState,ActiveState,SubState,Result,MainPID,ExecMainPID,ExecMainCode,ExecMainStatus," +
	"ExecMainStartTimestampMonotonic,ExecMainExitTimestampMonotonic,InvocationID,NRestarts,OOMPolicy,Restart"

// unit is what systemd says of a unit.
type unit struct {
	load, active, sub, result string
	// main is the main process, 0 while none runs; last is the one that ran last.
	main, last int
	// code is how the last one ended (CLD_EXITED 1, CLD_KILLED 2, CLD_DUMPED 3; 0: it
	// runs), status its exit status or signal.
	code, status int
	exited       int64 // microseconds since boot; 0: it runs
	invocation   string
	restarts     int
	oomPolicy    string
	restart      string // when systemd starts it again: no, on-failure, always …
}

// parseUnit reads the output of `systemctl show`.
func parseUnit(out []byte) unit {
	v := map[string]string{}
	for line := range bytes.SplitSeq(out, []byte{'\n'}) {
		if key, value, ok := strings.Cut(string(line), "="); ok {
			v[key] = strings.TrimSpace(value)
		}
	}
	number := func(key string) int {
		n, _ := strconv.Atoi(v[key])
		return n
	}
	exited, _ := strconv.ParseInt(v["ExecMainExitTimestampMonotonic"], 10, 64)
	return unit{
		load: v["LoadState"], active: v["ActiveState"], sub: v["SubState"], result: v["Result"],
		main: number("MainPID"), last: number("ExecMainPID"), code: number("ExecMainCode"), status: number("ExecMainStatus"),
		exited: exited, invocation: v["InvocationID"], restarts: number("NRestarts"), oomPolicy: v["OOMPolicy"], restart: v["Restart"],
	}
}

// Message ids of systemd (sd-messages.h).
const (
	msgStopping = "de5b426a63be47a7b6ac3eaac82e2f6f" // a stop of the unit was asked for
	msgOOM      = "fe6faa94e7774663a0da52717891d8ef" // the kernel killed a process of it
)

// journalEntry is a line of `journalctl -o json`.
type journalEntry struct {
	Text       string
	At         time.Time
	Cursor     string
	ID         string // MESSAGE_ID
	Invocation string // that it is about, or that wrote it
	Systemd    bool   // systemd wrote it, about the unit
	Exit       string // exited, killed, dumped; "" unless it tells of an end
	Status     int
	Result     string // of the unit: oom-kill, signal, exit-code …
}

// parseJournal reads one line of `journalctl -o json`. Every value is a string, or an
// array of bytes when it is not printable, as with the \r of a progress bar.
func parseJournal(line []byte) (journalEntry, bool) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(line, &raw) != nil {
		return journalEntry{}, false
	}
	get := func(key string) string { return journalValue(raw[key]) }
	e := journalEntry{
		Text: get("MESSAGE"), Cursor: get("__CURSOR"), ID: get("MESSAGE_ID"), Exit: get("EXIT_CODE"), Result: get("UNIT_RESULT"),
		Invocation: firstOf(firstOf(get("INVOCATION_ID"), get("USER_INVOCATION_ID")), get("_SYSTEMD_INVOCATION_ID")),
	}
	e.Systemd = get("UNIT") != "" || get("USER_UNIT") != "" || get("INVOCATION_ID") != "" || get("USER_INVOCATION_ID") != ""
	e.Status, _ = strconv.Atoi(get("EXIT_STATUS"))
	if us, err := strconv.ParseInt(get("__REALTIME_TIMESTAMP"), 10, 64); err == nil {
		e.At = time.UnixMicro(us)
	}
	return e, true
}

// journalValue is the text of a field.
func journalValue(raw json.RawMessage) string {
	var s string
	if len(raw) == 0 || json.Unmarshal(raw, &s) == nil {
		return s
	}
	var codes []int
	if json.Unmarshal(raw, &codes) == nil {
		b := make([]byte, len(codes))
		for i, n := range codes {
			b[i] = byte(n)
		}
		return string(b)
	}
	var many []json.RawMessage // a field that was given more than once
	if json.Unmarshal(raw, &many) == nil && len(many) > 0 {
		return journalValue(many[0])
	}
	return ""
}

// container is what `docker inspect` says of a container.
type container struct {
	ID    string
	State struct {
		Status     string
		Running    bool
		Restarting bool
		OOMKilled  bool
		Pid        int
		ExitCode   int
		Error      string
		StartedAt  time.Time
		FinishedAt time.Time
	}
	RestartCount int
	HostConfig   struct {
		RestartPolicy struct{ Name string }
	}
}

// parseContainer reads the output of `docker inspect`.
func parseContainer(out []byte) (container, error) {
	var list []container
	if err := json.Unmarshal(out, &list); err != nil {
		return container{}, fmt.Errorf("docker inspect: %w", err)
	}
	if len(list) == 0 || list[0].ID == "" {
		return container{}, fmt.Errorf("docker inspect: there is no such container")
	}
	return list[0], nil
}

// launch is the id of the run of the container.
func (c container) launch() string {
	return "docker-" + short(c.ID) + "-" + strconv.FormatInt(c.State.StartedAt.UnixMilli(), 10)
}

// dockerEvent is a line of `docker events --format '{{json .}}'`.
type dockerEvent struct {
	Action   string
	TimeNano int64 `json:"timeNano"`
	Actor    struct {
		ID         string
		Attributes map[string]string
	}
}

// fate is what who runs a ComfyUI says about the end of a launch of it.
type fate struct {
	// Known says that exit status or signal are.
	Known        bool
	Exit, Signal int
	PID          int // of the process, 0 unknown
	At           time.Time
	OOM          string // words that say that it was killed for memory
	OOMCertain   bool
	Asked        string // who asked for it, in words
	Watchdog     bool
	Words        []string // evidence
	Again        string   // who starts it again, in words; "" nobody
	Unsure       string   // why nothing is known
	StillThere   bool     // that launch has not ended
}

// fateOfUnit reads the end of the invocation was from the state of the unit now and
// what systemd wrote about it. The state is of a newer invocation when it was
// started again; then only the journal knows.
func fateOfUnit(name string, was, now unit, entries []journalEntry) fate {
	f := fate{PID: was.main}
	if now.restart != "" && now.restart != "no" {
		f.Again = "systemd starts it again (Restart=" + comfy.Plain(now.restart, 20) + ")"
	}
	if was.invocation != "" && now.invocation == was.invocation && now.main != 0 && now.main == was.main && now.exited == 0 {
		return fate{StillThere: true}
	}
	same := now.invocation == was.invocation && (was.main == 0 || now.last == was.main)
	result := ""
	if same && now.code != 0 {
		f.end(now.code == 1, now.status)
		result = now.result
		f.say("systemctl show %s: Result=%s, ExecMainCode=%d, ExecMainStatus=%d, NRestarts=%d, OOMPolicy=%s", name, now.result, now.code, now.status, now.restarts, now.oomPolicy)
	}
	stopping := false
	for _, e := range entries {
		if e.Invocation != was.invocation || !e.Systemd {
			continue
		}
		switch {
		case e.Exit != "" && strings.Contains(e.Text, "Main process"):
			f.end(e.Exit == "exited", e.Status)
			f.At = e.At
		case e.Result != "":
			result = firstOf(result, e.Result)
		case e.ID == msgOOM:
			f.OOM = "systemd saw the kernel kill a process of the unit for memory"
		case e.ID == msgStopping:
			stopping = true
		default:
			continue
		}
		f.say("systemd: %s", e.Text)
	}
	f.ofResult(result, now, same, stopping)
	if !f.Known && f.Unsure == "" {
		f.Unsure = "systemd has started it again already, and its journal does not tell how it ended"
	}
	return f
}

// ofResult reads the unit's result.
func (f *fate) ofResult(result string, now unit, same, stopping bool) {
	switch result {
	case "oom-kill":
		f.OOM, f.OOMCertain = "systemd says oom-kill", true
	case "watchdog":
		f.Watchdog = true
	case "timeout":
		f.say("systemd had it ended: a start or a stop of the unit took too long (Result=timeout)")
	}
	if f.OOM != "" && f.Known && f.Signal == 9 {
		f.OOMCertain = true
	}
	over := same && (now.active == "inactive" || now.active == "deactivating")
	if stopping || over && (result == "success" || result == "") && f.Known && (f.Signal == 15 || f.Signal == 2 || f.Exit == 0 && f.Signal == 0) {
		f.Asked = "systemd, as somebody asked it to (systemctl stop or restart)"
		f.Again = ""
	}
}

// end notes exit status or signal.
func (f *fate) end(exited bool, status int) {
	f.Known = true
	f.Exit, f.Signal = -1, 0
	if exited {
		f.Exit = status
	} else {
		f.Signal = status
	}
}

// say adds evidence, once.
func (f *fate) say(format string, args ...any) {
	s := comfy.Plain(fmt.Sprintf(format, args...), lineLength)
	for _, w := range f.Words {
		if w == s {
			return
		}
	}
	f.Words = append(f.Words, s)
}

// fateOfContainer reads the end of the run was from the container now and from what
// docker saw happen to it.
func fateOfContainer(name string, was, now container, events []dockerEvent) fate {
	f := fate{PID: was.State.Pid}
	if p := now.HostConfig.RestartPolicy.Name; p != "" && p != "no" {
		f.Again = "docker starts it again (restart policy " + comfy.Plain(p, 20) + ")"
	}
	same := now.ID == was.ID && now.State.StartedAt.Equal(was.State.StartedAt)
	if same && now.State.Running && !now.State.Restarting {
		return fate{StillThere: true}
	}
	if same {
		f.code(now.State.ExitCode)
		f.At = now.State.FinishedAt
		f.say("docker inspect %s: Status=%s, ExitCode=%d, OOMKilled=%v, RestartCount=%d", name, now.State.Status, now.State.ExitCode, now.State.OOMKilled, now.RestartCount)
		if now.State.Error != "" {
			f.say("docker: %s", now.State.Error)
		}
		if now.State.OOMKilled {
			f.OOM, f.OOMCertain = "docker says OOMKilled", now.State.ExitCode == 137
		}
	}
	for _, e := range events {
		at := time.Unix(0, e.TimeNano)
		if e.Actor.ID != was.ID || at.Before(was.State.StartedAt) || !same && at.After(now.State.StartedAt) {
			continue
		}
		switch e.Action {
		case "die":
			if n, err := strconv.Atoi(e.Actor.Attributes["exitCode"]); err == nil {
				f.code(n)
				f.At = at
				f.say("docker: die, exit code %d", n)
			}
		case "oom":
			f.OOM = "docker saw the kernel kill a process of the container for memory"
			f.say("docker: oom")
		case "kill":
			f.say("docker: kill, signal %s", e.Actor.Attributes["signal"])
			f.Asked = "docker, as somebody asked it to (docker stop, restart or kill)"
		case "stop", "restart":
			f.Asked = "docker, as somebody asked it to (docker " + e.Action + ")"
		}
	}
	if f.OOM != "" && f.Signal == 9 {
		f.OOMCertain = true
	}
	if f.OOM != "" {
		f.Asked = ""
	}
	if !f.Known {
		f.Unsure = "docker has started it again already and no longer tells how it ended"
	}
	return f
}

// parseEvents reads the output of `docker events --format '{{json .}}'`.
func parseEvents(out []byte) []dockerEvent {
	var list []dockerEvent
	for line := range bytes.SplitSeq(out, []byte{'\n'}) {
		var e dockerEvent
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			list = append(list, e)
		}
	}
	return list
}

// code notes docker's exit code, which is 128 and the signal for one that a signal
// ended.
func (f *fate) code(n int) {
	switch sig := n - 128; {
	case sig > 0 && signalNames[sig] != "":
		f.end(false, sig)
	default:
		f.end(true, n)
	}
}
