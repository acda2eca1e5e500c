package act

import (
	"testing"

	"easel/backend"
)

func TestPathOfPastedText(t *testing.T) {
	for in, want := range map[string]string{
		"/tmp/a.json":            "/tmp/a.json",
		" 'a b.PNG'\n":           "a b.PNG",
		"file:///tmp/x.json":     "/tmp/x.json",
		`/tmp/a\ b.json`:         "/tmp/a b.json",
		`{"1":{"a":"b.json"}}`:   "",
		"two\nlines.json":        "",
		"hello":                  "",
		"\x1b[31mred.json\x1b[m": "",
	} {
		if got := Path(in); got != want {
			t.Errorf("Path(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestResultSaysWhatCameOut(t *testing.T) {
	w, h := 64, 32
	cases := []struct {
		name string
		job  backend.Job
		want string
	}{
		{"picture", backend.Job{State: backend.JobSucceeded, Outputs: []backend.Output{{Kind: "image", Filename: "a.png", Width: &w, Height: &h}, {}}}, "a.png  64×32  +1 more"},
		{"nothing", backend.Job{State: backend.JobSucceeded}, "done, nothing was saved"},
		{"failed", backend.Job{State: backend.JobFailed, Error: &backend.Error{Message: "no", Class: "VAE", Remedy: "do"}}, "VAE: no · do"},
		{"failed without a reason", backend.Job{State: backend.JobFailed}, "failed"},
	}
	for _, c := range cases {
		if got := Result(c.job); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
