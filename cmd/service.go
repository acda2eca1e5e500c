package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"easel/assets"
	"easel/backend"
	"easel/backend/keeper"
)

// Where a system service lives.
const (
	systemState  = "/var/lib/easel"
	systemSocket = "/run/easel/easel.sock"
	systemUnits  = "/etc/systemd/system"
	systemGroup  = "easel"
)

// unitFiles are what is written, the socket last: it is enabled with the service.
var unitFiles = []string{"easel.service", "easel.socket"}

// service is one installation.
type service struct {
	system bool
	dir    string // of the unit files
	exe    string
	state  string
	socket string
	user   string // of a system service
}

// serviceCmd is `easel service …`.
func (a *app) serviceCmd() *cobra.Command {
	var system, show bool
	var as string
	install := &cobra.Command{
		Use: "install", Short: "Write systemd's units, enable and start them",
		Long: "Write a service and a socket unit for systemd, enable and start them: Easel then starts with\n" +
			"the machine (--system, as root) or with this account's manager, and is started again when it\n" +
			"ends by a fault. `systemctl reload` changes over to a new binary without touching running jobs.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onService(c, system, as, func(ctx context.Context, s service) error { return a.serviceInstall(ctx, s, show) })
		},
	}
	install.Flags().StringVar(&as, "as", "", "with --system: the `ACCOUNT` that runs Easel and ComfyUI (default: who called sudo)")
	install.Flags().BoolVar(&show, "print", false, "print the units instead, and change nothing")
	remove := &cobra.Command{
		Use: "remove", Short: "Stop Easel, and take systemd's units away", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.onService(c, system, as, a.serviceRemove) },
	}
	for _, c := range []*cobra.Command{install, remove} {
		c.Flags().BoolVar(&system, "system", false, "for the whole machine, state in "+systemState+" (as root)")
	}
	return group("service", "Let systemd run Easel: install, remove", install, remove)
}

// onService works out what the service is, and does something to it.
func (a *app) onService(c *cobra.Command, system bool, as string, do func(context.Context, service) error) error {
	if a.host != "" {
		return usageError(c, c.CommandPath()+" works on this box only, not with --host")
	}
	if as != "" && !system {
		return usageError(c, "--as is for --system: a service of this account runs as this account")
	}
	ctx, stop := interruptible(c)
	defer stop()
	s, err := a.service(system, as)
	if err != nil {
		return err
	}
	return do(ctx, s)
}

func (a *app) service(system bool, as string) (service, error) {
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return service{}, fmt.Errorf("service: find this binary: %w", err)
	}
	if !system {
		base := env(a.environ, "XDG_CONFIG_HOME")
		if !filepath.IsAbs(base) {
			base = filepath.Join(env(a.environ, "HOME"), ".config")
		}
		if !filepath.IsAbs(base) {
			return service{}, errors.New("service: HOME is not set, so there is no place for the units of this account")
		}
		return service{dir: filepath.Join(base, "systemd", "user"), exe: exe, state: a.stateDir(), socket: keeper.SocketPath(a.stateDir())}, nil
	}
	if as == "" {
		as = env(a.environ, "SUDO_USER")
	}
	if as == "" {
		as = a.who()
	}
	if _, err := user.Lookup(as); err != nil {
		return service{}, &exit{code: codeUsage, kind: backend.FailUsage, message: fmt.Sprintf("service: there is no account %q here", clean(as)), cause: err, hints: []string{"--as names the account that runs ComfyUI"}}
	}
	return service{system: true, dir: systemUnits, exe: exe, state: systemState, socket: systemSocket, user: as}, nil
}

// render fills in one unit file.
func (s service) render(name string) ([]byte, error) {
	t, err := template.ParseFS(assets.Units, "systemd/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{
		"Exe": unitWord(s.exe), "Env": unitWord("EASEL_HOME=" + s.state), "Socket": unitPath(s.socket), "User": unitPath(s.user), "System": s.system,
	})
	return b.Bytes(), err
}

// unitPath is text where systemd takes the rest of the line: only its specifiers
// are escaped.
func unitPath(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// unitWord is one word of a command line or of Environment= (systemd.syntax(7)).
func unitWord(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s)
	return `"` + s + `"`
}

// installed is what `easel service install --json` prints.
type installed struct {
	Units   []string `json:"units"`
	System  bool     `json:"system"`
	Started bool     `json:"started"`
	Socket  string   `json:"socket"`
}

func (a *app) serviceInstall(ctx context.Context, s service, show bool) error {
	texts := map[string][]byte{}
	for _, name := range unitFiles {
		text, err := s.render(name)
		if err != nil {
			return fmt.Errorf("service: %w", err)
		}
		texts[name] = text
		if show {
			fmt.Fprintf(a.out, "# %s\n%s\n", filepath.Join(s.dir, name), text)
		}
	}
	if show {
		return nil
	}
	if s.system {
		if err := a.tool(ctx, "groupadd", "--system", "--force", systemGroup); err != nil {
			return err
		}
	}
	paths, err := s.write(texts)
	if err != nil {
		return err
	}
	running := a.runsHere(ctx, s)
	if err := a.enable(ctx, s, !running); err != nil {
		for _, p := range paths {
			_ = os.Remove(p)
		}
		return err
	}
	if a.json {
		return printJSON(a.out, installed{Units: paths, System: s.system, Started: !running, Socket: s.socket})
	}
	a.saidInstalled(ctx, s, running)
	return nil
}

// saidInstalled says what was done and what is left to do.
func (a *app) saidInstalled(ctx context.Context, s service, running bool) {
	a.sayf("easel: wrote %s and %s in %s", unitFiles[0], unitFiles[1], s.dir)
	if running {
		a.sayf("easel: an Easel runs already, outside of systemd: `easel stop`, then `%s` changes over; jobs are kept", strings.Join(s.systemctl("start", unitFiles...), " "))
	} else {
		a.sayf("easel: systemd runs it now; `%s` changes over to a new binary, running jobs untouched", strings.Join(s.systemctl("reload", unitFiles[0]), " "))
	}
	if s.system {
		a.sayf("easel: it runs as %s, state and config.toml in %s; members of the group %s reach it at %s", oneLine(s.user), s.state, systemGroup, s.socket)
	} else if !lingers(a.who()) {
		a.sayf("easel: it ends with your last log-out, unless: loginctl enable-linger")
	}
}

// lingers reports whether the account's manager stays after its last log-out.
func lingers(name string) bool {
	_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", name))
	return err == nil && name != ""
}

// runsHere reports whether an Easel holds the state directory already.
func (a *app) runsHere(ctx context.Context, s service) bool {
	conn, err := keeper.Dial(ctx, s.state)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// write writes the unit files.
func (s service) write(texts map[string][]byte) ([]string, error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, serviceDenied(s, err)
	}
	var paths []string
	for _, name := range unitFiles {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, texts[name], 0o644); err != nil {
			return nil, serviceDenied(s, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func serviceDenied(s service, err error) error {
	if errors.Is(err, fs.ErrPermission) && s.system {
		return &exit{code: codeFailed, message: "service: a system service is for root to install", cause: err, hints: []string{"sudo " + s.exe + " service install --system", "without --system it is a service of this account"}}
	}
	return fmt.Errorf("service: %w", err)
}

// systemctl is a command for the manager of this service.
func (s service) systemctl(verb string, args ...string) []string {
	argv := []string{"systemctl"}
	if !s.system {
		argv = append(argv, "--user")
	}
	return append(append(argv, verb), args...)
}

// enable makes systemd read the units and start them, now and from now on.
func (a *app) enable(ctx context.Context, s service, now bool) error {
	if err := a.tool(ctx, s.systemctl("daemon-reload")...); err != nil {
		return err
	}
	args := slices.Clone(unitFiles)
	if now {
		args = append([]string{"--now"}, args...)
	}
	return a.tool(ctx, s.systemctl("enable", args...)...)
}

func (a *app) serviceRemove(ctx context.Context, s service) error {
	var there []string
	for _, name := range unitFiles {
		if _, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return &exit{code: codeNotFound, message: "service: no unit of Easel is in " + s.dir, hints: []string{"--system removes the one of the whole machine"}}
	}
	// The socket first: it would start the service again.
	slices.Reverse(there)
	if err := a.tool(ctx, s.systemctl("disable", append([]string{"--now"}, there...)...)...); err != nil {
		return err
	}
	for _, name := range there {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			return serviceDenied(s, err)
		}
	}
	if err := a.tool(ctx, s.systemctl("daemon-reload")...); err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, map[string]any{"removed": there, "system": s.system})
	}
	a.sayf("easel: removed; jobs and settings stay in %s", s.state)
	return nil
}

// tool runs a program of the system, whose words are the error when it fails.
func (a *app) tool(ctx context.Context, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = a.environ
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return &exit{code: codeFailed, message: "service: " + argv[0] + " is not on this machine", cause: err, hints: []string{
			"without systemd, let your service manager run `easel serve` in the foreground; `easel service install --print` shows what systemd would be told",
		}}
	}
	if err != nil {
		return &exit{code: codeFailed, message: fmt.Sprintf("service: %s: %v: %s", strings.Join(argv, " "), err, oneLine(string(out))), cause: err}
	}
	return nil
}
