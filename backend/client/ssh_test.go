package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"easel/backend"
)

// TestMain lets the test binary play the far end of ssh: it copies bytes
// between its standard streams and a socket, or refuses as easel does.
func TestMain(m *testing.M) {
	switch os.Getenv("EASEL_TEST_FAR_END") {
	case "":
		os.Exit(m.Run())
	case "refuse":
		fmt.Fprint(os.Stderr, "motd\neasel: connect: no engine runs\nhint: start one\n")
		os.Exit(4)
	}
	conn, err := dialSocket(context.Background(), os.Getenv("EASEL_TEST_FAR_END"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { _, _ = io.Copy(conn, os.Stdin); _ = conn.Close() }()
	_, _ = io.Copy(os.Stdout, conn)
	os.Exit(0)
}

func farEnd(t *testing.T, mode string, starts *int) *Client {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := overCommand("me@box", func() *exec.Cmd {
		*starts++
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "EASEL_TEST_FAR_END="+mode)
		return cmd
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestOneProcessCarriesEverything makes calls beside a stream and a stalled body
// over one child process.
func TestOneProcessCarriesEverything(t *testing.T) {
	streaming := make(chan struct{})
	dir, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/events":
			frame(w, eventFrame(1))
			<-r.Context().Done()
		case "/v1/jobs/abcd/outputs/0":
			_, _ = w.Write(make([]byte, 32<<20)) // more than any window: stalls until read
		default:
			if r.ProtoMajor != 2 {
				t.Errorf("came by %s", r.Proto)
			}
			reply(w, 200, backend.Status{Edition: "standard"})
		}
	}))
	starts := 0
	c := farEnd(t, dir, &starts)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = c.Close() }()
	wg.Go(func() {
		err := c.Events(t.Context(), EventsOptions{}, func(backend.Frame) error { close(streaming); return nil })
		if err == nil {
			t.Error("the stream ended without a reason")
		}
	})
	<-streaming
	body, _, err := c.OutputFile(t.Context(), "abcd", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	for range 20 {
		s, err := c.Status(t.Context())
		if err != nil || s.Edition != "standard" {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	if starts != 1 {
		t.Errorf("%d processes, want 1", starts)
	}
}

func TestFarEndThatRefusesIsQuoted(t *testing.T) {
	starts := 0
	c := farEnd(t, "refuse", &starts)
	_, err := c.Status(t.Context())
	if !IsNotRunning(err) {
		t.Errorf("err %v: want not running", err)
	}
	var f *backend.Failure
	if !errors.As(err, &f) || f.Message != "me@box: connect: no engine runs" || f.Hint != "start one" {
		t.Errorf("failure %+v", f)
	}
	if starts != 1 {
		t.Errorf("ssh was started %d times: a password would be asked as often", starts)
	}
}

func TestParseHost(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string // of ssh
	}{
		{"ssh://box", []string{"-T", "-e", "none", "--", "box", "'easel' dial-stdio"}},
		{"ssh://me@box:2222", []string{"-T", "-e", "none", "-p", "2222", "--", "me@box", "'easel' dial-stdio"}},
		{"ssh://box/opt/my easel", []string{"-T", "-e", "none", "--", "box", "'/opt/my easel' dial-stdio"}},
		{"box", nil},
		{"http://box", nil},
		{"ssh://-oProxyCommand=x", nil},
		{"ssh://-l@box", nil},
		{"ssh://me:secret@box", nil},
		{"ssh://", nil},
	} {
		target, err := ParseHost(tc.in)
		if (err != nil) != (tc.want == nil) {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if err == nil && !slices.Equal(target.args(false), tc.want) {
			t.Errorf("%s: %q", tc.in, target.args(false))
		}
		if err != nil && strings.Contains(err.Error(), "secret") && !strings.Contains(tc.in, "secret") {
			t.Errorf("%s: %v", tc.in, err)
		}
	}
}
