package client

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"easel/backend"
)

// TestSocketPathLongerThanTheSystemTakes binds and dials a socket whose path is
// over 108 bytes.
func TestSocketPathLongerThanTheSystemTakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketName))
	_ = d.Close()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, backend.Status{Edition: "standard"})
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	c := Unix(dir)
	defer c.Close()
	if s, err := c.Status(t.Context()); err != nil || s.Edition != "standard" {
		t.Errorf("%+v, %v", s, err)
	}
}
