package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Setting is a key and the value it gets, as text: "8288", "true",
// "/opt/ComfyUI", "a,b" or ["a", "b"].
type Setting struct{ Key, Value string }

// Set writes one value into the configuration file at path, which is made when
// it is missing. Comments, order and everything else in the file stay as they
// are. It refuses, and changes nothing, when the key is unknown (an *Error
// that names the nearest), when the value is wrong, or when the file would say
// something that Check calls an error and did not before.
func Set(path, key, value string) error { return SetAll(path, Setting{key, value}) }

// SetAll is Set of several values in one step: all of them, or none.
func SetAll(path string, settings ...Setting) error {
	target, err := resolve(path)
	if err != nil {
		return err
	}
	before, err := readFile(target)
	if err != nil {
		return err
	}
	old, _, problems := parse(before, target)
	if len(problems) > 0 {
		return &Error{problems}
	}
	text := before
	for _, s := range settings {
		if text, err = edit(text, target, s); err != nil {
			return err
		}
	}
	changed, _, _ := parse(text, target)
	if bad := newErrors(old, changed); len(bad) > 0 {
		return &Error{bad}
	}
	if bytes.Equal(text, before) {
		return nil
	}
	return writeFile(target, text)
}

// newErrors are the errors of Check in changed that old did not have.
func newErrors(old, changed Config) []Problem {
	had := Check(old)
	var bad []Problem
	for _, p := range Check(changed) {
		if p.Severity == SeverityError && !slices.Contains(had, p) {
			bad = append(bad, p)
		}
	}
	return bad
}

// edit is text with one value changed.
func edit(text []byte, path string, s Setting) ([]byte, error) {
	want, _, problems := parse(text, path)
	if len(problems) > 0 {
		return nil, &Error{problems}
	}
	k, mount, known := find(s.Key)
	if !known {
		return nil, &Error{[]Problem{{Severity: SeverityError, Key: s.Key, Message: unknown(s.Key)}}}
	}
	if k.mount && mount > len(want.Mount) {
		return nil, fmt.Errorf("set %s: there are %d mounts, so the next number is %d", s.Key, len(want.Mount), len(want.Mount))
	}
	fresh := k.mount && mount == len(want.Mount)
	if fresh {
		want.Mount = append(want.Mount, defaultMount())
	}
	field := k.in(&want, mount)
	if err := assignString(field, s.Value); err != nil {
		return nil, &Error{[]Problem{{Severity: SeverityError, Key: s.Key, Message: s.Key + ": " + err.Error()}}}
	}
	after := place(text, k, mount, fresh, literal(field.Interface()))
	got, _, problems := parse(after, path)
	if len(problems) > 0 || !reflect.DeepEqual(got, want) {
		return nil, fmt.Errorf("set %s: %s is written in a way that cannot be edited here: put in %s = %s by hand",
			s.Key, path, k.name(), literal(field.Interface()))
	}
	return after, nil
}

// place puts the value's text where it belongs: over the old value, under the
// commented-out default, at the end of its section, or in a new section.
func place(text []byte, k *key, mount int, fresh bool, value string) []byte {
	entries, err := scan(text)
	if err != nil {
		return text
	}
	if !fresh {
		for _, e := range entries {
			if !e.header && e.mount == mount && strings.Join(e.path, ".") == k.Path {
				end := e.value + len(bytes.TrimRight(text[e.value:e.end], " \t\r\n"))
				return splice(text, e.value, end, value)
			}
		}
	}
	from, to, found := sectionSpan(text, entries, k.section(), mount)
	if fresh || !found {
		open := "[" + k.section() + "]\n"
		if k.mount {
			open = "[[mount]]\n"
		}
		if len(text) > 0 {
			open = "\n" + open
		}
		return splice(lineEnded(text), -1, -1, open+k.name()+" = "+value+"\n")
	}
	at := insertAt(text, entries, from, to, k.name())
	line := k.name() + " = " + value + "\n"
	if at > 0 && text[at-1] != '\n' {
		line = "\n" + line
	}
	return splice(text, at, at, line)
}

// splice replaces text[from:to]; from -1 appends.
func splice(text []byte, from, to int, value string) []byte {
	if from < 0 {
		from, to = len(text), len(text)
	}
	return slices.Concat(text[:from], []byte(value), text[to:])
}

func lineEnded(text []byte) []byte {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return append(slices.Clone(text), '\n')
	}
	return text
}

// sectionSpan is where the lines of a section begin and end. The top section,
// before any header, is always there.
func sectionSpan(text []byte, entries []entry, section string, mount int) (from, to int, found bool) {
	to = len(text)
	if section == "" {
		found = true
		if bytes.HasPrefix(text, []byte("\ufeff")) {
			from = len("\ufeff")
		}
	}
	for _, e := range entries {
		if !e.header {
			continue
		}
		start := lineStart(text, e.start)
		if found {
			return from, start, true
		}
		if len(e.path) == 1 && e.path[0] == section && e.mount == mount && text[start] == '[' {
			from, found = lineEnd(text, start), true
		}
	}
	return from, to, found
}

func lineStart(text []byte, at int) int { return bytes.LastIndexByte(text[:at], '\n') + 1 }

func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n + 1
	}
	return len(text)
}

// insertAt is the offset for a new line in a section: under the commented-out
// line of that key, else under the section's last key, else at its beginning.
func insertAt(text []byte, entries []entry, from, to int, name string) int {
	last := -1
	for _, e := range entries {
		if !e.header && !e.inline && e.start >= from && e.start < to {
			last = lineEnd(text, max(e.start, e.end-1))
		}
	}
	for at := from; at < to; at = lineEnd(text, at) {
		line := bytes.TrimSpace(text[at:lineEnd(text, at)])
		rest, comment := bytes.CutPrefix(line, []byte("#"))
		rest, isKey := bytes.CutPrefix(bytes.TrimSpace(rest), []byte(name))
		if comment && isKey && bytes.HasPrefix(bytes.TrimSpace(rest), []byte("=")) && !within(entries, at) {
			return lineEnd(text, at)
		}
	}
	if last >= 0 {
		return last
	}
	return from
}

// within reports whether an offset lies inside a value of several lines.
func within(entries []entry, at int) bool {
	return slices.ContainsFunc(entries, func(e entry) bool { return !e.header && e.value < at && at < e.end })
}

// WriteInit writes the text of Init to path, which must not exist: the error
// then wraps fs.ErrExist.
func WriteInit(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write the configuration: %s is there already: %w", path, fs.ErrExist)
	}
	return writeFile(path, []byte(Init()))
}

// resolve follows symbolic links, so that a configuration that is linked from
// somewhere is edited there and the link stays.
func resolve(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err == nil {
		return target, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("write the configuration: %s is a symbolic link to nothing: remove it, or make what it points to", path)
	}
	return path, nil
}

// writeFile replaces a file in one step: a temporary file beside it, synced and
// renamed. A new file has mode 0600, because settings may hold credentials; an
// old one keeps its mode.
func writeFile(path string, data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the configuration: %w", err)
		}
	}()
	if err := toml.Unmarshal(data, new(map[string]any)); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", path)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(dir, ".config-*.toml")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename last through a power cut, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil // the file is written; a directory that cannot be opened cannot be synced
	}
	_ = d.Sync() // Windows and some network file systems have no such thing
	return d.Close()
}
