package config

import (
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
)

// lookup is the last value of name in environ ("NAME=value" each).
func lookup(environ []string, name string) (string, bool) {
	for i := len(environ) - 1; i >= 0; i-- {
		if value, found := strings.CutPrefix(environ[i], name+"="); found {
			return value, true
		}
	}
	return "", false
}

// home is the person's home directory: HOME, on Windows USERPROFILE, else what
// the system knows of the account, else the root directory.
func home(environ []string) string {
	names := []string{"HOME"}
	if runtime.GOOS == "windows" {
		names = []string{"USERPROFILE", "HOME"}
	}
	for _, name := range names {
		if dir, _ := lookup(environ, name); filepath.IsAbs(dir) {
			return dir
		}
	}
	if u, err := user.Current(); err == nil && filepath.IsAbs(u.HomeDir) {
		return u.HomeDir
	}
	return string(filepath.Separator)
}

// easelHome is EASEL_HOME as an absolute path, or "".
func easelHome(environ []string) string {
	dir, _ := lookup(environ, "EASEL_HOME")
	if dir == "" {
		return ""
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// Path is the configuration file: $EASEL_HOME/config.toml, else
// $XDG_CONFIG_HOME/easel/config.toml, else ~/.config/easel/config.toml (on
// Windows under %APPDATA%). It need not exist.
func Path(environ []string) string {
	if dir := easelHome(environ); dir != "" {
		return filepath.Join(dir, "config.toml")
	}
	return filepath.Join(base(environ, "XDG_CONFIG_HOME", "APPDATA", ".config"), "easel", "config.toml")
}

// StateDir is where everything lies that Easel writes: $EASEL_HOME, else
// $XDG_STATE_HOME/easel, else ~/.local/state/easel (on Windows under
// %LOCALAPPDATA%). It need not exist.
func StateDir(environ []string) string {
	if dir := easelHome(environ); dir != "" {
		return dir
	}
	return filepath.Join(base(environ, "XDG_STATE_HOME", "LOCALAPPDATA", filepath.Join(".local", "state")), "easel")
}

// base is the directory that an XDG variable names. A relative one is ignored,
// as the XDG specification asks.
func base(environ []string, xdg, windows, fallback string) string {
	if dir, _ := lookup(environ, xdg); filepath.IsAbs(dir) {
		return dir
	}
	if dir, _ := lookup(environ, windows); runtime.GOOS == "windows" && filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(home(environ), fallback)
}
