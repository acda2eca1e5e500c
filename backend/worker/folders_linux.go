//go:build linux

package worker

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"easel/backend/comfy"
)

// foldersOf are the folders of a ComfyUI that somebody else started on this
// machine, from the arguments and the working directory of its process. They are
// empty when they cannot be told, or not be read from here: another account's, or
// a container's with a file system of its own.
func foldersOf(pid int) comfy.Dirs {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(dir + "/cmdline")
	if err != nil || len(raw) == 0 {
		return comfy.Dirs{}
	}
	cwd, err := os.Readlink(dir + "/cwd")
	if err != nil || !sameMounts(dir) {
		return comfy.Dirs{}
	}
	dirs := foldersIn(strings.Split(string(bytes.TrimRight(raw, "\x00")), "\x00"), cwd)
	if dirs.Output == "" {
		return dirs
	}
	f, err := os.Open(dirs.Output)
	if err != nil {
		return comfy.Dirs{}
	}
	_ = f.Close()
	return dirs
}

// sameMounts reports whether a process sees the files that we see.
func sameMounts(proc string) bool {
	theirs, err := os.Readlink(proc + "/ns/mnt")
	if err != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	return err == nil && ours == theirs
}

// foldersIn are the folders that a command line run in cwd means. Without flags
// they are beside main.py, or for a command without one unknown.
func foldersIn(argv []string, cwd string) comfy.Dirs {
	abs := func(p string) string {
		if p != "" && !filepath.IsAbs(p) {
			p = filepath.Join(cwd, p)
		}
		return p
	}
	base, flags := "", map[string]string{}
	for i, arg := range argv {
		name, value, with := strings.Cut(arg, "=")
		switch {
		case strings.HasPrefix(arg, "--") && with:
			flags[name] = abs(value)
		case strings.HasPrefix(arg, "--") && i+1 < len(argv):
			flags[arg] = abs(argv[i+1])
		case base == "" && filepath.Base(arg) == "main.py":
			base = filepath.Dir(abs(arg))
		}
	}
	if b := flags["--base-directory"]; b != "" {
		base = b
	}
	at := func(flag, folder string) string {
		if d := flags[flag]; d != "" {
			return filepath.Clean(d)
		}
		if base == "" {
			return ""
		}
		return filepath.Join(base, folder)
	}
	dirs := comfy.Dirs{Output: at("--output-directory", "output"), Input: at("--input-directory", "input")}
	if temp := at("--temp-directory", ""); temp != "" {
		dirs.Temp = filepath.Join(temp, "temp")
	}
	return dirs
}
