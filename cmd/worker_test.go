package cmd

import (
	"bytes"
	"testing"
	"time"

	"easel/backend"
)

func TestWorkerIsWhereItShouldBe(t *testing.T) {
	w := func(state backend.WorkerState, launch string, since time.Duration) backend.Worker {
		return backend.Worker{ID: "gpu0", State: state, Launch: launch, Since: before(since)}
	}
	for _, tc := range []struct {
		name      string
		verb      backend.WorkerVerb
		was, is   backend.Worker
		done, bad bool
	}{
		{"started", backend.WorkerStart, w(backend.WorkerStopped, "", time.Hour), w(backend.WorkerReady, "a", 0), true, false},
		{"not yet", backend.WorkerStart, w(backend.WorkerStopped, "", time.Hour), w(backend.WorkerStarting, "a", 0), false, false},
		{"the old process still answers", backend.WorkerRestart, w(backend.WorkerReady, "a", time.Hour), w(backend.WorkerReady, "a", time.Hour), false, false},
		{"a new process", backend.WorkerRestart, w(backend.WorkerReady, "a", time.Hour), w(backend.WorkerBusy, "b", 0), true, false},
		{"it failed again", backend.WorkerRestart, w(backend.WorkerFailed, "", time.Hour), w(backend.WorkerFailed, "", 0), false, true},
		{"it has not begun yet", backend.WorkerStart, w(backend.WorkerFailed, "", time.Hour), w(backend.WorkerFailed, "", time.Hour), false, false},
		{"another worker by a new configuration failed", backend.WorkerRestart, backend.Worker{ID: "builtin"}, w(backend.WorkerFailed, "", 0), false, true},
		{"stopped", backend.WorkerStop, w(backend.WorkerReady, "a", time.Hour), w(backend.WorkerStopped, "", 0), true, false},
		{"stopping", backend.WorkerStop, w(backend.WorkerReady, "a", time.Hour), w(backend.WorkerStopping, "a", 0), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			done, err := reached(tc.verb, "", []backend.Worker{tc.is}, map[string]backend.Worker{tc.was.ID: tc.was})
			if done != tc.done || (err != nil) != tc.bad {
				t.Errorf("%v, %v", done, err)
			}
			if tc.bad && exitCode(err) != codeUnavailable {
				t.Errorf("exit code %d", exitCode(err))
			}
		})
	}
}

func TestLogPrinterPrintsBarsOnce(t *testing.T) {
	var b bytes.Buffer
	p := &logPrinter{w: &b}
	for _, l := range []backend.LogLine{
		{Launch: "a", N: 1, Text: "one\x1b[31m"},
		{Launch: "a", N: 2, Text: "10%", Bar: true},
		{Launch: "a", N: 2, Text: "100%", Bar: true},
		{Launch: "a", N: 3, Text: "three"},
		{Launch: "a", N: 1, Text: "one"}, // again, after a reconnect
		{Launch: "a", N: 3, Text: "three"},
		{Launch: "b", N: 1, Text: "new process"},
	} {
		if err := p.line(l); err != nil {
			t.Fatal(err)
		}
	}
	if want := "one\n100%\nthree\nnew process\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
