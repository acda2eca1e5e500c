package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/keeper"
	"easel/tui/text"
)

// The exit codes. Scripts rely on them.
const (
	codeDone        = 0
	codeFailed      = 1
	codeUsage       = 2
	codeNotFound    = 3
	codeUnavailable = 4 // engine or worker
	codeInvalid     = 5 // workflow
	codeCancelled   = 6
	codeTimeout     = 7
	codeInterrupted = 130
)

// exit is an error of the command line: a code, a sentence and what to do.
type exit struct {
	code    int
	kind    string // of the JSON error; "" is by code
	message string
	hints   []string
	cause   error
	// told says that stdout has its JSON already.
	told bool
}

// Error is the sentence.
func (e *exit) Error() string { return e.message }

// Unwrap is the cause.
func (e *exit) Unwrap() error { return e.cause }

// usageError says that the command was not written right and where to read how.
func usageError(c *cobra.Command, message string) error {
	return &exit{code: codeUsage, kind: backend.FailUsage, message: message, hints: []string{"see `" + c.CommandPath() + " --help`"}}
}

// exitCode is the one table from an error to an exit code.
func exitCode(err error) int {
	if err == nil {
		return codeDone
	}
	var e *exit
	if errors.As(err, &e) {
		return e.code
	}
	var f *backend.Failure
	if errors.As(err, &f) {
		switch f.Kind {
		case backend.FailUsage:
			return codeUsage
		case backend.FailNotFound:
			return codeNotFound
		case backend.FailEngineDown, backend.FailBusy, backend.FailWorker:
			return codeUnavailable
		case backend.FailInvalid, backend.FailTooLarge:
			return codeInvalid
		}
		return codeFailed
	}
	switch {
	case errors.Is(err, context.Canceled):
		return codeInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return codeTimeout
	case errors.Is(err, keeper.ErrLinuxOnly), errors.Is(err, keeper.ErrNotRunning):
		return codeUnavailable
	case errors.Is(err, fs.ErrNotExist):
		return codeNotFound
	}
	return codeFailed
}

// exitOfJob is the exit code that the end of a job means.
func exitOfJob(j backend.Job) int {
	switch {
	case j.State == backend.JobSucceeded:
		return codeDone
	case j.State == backend.JobCancelled:
		return codeCancelled
	case j.Error != nil && j.Error.Kind == backend.KindInvalid:
		return codeInvalid
	case j.Error != nil && j.Error.Kind == backend.KindTimeout:
		return codeTimeout
	}
	return codeFailed
}

// kindOfExit is the kind in the JSON of an error that has none of its own.
func kindOfExit(code int) string {
	switch code {
	case codeUsage:
		return backend.FailUsage
	case codeNotFound:
		return backend.FailNotFound
	case codeUnavailable:
		return backend.FailEngineDown
	case codeInvalid:
		return backend.FailInvalid
	case codeCancelled:
		return "cancelled"
	case codeTimeout:
		return "timeout"
	case codeInterrupted:
		return "interrupted"
	}
	return "failed"
}

// failure is err as what is told: kind, message, hint and problems.
func failure(err error) backend.Failure {
	f := backend.Failure{Kind: kindOfExit(exitCode(err)), Message: err.Error()}
	var e *exit
	var given *backend.Failure
	switch {
	case errors.As(err, &e):
		if e.kind != "" {
			f.Kind = e.kind
		}
		f.Hint = strings.Join(e.hints, "\n")
		if errors.As(e.cause, &given) {
			f.Problems = given.Problems
		}
	case errors.As(err, &given):
		f.Kind, f.Hint, f.Problems = given.Kind, given.Hint, given.Problems
	case errors.Is(err, context.Canceled):
		f.Message = "interrupted"
	case errors.Is(err, context.DeadlineExceeded):
		f.Message = "no answer in time"
	}
	return f
}

// report says what went wrong: one line `easel: what: cause`, what is wrong with
// a workflow node by node, then `hint: …` lines, on stderr; with --json also as
// one object on stdout.
func (a *app) report(err error) {
	if err == nil {
		return
	}
	f := failure(err)
	var e *exit
	told := errors.As(err, &e) && e.told
	if a.json && !told {
		b, jsonErr := json.Marshal(struct {
			Error backend.Failure `json:"error"`
		}{f})
		if jsonErr == nil {
			fmt.Fprintln(a.out, string(b))
		}
	}
	if f.Message != "" {
		fmt.Fprintln(a.err, "easel: "+oneLine(text.Said(oneLine(f.Message))))
	}
	if len(f.Problems) > 1 || f.Hint == "" { // a single one is the message itself
		for _, p := range f.Problems {
			fmt.Fprintln(a.err, "  "+problemLine(p))
		}
	}
	for _, hint := range strings.Split(f.Hint, "\n") {
		if hint = oneLine(hint); hint != "" {
			fmt.Fprintln(a.err, text.T("hint: %s", text.Said(hint)))
		}
	}
}

// problemLine is one finding in a workflow in one line: where, what, what to do.
func problemLine(p backend.Problem) string {
	var where []string
	if p.Node != "" {
		where = append(where, "node "+p.Node)
	}
	switch {
	case p.Title != "" && p.Title != p.Class && p.Class != "":
		where = append(where, fmt.Sprintf("%q (%s)", p.Title, p.Class))
	case p.Class != "":
		where = append(where, p.Class)
	case p.Title != "":
		where = append(where, fmt.Sprintf("%q", p.Title))
	}
	line := p.Severity + ": "
	if len(where) > 0 && !saysNode(p.Message, p.Node) {
		line += strings.Join(where, " ")
		if p.Input != "" {
			line += ", input " + p.Input
		}
		line += ": "
	}
	line += text.Said(p.Message)
	if p.Fix != "" {
		line += " · " + text.Said(p.Fix)
	} else if len(p.Candidates) > 0 {
		line += " · near: " + strings.Join(p.Candidates, ", ")
	}
	return oneLine(line)
}
