package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Sources says where each value comes from: by key ("worker.url",
// "mount.0.path"), "default", "file:line" or "env NAME".
type Sources map[string]string

// SourceDefault is the source of a value that nobody set.
const SourceDefault = "default"

// maxFile bounds the configuration file: a larger one is not one.
const maxFile = 1 << 20

// Problem is one thing wrong with a configuration.
type Problem struct {
	Severity string `json:"severity"` // error or warning
	Where    string `json:"where"`    // "config.toml:3", "env EASEL_PORT" or ""
	Key      string `json:"key"`      // "" when it is about the whole file
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"` // what to do, "" when the message says it
}

// String is the problem in one line.
func (p Problem) String() string {
	if p.Where == "" {
		return p.Message
	}
	return p.Where + ": " + p.Message
}

// Severities of a Problem. A warning never keeps Easel from starting.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Error says that a configuration cannot be used. Problems is not empty, in the
// order of the file, then of the environment.
type Error struct{ Problems []Problem }

// Error is the first problem, and how many more there are.
func (e *Error) Error() string {
	text := e.Problems[0].String()
	if n := len(e.Problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more: see `easel config check`)", n)
	}
	return text
}

// Load reads the configuration file at path, which need not exist, and the
// EASEL_* variables of environ. The error is an *Error with everything that is
// wrong with keys and types, or says why the file cannot be read. Whether the
// values make sense together is for Check.
func Load(path string, environ []string) (Config, Sources, error) {
	data, err := readFile(path)
	if err != nil {
		return Default(), nil, err
	}
	cfg, sources, problems := parse(data, path)
	problems = append(problems, applyEnv(&cfg, sources, environ)...)
	if len(problems) > 0 {
		return cfg, sources, &Error{problems}
	}
	expand(&cfg, environ)
	return cfg, sources, nil
}

// Open loads the configuration of this person on this box (Path) and checks it.
// The error is an *Error when the configuration itself is wrong; warnings are
// left to Check.
func Open(environ []string) (Config, Sources, error) {
	cfg, sources, err := Load(Path(environ), environ)
	if err != nil {
		return cfg, sources, err
	}
	var bad []Problem
	for _, p := range sources.Locate(Check(cfg)) {
		if p.Severity == SeverityError {
			bad = append(bad, p)
		}
	}
	if len(bad) > 0 {
		return cfg, sources, &Error{bad}
	}
	return cfg, sources, nil
}

// Locate fills in where the value of each problem's key comes from and returns
// the same slice.
func (s Sources) Locate(problems []Problem) []Problem {
	for i, p := range problems {
		source := s[p.Key]
		if p.Where == "" && source != "" && source != SourceDefault {
			problems[i].Where = filepath.Base(source)
		}
	}
	return problems
}

// readFile reads a configuration file; nil when there is none.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read the configuration: %s is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read the configuration: %s is larger than 1 MiB: that is no configuration file", path)
	}
	return data, nil
}

// parse turns the text of a file into a configuration over the defaults.
func parse(data []byte, path string) (Config, Sources, []Problem) {
	cfg, sources := Default(), Sources{}
	for _, k := range keys {
		if !k.mount {
			sources[k.Path] = SourceDefault
		}
	}
	data = stripBOM(data)
	var doc map[string]any
	var entries []entry
	err := toml.Unmarshal(data, &doc)
	if err == nil {
		entries, err = scan(data)
	}
	if err != nil {
		return cfg, sources, []Problem{syntaxProblem(err, path)}
	}
	f := filling{cfg: &cfg, sources: sources, path: path, doc: doc, reported: map[string]bool{}}
	for _, e := range entries {
		f.take(e)
	}
	return cfg, sources, f.problems
}

func stripBOM(data []byte) []byte {
	return []byte(strings.TrimPrefix(string(data), "\ufeff"))
}

func syntaxProblem(err error, path string) Problem {
	p := Problem{Severity: SeverityError, Where: filepath.Base(path), Message: err.Error()}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		p.Where = fmt.Sprintf("%s:%d:%d", filepath.Base(path), line, column)
		p.Message = strings.TrimPrefix(decode.Error(), "toml: ")
	}
	p.Message = "not valid TOML: " + strings.Map(printable, p.Message)
	return p
}

func printable(r rune) rune {
	if r < 0x20 || r >= 0x7f && r < 0xa0 {
		return ' '
	}
	return r
}

// filling puts the entries of a file into a configuration, one after the other.
type filling struct {
	cfg      *Config
	sources  Sources
	path     string
	doc      map[string]any
	problems []Problem
	reported map[string]bool // sections already complained about
}

func (f *filling) complain(line int, key, message, hint string) {
	f.problems = append(f.problems, Problem{
		Severity: SeverityError, Where: fmt.Sprintf("%s:%d", filepath.Base(f.path), line),
		Key: key, Message: message, Hint: hint,
	})
}

// take handles one key or section header.
func (f *filling) take(e entry) {
	head := e.path[0]
	if f.reported[head] {
		return
	}
	if bad := f.wrongSection(head); bad != "" {
		f.reported[head] = true
		f.complain(e.line, head, bad, "")
		return
	}
	if head == "mount" && e.mount >= maxMounts {
		f.reported[head] = true
		f.complain(e.line, head, fmt.Sprintf("more than %d mounts", maxMounts), "")
		return
	}
	for head == "mount" && len(f.cfg.Mount) <= e.mount {
		f.addMount()
	}
	if e.header && len(e.path) == 1 {
		return
	}
	name := strings.Join(e.path, ".")
	k, known := byPath[name]
	if !known {
		if !e.header || len(e.path) > 1 {
			f.complain(e.line, name, unknown(name), "")
		}
		return
	}
	v, err := f.value(e)
	if err == nil {
		err = assign(k.in(f.cfg, e.mount), v)
	}
	if err != nil {
		f.complain(e.line, name, name+": "+err.Error(), "")
		return
	}
	f.sources[k.numbered(e.mount)] = f.path + ":" + strconv.Itoa(e.line)
}

func (f *filling) addMount() {
	f.cfg.Mount = append(f.cfg.Mount, defaultMount())
	addMountSources(f.sources, len(f.cfg.Mount)-1)
}

func addMountSources(sources Sources, mount int) {
	for _, k := range keys {
		if k.mount {
			sources[k.numbered(mount)] = SourceDefault
		}
	}
}

// wrongSection says what is wrong with a first name that is a section here or
// in the file, "" when nothing is.
func (f *filling) wrongSection(head string) string {
	_, section := sectionDocs[head]
	switch f.doc[head].(type) {
	case map[string]any:
		if head == "mount" {
			return "mount is a list of sections: write [[mount]]"
		}
		if _, isKey := byPath[head]; isKey {
			return head + " is a key, not a section: write " + head + " = " + byPath[head].Default
		}
		if !section {
			return "unknown section [" + show(head) + "]" + meant(head, sectionNames(), "[", "]")
		}
	case []any:
		if head == "mount" {
			if isTables(f.doc[head]) {
				return ""
			}
			return "mount is a list of sections: write [[mount]]"
		}
		if section {
			return head + " is one section: write [" + head + "]"
		}
		if _, isKey := byPath[head]; !isKey && isTables(f.doc[head]) {
			return "unknown section [[" + show(head) + "]]" + meant(head, sectionNames(), "[", "]")
		}
	default:
		if section {
			return head + " is a section: write [" + head + "] on a line of its own"
		}
	}
	return ""
}

// isTables reports whether v is a list of sections only.
func isTables(v any) bool {
	list, _ := v.([]any)
	for _, item := range list {
		if _, ok := item.(map[string]any); !ok {
			return false
		}
	}
	return len(list) > 0
}

// value is the value of an entry in the decoded document.
func (f *filling) value(e entry) (any, error) {
	var v any = f.doc
	for i, name := range e.path {
		if list, ok := v.([]any); ok && i == 1 && e.mount < len(list) {
			v = list[e.mount]
		}
		table, ok := v.(map[string]any)
		if !ok {
			return nil, errors.New("is not in a section")
		}
		v = table[name]
	}
	return v, nil
}

// applyEnv lets the EASEL_* variables override the file. An empty variable
// empties a text or a list and leaves anything else alone.
func applyEnv(cfg *Config, sources Sources, environ []string) []Problem {
	var problems []Problem
	for _, v := range variables(environ) {
		bad := func(message string) {
			problems = append(problems, Problem{Severity: SeverityError, Where: "env " + v.name, Key: v.path, Message: message})
		}
		if v.key == nil {
			bad("unknown setting" + nearestEnv(v.name))
			continue
		}
		if v.mount > len(cfg.Mount) {
			bad(fmt.Sprintf("there are only %d mounts, so the next number is %d", len(cfg.Mount), len(cfg.Mount)))
			continue
		}
		if v.key.mount && v.mount == len(cfg.Mount) {
			cfg.Mount = append(cfg.Mount, defaultMount())
			addMountSources(sources, v.mount)
		}
		field := v.key.in(cfg, v.mount)
		if kind := field.Kind().String(); v.value == "" && kind != "string" && kind != "slice" {
			continue
		}
		if err := assignString(field, v.value); err != nil {
			bad(err.Error())
			continue
		}
		sources[v.key.numbered(v.mount)] = "env " + v.name
	}
	return problems
}

// variable is one EASEL_* variable that means a setting, or should.
type variable struct {
	name, value string
	path        string // "" when unknown
	key         *key   // nil when unknown
	mount       int
}

// variables finds the settings in environ, by name; the last of one name
// counts. An unknown one is listed only if it begins like a section, because
// EASEL_HOME, EASEL_HOST and others are no settings.
func variables(environ []string) []variable {
	seen := map[string]variable{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours {
			continue
		}
		v := variable{name: name, value: value}
		v.key, v.mount = findEnv(rest)
		if v.key != nil {
			v.path = v.key.numbered(v.mount)
		} else if section, _, found := strings.Cut(strings.ToLower(rest), "_"); !found || sectionDocs[section] == "" {
			continue
		}
		seen[name] = v
	}
	list := make([]variable, 0, len(seen))
	for _, v := range seen {
		list = append(list, v)
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].mount != list[j].mount {
			return list[i].mount < list[j].mount
		}
		return list[i].name < list[j].name
	})
	return list
}

// findEnv resolves what follows EASEL_.
func findEnv(rest string) (*key, int) {
	mount := 0
	if tail, is := strings.CutPrefix(rest, "MOUNT_"); is {
		if number, name, found := strings.Cut(tail, "_"); found {
			if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < maxMounts {
				mount, rest = n, "MOUNT_"+name
			}
		}
	}
	for i := range keys {
		if keys[i].Env == envPrefix+rest {
			return &keys[i], mount
		}
	}
	return nil, 0
}

// expand replaces "~/" at the start of paths by the home directory.
func expand(cfg *Config, environ []string) {
	for i := range keys {
		k := &keys[i]
		if !pathKeys[k.Path] {
			continue
		}
		mounts := 1
		if k.mount {
			mounts = len(cfg.Mount)
		}
		for m := range mounts {
			field := k.in(cfg, m)
			if s := field.String(); s == "~" || strings.HasPrefix(s, "~/") {
				field.SetString(filepath.Join(home(environ), s[1:]))
			}
		}
	}
}
