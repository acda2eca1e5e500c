// Package cmd is Easel's command line: one file per command, and the one place
// where the parts are built and wired. A result goes to stdout, progress and
// explanations to stderr, and every command ends with one of the exit codes of
// exit.go.
package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
	"easel/config"
	"easel/tui/text"
)

// mains are the processes that Easel starts of itself. They bypass the command
// line: name → main with the arguments after the name, giving an exit code.
var mains = map[string]func(args []string) int{}

// app is what the commands share: the streams, the flags for all, and the
// connection to the engine once one is made.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	terminal bool // err is a terminal: progress is redrawn

	json bool
	host string // --host, "" for this box

	engine *client.Client // nil until connect
}

// Execute runs the command line of this process and returns its exit code.
func Execute() int {
	args := os.Args[1:]
	if len(args) > 0 {
		if run, ok := mains[args[0]]; ok {
			return run(args[1:])
		}
	}
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ(),
		terminal: isatty.IsTerminal(os.Stderr.Fd()),
	}
	return a.run(args)
}

// run parses args, runs the command, says what went wrong and gives the exit
// code.
func (a *app) run(args []string) int {
	a.chooseLanguage()
	root := a.root()
	localise(root)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(context.Background())
	if a.engine != nil {
		_ = a.engine.Close()
	}
	if err != nil && !a.json {
		// A flag that does not parse ends parsing: --json after it was not seen.
		a.json = wantsJSON(args)
	}
	a.report(err)
	return exitCode(err)
}

// wantsJSON finds --json among arguments that could not be parsed.
func wantsJSON(args []string) bool {
	for _, s := range args {
		if s == "--" {
			return false
		}
		if s == "--json" || s == "--json=true" {
			return true
		}
	}
	return false
}

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "easel",
		Short: "Keep ComfyUI alive, lose no job, see the whole box on one screen",
		Long: "Easel keeps one ComfyUI process per GPU alive, never loses a job, and puts the whole\n" +
			"box on one terminal screen. Without a command it opens the console.",
		Example: "  easel run portrait.json --out .     queue a workflow, follow it, copy its pictures here\n" +
			"  easel use /opt/ComfyUI             choose what paints\n" +
			"  easel status                       is all well?\n" +
			"  easel --host ssh://me@gpu-box      the console of another box",
		Args:              noArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		RunE:              a.console,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err.Error()) })
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result as JSON")
	root.PersistentFlags().StringVar(&a.host, "host", env(a.environ, "EASEL_HOST"), "the engine of another box, over ssh: `ssh://user@box`")
	root.AddCommand(
		a.serveCmd(), a.stopCmd(), a.statusCmd(), a.runCmd(), a.jobsCmd(), a.workerCmd(), a.gpuCmd(), a.outputsCmd(),
		a.useCmd(), a.configCmd(), a.doctorCmd(), a.serviceCmd(), a.versionCmd(), a.sketchCmd(), a.dialStdioCmd(),
	)
	return root
}

// noArgs refuses arguments, and takes the first one for a command that does not
// exist.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasAvailableSubCommands() {
		return usageError(c, fmt.Sprintf("%s takes no argument %q", c.CommandPath(), clean(args[0])))
	}
	message := fmt.Sprintf("%s has no command %q", c.CommandPath(), clean(args[0]))
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return &exit{code: codeUsage, kind: backend.FailUsage, message: message, hints: []string{"did you mean `" + c.CommandPath() + " " + near[0] + "`?"}}
	}
	return usageError(c, message)
}

// group is a command that only has commands under it.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(c *cobra.Command, _ []string) error {
		return c.Help()
	}}
	c.AddCommand(subs...)
	return c
}

// wantArgs demands between low and high arguments (high -1: any number), named in
// the refusal.
func wantArgs(low, high int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < low {
			return usageError(c, c.CommandPath()+" needs "+what)
		}
		if high >= 0 && len(args) > high {
			return usageError(c, fmt.Sprintf("%s takes only %s; %q is one too many", c.CommandPath(), what, clean(args[high])))
		}
		return nil
	}
}

// env is the last value of name in environ.
func env(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// stateDir is where the engine of this box keeps its state.
func (a *app) stateDir() string { return config.StateDir(a.environ) }

// interruptible is the command's context, ended by SIGINT, SIGTERM or SIGHUP.
func interruptible(c *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// who names the person for the records: the account's name.
func (a *app) who() string {
	for _, name := range []string{"USER", "LOGNAME", "USERNAME"} {
		if v := env(a.environ, name); v != "" {
			return v
		}
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// sayf prints a line for people on stderr, in the language in use.
func (a *app) sayf(format string, args ...any) {
	fmt.Fprintln(a.err, text.T(format, args...))
}
