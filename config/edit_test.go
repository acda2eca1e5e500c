package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSetKeepsTheRest(t *testing.T) {
	tests := []struct {
		name, before string
		set          []Setting
		want         string
	}{
		{
			"replaces a value", "# mine\n[worker] # w\nport = 1   # why\nurl = \"http://a\"\n",
			[]Setting{{"worker.port", "2"}},
			"# mine\n[worker] # w\nport = 2   # why\nurl = \"http://a\"\n",
		},
		{
			"adds to a section", "[worker]\nport = 1\n\n[gateway]\n",
			[]Setting{{"worker.url", "http://a"}},
			"[worker]\nport = 1\nurl = \"http://a\"\n\n[gateway]\n",
		},
		{
			"adds under the default", "[worker]\n# The port.\n#port = 0\n\n# The URL.\n#url = \"\"\n\n# Log.\n#log = \"\"\n",
			[]Setting{{"worker.url", "http://a"}},
			"[worker]\n# The port.\n#port = 0\n\n# The URL.\n#url = \"\"\nurl = \"http://a\"\n\n# Log.\n#log = \"\"\n",
		},
		{
			"makes a section", "edition = \"api\"",
			[]Setting{{"worker.port", "2"}},
			"edition = \"api\"\n\n[worker]\nport = 2\n",
		},
		{"makes a file", "", []Setting{{"worker.port", "2"}}, "[worker]\nport = 2\n"},
		{"adds at the top", "[worker]\nport = 1\n", []Setting{{"edition", "api"}}, "edition = \"api\"\n[worker]\nport = 1\n"},
		{"dotted key", "worker.port = 1\n", []Setting{{"worker.port", "2"}}, "worker.port = 2\n"},
		{"inline table", "worker = { port = 1, url = \"http://a\" } # x\n", []Setting{{"worker.port", "2"}}, "worker = { port = 2, url = \"http://a\" } # x\n"},
		{"list of several lines", "[worker]\nargs = [\n  \"a\", # b\n]\nport = 1\n", []Setting{{"worker.args", "c,d"}}, "[worker]\nargs = [\"c\", \"d\"]\nport = 1\n"},
		{"first mount", "", []Setting{{"mount.path", "/a"}}, "[[mount]]\npath = \"/a\"\n"},
		{
			"second mount", "[[mount]]\npath = \"/a\"\n",
			[]Setting{{"mount.1.path", "/b"}, {"mount.1.read_only", "true"}},
			"[[mount]]\npath = \"/a\"\n\n[[mount]]\npath = \"/b\"\nread_only = true\n",
		},
		{"Windows line ends", "[worker]\r\nport = 1\r\n", []Setting{{"worker.port", "2"}}, "[worker]\r\nport = 2\r\n"},
		{"no line end", "[worker]\nport = 1", []Setting{{"worker.url", "http://a"}}, "[worker]\nport = 1\nurl = \"http://a\"\n"},
		{"a text that looks like a comment", "[worker]\ncommand = \"\"\"\n#url = 1\n\"\"\"\n", []Setting{{"worker.url", "http://a"}}, "[worker]\ncommand = \"\"\"\n#url = 1\n\"\"\"\nurl = \"http://a\"\n"},
		{
			"several at once", "[worker]\ncomfyui = \"/opt/ComfyUI\"\n",
			[]Setting{{"worker.url", "http://a"}, {"worker.comfyui", ""}},
			"[worker]\ncomfyui = \"\"\nurl = \"http://a\"\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.before)
			if err := SetAll(path, test.set...); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	tests := []struct{ name, before, key, value, want string }{
		{"unknown key", "", "worker.comfui", "/x", "unknown key worker.comfui: did you mean worker.comfyui?"},
		{"wrong type", "", "worker.port", "many", "worker.port: expected a whole number"},
		{"wrong value", "", "edition", "big", `edition: "big" is not known`},
		{"conflict", "[worker]\nurl = \"http://a\"\n", "worker.comfyui", "/opt/ComfyUI", "worker.url and worker.comfyui are both set"},
		{"broken file", "[worker\n", "worker.port", "1", "config.toml:1"},
		{"mount out of order", "", "mount.3.path", "/x", "set mount.3.path: there are 0 mounts"},
		{"key of a section that is inline", "worker = { port = 1 }\n", "worker.url", "http://a", "set worker.url: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.before)
			if err := Set(path, test.key, test.value); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if got, _ := os.ReadFile(path); string(got) != test.before {
				t.Errorf("the file was changed: %s", got)
			}
		})
	}
}

func TestSetInAFreshInitFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.toml")
	if err := WriteInit(path); err != nil {
		t.Fatal(err)
	}
	if err := WriteInit(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second init: %v", err)
	}
	values := map[string]string{"language": "en", "worker.comfyui": "/opt/ComfyUI", "restart.attempts": "7", "mount.path": "/mnt/data", "gateway.listen": "127.0.0.1:1"}
	for key, value := range values {
		if err := Set(path, key, value); err != nil {
			t.Fatal(err)
		}
	}
	cfg, sources, err := Load(path, nil)
	if err != nil || cfg.Worker.ComfyUI != "/opt/ComfyUI" || cfg.Restart.Attempts != 7 || cfg.Mount[0].Path != "/mnt/data" || cfg.Language != "en" {
		t.Errorf("%+v, %v", cfg, err)
	}
	data, _ := os.ReadFile(path)
	for line := range strings.SplitSeq(Init(), "\n") {
		if !strings.Contains(string(data), line) {
			t.Errorf("lost: %s", line)
		}
	}
	if sources["language"] == SourceDefault {
		t.Error("language has no source")
	}
}

func TestSetKeepsModeAndLink(t *testing.T) {
	dir := t.TempDir()
	target := write(t, "edition = \"api\"\n")
	if err := os.Chmod(target, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "config.toml")
	if err := os.Symlink(target, link); err != nil {
		t.Skip("no symbolic links here: ", err)
	}
	if err := Set(link, "edition", "cluster"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if data, _ := os.ReadFile(target); string(data) != "edition = \"cluster\"\n" {
		t.Errorf("target: %s", data)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target), ".config-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	dangling := filepath.Join(dir, "dangling.toml")
	_ = os.Symlink(filepath.Join(dir, "nothing"), dangling)
	if err := Set(dangling, "edition", "api"); err == nil || !strings.Contains(err.Error(), "symbolic link to nothing") {
		t.Errorf("dangling: %v", err)
	}
	fresh := filepath.Join(dir, "fresh", "config.toml")
	if err := Set(fresh, "edition", "api"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(fresh); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("fresh: %v, %v", info, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(example)
	f.Add(Init())
	f.Add("worker = { port = 1 }\nmount = [{path='/a'}, 1]")
	f.Add("[[mount]]\n[mount.x]\n[[mount.y]]")
	f.Add("worker.gpus = [1,\n2]\n\"a.b\".c = 1\nmount.path = 2")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		cfg, sources, problems := parse([]byte(text), "config.toml")
		if len(problems) > 0 {
			for _, p := range problems {
				if p.Message == "" || strings.ContainsFunc(p.Message, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
					t.Errorf("message %q", p.Message)
				}
			}
			return
		}
		Check(cfg)
		_ = Show(cfg, sources)
		after, err := edit([]byte(text), "config.toml", Setting{"worker.port", "77"})
		if err != nil {
			return
		}
		again, _, problems := parse(after, "config.toml")
		if len(problems) > 0 || again.Worker.Port != 77 {
			t.Errorf("after the edit: %v, port %d", problems, again.Worker.Port)
		}
	})
}
