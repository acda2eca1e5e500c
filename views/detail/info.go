package detail

import (
	"strings"

	"easel/backend"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
	"easel/views/act"
)

func joinLines(lines []string) string { return strings.Join(lines, "\n") }

// Instead is what is drawn where a picture is not: that it comes, why it does
// not, or that this terminal shows none.
func Instead(env *screen.Env, slot string, cols, rows int) []string {
	t := env.Theme
	_, err := env.Pics.Shown(slot)
	say, style := text.T("the picture comes …"), t.Muted
	if err != "" {
		say, style = text.T("no picture: %s", widget.Clean(err)), t.Warn
	}
	lines := make([]string, rows)
	wrapped := widget.Wrap(say, max(cols-2, 1), rows)
	top := (rows - len(wrapped)) / 2
	for i, l := range wrapped {
		pad := max((cols-widget.Width(l))/2, 0)
		lines[top+i] = widget.Spaces(pad) + style.Render(l)
	}
	return lines
}

// info is the column of facts, w cells wide, each line styled.
func (m *Model) info(w int) []string {
	p := &pane{t: m.env.Theme, w: w}
	m.head(p)
	if e := m.job.Error; e != nil {
		m.failure(p, e)
	}
	for _, wn := range m.job.Warnings {
		p.prose(p.t.Warn, "! "+widget.Clean(wn))
	}
	m.output(p)
	if m.job.State == backend.JobFailed { // how it failed comes before what it was
		m.attempts(p)
		m.made(p)
	} else {
		m.made(p)
		m.attempts(p)
	}
	p.gap()
	p.pair(text.T("id"), widget.Clean(m.job.ID))
	if m.job.Group != "" {
		p.pair(text.T("group"), widget.Clean(m.job.Group))
	}
	if m.job.RetryOf != nil {
		p.pair(text.T("retry of"), act.Short(*m.job.RetryOf))
	}
	return p.lines
}

func (m *Model) head(p *pane) {
	j, now := m.job, m.env.Now
	sign, style := act.Sign(p.t, j)
	p.add(style.Render(sign+" "+act.Word(j)) + "  " + p.t.Muted.Render(text.Said(widget.Clean(j.WaitReason))))
	if j.Progress != nil {
		p.add(widget.Bar(j.Progress.Fraction, min(w2(p.w), 40), p.t.Accent, p.t.Faint) + " " + widget.Percent(j.Progress.Fraction))
		p.add(p.t.Muted.Render(act.Step(j.Progress) + "  " + act.ETA(j.Progress)))
	}
	p.gap()
	p.pair(text.T("queued"), act.Clock(j.Created, now, m.env.Loc))
	p.pair(text.T("started"), act.Clock(j.Started, now, m.env.Loc))
	p.pair(text.T("finished"), act.Clock(j.Finished, now, m.env.Loc))
	p.pair(text.T("took"), act.Took(j))
	p.pair(text.T("owner"), widget.Clean(j.Owner))
	if j.Priority != 0 {
		p.pair(text.T("priority"), widget.Number(j.Priority))
	}
}

func w2(w int) int { return max(w-8, 4) }

func (m *Model) failure(p *pane, e *backend.Error) {
	p.gap()
	where := act.Where(e)
	if e.Input != "" {
		where += " · " + widget.Clean(e.Input)
	}
	p.title(text.T("what failed"), p.t.Danger)
	p.prose(p.t.Text, strings.TrimPrefix(where+": ", ": ")+text.Said(widget.Clean(e.Message)))
	if e.Remedy != "" {
		p.prose(p.t.Good, "→ "+text.Said(widget.Clean(e.Remedy)))
	}
	if e.Quarantined {
		p.prose(p.t.Muted, text.T("It took its worker down twice, so it is not tried again by itself. t tries it anyway."))
	}
}

func (m *Model) output(p *pane) {
	if m.out >= len(m.job.Outputs) {
		return
	}
	o := m.job.Outputs[m.out]
	p.gap()
	p.title(text.T("output"), p.t.Title)
	if o.Kind == "text" {
		p.prose(p.t.Text, widget.CleanLong(o.Text, maxFactText))
		return
	}
	p.prose(p.t.Strong, widget.Clean(o.Filename))
	size := ""
	if o.Width != nil && o.Height != nil {
		size = text.T("%d×%d", *o.Width, *o.Height)
	}
	if o.Bytes != nil {
		size = strings.TrimSpace(size + "  " + widget.Bytes(*o.Bytes))
	}
	p.pair(text.T("size"), size)
	p.prose(p.t.Muted, widget.Clean(o.Path))
}

func (m *Model) made(p *pane) {
	p.gap()
	switch {
	case m.err != "":
		p.prose(p.t.Warn, text.T("what made it is not known: %s", widget.Clean(m.err)))
		return
	case !m.have:
		p.add(p.t.Muted.Render(text.T("reading what made it …")))
		return
	}
	for _, f := range m.facts {
		if f.long {
			p.title(f.label, p.t.Title)
			p.prose(p.t.Text, f.value)
			p.gap()
			continue
		}
		p.pair(f.label, f.value)
	}
}

func (m *Model) attempts(p *pane) {
	if len(m.job.Attempts) == 0 || len(m.job.Attempts) == 1 && m.job.Attempts[0].Verdict == nil {
		return
	}
	p.gap()
	p.title(text.T("attempts: how often it was tried"), p.t.Title)
	for _, a := range m.job.Attempts {
		took := ""
		if !a.Started.IsZero() && !a.Finished.IsZero() {
			took = widget.Duration(a.Finished.Sub(a.Started.Time))
		}
		p.add(strings.TrimRight(text.T("%d  %s  %s  %s  %s", a.N, widget.Clean(a.Worker), p.outcome(a.Outcome),
			p.t.Muted.Render(act.Clock(a.Started, m.env.Now, m.env.Loc)), p.t.Muted.Render(took)), " "))
		if v := a.Verdict; v != nil {
			p.indent(p.t.Text, widget.Clean(v.Kind)+": "+text.Said(widget.Clean(v.Summary)))
			if v.Remedy != "" {
				p.indent(p.t.Good, "→ "+text.Said(widget.Clean(v.Remedy)))
			}
		}
		if n := len(a.Leftovers); n > 0 {
			p.indent(p.t.Muted, text.N(n, "%d file was left behind: %s", "%d files were left behind, the first is %s", widget.Clean(a.Leftovers[0])))
		}
	}
}
