package dispatch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/jobs"
	"easel/backend/workflow"
)

// counted reports whether a verdict counts against the job that ran: it took its
// worker down. Kills from outside, asked-for ends and bad starts do not.
func counted(v *backend.Verdict) bool {
	if v == nil {
		return false
	}
	switch v.Kind {
	case backend.KindCrash, backend.KindCUDAFault, backend.KindStall:
		return true
	case backend.KindHostOOM:
		return v.Certainty == backend.Certain
	}
	return false
}

// suspect reports whether a job took a worker down or did not fit before, so that
// it runs alone.
func suspect(job backend.Job) bool {
	for _, a := range job.Attempts {
		if a.Outcome == backend.OutcomeLost && counted(a.Verdict) || a.Verdict != nil && a.Verdict.Kind == backend.KindCUDAOOM {
			return true
		}
	}
	return false
}

// lost decides what becomes of a job whose running attempt n was lost.
func lost(job backend.Job, n int, v *backend.Verdict) jobs.End {
	e := jobs.End{Outcome: backend.OutcomeLost, Verdict: v, State: backend.JobQueued, At: v.At.Time}
	against, all := 0, 0
	for _, a := range job.Attempts {
		if a.N == n {
			continue
		}
		all++
		if counted(a.Verdict) {
			against++
		}
	}
	if counted(v) {
		against++
	}
	switch {
	case job.Cancelling:
		e.State = backend.JobCancelled
	case against >= maxCounted:
		e.State = backend.JobFailed
		e.Error = &backend.Error{
			Kind: v.Kind, Quarantined: true,
			Message: fmt.Sprintf("set aside: it took its worker down %d times, last: %s", against, v.Summary),
			Remedy:  remedyOr(v, "look at both verdicts (easel jobs show), make it smaller, then try again"),
		}
	case all+1 >= maxAttempts:
		e.State = backend.JobFailed
		e.Error = &backend.Error{
			Kind: v.Kind, Message: fmt.Sprintf("given up after %d attempts, last: %s", all+1, v.Summary),
			Remedy: remedyOr(v, "find out why its workers ended (easel worker deaths), then try again"),
		}
	}
	return e
}

func remedyOr(v *backend.Verdict, other string) string {
	if v.Remedy != "" {
		return v.Remedy
	}
	return other
}

// settleDeaths settles the attempts of the launches that ended.
func (l *lane) settleDeaths(ctx context.Context) {
	l.mu.Lock()
	deaths := l.deaths
	l.deaths = nil
	l.mu.Unlock()
	for i := range deaths {
		l.settle(ctx, func(a backend.Attempt) *backend.Verdict {
			if a.Launch == deaths[i].Launch {
				return &deaths[i]
			}
			return nil
		})
	}
}

// settleForeign settles open attempts of this worker whose launch does not run:
// it ended while no engine lived and nobody can say how.
func (l *lane) settleForeign(ctx context.Context) {
	l.settleDeaths(ctx)
	l.settleAll(ctx, l.worker.State().Launch)
}

// settleAll settles the open attempts of this worker but those of launch keep.
func (l *lane) settleAll(ctx context.Context, keep string) {
	v := &backend.Verdict{
		Kind: backend.KindUnknown, Certainty: backend.Unknown, At: backend.Now(), Worker: l.id,
		Summary: "ended together with Easel, cause not seen", Remedy: "nothing to do: the job is tried again",
	}
	l.settle(ctx, func(a backend.Attempt) *backend.Verdict {
		if a.Launch == keep {
			return nil
		}
		w := *v
		w.Launch = a.Launch
		return &w
	})
}

// settle ends the open attempts of this worker for which verdict says how. One
// that ran is lost; one that only waited inside is taken back.
func (l *lane) settle(ctx context.Context, verdict func(backend.Attempt) *backend.Verdict) {
	open, err := l.d.store.Unfinished(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.d.log.Error("read open attempts", "err", err)
		}
		return
	}
	for _, job := range open {
		for _, a := range job.Attempts {
			if !a.Outcome.Open() || a.Worker != l.id {
				continue
			}
			v := verdict(a)
			if v == nil {
				continue
			}
			l.settleOne(ctx, job, a, v)
		}
	}
}

// settleOne ends one open attempt.
func (l *lane) settleOne(ctx context.Context, job backend.Job, a backend.Attempt, v *backend.Verdict) {
	l.d.tell(job.ID, nil)
	var err error
	switch {
	case a.Outcome == backend.OutcomeSent && job.Cancelling:
		_, err = l.d.store.End(ctx, job.ID, a.N, jobs.End{Outcome: backend.OutcomeCancelled, State: backend.JobCancelled, At: time.Now()})
	case a.Outcome == backend.OutcomeSent:
		_, err = l.d.store.TakeBack(ctx, job.ID, a.N, "its worker ended before it began")
	default:
		w := *v
		if w.Job == nil {
			w.Job = &job.ID
		}
		e := lost(job, a.N, &w)
		l.mu.Lock()
		if why := l.overtime[a.PromptID]; why != nil {
			delete(l.overtime, a.PromptID)
			e.Outcome, e.State, e.Error = backend.OutcomeFailed, backend.JobFailed, why
		}
		l.mu.Unlock()
		e.Leftovers = leftovers(l.worker.Dirs().Output, a, time.Now())
		e.InferenceS = max(0, w.At.Sub(a.Started.Time).Seconds())
		_, err = l.d.store.End(ctx, job.ID, a.N, e)
	}
	if err != nil && ctx.Err() == nil {
		l.d.log.Error("settle a lost attempt", "job", job.ID, "attempt", a.N, "err", err)
	}
}

// Bounds of the search for leftovers.
const (
	leftoverFiles = 5000
	leftoverMax   = 100
)

// leftovers lists the pictures that a lost attempt wrote under dir before it was
// lost, by the mark in their metadata.
func leftovers(dir string, a backend.Attempt, now time.Time) []string {
	if dir == "" || a.Started.IsZero() {
		return nil
	}
	var found []string
	seen := 0
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || seen > leftoverFiles || len(found) >= leftoverMax {
			return filepath.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(strings.ToLower(path), ".png") {
			return nil
		}
		seen++
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() || st.ModTime().Before(a.Started.Add(-time.Second)) || st.ModTime().After(now) {
			return nil
		}
		if wroteBy(path, a.PromptID) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// wroteBy reports whether the picture at path carries the mark of that prompt.
func wroteBy(path, promptID string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := workflow.PNGText(f, "easel")
	return err == nil && strings.Contains(text, `"`+promptID+`"`)
}
