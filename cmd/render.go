package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"easel/backend"
	"easel/tui/text"
)

// What is printed for people. All of it is a function of the values and of now.

// jobHead names the columns of jobRow.
var jobHead = []string{"ID", "STATE", "NAME", "AT", "TOOK", "WHAT"}

// jobRow is a job as a line of `easel jobs ls`.
func jobRow(j backend.Job, now time.Time) []string {
	return []string{short(j.ID), stateWord(j), cut(jobName(j), 32), clock(j.Created, now), jobTook(j, now), cut(jobWhat(j), 60)}
}

// jobName is what a person calls the job.
func jobName(j backend.Job) string {
	if n := oneLine(j.Name); n != "" {
		return n
	}
	return "–"
}

// stateWord is the state, with the cancel that is under way.
func stateWord(j backend.Job) string {
	if j.Cancelling && !j.State.Final() {
		return "cancelling"
	}
	return string(j.State)
}

// jobTook is how long the job ran, or runs, since its first start.
func jobTook(j backend.Job, now time.Time) string {
	switch {
	case j.Started.IsZero():
		return "–"
	case j.Finished.IsZero():
		return span(now.Sub(j.Started.Time))
	}
	return span(j.Finished.Sub(j.Started.Time))
}

// jobWhat says in a few words where the job stands.
func jobWhat(j backend.Job) string {
	switch {
	case j.State == backend.JobSucceeded:
		return outputsInWords(j.Outputs)
	case j.Error != nil && j.State == backend.JobFailed:
		return errorLine(*j.Error)
	case j.State == backend.JobRunning && j.Progress != nil && j.Progress.Node != "":
		return progressWords(*j.Progress)
	case j.State == backend.JobRunning && len(j.Attempts) > 0:
		return attemptWords(j.Attempts[len(j.Attempts)-1])
	case j.Position != nil && j.WaitReason != "":
		return fmt.Sprintf("#%d · %s", *j.Position, text.Said(oneLine(j.WaitReason)))
	case j.Position != nil:
		return fmt.Sprintf("#%d", *j.Position)
	}
	if j.WaitReason == string(j.State) {
		return "" // held: nothing to add
	}
	return text.Said(oneLine(j.WaitReason))
}

// attemptWords says where a job runs, and which try it is when not the first.
func attemptWords(at backend.Attempt) string {
	var parts []string
	if at.Worker != "" {
		parts = append(parts, "on "+oneLine(at.Worker))
	}
	if at.N > 1 {
		parts = append(parts, fmt.Sprintf("attempt %d", at.N))
	}
	return strings.Join(parts, " · ")
}

// outputsInWords names the first output and counts the rest.
func outputsInWords(outs []backend.Output) string {
	if len(outs) == 0 {
		return "no output"
	}
	s := outputName(outs[0])
	if d := dimensions(outs[0]); d != "" {
		s += " " + d
	}
	if len(outs) > 1 {
		s += fmt.Sprintf(" and %d more", len(outs)-1)
	}
	return s
}

// outputName is the file of an output, or the beginning of its text.
func outputName(o backend.Output) string {
	if o.Filename == "" && o.Text != "" {
		return fmt.Sprintf("%q", cut(oneLine(o.Text), 40))
	}
	return oneLine(o.Filename)
}

// dimensions is the size of a picture, "" when it is not known.
func dimensions(o backend.Output) string {
	if o.Width == nil || o.Height == nil {
		return ""
	}
	return fmt.Sprintf("%d×%d", *o.Width, *o.Height)
}

// errorLine is why a job failed, where it did.
func errorLine(e backend.Error) string {
	s := oneLine(e.Message)
	if e.Node != "" && !saysNode(s, e.Node) {
		where := "node " + oneLine(e.Node)
		if e.Class != "" {
			where += " " + oneLine(e.Class)
		}
		if e.Input != "" {
			where += ", input " + oneLine(e.Input)
		}
		s = where + ": " + s
	}
	if e.Quarantined {
		s += " (quarantined)"
	}
	return s
}

// saysNode reports whether a message begins with the node that it is about, as
// those of a check do.
func saysNode(message, node string) bool {
	rest, ok := strings.CutPrefix(oneLine(message), "node "+oneLine(node))
	return ok && (rest == "" || strings.ContainsAny(rest[:1], " :,("))
}

// progressWords is the node at work, its step and the fraction of the whole job.
func progressWords(p backend.Progress) string {
	name := oneLine(p.Title)
	if name == "" {
		name = oneLine(p.Class)
	}
	if name == "" {
		name = "node " + oneLine(p.Node)
	}
	if p.Max > 1 {
		name += fmt.Sprintf(" %.0f/%.0f", p.Value, p.Max)
	}
	s := fmt.Sprintf("%s · %.0f %%", name, p.Fraction*100)
	if p.ETAS != nil {
		s += " · eta " + seconds(*p.ETAS)
	}
	return s
}

// writeJob prints all there is to know about a job.
func writeJob(w io.Writer, j backend.Job, now time.Time) {
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", key, value)
		}
	}
	line("job", j.ID)
	line("name", oneLine(j.Name))
	line("state", strings.TrimSuffix(stateWord(j)+" · "+jobWhat(j), " · "))
	line("from", strings.TrimSuffix(strings.TrimPrefix(oneLine(j.Owner)+" · "+string(j.Source), " · "), " · "))
	line("group", oneLine(j.Group))
	for _, k := range sortedKeys(j.Labels) {
		line("label", oneLine(k)+"="+oneLine(j.Labels[k]))
	}
	if j.Priority != 0 {
		line("priority", fmt.Sprint(j.Priority))
	}
	if j.RetryOf != nil {
		line("retry of", *j.RetryOf)
	}
	line("created", clock(j.Created, now))
	if !j.NotBefore.IsZero() && !j.State.Final() {
		line("not before", clock(j.NotBefore, now))
	}
	if !j.Started.IsZero() {
		line("started", clock(j.Started, now)+" · took "+jobTook(j, now))
	}
	if j.InferenceS != nil {
		line("inference", seconds(*j.InferenceS))
	}
	for _, warning := range j.Warnings {
		line("warning", text.Said(oneLine(warning)))
	}
	for _, at := range j.Attempts {
		writeAttempt(w, at, now)
	}
	if j.Error != nil {
		line("error", j.Error.Kind+" · "+errorLine(*j.Error))
		line("to do", text.Said(oneLine(j.Error.Remedy)))
	}
	for i, o := range j.Outputs {
		line(fmt.Sprint("output ", i), outputLine(o))
	}
}

// writeAttempt prints one try: where, when, how it ended and why.
func writeAttempt(w io.Writer, at backend.Attempt, now time.Time) {
	s := string(at.Outcome)
	if at.Worker != "" {
		s += " on " + oneLine(at.Worker)
	}
	if !at.Started.IsZero() {
		s += " · " + clock(at.Started, now)
		if !at.Finished.IsZero() {
			s += " for " + span(at.Finished.Sub(at.Started.Time))
		}
	}
	fmt.Fprintf(w, "%-10s %s\n", fmt.Sprint("attempt ", at.N), s)
	if at.Verdict != nil {
		writeVerdict(w, *at.Verdict, "           ", -1)
	}
	for _, f := range at.Leftovers {
		fmt.Fprintf(w, "           left behind %s\n", oneLine(f))
	}
}

// someEvidence is how much of the evidence is shown where a verdict is not the
// subject.
const someEvidence = 2

// writeVerdict prints why something ended, what shows it (at most so many lines,
// -1: all) and what to do.
func writeVerdict(w io.Writer, v backend.Verdict, indent string, evidence int) {
	fmt.Fprintf(w, "%s%s\n", indent, verdictLine(v))
	for i, e := range v.Evidence {
		if i == evidence {
			break
		}
		fmt.Fprintf(w, "%s· %s\n", indent, text.Said(oneLine(e)))
	}
	if r := text.Said(oneLine(v.Remedy)); r != "" {
		fmt.Fprintf(w, "%s→ %s\n", indent, r)
	}
}

// verdictLine is a verdict in one line.
func verdictLine(v backend.Verdict) string {
	s := v.Kind
	if v.Certainty != "" && v.Certainty != backend.Certain && v.Certainty != v.Kind {
		s += " (" + v.Certainty + ")"
	}
	if v.Summary != "" {
		s += ": " + text.Said(oneLine(v.Summary))
	}
	return s
}

// outputLine is an output with its size and place.
func outputLine(o backend.Output) string {
	parts := []string{o.Kind}
	if d := dimensions(o); d != "" {
		parts = append(parts, d)
	}
	if o.Bytes != nil {
		parts = append(parts, size(*o.Bytes))
	}
	place := oneLine(o.Path)
	if place == "" {
		place = outputName(o)
	}
	return strings.Join(append(parts, place), " · ")
}

// outputHead names the columns of outputRow.
var outputHead = []string{"JOB", "N", "KIND", "SIZE", "PIXELS", "NAME", "PATH"}

// outputRow is output n of a job as a line of `easel outputs ls`.
func outputRow(j backend.Job, n int) []string {
	o := j.Outputs[n]
	bytes, pixels := "–", dimensions(o)
	if o.Bytes != nil {
		bytes = size(*o.Bytes)
	}
	if pixels == "" {
		pixels = "–"
	}
	place := oneLine(o.Path)
	if place == "" {
		place = outputName(o)
	}
	return []string{short(j.ID), fmt.Sprint(n), o.Kind, bytes, pixels, cut(jobName(j), 24), place}
}

// eventData is what the data of an event may say.
type eventData struct {
	N        int              `json:"n"`
	State    string           `json:"state"`
	From     string           `json:"from"`
	To       string           `json:"to"`
	Worker   string           `json:"worker"`
	Outcome  string           `json:"outcome"`
	Reason   string           `json:"reason"`
	By       string           `json:"by"`
	Verdict  *backend.Verdict `json:"verdict"`
	Outputs  []backend.Output `json:"outputs"`
	Priority *int             `json:"priority"`
	Position string           `json:"position"`
	Error    *backend.Error   `json:"error"`
}

// eventWords says what an event tells. Details that are not understood are left
// out: the kind stands alone.
func eventWords(e backend.Event) string {
	var d eventData
	_ = json.Unmarshal(e.Data, &d)
	var parts []string
	add := func(s string) {
		if s = oneLine(s); s != "" {
			parts = append(parts, s)
		}
	}
	if d.N > 0 {
		add(fmt.Sprint("attempt ", d.N))
	}
	if d.Worker != "" {
		add("on " + d.Worker)
	}
	add(d.Outcome)
	switch {
	case d.From != "" && d.To != "" && d.From != d.To && e.Kind == backend.EventState:
		add(d.From + " → " + d.To)
	case e.Kind == backend.EventState && d.To != "":
		add(d.To)
	default:
		add(d.State)
	}
	if len(d.Outputs) > 0 {
		add(outputsInWords(d.Outputs))
	}
	if d.Verdict != nil {
		add(verdictLine(*d.Verdict))
	}
	if d.Error != nil {
		add(errorLine(*d.Error))
	}
	if d.Priority != nil {
		add(fmt.Sprint("priority ", *d.Priority))
	}
	add(d.Position)
	add(d.Reason)
	if d.By != "" {
		add("by " + d.By)
	}
	return strings.TrimRight(fmt.Sprintf("%-13s %s", e.Kind, strings.Join(parts, " · ")), " ")
}

// writeEvents prints the steps of a job, each with its delay after the one
// before.
func writeEvents(w io.Writer, events []backend.Event, now time.Time) {
	for i, e := range events {
		delay := ""
		if i > 0 {
			delay = "+" + millis(e.At.Sub(events[i-1].At.Time))
		}
		fmt.Fprintf(w, "%s %9s  %s\n", e.At.In(now.Location()).Format("15:04:05.000"), delay, eventWords(e))
	}
}

// millis is a delay to the millisecond where that matters.
func millis(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return span(d)
}

// workerLine is a worker in one line.
func workerLine(w backend.Worker, now time.Time) string {
	s := oneLine(w.ID) + " · " + string(w.State)
	if !w.Since.IsZero() {
		s += " " + span(now.Sub(w.Since.Time))
	}
	if reason := strings.TrimPrefix(w.Reason, string(w.State)+", "); reason != "" && reason != string(w.State) {
		s += " (" + oneLine(reason) + ")"
	}
	switch {
	case w.Builtin:
		s += " · built-in worker (no diffusion, no models)"
	case w.ComfyUI != nil:
		s += strings.TrimRight(" · ComfyUI "+oneLine(w.ComfyUI.Version), " ")
		if w.ComfyUI.Dir != "" {
			s += " " + oneLine(w.ComfyUI.Dir)
		}
	}
	if w.External {
		s += " · run by somebody else"
	}
	if w.PID != nil {
		s += fmt.Sprintf(" · pid %d", *w.PID)
	}
	if w.URL != "" {
		s += " · " + oneLine(w.URL)
	}
	if w.Job != nil {
		s += " · job " + short(*w.Job)
	}
	if w.Restarts > 0 {
		s += " · " + plural(w.Restarts, "restart")
	}
	if !w.NextRestart.IsZero() && w.State == backend.WorkerBackoff {
		s += " · next start in " + span(w.NextRestart.Sub(now))
	}
	return s
}

// writeStatus prints the state of everything.
func writeStatus(w io.Writer, s backend.Status, now time.Time) {
	line := func(key, format string, args ...any) { fmt.Fprintf(w, "%-8s %s\n", key, fmt.Sprintf(format, args...)) }
	if e := s.Engine; e != nil {
		line("engine", "pid %d · %s · up %s · %s", e.PID, oneLine(e.Version), span(now.Sub(e.Started.Time)), oneLine(e.StateDir))
	}
	writeKeeper(line, s.Keeper, now)
	for _, wk := range s.Workers {
		line("worker", "%s", workerLine(wk, now))
		if wk.LastLine != "" && wk.State == backend.WorkerStarting {
			line("", "%s", cut(oneLine(wk.LastLine), 100))
		}
		if wk.LastDeath != nil && (wk.State == backend.WorkerFailed || wk.State == backend.WorkerBackoff || wk.State == backend.WorkerExited) {
			writeVerdict(w, *wk.LastDeath, "         ", someEvidence)
		}
	}
	queue := fmt.Sprintf("%d queued · %d running · %d held", s.Queue.Queued, s.Queue.Running, s.Queue.Held)
	if s.Queue.Paused {
		queue += " · paused"
		if s.Queue.PauseReason != "" {
			queue += ": " + text.Said(oneLine(s.Queue.PauseReason))
		}
	}
	line("queue", "%s", queue)
	if s.Gateway.Listening {
		line("gateway", "%s", oneLine(s.Gateway.URL))
	}
	for _, g := range s.GPUs {
		line("gpu", "%s", gpuLine(g))
	}
	if s.Disk.Total > 0 {
		line("disk", "%s free of %s · %s", size(s.Disk.Free), size(s.Disk.Total), oneLine(s.Disk.Path))
	}
	for _, n := range s.Notices {
		line("note", "%s", text.Said(oneLine(n)))
	}
	for _, f := range s.Found {
		line("found", "%s", foundLine(f))
	}
}

// writeKeeper prints what the parent of the engine knows, and the engine's last
// crash.
func writeKeeper(line func(key, format string, args ...any), k *backend.KeeperInfo, now time.Time) {
	if k == nil {
		return
	}
	line("keeper", "pid %d, the parent that restarts the engine · %s", k.PID, plural(k.Restarts, "restart"))
	if c := k.LastCrash; c != nil {
		line("", "engine crashed %s: %s", clock(c.At, now), text.Said(oneLine(c.Reason)))
		for _, l := range c.Lines {
			line("", "  %s", cut(oneLine(l), 100))
		}
	}
}

// gpuLine is a card in one line; what is not known is left out.
func gpuLine(g backend.GPU) string {
	s := fmt.Sprintf("%d · %s", g.Index, oneLine(g.Name))
	if g.MemoryUsed != nil && g.MemoryTotal != nil {
		s += fmt.Sprintf(" · %s of %s", size(*g.MemoryUsed), size(*g.MemoryTotal))
	}
	if g.Utilisation != nil {
		s += fmt.Sprintf(" · %.0f %%", *g.Utilisation)
	}
	if g.Temperature != nil {
		s += fmt.Sprintf(" · %.0f °C", *g.Temperature)
	}
	if g.Power != nil {
		s += fmt.Sprintf(" · %.0f W", *g.Power)
	}
	if g.Note != "" {
		s += " · " + text.Said(oneLine(g.Note))
	}
	return s
}

// foundLine is a ComfyUI seen on this box, with what would make Easel use it.
func foundLine(f backend.FoundComfy) string {
	return foundName(f) + " · `" + foundUse(f) + "`"
}

// foundName says what was found.
func foundName(f backend.FoundComfy) string {
	switch {
	case f.URL != "":
		s := "a ComfyUI running at " + oneLine(f.URL)
		if f.PID > 0 {
			s += fmt.Sprintf(" (pid %d", f.PID)
			if f.User != "" {
				s += ", " + oneLine(f.User)
			}
			s += ")"
		}
		return s
	default:
		return "a ComfyUI in " + oneLine(f.Dir)
	}
}

// foundUse is the command that makes Easel use what was found: a running server
// is driven, a directory is started.
func foundUse(f backend.FoundComfy) string {
	if f.URL != "" {
		return "easel use " + oneLine(f.URL)
	}
	return "easel use " + shellWord(oneLine(f.Dir))
}

// shellWord is s as one word of a shell.
func shellWord(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r))
	}) < 0
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
