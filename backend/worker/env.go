package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// environment is a list of NAME=value without doubles.
type environment struct{ vars []string }

func (e environment) get(name string) string {
	for i := len(e.vars) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(e.vars[i], name+"="); ok {
			return v
		}
	}
	return ""
}

func (e *environment) set(name, value string) {
	e.vars = slices.DeleteFunc(e.vars, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	e.vars = append(e.vars, name+"="+value)
}

// cleanEnv is an environment less what is meant for Easel alone: its settings
// (some are secret) and what the service manager said to it.
func cleanEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "INVOCATION_ID", "JOURNAL_STREAM", "WATCHDOG_PID", "WATCHDOG_USEC":
			return true
		}
		return strings.HasPrefix(name, "EASEL_")
	})
}

// setEnv makes the environment of the worker, but for its card.
func (b *builder) setEnv() {
	b.env.set("PYTHONUNBUFFERED", "1")
	b.env.set("PYTHONFAULTHANDLER", "1")
	bin := filepath.Dir(b.plan.Python)
	if _, err := os.Stat(filepath.Join(bin, "..", "pyvenv.cfg")); err == nil {
		// As an activated environment: nodes call pip and python by name.
		b.env.set("VIRTUAL_ENV", filepath.Dir(bin))
		b.env.set("PATH", bin+string(filepath.ListSeparator)+b.env.get("PATH"))
	}
	for _, v := range b.cmd.Env {
		name, value, _ := strings.Cut(v, "=")
		b.env.set(name, value)
	}
}
