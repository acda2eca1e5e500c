package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/keeper"
)

// Bounds of questions to systemd and docker.
const (
	askWithin = 3 * time.Second
	// fateWithin is how long they may take to notice an end.
	fateWithin = 1500 * time.Millisecond
)

// runner says who runs a launch, for the record.
type runner struct {
	Unit      *unitRun   `json:"unit,omitempty"`
	Container *container `json:"container,omitempty"`
}

// unitRun is one invocation of a unit.
type unitRun struct {
	User       bool   `json:"user,omitempty"` // of the user's manager
	Main       int    `json:"main"`
	Invocation string `json:"invocation"`
	Since      int64  `json:"since"` // when it was seen first, seconds since 1970
}

func (r runner) known() bool { return r.Unit != nil || r.Container != nil }

// command runs a program for its output, bounded in time.
func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	words := &tailWriter{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, words, time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.Bytes(), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("%s did not answer within %s", name, askWithin)
	case words.last() != "":
		return nil, fmt.Errorf("%s: %s", name, comfy.Plain(words.last(), 200))
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}

// showUnit asks systemd about a unit: the system's manager, then the user's.
func showUnit(ctx context.Context, name string) (u unit, user bool, err error) {
	out, err := command(ctx, "systemctl", "show", name, "--no-pager", "-p", unitProps)
	if err == nil {
		u = parseUnit(out)
		if u.load != "not-found" && u.load != "" {
			return u, false, nil
		}
	}
	out, uerr := command(ctx, "systemctl", "--user", "show", name, "--no-pager", "-p", unitProps)
	if uerr == nil {
		if v := parseUnit(out); v.load != "not-found" && v.load != "" {
			return v, true, nil
		}
	}
	return u, false, err
}

// inspect asks docker about a container.
func inspect(ctx context.Context, name string) (container, error) {
	out, err := command(ctx, "docker", "inspect", "--type", "container", name)
	if err != nil {
		return container{}, err
	}
	return parseContainer(out)
}

// ask says who runs the present launch. What cannot be asked is unknown.
func (x *external) ask(ctx context.Context) runner {
	var err error
	switch x.place.kind {
	case placeJournal:
		var u unit
		var user bool
		if u, user, err = showUnit(ctx, x.place.name); err == nil && u.main != 0 {
			if port, ok := localPort(x.m.spec.URL); ok {
				if l, found := listenerOn(port); found && l.pid != 0 && !descends(l.pid, u.main) {
					x.m.log.Warn("the unit of worker.log does not run what answers", "unit", x.place.name, "main", u.main, "listens", l.pid)
					return runner{}
				}
			}
			return runner{Unit: &unitRun{User: user, Main: u.main, Invocation: u.invocation, Since: time.Now().Unix()}}
		}
	case placeDocker:
		var c container
		if c, err = inspect(ctx, x.place.name); err == nil && c.State.Running {
			return runner{Container: &c}
		}
	}
	if err != nil && ctx.Err() == nil {
		x.m.log.Warn("ask who runs the worker", "place", x.place.String(), "err", err)
	}
	return runner{}
}

// fate asks who ran the launch how it ended, again for a moment while they have not
// noticed.
func (x *external) fate(ctx context.Context) fate {
	for end := time.Now().Add(fateWithin); ; {
		f := x.fateOnce(ctx)
		if !f.StillThere || time.Now().After(end) || ctx.Err() != nil {
			return f
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

func (x *external) fateOnce(ctx context.Context) fate {
	switch {
	case x.who.Unit != nil:
		return x.unitFate(ctx, *x.who.Unit)
	case x.who.Container != nil:
		return x.containerFate(ctx, *x.who.Container)
	}
	f := fate{PID: x.pid}
	if status, signal, ok := x.witness.Exit(ctx); ok {
		f.end(signal == 0, cmp.Or(signal, status))
		f.say("the kernel tells how pid %d ended, whoever its parent is (pidfd)", x.pid)
	}
	return f
}

func (x *external) unitFate(ctx context.Context, was unitRun) fate {
	now, _, err := showUnit(ctx, x.place.name)
	if err != nil {
		return fate{PID: was.Main, Unsure: err.Error()}
	}
	of := "-u"
	if was.User {
		of = "--user-unit"
	}
	var entries []journalEntry
	out, err := command(ctx, "journalctl", of, x.place.name, "-a", "-q", "--no-pager", "-o", "json", "-n", "200", fmt.Sprintf("--since=@%d", was.Since-1))
	if err != nil {
		x.m.log.Info("read the journal of a unit", "err", err)
	}
	for line := range bytes.SplitSeq(out, []byte{'\n'}) {
		if e, ok := parseJournal(line); ok {
			entries = append(entries, e)
		}
	}
	return fateOfUnit(x.place.name, unit{main: was.Main, invocation: was.Invocation}, now, entries)
}

func (x *external) containerFate(ctx context.Context, was container) fate {
	now, err := inspect(ctx, x.place.name)
	if err != nil {
		return fate{PID: was.State.Pid, Unsure: err.Error()}
	}
	var events []dockerEvent
	if !now.State.StartedAt.Equal(was.State.StartedAt) || !now.State.Running {
		since, until := was.State.StartedAt.Unix(), time.Now().Unix()+1
		out, err := command(ctx, "docker", "events", "--since", fmt.Sprint(since), "--until", fmt.Sprint(until), "--filter", "container="+was.ID, "--format", "{{json .}}")
		if err != nil {
			x.m.log.Info("read docker's events", "err", err)
		}
		events = parseEvents(out)
	}
	return fateOfContainer(x.place.name, was, now, events)
}

// ended explains the end of the launch, and tells it, once.
func (x *external) ended(ctx context.Context, why string) {
	if x.launch == "" || x.told {
		return
	}
	x.told = true
	m := x.m
	at := time.Now()
	f := x.fate(ctx)
	e := Evidence{
		Ended: keeper.Ended{Launch: x.launch, PID: cmp.Or(x.pid, f.PID), At: at, ExitCode: -1}, Worker: m.spec.ID, Launch: x.launch, Ready: true, Lines: x.lastWords(),
	}
	if x.watch != nil {
		e.Machine = x.watch.end(e.Ended)
	}
	x.mu.Lock()
	if x.asked != "" && x.stall == nil {
		e.Asked = x.asked
	}
	e.Stall = x.stall
	close(x.gone)
	x.mu.Unlock()
	m.mu.Lock()
	e.Job, e.Node = m.running()
	m.mu.Unlock()
	v := judgeOutside(e, f, why)
	x.letGo()
	x.launch, x.pid, x.who = "", 0, runner{}
	if v.Kind != backend.KindAsked {
		m.edit(func(w *backend.Worker) { w.LastDeath = &v })
		m.run.rec.LastDeath = &v
	}
	x.save()
	m.report(v, "")
}

// judgeOutside explains an end of a launch that somebody else started.
func judgeOutside(e Evidence, f fate, why string) backend.Verdict {
	e.Ended.StatusKnown = f.Known
	if f.Known {
		e.Ended.ExitCode, e.Ended.Signal = f.Exit, f.Signal
	}
	if !f.At.IsZero() {
		e.Ended.At = f.At
	}
	if e.Asked == "" && e.Stall == nil {
		e.Asked = f.Asked
	}
	v, _ := judge(e)
	switch {
	case v.Kind == backend.KindAsked, e.Stall != nil:
	case f.OOM != "" && v.Kind != backend.KindHostOOM:
		keep := v
		o := oom{certainty: backend.Likely, by: "the kernel", evidence: []string{f.OOM}}
		if f.OOMCertain {
			o.certainty = backend.Certain
		}
		if e.Machine == nil {
			e.Machine = &Machine{Free: -1}
		}
		o.had = e.Machine.fullness("")
		hostOOM(&v, e, o)
		v.Evidence = append([]string{f.OOM}, keep.Evidence...)
	case f.OOM != "":
		if f.OOMCertain {
			v.Certainty = backend.Certain
		}
		v.Evidence = append([]string{f.OOM}, v.Evidence...)
	case f.Watchdog:
		v.Kind, v.Certainty = backend.KindStall, backend.Certain
		v.Summary = "systemd ended it: it did not answer systemd's watchdog"
	case v.Kind == backend.KindUnknown && !f.Known:
		v.Summary = why + "; its end was seen, how is not known"
		v.Remedy = "look where it was started: Easel is not its parent; with worker.log = \"journal:UNIT\" or \"docker:NAME\" the next end is explained"
	}
	if f.Unsure != "" {
		f.say("%s", f.Unsure)
	}
	v.Evidence = append(slices.Clone(f.Words), v.Evidence...)
	v.Remedy = comfy.Plain(againWords(v.Remedy, f.Again), 600)
	return v
}

// againWords puts who starts it again, if anybody, in the place of Easel.
func againWords(remedy, again string) string {
	if again == "" {
		again = "start it again where it was started"
	}
	for _, ours := range []string{"it is started again", "it was restarted", "the worker was restarted"} {
		remedy = strings.Replace(remedy, ours, again, 1)
	}
	return remedy
}
