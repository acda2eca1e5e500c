//go:build linux

package cmd_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImportsPointOneWay keeps main → cmd → tui → views → backend, config.
func TestImportsPointOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", "easel/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	never := []struct{ under, imports string }{
		{"easel/backend", "charm.land/"},
		{"easel/backend", "easel/tui"},
		{"easel/backend", "easel/views"},
		{"easel/backend", "easel/cmd"},
		{"easel/config", "charm.land/"},
		{"easel/config", "easel/backend/"},
		{"easel/gpu", "charm.land/"},
		{"easel/tui", "easel/cmd"},
		{"easel/tui", "easel/backend/engine"},
		{"easel/tui", "easel/backend/jobs"},
		{"easel/tui", "easel/backend/dispatch"},
		{"easel/tui", "easel/backend/worker"},
		{"easel/views", "easel/cmd"},
		{"easel/views", "easel/backend/engine"},
		{"easel/views", "easel/backend/jobs"},
		{"easel/views", "easel/backend/dispatch"},
		{"easel/views", "easel/backend/worker"},
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		pkg, deps, _ := strings.Cut(line, " ")
		for _, dep := range strings.Fields(deps) {
			for _, n := range never {
				if strings.HasPrefix(pkg, n.under) && strings.HasPrefix(dep, n.imports) {
					t.Errorf("%s imports %s", pkg, dep)
				}
			}
			if strings.HasPrefix(pkg, "easel/views/") && dep == "easel/tui" {
				t.Errorf("%s imports package tui itself", pkg)
			}
		}
	}
}
