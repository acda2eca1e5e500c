package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// write puts a configuration file into a fresh directory.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoFileGivesTheDefaults(t *testing.T) {
	cfg, sources, err := Load(filepath.Join(t.TempDir(), "none", "config.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("got %+v", cfg)
	}
	for key, source := range sources {
		if source != SourceDefault {
			t.Errorf("%s comes from %s", key, source)
		}
	}
	if problems := Check(cfg); len(problems) > 0 {
		t.Errorf("the defaults have problems: %v", problems)
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	for _, k := range keys {
		if k.Doc == "" {
			t.Errorf("%s has no doc", k.Path)
		}
		if s := k.section(); s != "" && sectionDocs[s] == "" {
			t.Errorf("section %s has no doc", s)
		}
	}
	if len(keys) != len(docs) {
		t.Errorf("%d keys, %d docs", len(keys), len(docs))
	}
}

// example is the table of interfaces.md, with the values that stand there.
const example = `edition = "standard"
language = ""
[worker]
comfyui = "/opt/ComfyUI"
python  = ""
command = ""
packages = []
pip_index = ""
builtin = false
url     = ""
args    = ["--lowvram"]
data    = ""
log     = ""
restart = ""
recycle_after = ""
port    = 0
gpus    = [0]
[gateway]
listen  = "127.0.0.1:8288"
service = "comfyui"
public_url = ""
task_id_once = false
query_token = false
[[mount]]
path = "/mnt/data"
bucket = "oss://bucket/prefix"
endpoint = ""
region = ""
layout = "comfyui"
read_only = false
push = []
[queue]
after_restart = "go-on"
[serverless]
unload_after = "2m"
stop_after = "10m"
[restart]
attempts = 5
window = "10m"
`

func TestLoadReadsEveryPublishedKey(t *testing.T) {
	path := write(t, example)
	cfg, sources, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Worker.ComfyUI = "/opt/ComfyUI"
	want.Worker.Args = []string{"--lowvram"}
	want.Mount = []Mount{{Path: "/mnt/data", Bucket: "oss://bucket/prefix", Layout: "comfyui", Push: []string{}}}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	for key, want := range map[string]string{
		"edition": path + ":1", "worker.comfyui": path + ":4", "mount.0.bucket": path + ":26", "restart.window": path + ":39", "queue.limit": SourceDefault,
	} {
		if sources[key] != want {
			t.Errorf("source of %s: %s, want %s", key, sources[key], want)
		}
	}
	if problems := Check(cfg); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"typo in a key", "edition = \"api\"\n[worker]\ncomfui = \"/x\"\n", "config.toml:3: unknown key worker.comfui: did you mean worker.comfyui?"},
		{"dotted key", "worker.comfui = 1", "config.toml:1: unknown key worker.comfui: did you mean worker.comfyui?"},
		{"inline table", "worker = { comfui = 1, port = 3 }", "config.toml:1: unknown key worker.comfui: did you mean worker.comfyui?"},
		{"key of another section", "[gateway]\ncomfyui = \"/x\"", "config.toml:2: unknown key gateway.comfyui: did you mean worker.comfyui?"},
		{"key of a mount", "[[mount]]\npath = \"/x\"\n[[mount]]\nreadonly = true", "config.toml:4: unknown key mount.readonly: did you mean mount.read_only?"},
		{"section", "[workr]\nport = 1\nurl = 2", "config.toml:1: unknown section [workr]: did you mean [worker]?"},
		{"list of sections", "[[workers]]\nport = 1\n[[workers]]", "config.toml:1: unknown section [[workers]]: did you mean [worker]?"},
		{"one mount", "[mount]\npath = \"/x\"", "config.toml:1: mount is a list of sections: write [[mount]]"},
		{"two workers", "[[worker]]\nport = 1", "config.toml:1: worker is one section: write [worker]"},
		{"section as key", "worker = 5", "config.toml:1: worker is a section: write [worker] on a line of its own"},
		{"nothing near", "[worker]\nzzzzzzzzzzz = 1", "config.toml:2: unknown key worker.zzzzzzzzzzz: [worker] has comfyui, python"},
		{"deeper", "[worker.gpu]\nx = 1", "config.toml:1: unknown key worker.gpu: did you mean worker.gpus?"},
		{"number in quotes", "[worker]\nport = \"8288\"", `config.toml:2: worker.port: expected a whole number, without quotes, not the text "8288"`},
		{"one instead of a list", "[worker]\ngpus = 0", "config.toml:2: worker.gpus: expected a list of numbers, like [0, 1], not the number 0"},
		{"mixed list", "[worker]\nargs = [\"a\", 1]", "config.toml:2: worker.args: expected a list of texts"},
		{"duration without a unit", "[restart]\nwindow = 10", `config.toml:2: restart.window: expected a duration in quotes, like "10m", not the number 10`},
		{"bad duration", "[restart]\nwindow = \"10 parsecs\"", `config.toml:2: restart.window: "10 parsecs" is not a duration`},
		{"bad size", "[gateway]\nmax_body = \"much\"", `config.toml:2: gateway.max_body: "much" is not a size`},
		{"not TOML", "edition = \"api\"\n[worker\nport = 1", "config.toml:2"},
		{"key twice", "edition = \"api\"\nedition = \"api\"", "config.toml:2"},
		{"control characters", "\"wor\\u001b[31mker\" = 1", "config.toml:1: unknown key wor [31mker"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := Load(write(t, test.text), nil)
			var bad *Error
			if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

func TestAllMistakesAreCounted(t *testing.T) {
	_, _, err := Load(write(t, "editon = 1\n[worker]\nport = true\n"), []string{"EASEL_WORKER_PROT=1"})
	var bad *Error
	if !errors.As(err, &bad) || len(bad.Problems) != 3 {
		t.Fatalf("got %v", err)
	}
	if want := "env EASEL_WORKER_PROT: unknown setting: did you mean EASEL_WORKER_PORT?"; bad.Problems[2].String() != want {
		t.Errorf("got %s", bad.Problems[2])
	}
	if !strings.Contains(err.Error(), "and 2 more") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentWins(t *testing.T) {
	path := write(t, "[worker]\nport = 1\nurl = \"http://a\"\nargs = [\"--cpu\"]\n[[mount]]\npath = \"/a\"\n")
	cfg, sources, err := Load(path, []string{
		"EASEL_WORKER_PORT=9", "EASEL_WORKER_PORT=8", "EASEL_WORKER_URL=", "EASEL_WORKER_ARGS=--lowvram, --listen",
		"EASEL_WORKER_GPUS=[1, 2]", "EASEL_WORKER_BUILTIN=yes", "EASEL_RESTART_WINDOW=1h", "EASEL_RESTART_ATTEMPTS=",
		"EASEL_MOUNT_PATH=/b", "EASEL_MOUNT_1_PATH=/c", "EASEL_MOUNT_1_READ_ONLY=true", "EASEL_GATEWAY_MAX_BODY=1GiB",
		"EASEL_HOME=/h", "EASEL_HOST=x", "EASEL_LIVE_COMFYUI=/x", "EASEL_TEST_CHILD=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Worker.Port, want.Worker.Builtin = 8, true
	want.Worker.Args, want.Worker.GPUs = []string{"--lowvram", "--listen"}, []int{1, 2}
	want.Restart.Window = Duration{time.Hour}
	want.Gateway.MaxBody = 1 << 30
	want.Mount = []Mount{
		{Path: "/b", Layout: "comfyui", Push: []string{}},
		{Path: "/c", Layout: "comfyui", Push: []string{}, ReadOnly: true},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	for key, want := range map[string]string{
		"worker.port": "env EASEL_WORKER_PORT", "mount.1.path": "env EASEL_MOUNT_1_PATH", "mount.1.layout": SourceDefault,
	} {
		if sources[key] != want {
			t.Errorf("source of %s: %s, want %s", key, sources[key], want)
		}
	}
}

func TestEveryKeyHasItsVariable(t *testing.T) {
	for _, k := range keys {
		got, _ := findEnv(strings.TrimPrefix(k.Env, envPrefix))
		if got == nil || got.Path != k.Path {
			t.Errorf("%s: %s finds %v", k.Path, k.Env, got)
		}
	}
}

func TestTildeIsHome(t *testing.T) {
	cfg, _, err := Load(write(t, "[worker]\ncomfyui = \"~/ComfyUI\"\ncommand = \"~/x\"\n[[mount]]\npath = \"~\""), []string{"HOME=/home/a"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Worker.ComfyUI != "/home/a/ComfyUI" || cfg.Mount[0].Path != "/home/a" || cfg.Worker.Command != "~/x" {
		t.Errorf("got %+v", cfg)
	}
}

func TestUnreadableFilesAreExplained(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("directory: %v", err)
	}
	if _, _, err := Load(write(t, strings.Repeat("#", maxFile+1)), nil); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("large file: %v", err)
	}
	if _, _, err := Load(write(t, "\ufeffedition = \"api\""), nil); err != nil {
		t.Errorf("BOM: %v", err)
	}
}

func TestPaths(t *testing.T) {
	tests := []struct {
		name        string
		environ     []string
		path, state string
	}{
		{"home only", []string{"HOME=/h"}, "/h/.config/easel/config.toml", "/h/.local/state/easel"},
		{"XDG", []string{"HOME=/h", "XDG_CONFIG_HOME=/c", "XDG_STATE_HOME=/s"}, "/c/easel/config.toml", "/s/easel"},
		{"relative XDG is ignored", []string{"HOME=/h", "XDG_CONFIG_HOME=c", "XDG_STATE_HOME=s"}, "/h/.config/easel/config.toml", "/h/.local/state/easel"},
		{"EASEL_HOME", []string{"HOME=/h", "XDG_CONFIG_HOME=/c", "EASEL_HOME=/e"}, "/e/config.toml", "/e"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Path(test.environ); got != test.path {
				t.Errorf("path %s, want %s", got, test.path)
			}
			if got := StateDir(test.environ); got != test.state {
				t.Errorf("state %s, want %s", got, test.state)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // start of the first message
	}{
		{"edition", func(c *Config) { c.Edition = "clsuter" }, `error edition: "clsuter" is not known: it is one of standard, api, cluster, serverless`},
		{"both", func(c *Config) { c.Worker.URL, c.Worker.ComfyUI = "http://127.0.0.1:8188", "/opt/ComfyUI" }, "error worker.url and worker.comfyui are both set"},
		{"built-in wins", func(c *Config) { c.Worker.Builtin, c.Worker.ComfyUI = true, "/opt/ComfyUI" }, "warning worker.builtin is true"},
		{"relative", func(c *Config) { c.Worker.ComfyUI = "ComfyUI" }, `error worker.comfyui: "ComfyUI" is no absolute path`},
		{"no URL", func(c *Config) { c.Worker.URL = "127.0.0.1:8188" }, "error worker.url: "},
		{"listen", func(c *Config) { c.Gateway.Listen = "8288" }, `error gateway.listen: "8288" is no address`},
		{"listen on a name", func(c *Config) { c.Gateway.Listen = "example.org:80" }, "error gateway.listen: "},
		{"listen on all", func(c *Config) { c.Gateway.Listen = "0.0.0.0:8288" }, "warning gateway.listen: 0.0.0.0:8288 can be reached from other machines"},
		{"port", func(c *Config) { c.Worker.Port = 70000 }, "error worker.port: 70000 is no port"},
		{"card twice", func(c *Config) { c.Worker.GPUs = []int{0, 0} }, "error worker.gpus: card 0 stands there twice"},
		{"negative card", func(c *Config) { c.Worker.GPUs = []int{-1} }, "error worker.gpus: -1 is no card"},
		{"log", func(c *Config) { c.Worker.URL, c.Worker.Log = "http://a", "journal:" }, "error worker.log: "},
		{"log without URL", func(c *Config) { c.Worker.Log = "journal:comfy" }, "warning worker.log has a meaning only with worker.url"},
		{"recycle", func(c *Config) { c.Worker.RecycleAfter = "often" }, "error worker.recycle_after: "},
		{"mount without path", func(c *Config) { c.Mount = []Mount{defaultMount()} }, "error mount.0.path is missing"},
		{"push without bucket", func(c *Config) {
			c.Mount = []Mount{{Path: "/a", Layout: "comfyui", Push: []string{"output"}}}
		}, "error mount.0.push is set, and there is no bucket"},
		{"bucket", func(c *Config) { c.Mount = []Mount{{Path: "/a", Layout: "comfyui", Bucket: "s3://x"}} }, "error mount.0.bucket: "},
		{"layout", func(c *Config) { c.Mount = []Mount{{Path: "/a", Layout: "other"}} }, "error mount.0.layout: "},
		{"mount twice", func(c *Config) { c.Mount = []Mount{{Path: "/a", Layout: "comfyui"}, {Path: "/a/", Layout: "comfyui"}} }, "error mount.1.path: "},
		{"after restart", func(c *Config) { c.Queue.AfterRestart = "stop" }, "error queue.after_restart: "},
		{"limit", func(c *Config) { c.Queue.Limit = 0 }, "error queue.limit: 0 is too small"},
		{"window", func(c *Config) { c.Restart.Window = Duration{} }, "error restart.window"},
		{"unload after stop", func(c *Config) { c.Serverless.UnloadAfter = Minutes(20) }, "warning serverless.unload_after never happens"},
		{"service", func(c *Config) { c.Gateway.Service = "a/b" }, "error gateway.service: "},
		{"NUL", func(c *Config) { c.Worker.Args = []string{"a\x00"} }, "error worker.args contains a NUL"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := Default()
			test.change(&cfg)
			problems := Check(cfg)
			if len(problems) == 0 {
				t.Fatal("no problem found")
			}
			if got := problems[0].Severity + " " + problems[0].Message; !strings.HasPrefix(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestOpenSaysWhereABadValueComesFrom(t *testing.T) {
	path := write(t, "\nedition = \"big\"\n")
	_, _, err := Open([]string{"EASEL_HOME=" + filepath.Dir(path)})
	if err == nil || !strings.HasPrefix(err.Error(), `config.toml:2: edition: "big" is not known`) {
		t.Errorf("got %v", err)
	}
	_, _, err = Open([]string{"EASEL_HOME=" + t.TempDir(), "EASEL_EDITION=big"})
	if err == nil || !strings.HasPrefix(err.Error(), `env EASEL_EDITION: edition: "big" is not known`) {
		t.Errorf("got %v", err)
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2m": 2 * time.Minute, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "14d": 14 * day, "1y": 365 * day, "1.5h": 90 * time.Minute, "0": 0, "2w": 14 * day, "1d 2h": 26 * time.Hour,
	} {
		got, err := ParseDuration(text)
		if err != nil || got.Duration != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		again, err := ParseDuration(got.String())
		if err != nil || again != got {
			t.Errorf("%s is written %s", text, got)
		}
	}
	for _, text := range []string{"", "10", "m", "-1m", "1.2.3s", "9999999y", "5 minutes"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for text, want := range map[string]Size{"96MiB": 96 << 20, "4 GiB": 4 << 30, "10GB": 1e10, "1024": 1024, "1.5kib": 1536} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	if jobs, _, err := ParseRecycle("100 jobs"); jobs != 100 || err != nil {
		t.Errorf("100 jobs: %d, %v", jobs, err)
	}
	if _, growth, err := ParseRecycle("4GiB"); growth != 4<<30 || err != nil {
		t.Errorf("4GiB: %d, %v", growth, err)
	}
}

func TestInitIsTheDefaults(t *testing.T) {
	text := Init()
	cfg, _, err := Load(write(t, text), nil)
	if err != nil || !reflect.DeepEqual(cfg, Default()) {
		t.Fatalf("commented: %+v, %v", cfg, err)
	}
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			line = line[1:]
		}
		lines = append(lines, line)
	}
	cfg, _, err = Load(write(t, strings.Join(lines, "\n")), nil)
	want := Default()
	want.Mount = []Mount{defaultMount()}
	if err != nil || !reflect.DeepEqual(cfg, want) {
		t.Errorf("uncommented: %+v, %v", cfg, err)
	}
	for _, k := range keys {
		if !strings.Contains(text, "\n#"+k.name()+" = "+k.Default) {
			t.Errorf("%s is missing", k.Path)
		}
	}
}

func TestShowHidesSecrets(t *testing.T) {
	path := write(t, `[worker]
url = "http://me:hunter2@host:8188"
pip_index = "https://tok3n@host/simple?token=abc123"
command = "python main.py --api-key s3cr3t --lowvram"
args = ["--auth-token", "v4lue", "--password=pw12"]
`)
	cfg, sources, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := Show(cfg, sources)
	for _, secret := range []string{"hunter2", "tok3n", "abc123", "s3cr3t", "v4lue", "pw12"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is shown:\n%s", secret, text)
		}
	}
	for _, want := range []string{`worker.url = "http://***@host:8188"`, "--lowvram", path + ":2", "# default"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing:\n%s", want, text)
		}
	}
}

func TestShowIsOneLinePerKey(t *testing.T) {
	cfg, sources, err := Load(write(t, "[worker]\ncommand = \"a\\nb\\u001b[2J\"\n[[mount]]\npath = \"/a\"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := Show(cfg, sources)
	if got := strings.Count(text, "\n"); got != len(keys) {
		t.Errorf("%d lines for %d keys:\n%s", got, len(keys), text)
	}
	if strings.ContainsRune(text, 0x1b) {
		t.Error("a control character is shown")
	}
}
