// Package act is what can be done to jobs, the same on every screen: cancel, try
// again, hold, move, priority, clear, pause, and adding a workflow to the queue.
// It asks before it destroys, acts only on jobs in a state where the verb means
// something, and says what happened. It draws nothing.
package act

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// by is how the console names itself in the records.
const by = "console"

// Service is the part of the engine that acts on jobs. Its methods block until
// the engine answered and are only called in commands.
type Service interface {
	Submit(ctx context.Context, s backend.Submission) (job backend.Job, created bool, err error)
	Act(ctx context.Context, a backend.JobAction) ([]backend.Job, error)
	Pause(ctx context.Context, afterCurrent bool, by string) error
	Resume(ctx context.Context, by string) error
}

// Loader reads a workflow file and makes a submission of it, or says why it
// cannot. It is called in a command.
type Loader func(ctx context.Context, path string) (backend.Submission, error)

// Jobs acts on jobs.
type Jobs struct {
	env  *screen.Env
	svc  Service
	load Loader
}

// New makes the actions; load may be nil, then adding says that it cannot.
func New(env *screen.Env, svc Service, load Loader) *Jobs {
	return &Jobs{env: env, svc: svc, load: load}
}

// do sends a verb for the jobs of sel that keep says yes to.
func (a *Jobs) do(verb backend.Verb, delta int, sel []backend.Job, done func(n int, first string) string) tea.Cmd {
	ids := make([]string, 0, len(sel))
	for _, j := range sel {
		ids = append(ids, j.ID)
	}
	first := widget.Clean(sel[0].Name)
	return a.env.Call(func(ctx context.Context) tea.Msg {
		_, err := a.svc.Act(ctx, backend.JobAction{Verb: verb, Jobs: backend.JobFilter{IDs: ids}, Delta: delta, By: by})
		if err != nil {
			return screen.SaidMsg{Err: err}
		}
		return screen.SaidMsg{Tone: screen.Good, Text: done(len(ids), first)}
	})
}

// only is the jobs of sel for which ok holds.
func only(sel []backend.Job, ok func(backend.Job) bool) []backend.Job {
	return slices.DeleteFunc(slices.Clone(sel), func(j backend.Job) bool { return !ok(j) })
}

// Waits reports whether a job waits in the queue.
func Waits(j backend.Job) bool { return j.State == backend.JobQueued || j.State == backend.JobHeld }

func isFinal(j backend.Job) bool { return j.State.Final() }
func notFinal(j backend.Job) bool {
	return !j.State.Final() && !j.Cancelling
}

// say counts jobs in a sentence: with one its name, else the number.
func say(n int, first, one, many string) string {
	if n == 1 {
		return text.T(one, first)
	}
	return text.T(many, n)
}

// Why says why a verb does not apply to the selection, "" when it does.
func (a *Jobs) Why(verb backend.Verb, sel []backend.Job) string {
	if len(sel) == 0 {
		return text.T("no job is selected")
	}
	switch verb {
	case backend.VerbCancel:
		if len(only(sel, notFinal)) == 0 {
			return text.T("it has ended already")
		}
	case backend.VerbRetry:
		if len(only(sel, isFinal)) == 0 {
			return text.T("it has not ended yet")
		}
	case backend.VerbHold, backend.VerbUp, backend.VerbDown, backend.VerbPriority:
		if len(only(sel, Waits)) == 0 {
			return text.T("it does not wait in the queue")
		}
	}
	return ""
}

// refuse is the toast for a verb that does not apply.
func (a *Jobs) refuse(verb backend.Verb, sel []backend.Job) bool {
	if why := a.Why(verb, sel); why != "" {
		a.env.Shell.Toast(screen.Warn, why)
		return true
	}
	return false
}

// Cancel cancels; it asks when a job is running or there are several.
func (a *Jobs) Cancel(sel []backend.Job) tea.Cmd {
	if a.refuse(backend.VerbCancel, sel) {
		return nil
	}
	sel = only(sel, notFinal)
	act := func() tea.Cmd {
		return a.do(backend.VerbCancel, 0, sel, func(n int, first string) string {
			return say(n, first, "%s: cancel asked", "%d jobs: cancel asked")
		})
	}
	running := only(sel, func(j backend.Job) bool { return j.State == backend.JobRunning })
	if len(running) == 0 && len(sel) == 1 {
		return act()
	}
	d := screen.Dialog{Title: text.T("Cancel"), Tone: screen.Warn}
	if len(sel) == 1 {
		d.Body = []string{text.T("Cancel %s? It is running%s; what it has done is lost.", widget.Clean(sel[0].Name), at(running[0]))}
	} else {
		d.Body = []string{text.T("Cancel %d jobs?", len(sel))}
		if len(running) > 0 {
			d.Body = append(d.Body, text.T("%s is running%s; what it has done is lost.", widget.Clean(running[0].Name), at(running[0])))
		}
	}
	d.Choices = []screen.Choice{
		{Key: "y", Label: text.T("cancel it"), Do: func(bool) tea.Cmd { return act() }},
		{Key: "n", Label: text.T("no"), Default: true},
	}
	a.env.Shell.Ask(d)
	return nil
}

// at says how far a running job is.
func at(j backend.Job) string {
	if j.Progress == nil {
		return ""
	}
	return " (" + widget.Percent(j.Progress.Fraction) + ")"
}

// Retry makes new jobs of finished ones.
func (a *Jobs) Retry(sel []backend.Job) tea.Cmd {
	if a.refuse(backend.VerbRetry, sel) {
		return nil
	}
	return a.do(backend.VerbRetry, 0, only(sel, isFinal), func(n int, first string) string {
		return say(n, first, "%s is queued again", "%d jobs are queued again")
	})
}

// Hold holds waiting jobs; when all of them are held it releases them.
func (a *Jobs) Hold(sel []backend.Job) tea.Cmd {
	if a.refuse(backend.VerbHold, sel) {
		return nil
	}
	sel = only(sel, Waits)
	queued := only(sel, func(j backend.Job) bool { return j.State == backend.JobQueued })
	if len(queued) > 0 {
		return a.do(backend.VerbHold, 0, queued, func(n int, first string) string {
			return say(n, first, "%s is held", "%d jobs are held")
		})
	}
	return a.do(backend.VerbRelease, 0, sel, func(n int, first string) string {
		return say(n, first, "%s is released", "%d jobs are released")
	})
}

// Priority changes the priority of waiting jobs by delta.
func (a *Jobs) Priority(delta int, sel []backend.Job) tea.Cmd {
	if a.refuse(backend.VerbPriority, sel) {
		return nil
	}
	sel = only(sel, Waits)
	p := sel[0].Priority + delta
	return a.do(backend.VerbPriority, delta, sel, func(n int, first string) string {
		if n == 1 {
			return text.T("%s: priority %d", first, p)
		}
		return text.T("%d jobs: priority %+d", n, delta)
	})
}

// Move moves waiting jobs one place up or down.
func (a *Jobs) Move(up bool, sel []backend.Job) tea.Cmd {
	verb := backend.VerbDown
	if up {
		verb = backend.VerbUp
	}
	if a.refuse(verb, sel) {
		return nil
	}
	return a.do(verb, 0, only(sel, Waits), func(n int, first string) string {
		if up {
			return say(n, first, "%s: one place up", "%d jobs: one place up")
		}
		return say(n, first, "%s: one place down", "%d jobs: one place down")
	})
}

// Clear takes finished jobs out of the records after asking: the ones marked, or
// every finished job when none is.
func (a *Jobs) Clear(marked []backend.Job) tea.Cmd {
	f := backend.JobFilter{States: []backend.JobState{backend.JobSucceeded, backend.JobFailed, backend.JobCancelled}}
	body := text.T("Clear every finished job from the list? The pictures stay where they are.")
	if len(marked) > 0 {
		marked = only(marked, isFinal)
		if len(marked) == 0 {
			a.env.Shell.Toast(screen.Warn, text.T("none of the marked jobs has ended"))
			return nil
		}
		f = backend.JobFilter{}
		for _, j := range marked {
			f.IDs = append(f.IDs, j.ID)
		}
		body = text.N(len(marked), "Clear %d marked job from the list? Its pictures stay where they are.", "Clear %d marked jobs from the list? Their pictures stay where they are.")
	}
	a.env.Shell.Ask(screen.Dialog{
		Title: text.T("Clear"), Tone: screen.Warn, Body: []string{body},
		Choices: []screen.Choice{
			{Key: "y", Label: text.T("clear"), Do: func(bool) tea.Cmd { return a.clear(f) }},
			{Key: "n", Label: text.T("no"), Default: true},
		},
	})
	return nil
}

func (a *Jobs) clear(f backend.JobFilter) tea.Cmd {
	return a.env.Call(func(ctx context.Context) tea.Msg {
		jobs, err := a.svc.Act(ctx, backend.JobAction{Verb: backend.VerbClear, Jobs: f, By: by})
		return screen.SaidMsg{Tone: screen.Good, Text: text.N(len(jobs), "%d job cleared", "%d jobs cleared"), Err: err}
	})
}

// Pause stops the queue after the current job, or lets it go on.
func (a *Jobs) Pause() tea.Cmd {
	paused := a.env.State.Queue.Paused
	return a.env.Call(func(ctx context.Context) tea.Msg {
		if paused {
			return screen.SaidMsg{Tone: screen.Good, Text: text.T("the queue goes on"), Err: a.svc.Resume(ctx, by)}
		}
		return screen.SaidMsg{Tone: screen.Good, Text: text.T("the queue pauses; what runs goes on"), Err: a.svc.Pause(ctx, false, by)}
	})
}

// Add asks for a workflow file, with path already typed, and queues it.
func (a *Jobs) Add(path string) tea.Cmd {
	if a.load == nil {
		a.env.Shell.Toast(screen.Warn, text.T("this console cannot read files; use: easel run FILE"))
		return nil
	}
	a.env.Shell.Prompt(screen.Prompt{
		Title: text.T("Add to the queue"), Label: text.T("workflow"), Value: path,
		Hint:     text.T("a workflow in API format, or a PNG that carries one · tab completes"),
		Complete: Complete,
		Done:     a.add,
	})
	return nil
}

func (a *Jobs) add(path string) tea.Cmd {
	path = expand(strings.TrimSpace(path))
	if path == "" {
		return nil
	}
	return a.env.Call(func(ctx context.Context) tea.Msg {
		sub, err := a.load(ctx, path)
		if err != nil {
			return screen.SaidMsg{Err: err}
		}
		sub.Source = backend.SourceConsole
		if sub.Name == "" {
			sub.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		}
		job, _, err := a.svc.Submit(ctx, sub)
		if err != nil {
			return screen.SaidMsg{Err: err}
		}
		return screen.SaidMsg{Tone: screen.Good, Text: text.T("%s is queued", widget.Clean(job.Name))}
	})
}

// Path is the path that pasted text names, when it looks like one; "" when it
// does not. Terminals quote what is dropped on them.
func Path(pasted string) string {
	p := strings.TrimSpace(pasted)
	p = strings.TrimPrefix(p, "file://")
	if len(p) > 1 && (p[0] == '\'' || p[0] == '"') && p[len(p)-1] == p[0] {
		p = p[1 : len(p)-1]
	}
	p = strings.ReplaceAll(p, `\ `, " ")
	if len(p) > 1024 || strings.ContainsAny(p, "\n\r\x1b{") {
		return ""
	}
	switch strings.ToLower(filepath.Ext(p)) {
	case ".json", ".png":
		return p
	}
	return ""
}

// Complete lists the files and directories that begin like path, directories with
// a slash at the end: at most 200, in order.
func Complete(ctx context.Context, path string) []string {
	dir, base := filepath.Split(path)
	look := expand(dir)
	if look == "" {
		look = "."
	}
	f, err := os.Open(look)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for len(out) < 200 && ctx.Err() == nil {
		list, err := f.ReadDir(256)
		for _, e := range list {
			if name := e.Name(); strings.HasPrefix(name, base) && (base != "" || name[0] != '.') && offered(look, e) {
				if isDir(look, e) {
					name += "/"
				}
				out = append(out, dir+name)
			}
		}
		if err != nil {
			break
		}
	}
	slices.Sort(out)
	return out
}

func offered(dir string, e os.DirEntry) bool {
	switch strings.ToLower(filepath.Ext(e.Name())) {
	case ".json", ".png":
		return true
	}
	return isDir(dir, e)
}

func isDir(dir string, e os.DirEntry) bool {
	if e.Type()&os.ModeSymlink == 0 {
		return e.IsDir()
	}
	st, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && st.IsDir()
}

// expand puts the home directory for a leading ~.
func expand(path string) string {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return home + path[1:]
}

// Copies is what the copy menu offers for a job.
func Copies(j backend.Job, out int) []screen.Copy {
	cs := []screen.Copy{{Name: text.T("id"), Text: j.ID}}
	if out >= 0 && out < len(j.Outputs) {
		if p := j.Outputs[out].Path; p != "" {
			cs = append(cs, screen.Copy{Name: text.T("path"), Text: p})
		}
		if u := j.Outputs[out].URL; u != nil && *u != "" {
			cs = append(cs, screen.Copy{Name: "URL", Text: *u})
		}
	}
	return append(cs, screen.Copy{Name: "curl", Text: fmt.Sprintf(
		`curl --unix-socket "${EASEL_HOME:-$HOME/.local/state/easel}/easel.sock" http://easel/v1/jobs/%s`, j.ID)})
}
