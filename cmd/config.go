package cmd

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/config"
)

// configCmd is `easel config …`.
func (a *app) configCmd() *cobra.Command {
	c := group("config", "The configuration file: init, show, check, path, set",
		&cobra.Command{
			Use: "init", Short: "Write a commented configuration file, where there is none", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return a.configInit() },
		},
		&cobra.Command{
			Use: "show", Short: "Every setting, and where its value comes from", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return a.configShow() },
		},
		&cobra.Command{
			Use: "check", Short: "Look the configuration over", Args: noArgs,
			RunE: func(*cobra.Command, []string) error { return a.configCheck() },
		},
		&cobra.Command{
			Use: "path", Short: "Where the configuration file is, or would be", Args: noArgs,
			RunE: func(*cobra.Command, []string) error {
				p := config.Path(a.environ)
				if a.json {
					return printJSON(a.out, map[string]string{"path": p, "state_dir": a.stateDir()})
				}
				_, err := fmt.Fprintln(a.out, p)
				return err
			},
		},
		&cobra.Command{
			Use: "set KEY VALUE", Short: "Write one setting; comments and order stay", Args: wantArgs(2, 2, "a key and a value, for example worker.comfyui /opt/ComfyUI"),
			RunE: func(_ *cobra.Command, args []string) error { return a.configSet(args[0], args[1]) },
		},
	)
	c.PersistentPreRunE = func(sub *cobra.Command, _ []string) error {
		if sub.Flags().Changed("host") {
			return usageError(sub, "config works on this box only, not with --host")
		}
		return nil
	}
	return c
}

func (a *app) configInit() error {
	p := config.Path(a.environ)
	if err := config.WriteInit(p); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &exit{code: codeFailed, message: "config init: " + p + " is there already", cause: err, hints: []string{"`easel config show` shows it, `easel config set KEY VALUE` changes it"}}
		}
		return fmt.Errorf("config init: %w", err)
	}
	if a.json {
		return printJSON(a.out, map[string]string{"path": p})
	}
	_, err := fmt.Fprintln(a.out, p)
	return err
}

func (a *app) configShow() error {
	cfg, sources, err := config.Load(config.Path(a.environ), a.environ)
	if err != nil {
		return configError(err)
	}
	if a.json {
		return printJSON(a.out, list(config.Values(cfg, sources)))
	}
	_, err = fmt.Fprint(a.out, clean(config.Show(cfg, sources)))
	return err
}

func (a *app) configCheck() error {
	path := config.Path(a.environ)
	cfg, sources, err := config.Load(path, a.environ)
	if err != nil {
		return configError(err)
	}
	problems := sources.Locate(config.Check(cfg))
	bad := 0
	for _, p := range problems {
		if p.Severity == config.SeverityError {
			bad++
		}
	}
	if a.json {
		if err := printJSON(a.out, list(problems)); err != nil {
			return err
		}
		if bad > 0 {
			return &exit{code: codeUsage, message: plural(bad, "error") + " in the configuration", told: true}
		}
		return nil
	}
	if bad > 0 {
		return configError(&config.Error{Problems: problems})
	}
	for _, p := range problems {
		a.sayf("easel: %s: %s", p.Severity, configLine(p))
	}
	a.sayf("easel: %s is in order", path)
	return nil
}

func (a *app) configSet(key, value string) error {
	path := config.Path(a.environ)
	if err := config.Set(path, key, value); err != nil {
		return configError(err)
	}
	return a.configWritten(path, key)
}

// configWritten says where settings went and when they take effect.
func (a *app) configWritten(path string, keys ...string) error {
	cfg, sources, err := config.Load(path, a.environ)
	if err != nil {
		return configError(err)
	}
	for _, v := range config.Values(cfg, sources) {
		for _, k := range keys {
			if v.Key == k && len(v.Source) > 4 && v.Source[:4] == "env " {
				a.sayf("easel: %s is written, but %s wins over the file", k, v.Source)
			}
		}
	}
	if a.json {
		return printJSON(a.out, map[string]any{"path": path, "keys": keys})
	}
	a.sayf("easel: written to %s", path)
	return nil
}

// configLine is one finding in a configuration, in one line.
func configLine(p config.Problem) string { return oneLine(p.String()) }

// configError is what is wrong with a configuration: the first finding as the
// error, the others and what to do as hints.
func configError(err error) error {
	var e *config.Error
	if !errors.As(err, &e) || len(e.Problems) == 0 {
		return err
	}
	out := &exit{code: codeUsage, kind: backend.FailUsage, message: "configuration: " + configLine(e.Problems[0]), cause: err}
	if h := e.Problems[0].Hint; h != "" {
		out.hints = append(out.hints, h)
	}
	for _, p := range e.Problems[1:] {
		out.hints = append(out.hints, "also: "+configLine(p))
	}
	return out
}
