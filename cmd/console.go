package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/workflow"
	"easel/tui"
)

// console is `easel` without a command: the screen. Losing it ends nothing else.
func (a *app) console(c *cobra.Command, _ []string) error {
	in, out := os.Stdin, os.Stdout
	if a.json || !isatty.IsTerminal(in.Fd()) || !isatty.IsTerminal(out.Fd()) {
		return &exit{
			code: codeUsage, kind: backend.FailUsage, message: "the console needs a terminal",
			hints: []string{"`easel status` prints the state, `easel --help` names what works without one"},
		}
	}
	if err := a.connectTo(true); err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	remembered := readRemembered(a.rememberedPath())
	o := tui.Options{
		Box: a.boxName(), Version: Version(), Load: a.loadForConsole, Environ: a.environ,
		Leave:    remembered.Leave,
		Remember: func(answer string) error { return writeRemembered(a.rememberedPath(), remembers{Leave: answer}) },
	}
	if a.host == "" {
		o.Start = a.startForConsole
	}
	return tui.Run(ctx, tui.FromClient(a.engine), o)
}

// boxName is the box that is looked at.
func (a *app) boxName() string {
	if a.host != "" {
		return a.host
	}
	name, err := os.Hostname()
	if err != nil {
		return "this box"
	}
	return oneLine(name)
}

// startForConsole is startEngine with its words in the console and not on stderr.
func (a *app) startForConsole(ctx context.Context, say func(string)) (bool, error) {
	quiet := *a
	quiet.err = sayer(say)
	started, err := quiet.startEngine(ctx)
	if err != nil && ctx.Err() == nil {
		f := failure(err)
		return false, &f
	}
	return started, err
}

// sayer hands each line written to it to a function.
type sayer func(string)

// Write hands b on as one line.
func (s sayer) Write(b []byte) (int, error) {
	s(strings.TrimPrefix(oneLine(string(b)), "easel: "))
	return len(b), nil
}

// loadForConsole makes a submission of a workflow file.
func (a *app) loadForConsole(ctx context.Context, path string) (backend.Submission, error) {
	b, err := a.readWorkflow(ctx, path)
	if err != nil {
		return backend.Submission{}, err
	}
	doc, err := workflow.Read(b)
	if err != nil {
		return backend.Submission{}, named(path, err)
	}
	return backend.Submission{
		Name: nameOf(path), Owner: a.who(), Source: backend.SourceConsole, Graph: doc.GraphJSON, Workflow: doc.Workflow,
	}, nil
}

// remembers is console.json: what the console was told to remember.
type remembers struct {
	Leave string `json:"leave"` // the answer to the question on leaving, "" asks
}

func (a *app) rememberedPath() string { return filepath.Join(a.stateDir(), "console.json") }

// readRemembered reads console.json; one that is missing or broken remembers
// nothing.
func readRemembered(path string) remembers {
	var r remembers
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &r) != nil {
		return remembers{}
	}
	return r
}

// writeRemembered replaces console.json.
func writeRemembered(path string, r remembers) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		if rm := os.Remove(tmp); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			return errors.Join(err, rm)
		}
		return err
	}
	return nil
}
