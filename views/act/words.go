package act

import (
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"easel/backend"
	"easel/tui/text"
	"easel/tui/theme"
	"easel/tui/widget"
)

// Sign is the symbol of a job's state with its style. It is always drawn beside
// a word, or beside a place that says the same.
func Sign(t *theme.Theme, j backend.Job) (string, lipgloss.Style) {
	switch j.State {
	case backend.JobRunning:
		if j.Cancelling {
			return "◌", t.Warn
		}
		return "▶", t.Accent
	case backend.JobHeld:
		return "‖", t.Held
	case backend.JobSucceeded:
		return "✓", t.Good
	case backend.JobFailed:
		return "✗", t.Danger
	case backend.JobCancelled:
		return "∅", t.Muted
	}
	return "·", t.Muted
}

// Word is the state of a job in one word.
func Word(j backend.Job) string {
	if j.Cancelling && !j.State.Final() {
		return text.T("cancelling")
	}
	switch j.State {
	case backend.JobRunning:
		return text.T("running")
	case backend.JobHeld:
		return text.T("held")
	case backend.JobSucceeded:
		return text.T("done")
	case backend.JobFailed:
		return text.T("failed")
	case backend.JobCancelled:
		return text.T("cancelled")
	}
	if n := len(j.Attempts); n > 0 && j.Attempts[n-1].Outcome == backend.OutcomeSent {
		return text.T("next")
	}
	return text.T("queued")
}

// Name is a job's name, clean, with what tells it from others of the same name.
func Name(j backend.Job) string {
	n := widget.Clean(j.Name)
	if strings.TrimSpace(n) == "" {
		n = text.T("job %s", Short(j.ID))
	}
	return n
}

// Short is the beginning of an id that people can type.
func Short(id string) string {
	id = widget.Clean(id)
	if len(id) > 8 {
		return id[:8]
	}
	return id
}

// Step is where a running job is: "KSampler 14/20".
func Step(p *backend.Progress) string {
	if p == nil {
		return ""
	}
	s := widget.Clean(p.Title)
	if s == "" {
		s = widget.Clean(p.Class)
	}
	if s == "" && p.Node != "" {
		s = text.T("node %s", widget.Clean(p.Node))
	}
	if p.Max > 1 {
		s += " " + widget.Number(int(p.Value)) + "/" + widget.Number(int(p.Max))
	}
	return strings.TrimSpace(s)
}

// ETA is "eta 1m40s", or "" while unknown.
func ETA(p *backend.Progress) string {
	if p == nil || p.ETAS == nil {
		return ""
	}
	return text.T("eta %s", widget.Seconds(*p.ETAS))
}

// Took is how long a job's work took: the seconds inside ComfyUI, else from start
// to end.
func Took(j backend.Job) string {
	if j.InferenceS != nil {
		return widget.Seconds(*j.InferenceS)
	}
	if !j.Started.IsZero() && !j.Finished.IsZero() {
		return widget.Duration(j.Finished.Sub(j.Started.Time))
	}
	return ""
}

// Image is the index of the first output that is a picture, -1 when there is
// none.
func Image(j backend.Job) int {
	for i, o := range j.Outputs {
		if o.Kind == "image" {
			return i
		}
	}
	return -1
}

// Result says in one line what came out of a finished job.
func Result(j backend.Job) string {
	switch {
	case j.State == backend.JobFailed && j.Error != nil:
		return Failure(j.Error)
	case j.State == backend.JobFailed:
		return text.T("failed")
	case j.State == backend.JobCancelled:
		return text.T("cancelled")
	case len(j.Outputs) == 0:
		return text.T("done, nothing was saved")
	}
	o := j.Outputs[0]
	if o.Kind == "text" {
		return text.T("text: %s", widget.Clean(o.Text))
	}
	s := widget.Clean(o.Filename)
	if o.Width != nil && o.Height != nil {
		s += text.T("  %d×%d", *o.Width, *o.Height)
	}
	if n := len(j.Outputs); n > 1 {
		s += text.T("  +%d more", n-1)
	}
	return s
}

// Failure is an error in one line with its remedy.
func Failure(e *backend.Error) string {
	s := text.Said(widget.Clean(e.Message))
	if where := Where(e); where != "" {
		s = where + ": " + s
	}
	if r := text.Said(widget.Clean(e.Remedy)); r != "" {
		s += " · " + r
	}
	return s
}

// Where names the node an error comes from.
func Where(e *backend.Error) string {
	switch {
	case e.Title != "":
		return widget.Clean(e.Title)
	case e.Class != "":
		return widget.Clean(e.Class)
	case e.Node != "":
		return text.T("node %s", widget.Clean(e.Node))
	}
	return ""
}

// Clock is t as a local clock time, with the date when it is another day than
// now.
func Clock(t backend.Time, now time.Time, loc *time.Location) string {
	if t.IsZero() {
		return ""
	}
	l, n := t.In(loc), now.In(loc)
	if l.YearDay() == n.YearDay() && l.Year() == n.Year() {
		return l.Format("15:04:05")
	}
	return l.Format("2006-01-02 15:04")
}
