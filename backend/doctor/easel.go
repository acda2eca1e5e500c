package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"easel/backend"
	"easel/config"
)

// checkConfig says what is wrong with the configuration.
func checkConfig(_ context.Context, b *Box) []Finding {
	if b.ConfigErr != nil {
		return one(Problem, "correct it: easel config check", "%v", b.ConfigErr)
	}
	var words []string
	worst := OK
	for _, p := range config.Check(b.Config) {
		words = append(words, p.String())
		if p.Severity == "error" {
			worst = Problem
		} else if worst == OK {
			worst = Warning
		}
	}
	if len(words) == 0 {
		return one(OK, "", "%s is valid", b.ConfigPath)
	}
	return one(worst, "easel config check", "%s", some(words, 3))
}

// checkEngine says whether an engine answers, and whether it crashed.
func checkEngine(_ context.Context, b *Box) []Finding {
	if b.Status == nil || b.Status.Engine == nil {
		why := "no engine runs"
		if b.StatusErr != nil {
			why = b.StatusErr.Error()
		}
		return one(Note, "easel serve --detach starts one; what follows was looked at without it", "%s", why)
	}
	e, k := b.Status.Engine, b.Status.Keeper
	if e.Version != b.Version && b.Version != "" {
		return one(Warning, "easel serve --reload changes over, running jobs untouched", "the engine is version %s, this command is %s", e.Version, b.Version)
	}
	if k != nil && k.LastCrash != nil && b.Now().Sub(k.LastCrash.At.Time) < 24*time.Hour {
		return one(Warning, "its last words are in "+filepath.Join(b.StateDir, "engine.log")+"; a report: easel doctor --bundle FILE",
			"it was started again %d times, last at %s: it %s", k.Restarts, k.LastCrash.At.Local().Format(time.DateTime), k.LastCrash.Reason)
	}
	return one(OK, "", "version %s, pid %d, since %s", e.Version, e.PID, e.Started.Local().Format(time.DateTime))
}

// checkWorkers says how each worker stands.
func checkWorkers(_ context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	if len(b.Status.Workers) == 0 {
		return one(Problem, "easel use DIR, easel use URL or easel use sketch", "no worker is set up")
	}
	var list []Finding
	for _, w := range b.Status.Workers {
		f := Finding{ID: "worker-" + w.ID, Title: "worker " + w.ID, Verdict: OK, Seen: string(w.State) + ": " + w.Reason}
		switch w.State {
		case backend.WorkerFailed:
			f.Verdict, f.Remedy = Problem, "do what the reason says, then easel worker start"
		case backend.WorkerStopped:
			f.Verdict, f.Remedy = Warning, "easel worker start"
		case backend.WorkerBackoff, backend.WorkerExited:
			f.Verdict, f.Remedy = Warning, "easel worker deaths says why it ended; easel worker restart does not wait"
		}
		if w.LastDeath != nil && f.Verdict != OK && w.LastDeath.Remedy != "" {
			f.Remedy = w.LastDeath.Remedy
		}
		list = append(list, f)
	}
	return list
}

// checkWaiting answers why jobs wait and nothing comes out.
func checkWaiting(_ context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	q := b.Status.Queue
	switch {
	case q.Queued == 0 && q.Running == 0 && q.Held == 0:
		return one(OK, "", "no job waits")
	case q.Queued == 0 && q.Held > 0 && q.Running == 0:
		return one(Note, "easel jobs release", "%d jobs are held by a person; nothing else waits", q.Held)
	case q.Paused && q.Queued > 0:
		return one(Warning, "easel jobs resume", "%d jobs wait: the queue is paused", q.Queued)
	case q.Running > 0:
		return one(OK, "", "%d jobs run, %d wait for their turn", q.Running, q.Queued)
	}
	for _, w := range b.Status.Workers {
		if w.State == backend.WorkerReady || w.State == backend.WorkerBusy {
			return one(waitingVerdict(b), waitingRemedy(b), "%d jobs wait and none runs, although worker %s is %s%s", q.Queued, w.ID, w.State, waitingReasons(b))
		}
	}
	for _, w := range b.Status.Workers {
		return one(Problem, "easel worker start, or what worker "+w.ID+" says above", "%d jobs wait for worker %s, which is %s: %s", q.Queued, w.ID, w.State, w.Reason)
	}
	return one(Problem, "easel use DIR, easel use URL or easel use sketch", "%d jobs wait and there is no worker", q.Queued)
}

// waitingReasons are what the waiting jobs themselves give as their reason.
func waitingReasons(b *Box) string {
	seen := map[string]bool{}
	var words []string
	for _, j := range b.Jobs {
		if j.State == backend.JobQueued && j.WaitReason != "" && !seen[j.WaitReason] {
			seen[j.WaitReason] = true
			words = append(words, j.WaitReason)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + some(words, 3)
}

func waitingVerdict(b *Box) Verdict {
	if waitingReasons(b) != "" {
		return Note
	}
	return Warning
}

func waitingRemedy(b *Box) string {
	if waitingReasons(b) != "" {
		return ""
	}
	return "look again in a moment; if it stays so, easel worker restart"
}

// checkDeaths sums up how workers ended in the last day.
func checkDeaths(_ context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	count := map[string]int{}
	var kinds []string
	var last *backend.Verdict
	for i, v := range b.Deaths {
		if v.Kind == backend.KindAsked || b.Now().Sub(v.At.Time) > 24*time.Hour {
			continue
		}
		if last == nil {
			last = &b.Deaths[i]
		}
		if count[v.Kind] == 0 {
			kinds = append(kinds, v.Kind)
		}
		count[v.Kind]++
	}
	if last == nil {
		return one(OK, "", "none in the last 24 hours that nobody asked for")
	}
	for i, k := range kinds {
		kinds[i] = fmt.Sprintf("%d × %s", count[k], k)
	}
	return one(Warning, last.Remedy, "%s in the last 24 hours; the last: %s", strings.Join(kinds, ", "), last.Summary)
}

// checkVRAM compares the cards with what this box's jobs took.
func checkVRAM(_ context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	var list []Finding
	for _, g := range b.Status.GPUs {
		if g.MemoryTotal == nil || g.MemoryUsed == nil {
			continue
		}
		f := Finding{ID: fmt.Sprintf("vram-%d", g.Index), Title: fmt.Sprintf("memory of card %d", g.Index), Verdict: OK}
		f.Seen = fmt.Sprintf("%s: %s of %s used", g.Name, gib(*g.MemoryUsed), gib(*g.MemoryTotal))
		var others int64
		for _, p := range g.Processes {
			if !p.Ours && p.Memory != nil {
				others += *p.Memory
			}
		}
		need, name := peak(b.Jobs)
		switch {
		case need > *g.MemoryTotal:
			f.Verdict, f.Remedy = Warning, "a smaller size, batch or model, or a larger card"
			f.Seen += fmt.Sprintf("; job %s took %s", name, gib(need))
		case need > 0 && need+others > *g.MemoryTotal:
			f.Verdict, f.Remedy = Warning, "end the other programs on this card: easel gpu names them"
			f.Seen += fmt.Sprintf("; others hold %s, and job %s took %s", gib(others), name, gib(need))
		case others > *g.MemoryTotal/10:
			f.Verdict, f.Remedy = Note, "easel gpu names them"
			f.Seen += fmt.Sprintf("; other programs hold %s", gib(others))
		case need > 0:
			f.Seen += fmt.Sprintf("; the largest of the last jobs took %s", gib(need))
		}
		list = append(list, f)
	}
	return list
}

// peak is the most that one of the jobs took of a card, and its name.
func peak(list []backend.Job) (int64, string) {
	var most int64
	name := ""
	for _, j := range list {
		if j.PeakVRAM != nil && *j.PeakVRAM > most {
			most, name = *j.PeakVRAM, j.Name
		}
	}
	return most, name
}

// checkLogout says whether logging out ends Easel.
func checkLogout(ctx context.Context, b *Box) []Finding {
	if b.Logout == nil {
		return nil
	}
	if note := b.Logout(ctx); note != "" {
		return one(Warning, "loginctl enable-linger, or easel service install", "%s", note)
	}
	return one(OK, "", "does not end Easel")
}

// missing reports whether an error says that something is not there.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
