package doctor

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/worker"
)

// probe is what the interpreter of the install is asked. It prints one JSON object
// a line, so that what is known before a crash is not lost.
//
//go:embed probe.py
var probe string

// runCommand runs a command in the environment env (nil: this process's) and
// returns what it printed on both streams.
func runCommand(ctx context.Context, env, argv []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	return cmd.CombinedOutput()
}

// managed reports whether the configuration names a ComfyUI that Easel starts.
func (b *Box) managed() bool {
	w := b.Config.Worker
	return w.URL == "" && !w.Builtin && (w.ComfyUI != "" || w.Command != "")
}

// plan is how the configured ComfyUI would be launched.
func (b *Box) plan(ctx context.Context) (worker.Plan, error) {
	w := b.Config.Worker
	return worker.MakePlan(ctx, worker.Spec{
		ID: "doctor", StateDir: b.StateDir, ComfyUI: w.ComfyUI, Python: w.Python, Command: w.Command, Args: w.Args,
		Data: w.Data, Packages: w.Packages, PipIndex: w.PipIndex, Port: w.Port, Environ: b.Environ,
	})
}

// checkInstall makes the launch plan of the configured ComfyUI, which refuses what
// cannot run.
func checkInstall(ctx context.Context, b *Box) []Finding {
	w := b.Config.Worker
	switch {
	case b.ConfigErr != nil:
		return nil
	case w.URL != "":
		return one(OK, "", "run by somebody else at %s: what it runs on cannot be looked at, only whether it answers", w.URL)
	case !b.managed():
		return one(Note, "easel use DIR names a checkout of ComfyUI", "the built-in worker paints: no diffusion, no models")
	}
	p, err := b.plan(ctx)
	if err != nil {
		f := backend.FailureOf(err)
		return one(Problem, f.Hint, "%s", f.Message)
	}
	seen := strings.TrimSpace("ComfyUI "+p.Version) + " in " + p.Checkout + ", run by " + p.Python
	if len(p.Notes) > 0 {
		return one(Note, "", "%s; %s", seen, some(p.Notes, 3))
	}
	return one(OK, "", "%s", seen)
}

// answers is what the interpreter said about itself.
type answers struct {
	Python     string            `json:"python"`
	Executable string            `json:"executable"`
	Torch      string            `json:"torch"`
	TorchError string            `json:"torch_error"`
	CUDA       string            `json:"cuda"` // that torch was built for, "" for none
	HIP        string            `json:"hip"`
	Available  *bool             `json:"available"`
	Why        string            `json:"why"` // not available
	Devices    []device          `json:"devices"`
	Archs      []string          `json:"archs"`
	Versions   map[string]string `json:"versions"` // of other packages; "" when absent
}

type device struct {
	Name string `json:"name"`
	Arch string `json:"arch"` // sm_86
}

// checkPython asks the interpreter of the install about itself, torch and CUDA.
func checkPython(ctx context.Context, b *Box) []Finding {
	if b.ConfigErr != nil || !b.managed() {
		return nil
	}
	p, err := b.plan(ctx)
	if err != nil {
		return nil // told by checkInstall
	}
	out, err := b.Run(ctx, p.Env, []string{p.Python, "-c", probe})
	a := parseAnswers(out)
	list := []Finding{pythonFinding(a, p.Python, out, err)}
	if a.Python == "" {
		return list
	}
	list = append(list, torchFinding(a, p, err))
	if a.Torch != "" {
		list = append(list, cudaFinding(a, p))
	}
	return append(list, requirementFindings(a, p)...)
}

// parseAnswers reads the JSON lines among whatever else was printed.
func parseAnswers(out []byte) answers {
	var a answers
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if line := bytes.TrimSpace(s.Bytes()); len(line) > 0 && line[0] == '{' {
			_ = json.Unmarshal(line, &a)
		}
	}
	return a
}

func pythonFinding(a answers, name string, out []byte, err error) Finding {
	f := Finding{ID: "python", Title: "python", Verdict: OK, Seen: fmt.Sprintf("%s, %s", a.Python, name)}
	if a.Python == "" {
		f.Verdict, f.Remedy = Problem, "name the interpreter that ComfyUI's packages are installed in with worker.python"
		f.Seen = fmt.Sprintf("%s does not run: %v %s", name, err, lastLine(out))
		return f
	}
	major, minor := version2(a.Python)
	if major < 3 || major == 3 && minor < 9 {
		f.Verdict, f.Remedy = Problem, "ComfyUI needs Python 3.9 or newer; make a virtual environment of a newer one and name it with worker.python"
	}
	return f
}

func torchFinding(a answers, p worker.Plan, err error) Finding {
	f := Finding{ID: "torch", Title: "torch", Verdict: OK, Seen: a.Torch}
	switch {
	case a.Torch != "":
		return f
	case strings.Contains(a.TorchError, "No module named 'torch'"):
		f.Seen = "it is not installed for " + p.Python
		f.Remedy = p.Python + " -m pip install torch torchvision torchaudio, or name the interpreter that has it with worker.python"
	case a.TorchError != "":
		f.Seen = "it cannot be imported: " + a.TorchError
		f.Remedy = p.Python + " -c 'import torch' shows the whole story; a torch that fits this driver and python usually mends it"
	case errors.Is(err, context.DeadlineExceeded):
		f.Seen = "its import took too long"
		f.Remedy = "a slow disk, or a driver that hangs: look at the disk's speed below and at nvidia-smi"
	default:
		f.Seen = fmt.Sprintf("python ended while it imported torch: %v", err)
		f.Remedy = p.Python + " -X faulthandler -c 'import torch' shows where"
	}
	f.Verdict = Problem
	return f
}

func cudaFinding(a answers, p worker.Plan) Finding {
	f := Finding{ID: "cuda", Title: "CUDA", Verdict: OK}
	cpu := false
	for _, arg := range p.Argv {
		cpu = cpu || arg == "--cpu"
	}
	built := "CUDA " + a.CUDA
	if a.HIP != "" {
		built = "ROCm " + a.HIP
	}
	switch {
	case cpu:
		f.Seen = "not used: ComfyUI runs with --cpu"
	case a.CUDA == "" && a.HIP == "":
		f.Verdict, f.Seen = Problem, "this torch is built for the CPU only"
		f.Remedy = "install a torch built for CUDA (its index is https://download.pytorch.org/whl/cu…), or add --cpu to worker.args"
	case a.Available == nil || !*a.Available:
		f.Verdict, f.Seen = Problem, "torch is built for "+built+" and sees no card: "+orElse(a.Why, "no reason given")
		f.Remedy = "see the driver below; in a container it must be given the cards (--gpus all); CUDA_VISIBLE_DEVICES may hide them"
	default:
		names := make([]string, len(a.Devices))
		for i, d := range a.Devices {
			names[i] = d.Name
			if d.Arch != "" && len(a.Archs) > 0 && !supports(a.Archs, d.Arch) {
				f.Verdict = Problem
				f.Remedy = "install a torch that knows this card: its kernels would fail with \"no kernel image is available\""
				names[i] += " (" + d.Arch + ", which this torch has no kernels for)"
			}
		}
		f.Seen = built + ": " + some(names, 4)
	}
	return f
}

// supports reports whether code built for one of archs runs on arch: the same major
// version and not a newer minor one, or PTX of an older one.
func supports(archs []string, arch string) bool {
	major, minor := sm(arch)
	for _, have := range archs {
		hm, hn := sm(have)
		if strings.HasPrefix(have, "compute_") && (hm < major || hm == major && hn <= minor) || hm == major && hn <= minor {
			return true
		}
	}
	return false
}

// sm splits sm_86 or compute_120 in 8, 6 and 12, 0.
func sm(arch string) (major, minor int) {
	_, digits, _ := strings.Cut(strings.TrimRight(arch, "af"), "_")
	if len(digits) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(digits[:len(digits)-1])
	minor, _ = strconv.Atoi(digits[len(digits)-1:])
	return major, minor
}

// requirement is a pinned line of requirements.txt.
var requirement = regexp.MustCompile(`(?m)^(comfyui[\w-]*)==([\w.]+)`)

// requirementFindings compares the packages that ComfyUI pins with what is
// installed: without its frontend it exits with 255.
func requirementFindings(a answers, p worker.Plan) []Finding {
	text := (&Box{Root: "/"}).read(filepath.Join(p.Checkout, "requirements.txt"))
	f := Finding{ID: "requirements", Title: "packages of ComfyUI", Verdict: OK}
	remedy := p.Python + " -m pip install -r " + filepath.Join(p.Checkout, "requirements.txt")
	var seen []string
	for _, m := range requirement.FindAllStringSubmatch(text, -1) {
		name := strings.ReplaceAll(m[1], "_", "-")
		have, asked := a.Versions[name]
		switch {
		case !asked:
		case have == "" && name == "comfyui-frontend-package":
			f.Verdict, f.Remedy = Problem, remedy
			seen = append(seen, name+" is missing: ComfyUI will not start")
		case have == "":
			f.Verdict, f.Remedy = worse(f.Verdict, Warning), remedy
			seen = append(seen, name+" is missing")
		case have != m[2]:
			f.Verdict, f.Remedy = worse(f.Verdict, Note), remedy
			seen = append(seen, fmt.Sprintf("%s is %s, and this ComfyUI asks for %s", name, have, m[2]))
		default:
			seen = append(seen, name+" "+have)
		}
	}
	if len(seen) == 0 {
		return nil
	}
	f.Seen = some(seen, 4)
	return []Finding{f}
}

func worse(a, b Verdict) Verdict {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// version2 is the first two numbers of a version.
func version2(s string) (major, minor int) {
	_, _ = fmt.Sscanf(s, "%d.%d", &major, &minor)
	return major, minor
}

func orElse(s, other string) string {
	if strings.TrimSpace(s) == "" {
		return other
	}
	return s
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
