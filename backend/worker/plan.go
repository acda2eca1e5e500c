package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"easel/backend"
	"easel/backend/comfy"
)

// MakePlan finds out how a worker is to be launched. It reads the install, may run
// its `python main.py --help`, and changes nothing. What cannot be is a
// *backend.Failure that says what to do.
func MakePlan(ctx context.Context, s Spec) (Plan, error) {
	if s.Environ == nil {
		s.Environ = os.Environ()
	}
	switch {
	case s.external():
		return Plan{}, backend.Fail(backend.FailConflict, "worker "+s.ID+" at "+s.URL+" is run by somebody else: Easel never starts it", "start it the way it was started, or set worker.comfyui")
	case s.Builtin:
		return planBuiltin(s)
	case s.ComfyUI == "" && s.Command == "":
		return Plan{}, backend.Fail(backend.FailUsage, "no ComfyUI is configured for worker "+s.ID, "set worker.comfyui to a checkout: easel use DIR")
	}
	b := builder{spec: s}
	if err := b.read(); err != nil {
		return Plan{}, err
	}
	if err := b.build(ctx); err != nil {
		return Plan{}, err
	}
	return b.plan, nil
}

// Refuse is why the plan cannot be carried out as it is: it asks for packages to be
// installed, which a person has to do.
func (p Plan) Refuse() error {
	if len(p.Prepare) == 0 {
		return nil
	}
	steps := make([]string, len(p.Prepare))
	for i, s := range p.Prepare {
		steps[i] = byHand(s, p.Python).String()
	}
	return backend.Fail(backend.FailWorker,
		"it is to install packages before it starts, and this version of Easel does not do that yet",
		"run by hand: "+strings.Join(steps, " && ")+" · then take it out of worker.command (or worker.packages)")
}

// byHand is a step with the interpreter that the worker will use.
func byHand(s Step, python string) Step {
	for i, w := range s.Argv {
		if strings.HasPrefix(filepath.Base(w), "pip") {
			return Step{Argv: append([]string{python, "-m", "pip"}, s.Argv[i+1:]...)}
		}
	}
	return s
}

// argv is the argument list of a launch on port: Argv with the address.
func (p Plan) argv(port int) []string {
	return append(slices.Clone(p.Argv), "--listen", "127.0.0.1", "--port", fmt.Sprint(port))
}

// fresh reports whether the install is as it was when the plan was made.
func (p Plan) fresh() bool {
	return p.Checkout == "" || p.mark == installMark(p.Python, filepath.Join(p.Checkout, "main.py"))
}

func planBuiltin(s Spec) (Plan, error) {
	base := filepath.Join(s.StateDir, "sketch")
	dirs := comfy.Dirs{Output: filepath.Join(base, "output"), Input: filepath.Join(base, "input"), Temp: filepath.Join(base, "temp")}
	user := filepath.Join(base, "user")
	argv := []string{
		"/proc/self/exe", "sketch", "--base-directory", base, "--output-directory", dirs.Output, "--input-directory", dirs.Input,
		"--temp-directory", base, "--user-directory", user,
	}
	return Plan{
		Argv: append(argv, s.BuiltinArgs...), Env: cleanEnv(s.Environ), Dir: base, Port: s.Port, Dirs: dirs,
		MakeDirs: []string{dirs.Output, dirs.Input, user},
	}, nil
}

// builder makes a Plan step by step.
type builder struct {
	spec  Spec
	cmd   Command
	plan  Plan
	flags Flags
	args  []string // for ComfyUI, less the address
	main  string
	env   environment
}

// read settles what was asked for: the command, the checkout, the interpreter.
func (b *builder) read() error {
	if b.spec.Command != "" {
		cmd, err := ParseCommand(b.spec.Command)
		if err != nil {
			return err
		}
		b.cmd = cmd
	}
	b.plan.Notes = append(b.plan.Notes, b.cmd.Notes...)
	b.plan.Listen, b.plan.ListenPort, b.plan.Port = b.cmd.Listen, b.cmd.Port, b.spec.Port
	dir, err := b.checkout()
	if err != nil {
		return err
	}
	b.plan.Checkout, b.plan.Dir, b.main = dir, dir, filepath.Join(dir, "main.py")
	b.plan.Version = checkoutVersion(dir)
	b.env = environment{vars: cleanEnv(b.spec.Environ)}
	if b.plan.Python, err = b.python(); err != nil {
		return err
	}
	b.plan.Prepare = b.cmd.Prepare
	if len(b.spec.Packages) > 0 {
		b.plan.Prepare = append(slices.Clone(b.plan.Prepare), pipStep(b.spec))
	}
	return nil
}

// pipStep installs the configured packages.
func pipStep(s Spec) Step {
	argv := []string{"pip", "install"}
	if s.PipIndex != "" {
		argv = append(argv, "--index-url", s.PipIndex)
	}
	return Step{Argv: append(argv, s.Packages...)}
}

// checkout is the directory of ComfyUI, checked.
func (b *builder) checkout() (string, error) {
	dir := b.spec.ComfyUI
	if b.cmd.Script != "" {
		named := join(b.cmd.Dir, filepath.Dir(b.cmd.Script))
		switch {
		case filepath.IsAbs(named) && dir == "":
			dir = named
		case dir == "":
			return "", backend.Fail(backend.FailUsage, "worker.command does not say where "+b.cmd.Script+" is", "set worker.comfyui to the checkout")
		}
	}
	abs, err := filepath.Abs(expandHome(dir, b.spec.Environ))
	if err != nil {
		return "", err
	}
	return abs, CheckCheckout(abs)
}

func expandHome(dir string, environ []string) string {
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/') {
		if home := (environment{vars: environ}).get("HOME"); home != "" {
			return home + rest
		}
	}
	return dir
}

// CheckCheckout says why dir is no checkout of ComfyUI that can run, or nil.
func CheckCheckout(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return backend.Fail(backend.FailWorker, fmt.Sprintf("ComfyUI directory %s cannot be used: %v", dir, rootCause(err)), "set worker.comfyui to a checkout of ComfyUI")
	}
	if missing := missingParts(dir); len(missing) > 0 {
		hint := "set worker.comfyui to the directory that holds ComfyUI's main.py"
		for _, sub := range []string{"ComfyUI", "comfyui", ".."} {
			if at := filepath.Join(dir, sub); len(missingParts(at)) == 0 {
				hint = "set worker.comfyui to " + at
			}
		}
		return backend.Fail(backend.FailWorker, fmt.Sprintf("%s is no ComfyUI: it has no %s", dir, strings.Join(missing, ", no ")), hint)
	}
	return nil
}

// missingParts lists what a checkout has and dir has not.
func missingParts(dir string) []string {
	var missing []string
	for _, name := range []string{"main.py", "nodes.py", "comfy"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// rootCause is the innermost error: "no such file or directory".
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

var versionLine = regexp.MustCompile(`(?m)^__version__\s*=\s*["']([^"']+)["']`)

// checkoutVersion is the version that a checkout says it has, "" when it does not.
func checkoutVersion(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "comfyui_version.py"))
	if err != nil {
		return ""
	}
	if m := versionLine.FindSubmatch(b); m != nil {
		return comfy.Plain(string(m[1]), 40)
	}
	return ""
}

// python is the interpreter: the configured one, the one that the command names by
// a path, the checkout's own, the one the command names, python3.
func (b *builder) python() (string, error) {
	if p := b.spec.Python; p != "" {
		return b.interpreter(expandHome(p, b.spec.Environ), "worker.python")
	}
	if p := b.cmd.Python; strings.Contains(p, "/") {
		return b.interpreter(join(b.plan.Checkout, p), "the python of worker.command")
	}
	if p := checkoutPython(b.plan.Checkout); p != "" {
		return p, nil
	}
	for _, name := range []string{b.cmd.Python, "python3", "python"} {
		if name == "" {
			continue
		}
		if p, err := lookPath(name, b.env.get("PATH")); err == nil {
			return p, nil
		}
	}
	return "", backend.Fail(backend.FailWorker, "no Python found for "+b.plan.Checkout, "name its interpreter with worker.python, as "+filepath.Join(b.plan.Checkout, "venv/bin/python"))
}

func (b *builder) interpreter(p, what string) (string, error) {
	full, err := lookPath(p, b.env.get("PATH"))
	if err != nil {
		return "", backend.Fail(backend.FailWorker, fmt.Sprintf("%s %s cannot be run: %v", what, p, rootCause(err)), "name the interpreter that ComfyUI's packages are installed in with worker.python")
	}
	return full, nil
}

// checkoutPython is the interpreter of a virtual environment in or beside dir, ""
// without one.
func checkoutPython(dir string) string {
	for _, venv := range []string{"venv", ".venv", "env", "../venv", "../.venv"} {
		p := filepath.Join(dir, venv, "bin", "python")
		if _, err := os.Stat(filepath.Join(dir, venv, "pyvenv.cfg")); err != nil {
			continue
		}
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// lookPath finds a program by its name in path, or checks one named by a path. The
// result is absolute; links are kept, since a virtual environment is known by the
// link to its interpreter.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		abs, err := filepath.Abs(name)
		if err != nil {
			return "", err
		}
		return exec.LookPath(abs)
	}
	for _, dir := range filepath.SplitList(path) {
		if p := filepath.Join(dir, name); filepath.IsAbs(p) {
			if full, err := exec.LookPath(p); err == nil {
				return full, nil
			}
		}
	}
	return "", exec.ErrNotFound
}

// build makes the argument list, the environment and the directories.
func (b *builder) build(ctx context.Context) error {
	b.setEnv()
	flags, err := probeFlags(ctx, b.plan.Python, b.main, b.env.vars, filepath.Join(b.spec.StateDir, "workers"))
	if err != nil {
		return err
	}
	b.flags = flags
	b.plan.mark = installMark(b.plan.Python, b.main)
	if err := b.checkArgs(); err != nil {
		return err
	}
	if err := b.pin(); err != nil {
		return err
	}
	if err := b.directories(); err != nil {
		return err
	}
	b.automatic()
	b.plan.Env = b.env.vars
	argv := append([]string{b.plan.Python}, b.cmd.PyArgs...)
	b.plan.Argv = append(append(argv, b.main), b.args...)
	return nil
}

// refused are flags that Easel itself decides, or that would keep the worker from
// serving.
var refused = map[string]string{
	"--listen":             "Easel chooses the address: ComfyUI listens on 127.0.0.1 only, others reach it by the gateway",
	"--port":               "set worker.port instead",
	"--tls-keyfile":        "Easel speaks to ComfyUI on this machine without TLS; take it out",
	"--tls-certfile":       "Easel speaks to ComfyUI on this machine without TLS; take it out",
	"--help":               "ComfyUI would print its flags and end",
	"-h":                   "ComfyUI would print its flags and end",
	"--list-feature-flags": "ComfyUI would print its feature flags and end",
	"--quick-test-for-ci":  "ComfyUI would end as soon as everything is loaded",
}

// checkArgs refuses what cannot run, by name.
func (b *builder) checkArgs() error {
	for what, args := range map[string][]string{"worker.command": b.cmd.Args, "worker.args": b.spec.Args} {
		for _, a := range args {
			name, _, _ := strings.Cut(a, "=")
			if why, ok := refused[name]; ok {
				return backend.Fail(backend.FailUsage, what+": "+name+" cannot be used", why)
			}
		}
		if err := b.flags.Check(args, what); err != nil {
			return err
		}
	}
	b.args = append(slices.Clone(b.cmd.Args), b.spec.Args...)
	return nil
}

// value is the value of a flag among the arguments, and whether the flag is there.
func (b *builder) value(name string) (string, bool) {
	for i, a := range b.args {
		if rest, ok := strings.CutPrefix(a, name+"="); ok {
			return rest, true
		}
		if a == name {
			if i+1 < len(b.args) && !isFlag(b.args[i+1]) {
				return b.args[i+1], true
			}
			return "", true
		}
	}
	return "", false
}

func (b *builder) has(name string) bool { _, ok := b.value(name); return ok }

// drop takes a flag with its one value out of the arguments.
func (b *builder) drop(name string) {
	for i := 0; i < len(b.args); i++ {
		if b.args[i] == name {
			end := i + 1
			if end < len(b.args) && !isFlag(b.args[end]) {
				end++
			}
			b.args = slices.Delete(b.args, i, end)
			i--
		} else if strings.HasPrefix(b.args[i], name+"=") {
			b.args = slices.Delete(b.args, i, i+1)
			i--
		}
	}
}

// pin gives the worker its one card, and refuses several.
func (b *builder) pin() error {
	several := func(where, value string) error {
		return backend.Fail(backend.FailUsage, fmt.Sprintf("%s asks for several GPUs (%s) in one worker: one ComfyUI computes on one card only, the others would cost money and idle", where, value),
			"name one card; with worker.gpus = [0, 1] Easel runs one worker on each")
	}
	if v, ok := b.value("--cuda-device"); ok {
		if strings.Contains(v, ",") || v == "all" {
			return several("--cuda-device", v)
		}
		if b.spec.GPU != "" {
			b.drop("--cuda-device")
			b.note("--cuda-device " + v + " left out: worker.gpus decides the card")
		}
	}
	own := environment{vars: b.cmd.Env}
	for _, name := range []string{"CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"} {
		if v := own.get(name); strings.Contains(v, ",") || v == "all" {
			return several(name, v)
		}
	}
	if strings.Contains(b.spec.GPU, ",") {
		return several("worker "+b.spec.ID, b.spec.GPU)
	}
	switch {
	case b.spec.GPU == "" || b.has("--cpu"):
		return nil
	case own.get("CUDA_VISIBLE_DEVICES") != "":
		b.plan.GPU = own.get("CUDA_VISIBLE_DEVICES")
		return nil
	}
	b.plan.GPU = visible(b.spec.GPU, b.env.get("CUDA_VISIBLE_DEVICES"))
	b.env.set("CUDA_VISIBLE_DEVICES", b.plan.GPU)
	if isIndex(b.plan.GPU) {
		b.env.set("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
	}
	return nil
}

// visible translates an index among the cards that this process was given (as in a
// container) to a card.
func visible(gpu, given string) string {
	list := strings.Split(given, ",")
	if given == "" || !isIndex(gpu) {
		return gpu
	}
	var n int
	if _, err := fmt.Sscan(gpu, &n); err == nil && n < len(list) {
		return strings.TrimSpace(list[n])
	}
	return gpu
}

func isIndex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (b *builder) note(s string) { b.plan.Notes = append(b.plan.Notes, s) }

// add adds a flag if the install has it, and says whether it has.
func (b *builder) add(name string, values ...string) bool {
	if !b.flags.Has(name) {
		return false
	}
	b.args = append(append(b.args, name), values...)
	return true
}

// automatic adds the flags that every server should have.
func (b *builder) automatic() {
	if !b.has("--auto-launch") && !b.has("--disable-auto-launch") {
		b.add("--disable-auto-launch")
	}
	if strings.Contains(b.env.get("PYTORCH_CUDA_ALLOC_CONF"), "expandable_segments:True") && !b.has("--disable-cuda-malloc") && !b.has("--cuda-malloc") {
		if b.add("--disable-cuda-malloc") {
			b.note("--disable-cuda-malloc added: expandable_segments in PYTORCH_CUDA_ALLOC_CONF does not work with it")
		}
	}
}
