package keeper

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// logout is what decides whether a detached process survives the log-out. Its
// fields are inputs, so that a test can state them.
type logout struct {
	root   string // "/" but in tests
	user   string
	cgroup string // of this process, as in /proc/self/cgroup
	// property asks logind for a property of its manager, "" when it does not answer.
	property func(ctx context.Context, name string) string
}

// LogoutNote says what a person should know before a detached start: that logging
// out will end Easel, and what to do about it. It is "" where a detached Easel
// survives, which is nearly everywhere.
func LogoutNote(ctx context.Context) string { return thisLogout().note(ctx) }

func thisLogout() logout {
	l := logout{root: "/", property: askLogind}
	if u, err := user.Current(); err == nil {
		l.user = u.Username
	}
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		l.cgroup = string(b)
	}
	return l
}

func (l logout) note(ctx context.Context) string {
	if !l.kills(ctx) || l.lingers() {
		return ""
	}
	return "logging out will end Easel and its worker: this system kills what a session leaves behind " +
		"(KillUserProcesses=yes). Allow it to stay with: loginctl enable-linger " + l.user
}

// lingers reports whether the user's manager stays after the last log-out.
func (l logout) lingers() bool {
	_, err := os.Stat(filepath.Join(l.root, "var/lib/systemd/linger", l.user))
	return err == nil && l.user != ""
}

// kills reports whether logind ends what this session leaves behind.
func (l logout) kills(ctx context.Context) bool {
	if !strings.Contains(l.cgroup, "/session-") { // not in a session: a service, a container, no systemd
		return false
	}
	if _, err := os.Stat(filepath.Join(l.root, "run/systemd/system")); err != nil {
		return false
	}
	conf := l.conf()
	kill := conf["KillUserProcesses"]
	if kill == "" {
		kill = l.property(ctx, "KillUserProcesses")
	}
	if !isYes(kill) {
		return false
	}
	if only := strings.Fields(conf["KillOnlyUsers"]); len(only) > 0 && !slices.Contains(only, l.user) {
		return false
	}
	exclude, set := conf["KillExcludeUsers"]
	if !set {
		exclude = "root" // logind.conf(5)
	}
	return !slices.Contains(strings.Fields(exclude), l.user)
}

// conf reads logind.conf and its drop-ins, the later one winning.
func (l logout) conf() map[string]string {
	values := map[string]string{}
	var files []string
	for _, dir := range []string{"usr/lib/systemd", "run/systemd", "etc/systemd"} {
		files = append(files, filepath.Join(l.root, dir, "logind.conf"))
	}
	for _, dir := range []string{"usr/lib/systemd", "run/systemd", "etc/systemd"} {
		more, _ := filepath.Glob(filepath.Join(l.root, dir, "logind.conf.d", "*.conf"))
		files = append(files, more...)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			key, value, ok := strings.Cut(strings.TrimSpace(s.Text()), "=")
			if ok && !strings.HasPrefix(key, "#") {
				values[strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
		_ = f.Close()
	}
	return values
}

// isYes reads a boolean as systemd does; busctl prints "b true".
func isYes(s string) bool {
	switch strings.TrimPrefix(strings.TrimSpace(s), "b ") {
	case "yes", "true", "1", "on":
		return true
	}
	return false
}

// askLogind asks logind itself: the default differs between distributions.
func askLogind(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "busctl", "get-property", "org.freedesktop.login1",
		"/org/freedesktop/login1", "org.freedesktop.login1.Manager", name).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// scopeFor is the command in front of ours that moves it out of the session: none
// where setsid is enough. Only with lingering is the user's manager a better
// place: without, it ends with the last log-out too.
func scopeFor(ctx context.Context) []string {
	l := thisLogout()
	if !l.kills(ctx) || !l.lingers() {
		return nil
	}
	path, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil
	}
	return []string{path, "--user", "--scope", "--quiet", "--collect", "--"}
}
