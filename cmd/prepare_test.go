package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
)

const portrait = `{
 "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "model": ["4", 0]}},
 "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
 "6": {"class_type": "CLIPTextEncode", "_meta": {"title": "Prompt"}, "inputs": {"text": "a cat"}},
 "9": {"class_type": "LoadImage", "inputs": {"image": "old.png"}},
 "10": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "out"}}
}`

// prep prepares portrait with args of the command line, in a directory with a
// few files.
func prep(t *testing.T, f runFlags) (*prepared, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"p.api.json": portrait, "prompt.txt": "from a file\n", "cat.png": "pixels", "binary": "\xff\xfe\x00"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	if f.count == 0 {
		f.count = 1
	}
	a := &app{in: strings.NewReader(portrait), out: io.Discard, err: io.Discard, environ: []string{"USER=ann"}}
	return a.prepare(t.Context(), &cobra.Command{Use: "run"}, "p.api.json", f)
}

// input is the value of an input in a submission's graph.
func input(t *testing.T, s backend.Submission, node, name string) string {
	t.Helper()
	var g map[string]struct {
		Inputs map[string]json.RawMessage `json:"inputs"`
	}
	if err := json.Unmarshal(s.Graph, &g); err != nil {
		t.Fatal(err)
	}
	return string(g[node].Inputs[name])
}

func TestSetTakesValuesAndFiles(t *testing.T) {
	for _, tc := range []struct{ set, node, input, want string }{
		{"seed=7", "3", "seed", "7"},
		{"seed=18446744073709551615", "3", "seed", "18446744073709551615"},
		{"6.text=a=b", "6", "text", `"a=b"`},
		{"Prompt.text=@prompt.txt", "6", "text", `"from a file"`},
		{"text=@@home", "6", "text", `"@home"`},
		{"text=./not a file", "6", "text", `"./not a file"`},
		{"image=other.png", "9", "image", `"other.png"`},
	} {
		t.Run(tc.set, func(t *testing.T) {
			p, err := prep(t, runFlags{set: []string{tc.set}})
			if err != nil {
				t.Fatal(err)
			}
			s, err := p.submission(0)
			if err != nil {
				t.Fatal(err)
			}
			if got := input(t, s, tc.node, tc.input); got != tc.want {
				t.Errorf("%s.%s = %s, want %s", tc.node, tc.input, got, tc.want)
			}
			if s.Name != "p" || s.Owner != "ann" || s.Source != backend.SourceCLI {
				t.Errorf("submission %+v", s)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	for _, tc := range []struct {
		set  string
		code int
		say  string
	}{
		{"nothing=1", 2, "--set nothing"},
		{"model=x", 2, "--set model"},
		{"steps=many", 2, "--set steps"},
		{"text=@missing.txt", 3, "missing.txt"},
		{"text=@binary", 1, "not text"},
		{"image=./missing.png", 3, "missing.png"},
		{"image=./", 2, "not a file"},
	} {
		t.Run(tc.set, func(t *testing.T) {
			_, err := prep(t, runFlags{set: []string{tc.set}})
			if exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.say) {
				t.Errorf("code %d, %v", exitCode(err), err)
			}
			if strings.Count(err.Error(), "set ") != 1 {
				t.Errorf("said twice: %v", err)
			}
		})
	}
}

func TestLocalPictureIsUploadedAndItsNameSet(t *testing.T) {
	p, err := prep(t, runFlags{set: []string{"image=./cat.png"}})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.URL.RequestURI() + " " + string(b)
		_ = json.NewEncoder(w).Encode(client.Uploaded{Name: "cat (1).png", Type: "input"})
	}))
	defer srv.Close()
	c := client.New(dialTo(srv))
	defer c.Close()
	if err := p.upload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s, err := p.submission(0)
	if err != nil {
		t.Fatal(err)
	}
	if got != "/v1/uploads?name=cat.png pixels" || input(t, s, "9", "image") != `"cat (1).png"` {
		t.Errorf("sent %q, set %s", got, input(t, s, "9", "image"))
	}
}

func TestCountDrawsSeeds(t *testing.T) {
	seeds := func(f runFlags) (out []string, keys []string, group string) {
		p, err := prep(t, f)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.count {
			s, err := p.submission(i)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, input(t, s, "3", "seed"))
			keys = append(keys, s.Key)
			group = s.Group
		}
		return out, keys, group
	}
	a, _, group := seeds(runFlags{count: 3})
	if a[0] == a[1] || a[1] == a[2] || a[0] == "5" || !strings.HasPrefix(group, "p-") {
		t.Errorf("seeds %v in group %q", a, group)
	}
	if a, _, _ := seeds(runFlags{count: 3, set: []string{"3.seed=9"}}); strings.Join(a, " ") != "9 9 9" {
		t.Errorf("a seed that is set was drawn anew: %v", a)
	}
	if a, _, _ := seeds(runFlags{count: 1}); a[0] != "5" {
		t.Errorf("one run changed the seed to %s", a[0])
	}
	b, keys, gb := seeds(runFlags{count: 3, key: "k"})
	c, _, gc := seeds(runFlags{count: 3, key: "k"})
	if strings.Join(b, " ") != strings.Join(c, " ") || gb != gc || keys[0] == keys[1] {
		t.Errorf("under one key %v and %v, groups %s and %s, keys %v", b, c, gb, gc, keys)
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.FixedZone("x", 3600))
	for in, want := range map[string]string{
		"":                     "",
		"2026-12-01T08:00:00Z": "2026-12-01T08:00:00Z",
		"2h":                   "2026-11-25T13:00:00Z",
		"23:30":                "2026-11-25T22:30:00Z",
		"07:00":                "2026-11-26T06:00:00Z",
		"2026-11-30 10:00":     "2026-11-30T09:00:00Z",
		"-1h":                  "!",
		"soon":                 "!",
	} {
		got, err := parseWhen(in, now)
		switch {
		case want == "!":
			if err == nil {
				t.Errorf("%s was taken for %s", in, got)
			}
		case err != nil:
			t.Errorf("%s: %v", in, err)
		case want == "" && !got.IsZero() || want != "" && got.Format(time.RFC3339) != want:
			t.Errorf("%s is %s, want %s", in, got.Format(time.RFC3339), want)
		}
	}
}

func TestWorkflowFromStandardInput(t *testing.T) {
	a := &app{in: bytes.NewReader([]byte(portrait))}
	b, err := a.readWorkflow(t.Context(), "-")
	if err != nil || string(b) != portrait {
		t.Errorf("%v", err)
	}
}

// dialTo connects to a test server whatever address is asked for.
func dialTo(srv *httptest.Server) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
}
