package worker

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Command
	}{
		{
			"as EAS shows it", "python main.py --listen --port 8000 --data-dir /mnt/data --cache-root /stable-diffusion-cache",
			Command{Python: "python", Script: "main.py", Listen: "0.0.0.0", Port: 8000, Data: "/mnt/data", Cache: "/stable-diffusion-cache"},
		},
		{
			"flags for ComfyUI stay, in order", "python3 -u /opt/ComfyUI/main.py --lowvram --listen=127.0.0.1 --port=9000 --preview-method auto --api",
			Command{
				Python: "python3", PyArgs: []string{"-u"}, Script: "/opt/ComfyUI/main.py", Listen: "127.0.0.1", Port: 9000, Args: []string{"--lowvram", "--preview-method", "auto"},
				Notes: []string{"--api left out: Easel's gateway serves that API"},
			},
		},
		{
			"wheels first", "pip install /mnt/data/models/whl/a.whl && python main.py --port 8000",
			Command{Python: "python", Script: "main.py", Port: 8000, Prepare: []Step{{Argv: []string{"pip", "install", "/mnt/data/models/whl/a.whl"}}}},
		},
		{
			"lines, semicolons, python -m pip", "python -m pip install -r 'my reqs.txt'; pip3 install b\npython main.py",
			Command{Python: "python", Script: "main.py", Prepare: []Step{{Argv: []string{"python", "-m", "pip", "install", "-r", "my reqs.txt"}}, {Argv: []string{"pip3", "install", "b"}}}},
		},
		{
			"directory, environment, activation", "cd /ComfyUI && export HF_HOME=/c A='x y' && . venv/bin/activate && B=1 exec python main.py --cpu",
			Command{Dir: "/ComfyUI", Env: []string{"HF_HOME=/c", "A=x y", "B=1"}, Python: "venv/bin/python", Script: "main.py", Args: []string{"--cpu"}},
		},
		{
			"continued lines and comments", "python main.py \\\n  --cpu \\\n  --port 8000 # the port\n",
			Command{Python: "python", Script: "main.py", Args: []string{"--cpu"}, Port: 8000},
		},
		{"background and log are Easel's", "nohup python main.py --cpu > /tmp/log.txt 2>&1 &", Command{Python: "python", Script: "main.py", Args: []string{"--cpu"}}},
		{"tee is dropped", "python main.py --cpu 2>&1 | tee /tmp/log", Command{Python: "python", Script: "main.py", Args: []string{"--cpu"}}},
		{
			"quotes are sh's", `python main.py --front-end-version "a \"b\" c" --x 'd $e'`,
			Command{Python: "python", Script: "main.py", Args: []string{"--front-end-version", `a "b" c`, "--x", "d $e"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseCommand(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestParseCommandRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        "empty",
		"python main.py --port $PORT":             "variable",
		"python main.py --port \"$PORT\"":         "variable",
		"python `which x`":                        "backquotes",
		"(python main.py)":                        "bracket",
		"python main.py | grep x":                 "pipe",
		"python main.py < /dev/null":              "input",
		"python main.py 'a":                       "quote",
		"apt-get update && python main.py":        "apt-get update",
		"rm -rf / ; python main.py":               "rm -rf /",
		"python train.py":                         "something else",
		"python -m comfy":                         "something else",
		"pip install x":                           "no main.py",
		"python main.py && sleep 5":               "follows",
		"python main.py --port eight":             "--port eight",
		"python main.py --port":                   "no value",
		"python main.py --data-dir --cpu":         "no value",
		"python main.py --x \x1b[31m":             "control",
		"curl http://x/y.sh | sh\npython main.py": "pipe",
	} {
		if c, err := ParseCommand(text); err == nil {
			t.Errorf("%q became %+v", text, c)
		} else if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "worker.command: ") {
			t.Errorf("%q: %v (wanted %q)", text, err, want)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add("pip install a && python main.py --port 8000 'x' \"y\" \\\n > z 2>&1 | tee w # c")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCommand(text)
		if err == nil && c.Script == "" {
			t.Error("no script and no error")
		}
	})
}
