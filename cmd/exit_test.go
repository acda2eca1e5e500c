package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"easel/backend"
	"easel/backend/keeper"
)

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing wrong", nil, 0},
		{"an ordinary error", errors.New("x"), 1},
		{"a full disk", backend.Fail(backend.FailDisk, "x", ""), 1},
		{"a key with another body", backend.Fail(backend.FailConflict, "x", ""), 1},
		{"a full queue", backend.Fail(backend.FailFull, "x", ""), 1},
		{"an engine's fault", backend.Fail(backend.FailInternal, "x", ""), 1},
		{"usage", backend.Fail(backend.FailUsage, "x", ""), 2},
		{"no such job", backend.Fail(backend.FailNotFound, "x", ""), 3},
		{"no such file", fmt.Errorf("open: %w", fs.ErrNotExist), 3},
		{"no engine", backend.Fail(backend.FailEngineDown, "x", ""), 4},
		{"a worker that cannot", backend.Fail(backend.FailWorker, "x", ""), 4},
		{"an engine too busy", backend.Fail(backend.FailBusy, "x", ""), 4},
		{"not on this system", fmt.Errorf("serve: %w", keeper.ErrLinuxOnly), 4},
		{"a wrong workflow", fmt.Errorf("submit: %w", backend.Fail(backend.FailInvalid, "x", "")), 5},
		{"a workflow too large", backend.Fail(backend.FailTooLarge, "x", ""), 5},
		{"one of our own", &exit{code: 6}, 6},
		{"a deadline", context.DeadlineExceeded, 7},
		{"an interrupt", fmt.Errorf("x: %w", context.Canceled), 130},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestExitOfJob(t *testing.T) {
	failed := func(kind string) backend.Job {
		return backend.Job{State: backend.JobFailed, Error: &backend.Error{Kind: kind}}
	}
	for _, tc := range []struct {
		job  backend.Job
		want int
	}{
		{backend.Job{State: backend.JobSucceeded}, 0},
		{backend.Job{State: backend.JobFailed}, 1},
		{failed(backend.KindException), 1},
		{failed(backend.KindHostOOM), 1},
		{failed(backend.KindInvalid), 5},
		{failed(backend.KindTimeout), 7},
		{backend.Job{State: backend.JobCancelled}, 6},
	} {
		if got := exitOfJob(tc.job); got != tc.want {
			t.Errorf("%s %+v: %d, want %d", tc.job.State, tc.job.Error, got, tc.want)
		}
	}
}

func TestReport(t *testing.T) {
	invalid := &backend.Failure{
		Kind: backend.FailInvalid, Message: "the workflow\ncannot run: \x1b[31m2 errors", Hint: "first\nsecond",
		Problems: []backend.Problem{
			{Severity: "error", Node: "4", Class: "CheckpointLoaderSimple", Title: "Load", Input: "ckpt_name", Message: `"x.safetensors" is not there`, Candidates: []string{"y.safetensors", "z.safetensors"}},
			{Severity: "warning", Node: "9", Class: "SaveImage", Title: "SaveImage", Message: "odd", Fix: "leave it out"},
		},
	}
	for _, tc := range []struct {
		name      string
		err       error
		json      bool
		out, err2 string
	}{
		{"hints follow the error", invalid, false, "", `easel: the workflow cannot run: 2 errors
  error: node 4 "Load" (CheckpointLoaderSimple), input ckpt_name: "x.safetensors" is not there · near: y.safetensors, z.safetensors
  warning: node 9 SaveImage: odd · leave it out
hint: first
hint: second
`},
		{"json on stdout too", backend.Fail(backend.FailNotFound, "no job abcd", "look"), true, `{"error":{"kind":"not-found","message":"no job abcd","hint":"look"}}` + "\n", "easel: no job abcd\nhint: look\n"},
		{"a result is not doubled", &exit{code: 4, message: "no engine", told: true}, true, "", "easel: no engine\n"},
		{"an interrupt is not explained", &exit{code: 130}, false, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			a := &app{out: &out, err: &errs, json: tc.json}
			a.report(tc.err)
			if out.String() != tc.out || errs.String() != tc.err2 {
				t.Errorf("stdout %q\nstderr %q\nwant   %q", out.String(), errs.String(), tc.err2)
			}
		})
	}
}

func TestJSONIsKnownWhenFlagsDoNotParse(t *testing.T) {
	var out, errs bytes.Buffer
	a := &app{out: &out, err: &errs, in: strings.NewReader("")}
	if code := a.run([]string{"status", "--nope", "--json"}); code != 2 {
		t.Errorf("code %d", code)
	}
	if !strings.HasPrefix(out.String(), `{"error":{"kind":"usage"`) {
		t.Errorf("stdout %q", out.String())
	}
}
