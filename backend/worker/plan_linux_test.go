package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"easel/backend"
)

func plan(t *testing.T, s Spec) Plan {
	t.Helper()
	p, err := MakePlan(t.Context(), s)
	if err != nil {
		t.Fatalf("%v · %s", err, backend.FailureOf(err).Hint)
	}
	return p
}

// after is the value that follows a flag, "" when it is not there.
func after(argv []string, flag string) string {
	if i := slices.Index(argv, flag); i >= 0 && i+1 < len(argv) {
		return argv[i+1]
	}
	return ""
}

func TestPlanOfACheckoutMovesNothing(t *testing.T) {
	s := fakeSpec(t, "normal")
	s.Args = []string{"--cpu"}
	s.Environ = append(s.Environ, "EASEL_SECRET=x", "NOTIFY_SOCKET=/y")
	p := plan(t, s)
	argv := p.argv(8200)
	want := []string{s.Python, filepath.Join(s.ComfyUI, "main.py"), "--cpu", "--temp-directory", filepath.Join(s.StateDir, "workers", "gpu0"), "--disable-auto-launch", "--listen", "127.0.0.1", "--port", "8200"}
	if !slices.Equal(argv, want) {
		t.Errorf("argv %q", argv)
	}
	if p.Dirs.Output != filepath.Join(s.ComfyUI, "output") || p.Dirs.Temp != filepath.Join(s.StateDir, "workers", "gpu0", "temp") {
		t.Errorf("dirs %+v", p.Dirs)
	}
	for _, d := range p.MakeDirs {
		if !strings.HasPrefix(d, s.StateDir) {
			t.Errorf("makes %s", d)
		}
	}
	env := environment{vars: p.Env}
	if env.get("PYTHONUNBUFFERED") != "1" || env.get("PYTHONFAULTHANDLER") != "1" || env.get("EASEL_SECRET") != "" || env.get("NOTIFY_SOCKET") != "" || env.get("CUDA_VISIBLE_DEVICES") != "" {
		t.Errorf("env %q", p.Env)
	}
	if p.Version != "0.3.64" || !p.fresh() {
		t.Errorf("version %q fresh %v", p.Version, p.fresh())
	}
	if err := os.WriteFile(filepath.Join(s.ComfyUI, "main.py"), []byte("# new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if p.fresh() {
		t.Error("a changed install is not noticed")
	}
}

func TestPlanOfAMount(t *testing.T) {
	s := fakeSpec(t, "normal")
	data := t.TempDir()
	s.Command = "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True python main.py --listen --port 8000 --data-dir " + data + " --cache-root " + filepath.Join(data, "cache")
	p := plan(t, s)
	if after(p.Argv, "--base-directory") != data || after(p.Argv, "--user-directory") != filepath.Join(data, "user") || after(p.Argv, "--database-url") != "sqlite:///"+filepath.Join(data, "user", "comfyui.db") {
		t.Errorf("argv %q", p.Argv)
	}
	if slices.Contains(p.Argv, "8000") || slices.Contains(p.Argv, "--data-dir") || p.Listen != "0.0.0.0" || p.ListenPort != 8000 || p.Port != 0 {
		t.Errorf("the gateway's address: %q %s %d", p.Argv, p.Listen, p.ListenPort)
	}
	if !slices.Contains(p.Argv, "--disable-cuda-malloc") {
		t.Errorf("argv %q", p.Argv)
	}
	env := environment{vars: p.Env}
	if env.get("HF_HOME") != filepath.Join(data, "cache", "huggingface") || env.get("XDG_CACHE_HOME") != filepath.Join(data, "cache") {
		t.Errorf("env %q", p.Env)
	}
	if err := p.makeDirs(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"custom_nodes", "models/checkpoints", "models/unet", "input", "output", "user", "cache"} {
		if st, err := os.Stat(filepath.Join(data, d)); err != nil || !st.IsDir() {
			t.Errorf("%s: %v", d, err)
		}
	}
	s.Sibling = true
	if p := plan(t, s); !strings.HasPrefix(after(p.Argv, "--user-directory"), s.StateDir) {
		t.Errorf("a sibling shares the user directory: %q", p.Argv)
	}
}

func TestPlanOfOldInstallsPassesNoUnknownFlag(t *testing.T) {
	s := fakeSpec(t, "normal")
	help := "usage: main.py [-h] [--listen [IP]] [--port PORT]\n\noptions:\n  -h, --help  help\n  --listen [IP]  x\n  --port PORT  x\n"
	if err := os.WriteFile(filepath.Join(s.ComfyUI, "help.txt"), []byte(help), 0o644); err != nil {
		t.Fatal(err)
	}
	p := plan(t, s)
	if len(p.Argv) != 2 || p.Dirs.Temp != filepath.Join(s.ComfyUI, "temp") {
		t.Errorf("argv %q, temp %s", p.Argv, p.Dirs.Temp)
	}
	s.Data = t.TempDir()
	if _, err := MakePlan(t.Context(), s); err == nil || !strings.Contains(err.Error(), "--base-directory") {
		t.Errorf("a mount: %v", err)
	}
}

func TestPlanPinsOneCard(t *testing.T) {
	for _, c := range []struct{ name, gpu, given, args, want, order string }{
		{"by UUID", "GPU-8a6c", "", "", "GPU-8a6c", ""},
		{"by index", "1", "", "", "1", "PCI_BUS_ID"},
		{"by index among those given", "1", "4,6", "", "6", "PCI_BUS_ID"},
		{"none", "", "", "", "", ""},
		{"not on the CPU", "0", "", "--cpu", "", ""},
		{"worker.gpus wins over --cuda-device", "1", "", "--cuda-device 0", "1", "PCI_BUS_ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeSpec(t, "normal")
			s.GPU, s.Args = c.gpu, strings.Fields(c.args)
			if c.given != "" {
				s.Environ = append(s.Environ, "CUDA_VISIBLE_DEVICES="+c.given)
			}
			p := plan(t, s)
			env := environment{vars: p.Env}
			if env.get("CUDA_VISIBLE_DEVICES") != c.want || env.get("CUDA_DEVICE_ORDER") != c.order || slices.Contains(p.Argv, "--cuda-device") {
				t.Errorf("%q %q %q", env.get("CUDA_VISIBLE_DEVICES"), env.get("CUDA_DEVICE_ORDER"), p.Argv)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name          string
		change        func(*Spec)
		message, hint string
	}{
		{"several cards by flag", func(s *Spec) { s.Args = []string{"--cuda-device", "0,1"} }, "several GPUs", "worker.gpus"},
		{"several cards by variable", func(s *Spec) { s.Command = "CUDA_VISIBLE_DEVICES=0,1 python main.py" }, "several GPUs", "one card"},
		{"port in args", func(s *Spec) { s.Args = []string{"--port", "1"} }, "--port cannot be used", "worker.port"},
		{"listen in args", func(s *Spec) { s.Args = []string{"--listen=0.0.0.0"} }, "--listen cannot be used", "gateway"},
		{"TLS", func(s *Spec) { s.Args = []string{"--tls-keyfile", "k"} }, "--tls-keyfile", "TLS"},
		{"no such directory", func(s *Spec) { s.ComfyUI = "/nowhere" }, "/nowhere", "worker.comfyui"},
		{"the directory above", func(s *Spec) { s.ComfyUI = filepath.Dir(s.ComfyUI) }, "is no ComfyUI", "/ComfyUI"},
		{"no such python", func(s *Spec) { s.Python = "/no/python" }, "/no/python", "worker.python"},
		{"a mount that is not there", func(s *Spec) { s.Data = "/no/mount" }, "/no/mount is not there", "mount it"},
		{"two mounts", func(s *Spec) { s.Data = "/a"; s.Command = "python main.py --data-dir /b" }, "--data-dir /b", "one of them"},
		{"no custom_nodes", func(s *Spec) { _ = os.Remove(filepath.Join(s.ComfyUI, "custom_nodes")) }, "custom_nodes is missing", "mkdir"},
		{"nothing", func(s *Spec) { s.ComfyUI = "" }, "no ComfyUI is configured", "easel use"},
		{"somebody else's", func(s *Spec) { s.URL = "http://x" }, "somebody else", "worker.comfyui"},
		{"help that fails", func(s *Spec) { _ = os.Remove(filepath.Join(s.ComfyUI, "help.txt")) }, "No module named 'yaml'", "requirements.txt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeSpec(t, "normal")
			c.change(&s)
			_, err := MakePlan(t.Context(), s)
			f := backend.FailureOf(err)
			if err == nil || !strings.Contains(f.Message, c.message) || !strings.Contains(f.Hint, c.hint) {
				t.Errorf("%v · %s", err, f.Hint)
			}
		})
	}
}

func TestPlanOfTheBuiltinWorker(t *testing.T) {
	s := Spec{ID: "builtin", StateDir: "/s", Builtin: true, BuiltinArgs: []string{"--comfy-version", "0.8.0"}}
	p := plan(t, s)
	argv := p.argv(9)
	if argv[0] != "/proc/self/exe" || argv[1] != "sketch" || after(argv, "--output-directory") != "/s/sketch/output" || after(argv, "--port") != "9" || after(argv, "--comfy-version") != "0.8.0" {
		t.Errorf("argv %q", argv)
	}
}

func TestPlanFindsTheVirtualEnvironment(t *testing.T) {
	s := fakeSpec(t, "normal")
	bin := filepath.Join(s.ComfyUI, "venv", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.ComfyUI, "venv", "pyvenv.cfg"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.Python, filepath.Join(bin, "python")); err != nil {
		t.Fatal(err)
	}
	s.Python = ""
	p := plan(t, s)
	env := environment{vars: p.Env}
	if p.Python != filepath.Join(bin, "python") || env.get("VIRTUAL_ENV") != filepath.Join(s.ComfyUI, "venv") || !strings.HasPrefix(env.get("PATH"), bin+":") {
		t.Errorf("python %s, VIRTUAL_ENV %s", p.Python, env.get("VIRTUAL_ENV"))
	}
}
