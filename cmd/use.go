package cmd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/keeper"
	"easel/backend/worker"
	"easel/config"
)

// useWithin bounds the try of a server.
const useWithin = 10 * time.Second

// useCmd is `easel use`.
func (a *app) useCmd() *cobra.Command {
	return &cobra.Command{
		Use: "use URL|DIR|sketch", Short: "Choose what paints: a ComfyUI that runs, a checkout, or the built-in worker",
		Long: "Choose what paints, try it, and write it to the configuration.\n\n" +
			"  easel use /opt/ComfyUI            a checkout: Easel starts it, watches it, restarts it\n" +
			"  easel use http://127.0.0.1:8188   a ComfyUI that somebody else runs: driven and watched, never started or stopped\n" +
			"  easel use sketch                  the built-in worker: no diffusion, no models",
		Args: wantArgs(1, 1, "one URL, directory, or the word sketch"),
		RunE: func(c *cobra.Command, args []string) error {
			if a.host != "" {
				return usageError(c, "use works on this box only, not with --host")
			}
			ctx, stop := interruptible(c)
			defer stop()
			return a.use(ctx, args[0])
		},
	}
}

// used is what `easel use --json` prints.
type used struct {
	Kind    string `json:"kind"` // url, dir, sketch
	Target  string `json:"target"`
	Version string `json:"version"` // of ComfyUI, "" when not known
	Python  string `json:"python,omitempty"`
	Path    string `json:"path"` // of the configuration
}

func (a *app) use(ctx context.Context, what string) error {
	var u used
	var err error
	switch {
	case what == "sketch":
		u = used{Kind: "sketch", Target: "sketch"}
	case strings.Contains(what, "://"):
		u, err = tryURL(ctx, what)
	default:
		u, err = a.tryDir(ctx, what)
	}
	if err != nil {
		return err
	}
	u.Path = config.Path(a.environ)
	if err := config.SetAll(u.Path, u.settings()...); err != nil {
		return configError(err)
	}
	if a.json {
		return printJSON(a.out, u)
	}
	for _, line := range u.words() {
		a.sayf("easel: %s", line)
	}
	if err := a.configWritten(u.Path, "worker.comfyui", "worker.url", "worker.builtin"); err != nil {
		return err
	}
	a.sayf("easel: %s", a.takesEffect(ctx))
	return nil
}

// settings are the keys that make the choice, the others cleared so that exactly
// one holds.
func (u used) settings() []config.Setting {
	dir, address, builtin := "", "", "false"
	switch u.Kind {
	case "dir":
		dir = u.Target
	case "url":
		address = u.Target
	default:
		builtin = "true"
	}
	return []config.Setting{{Key: "worker.comfyui", Value: dir}, {Key: "worker.url", Value: address}, {Key: "worker.builtin", Value: builtin}}
}

// words say what Easel will and will not do with the choice.
func (u used) words() []string {
	version := strings.TrimRight("ComfyUI "+oneLine(u.Version), " ")
	switch u.Kind {
	case "dir":
		return []string{
			version + " in " + oneLine(u.Target) + ", run by " + oneLine(u.Python),
			"it will be started, watched, restarted with a reason, and stopped with the engine; nothing in it is changed",
		}
	case "url":
		return []string{
			version + " answers at " + oneLine(u.Target),
			"jobs go to it and it is watched; it is never started, stopped, restarted or emptied, and other people's prompts in it are not touched",
		}
	}
	return []string{
		"the built-in worker: pictures of gradients, shapes and text, to try things with",
		"no diffusion and no models; workflows that need them are refused with the node that does",
	}
}

// takesEffect says when the choice counts.
func (a *app) takesEffect(ctx context.Context) string {
	conn, err := keeper.Dial(ctx, a.stateDir())
	if err != nil {
		return "no engine runs now; the next `easel` or `easel run` starts with it"
	}
	_ = conn.Close()
	if err := a.connect(); err == nil {
		s, err := a.engine.Status(ctx)
		if err == nil && len(s.Workers) == 0 { // it waits for this choice
			if _, err = a.engine.WorkerAct(ctx, backend.WorkerAction{Verb: backend.WorkerStart, By: a.who()}); err == nil {
				return "the engine that runs uses it from now on"
			}
		}
	}
	return "an engine runs: `easel worker restart` changes over (the running job goes back to the queue), or it counts from the next start of the engine"
}

// tryURL asks a running ComfyUI who it is.
func tryURL(ctx context.Context, address string) (used, error) {
	p, err := url.Parse(address)
	if err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
		return used{}, &exit{code: codeUsage, kind: backend.FailUsage, message: fmt.Sprintf("use %q: not an address like http://127.0.0.1:8188", clean(address))}
	}
	address = strings.TrimRight(p.Scheme+"://"+p.Host+p.Path, "/")
	ctx, cancel := context.WithTimeout(ctx, useWithin)
	defer cancel()
	c := comfy.New(address)
	defer c.Close()
	stats, err := c.SystemStats(ctx)
	if err != nil {
		return used{}, &exit{
			code: codeUnavailable, kind: backend.FailWorker, cause: err, message: "use " + address + ": no ComfyUI answers there: " + oneLine(err.Error()),
			hints: []string{"nothing was changed; is it started, and is the port right?"},
		}
	}
	return used{Kind: "url", Target: address, Version: stats.Version}, nil
}

// tryDir looks whether a directory is a checkout of ComfyUI that can be started.
func (a *app) tryDir(ctx context.Context, dir string) (used, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return used{}, err
	}
	if filepath.Base(abs) == "main.py" {
		abs = filepath.Dir(abs)
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return used{}, &exit{code: codeNotFound, kind: backend.FailNotFound, message: "use " + oneLine(abs) + ": there is no such directory", cause: err}
	case err != nil:
		return used{}, err
	case !info.IsDir():
		return used{}, &exit{code: codeUsage, kind: backend.FailUsage, message: "use " + oneLine(abs) + ": not a directory"}
	}
	for _, name := range []string{"main.py", "nodes.py", "comfy"} {
		if _, err := os.Stat(filepath.Join(abs, name)); err != nil {
			return used{}, &exit{
				code: codeUnavailable, kind: backend.FailWorker, message: "use " + oneLine(abs) + ": not a ComfyUI checkout: it has no " + name,
				hints: []string{"name the directory that holds main.py; nothing was changed"},
			}
		}
	}
	return a.tryLaunch(ctx, abs)
}

// launchWithin bounds the try of a checkout: its interpreter is asked for its
// flags.
const launchWithin = 60 * time.Second

// tryLaunch plans a launch of the checkout as the engine would: finds the
// interpreter and asks the install which flags it takes. Nothing is started.
func (a *app) tryLaunch(ctx context.Context, dir string) (used, error) {
	cfg, _, err := config.Load(config.Path(a.environ), a.environ)
	if err != nil {
		return used{}, configError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, launchWithin)
	defer cancel()
	w := cfg.Worker
	plan, err := worker.MakePlan(ctx, worker.Spec{
		ID: "try", StateDir: a.stateDir(), ComfyUI: dir, Python: w.Python, Command: w.Command, Args: w.Args, Data: w.Data, Environ: a.environ,
	})
	if err != nil {
		f := failure(err)
		e := &exit{code: codeUnavailable, kind: f.Kind, message: "use " + oneLine(dir) + ": " + oneLine(f.Message), cause: err}
		if f.Hint != "" {
			e.hints = append(e.hints, f.Hint)
		}
		e.hints = append(e.hints, "nothing was changed")
		return used{}, e
	}
	if err := plan.Refuse(); err != nil {
		a.sayf("easel: %s", oneLine(err.Error()))
	}
	for _, note := range plan.Notes {
		a.sayf("easel: %s", oneLine(note))
	}
	return used{Kind: "dir", Target: dir, Version: plan.Version, Python: plan.Python}, nil
}
