package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/worker"
	"easel/config"
)

// machine makes a root directory with these files.
func machine(t *testing.T, files map[string]string) *Box {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := &Box{
		Root: root, StateDir: t.TempDir(), Config: config.Default(), Version: "v1",
		Run: func(context.Context, []string, []string) ([]byte, error) { return nil, exec.ErrNotFound },
	}
	b.defaults()
	return b
}

// want checks the worst verdict and that each of parts was said.
func want(t *testing.T, list []Finding, v Verdict, parts ...string) {
	t.Helper()
	worst, text := OK, ""
	for _, f := range list {
		worst = worse(worst, f.Verdict)
		text += f.Seen + " → " + f.Remedy + "\n"
		if f.Verdict.rank() >= Warning.rank() && f.Remedy == "" {
			t.Errorf("no remedy for %q", f.Seen)
		}
	}
	if worst != v {
		t.Errorf("verdict %s, want %s:\n%s", worst, v, text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("nothing of %q in:\n%s", p, text)
		}
	}
}

func TestMemory(t *testing.T) {
	const mem = "MemTotal:       33554432 kB\nMemAvailable:   16777216 kB\nSwapTotal:       1048576 kB\n"
	ctx := context.Background()
	want(t, checkMemory(ctx, machine(t, map[string]string{"proc/meminfo": mem})), OK, "16.0 GiB of 32.0 GiB")
	want(t, checkMemory(ctx, machine(t, map[string]string{
		"proc/meminfo": mem, "proc/self/cgroup": "0::/box/leaf\n", "sys/fs/cgroup/cgroup.controllers": "memory",
		"sys/fs/cgroup/box/memory.max": "4294967296", "sys/fs/cgroup/box/leaf/memory.max": "max",
	})), Warning, "4.0 GiB", "limit of /sys/fs/cgroup/box")
	want(t, checkMemory(ctx, machine(t, map[string]string{"proc/meminfo": mem, "proc/sys/vm/overcommit_memory": "2"})), Warning, "overcommit")
}

func TestGroupThatDiesTogether(t *testing.T) {
	b := machine(t, map[string]string{
		"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/cgroup.controllers": "memory",
		"sys/fs/cgroup/pod/memory.oom.group": "1", "sys/fs/cgroup/pod/box/memory.oom.group": "0",
	})
	want(t, checkCgroup(context.Background(), b), Warning, "/sys/fs/cgroup/pod has memory.oom.group = 1", "a limit of its own")
	want(t, checkCgroup(context.Background(), machine(t, nil)), Note, "none can be seen")
}

func TestKillers(t *testing.T) {
	b := machine(t, map[string]string{"proc/12/comm": "systemd-oomd\n", "proc/13/comm": "bash\n"})
	want(t, checkKillers(context.Background(), b), Note, "systemd-oomd")
}

func TestPorts(t *testing.T) {
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	b := machine(t, map[string]string{
		"proc/net/tcp": head + "   0: 00000000:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 77 1\n" +
			"   1: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 78 1\n",
		"proc/net/tcp6": head, "etc/passwd": "mia:x:1001:1001::/home/mia:/bin/bash\n",
	})
	want(t, checkPorts(context.Background(), b), Warning, "8188 listens on 0.0.0.0", "a program of mia")
	b.Config.Worker.Port = 9000
	want(t, checkPorts(context.Background(), b), Problem, "worker.port = 9000 is taken")
}

func TestOtherAccounts(t *testing.T) {
	b := machine(t, map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/bash\nmia:x:4242:1::/home/mia:/bin/zsh\nwww:x:4243:1::/:/usr/sbin/nologin\n"})
	b.Status = &backend.Status{Workers: []backend.Worker{{ID: "gpu0", URL: "http://127.0.0.1:8188"}}}
	want(t, checkUsers(context.Background(), b), Note, "mia can log in", "8188")
}

func TestDriver(t *testing.T) {
	ctx := context.Background()
	files := map[string]string{"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n"}
	want(t, checkDriver(ctx, machine(t, files)), Problem, "550.54.15", "/dev/nvidiactl cannot be opened")
	files["dev/nvidiactl"], files["dev/nvidia-uvm"] = "", ""
	b := machine(t, files)
	b.Run = func(context.Context, []string, []string) ([]byte, error) {
		return []byte("Failed to initialize NVML: Driver/library version mismatch\n"), errors.New("exit status 18")
	}
	want(t, checkDriver(ctx, b), Problem, "another version", "reboot")
	b.Run = func(context.Context, []string, []string) ([]byte, error) {
		return []byte("| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |\n"), nil
	}
	want(t, checkDriver(ctx, b), OK, "CUDA up to 12.4")
	want(t, checkDriver(ctx, machine(t, map[string]string{"sys/class/drm/card0/device/vendor": "0x10de\n"})), Problem, "driver is not loaded")
}

func TestTorchAndCUDA(t *testing.T) {
	p := worker.Plan{Python: "/venv/bin/python"}
	parse := func(s string) answers { return parseAnswers([]byte(s)) }
	no := parse("{\"python\":\"3.11.2\"}\n{\"torch_error\":\"ModuleNotFoundError: No module named 'torch'\"}\n")
	want(t, []Finding{torchFinding(no, p, nil)}, Problem, "not installed", "/venv/bin/python -m pip install torch")
	cpu := parse(`{"torch":"2.5.0+cpu","cuda":"","hip":""}` + "\n" + `{"available":false}`)
	want(t, []Finding{cudaFinding(cpu, p)}, Problem, "CPU only", "--cpu")
	want(t, []Finding{cudaFinding(cpu, worker.Plan{Argv: []string{"python", "main.py", "--cpu"}})}, OK, "--cpu")
	old := parse(`{"torch":"2.5.0","cuda":"12.4"}` + "\n" + `{"available":true}` + "\nnoise\n" +
		`{"devices":[{"name":"RTX 5090","arch":"sm_120"}],"archs":["sm_80","sm_86","sm_90"]}`)
	want(t, []Finding{cudaFinding(old, p)}, Problem, "RTX 5090", "no kernels", "no kernel image")
	blind := parse(`{"torch":"2.5.0","cuda":"12.4"}` + "\n" + `{"available":false,"why":"driver too old"}`)
	want(t, []Finding{cudaFinding(blind, p)}, Problem, "driver too old")
	if !supports([]string{"sm_80"}, "sm_86") || supports([]string{"sm_86"}, "sm_80") || !supports([]string{"compute_90"}, "sm_120") {
		t.Error("binary code runs on later minor versions, PTX on later cards")
	}
}

// TestRealInterpreter asks the python of this machine.
func TestRealInterpreter(t *testing.T) {
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on this machine")
	}
	out, err := runCommand(context.Background(), os.Environ(), []string{path, "-c", probe})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a := parseAnswers(out)
	if a.Python == "" || a.Torch == "" && a.TorchError == "" || len(a.Versions) == 0 {
		t.Errorf("it did not answer: %s", out)
	}
	gone, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := runCommand(gone, nil, []string{path, "-c", "import time; time.sleep(60)"}); err == nil || time.Since(start) > 10*time.Second {
		t.Errorf("a child that hangs: %v after %s", err, time.Since(start))
	}
}

func TestWaitingAnswersWhy(t *testing.T) {
	ctx := context.Background()
	b := machine(t, nil)
	set := func(q backend.QueueCounts, ws ...backend.Worker) { b.Status = &backend.Status{Queue: q, Workers: ws} }
	set(backend.QueueCounts{Queued: 3, Paused: true})
	want(t, checkWaiting(ctx, b), Warning, "paused", "easel jobs resume")
	set(backend.QueueCounts{Queued: 3}, backend.Worker{ID: "gpu0", State: backend.WorkerFailed, Reason: "no torch"})
	want(t, checkWaiting(ctx, b), Problem, "gpu0, which is failed: no torch")
	set(backend.QueueCounts{Queued: 3})
	want(t, checkWaiting(ctx, b), Problem, "no worker")
	set(backend.QueueCounts{Queued: 3}, backend.Worker{ID: "gpu0", State: backend.WorkerReady})
	want(t, checkWaiting(ctx, b), Warning, "none runs")
	b.Jobs = []backend.Job{{State: backend.JobQueued, WaitReason: "not before 22:00"}}
	want(t, checkWaiting(ctx, b), Note, "not before 22:00")
	set(backend.QueueCounts{Held: 2})
	want(t, checkWaiting(ctx, b), Note, "held")
}

func TestAttention(t *testing.T) {
	for line, v := range map[string]Verdict{
		"Using pytorch attention":                OK,
		"Using sage attention":                   OK,
		"Using xformers attention":               OK,
		"Using split optimization for attention": Warning,
		"Using sub quadratic optimization for attention, if you have memory or speed issues try using: --use-split-cross-attention": Warning,
	} {
		b := machine(t, nil)
		dir := filepath.Join(b.StateDir, "logs")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "worker-gpu0-1.log"), []byte("Total VRAM\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, checkAttention(context.Background(), b), v)
	}
}

func TestDisk(t *testing.T) {
	f := spaceFinding(place{"state", "/s"}, space{free: 1 << 20, total: 1 << 40})
	want(t, []Finding{f}, Problem, "1 MiB of 1024.0 GiB free", "storage clean")
	f = spaceFinding(place{"state", "/s"}, space{free: 1 << 38, total: 1 << 40, inodes: 1, inodesTotal: 1000})
	want(t, []Finding{f}, Warning, "1 more files")
	b := machine(t, nil)
	want(t, checkDiskSpeed(context.Background(), b), checkDiskSpeed(context.Background(), b)[0].Verdict, "4 KiB are safe after")
	if left, _ := filepath.Glob(filepath.Join(b.StateDir, ".doctor-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestPermissions(t *testing.T) {
	b := machine(t, nil)
	if err := os.Chmod(b.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	want(t, checkPermissions(context.Background(), b), Warning, "chmod 700")
}

func TestMountThatIsNotThere(t *testing.T) {
	b := machine(t, nil)
	b.Config.Worker.Data = "/mnt/nothing"
	want(t, checkMounts(context.Background(), b), Problem, "no such file")
}

func TestClockLocaleTerminal(t *testing.T) {
	ctx := context.Background()
	b := machine(t, nil)
	b.Now = func() time.Time { return time.Unix(0, 0) }
	want(t, checkClock(ctx, b), Problem, "1970")
	b.Environ = []string{"LANG=de_DE.ISO-8859-1"}
	want(t, checkLocale(ctx, b), Warning, "no UTF-8")
	b.Environ = []string{"LANG=zh_CN.utf8", "TERM=dumb"}
	want(t, checkLocale(ctx, b), OK)
	b.Terminal = true
	want(t, checkTerminal(ctx, b), Warning, "dumb")
	b.Environ = []string{"TERM=xterm-kitty", "TMUX=/tmp/x"}
	want(t, checkTerminal(ctx, b), Note, "allow-passthrough")
}

func TestCheckThatHangsOrPanicsIsSaid(t *testing.T) {
	b := machine(t, nil)
	release := make(chan struct{})
	defer close(release)
	list := bounded(context.Background(), b, check{"x", "x", time.Millisecond, func(context.Context, *Box) []Finding { <-release; return nil }})
	want(t, list, Problem, "hangs in the kernel")
	list = bounded(context.Background(), b, check{"x", "x", time.Second, func(context.Context, *Box) []Finding { panic("oh") }})
	want(t, list, Warning, "oh")
}

func TestEveryFindingIsWhole(t *testing.T) {
	b := machine(t, map[string]string{"proc/meminfo": "MemTotal: 1024 kB\n"})
	b.Root = "/"
	r := Examine(context.Background(), b)
	if len(r.Checks) < 10 {
		t.Errorf("only %d findings", len(r.Checks))
	}
	for _, f := range r.Checks {
		if f.ID == "" || f.Title == "" || f.Seen == "" || f.Verdict.rank() < 0 {
			t.Errorf("not whole: %+v", f)
		}
	}
}

func TestBundleLeavesSecretsOut(t *testing.T) {
	b := machine(t, nil)
	b.Environ = []string{"OSS_ACCESS_KEY_SECRET=s3cr3tvalue", "HOME=/home/mia"}
	b.ConfigErr = errors.New("none")
	log := "uploading with s3cr3tvalue to /home/mia/x and /home/otto/y\nAuthorization: Bearer abcdefghijkl\n" +
		"login hf_abcdefghijklmnopqrst done https://joe:pw@host/ --api-key 12345678 {\"token\": \"abc123\"}\nplain line\n"
	if err := os.WriteFile(filepath.Join(b.StateDir, "engine.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Bundle(&out, b, Report{Checks: []Finding{{ID: "x"}}}, nil); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	var r Report
	if err := json.Unmarshal([]byte(files["easel-report/doctor.json"]), &r); err != nil || len(r.Checks) != 1 {
		t.Errorf("doctor.json: %v %q", err, files["easel-report/doctor.json"])
	}
	got := files["easel-report/engine.log"]
	for _, secret := range []string{"s3cr3tvalue", "mia", "otto", "abcdefghijkl", "joe", "pw@", "12345678", "abc123"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q is still in:\n%s", secret, got)
		}
	}
	if !strings.Contains(got, "plain line") {
		t.Errorf("too much is gone:\n%s", got)
	}
}

func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(body)
	}
}
