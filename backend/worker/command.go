package worker

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"easel/backend"
)

// Command is an EAS run command, read. No shell runs any of it.
type Command struct {
	// Env are variables it sets before python runs, in order.
	Env []string
	// Dir is the directory it changes to, "" when it does not.
	Dir string
	// Python is the interpreter it names ("python", "/opt/venv/bin/python"), or the
	// one of the environment it activates.
	Python string
	// PyArgs are the interpreter's own flags (-u), Script what it runs (main.py).
	PyArgs []string
	Script string
	// Args are the flags for ComfyUI, less those that follow.
	Args []string
	// Data is the mount (--data-dir), Cache where caches go (--cache-root).
	Data, Cache string
	// Listen and Port are the address it asks for: that of Easel's gateway, never
	// ComfyUI's. Listen is "" and Port 0 when it names none.
	Listen string
	Port   int
	// Prepare are installations that it does first.
	Prepare []Step
	// Notes say what of it was left out, for people.
	Notes []string
}

// Step is something to be done before a launch.
type Step struct {
	Argv []string // as it was written: globs are not expanded
}

// String is the step as people would type it.
func (s Step) String() string {
	q := make([]string, len(s.Argv))
	for i, a := range s.Argv {
		q[i] = shellQuote(a)
	}
	return strings.Join(q, " ")
}

var plainWord = regexp.MustCompile(`^[\w@%+=:,./*?~\[\]-]+$`)

func shellQuote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func commandError(message, hint string) error {
	return backend.Fail(backend.FailUsage, "worker.command: "+message, hint)
}

var assignment = regexp.MustCompile(`^[A-Za-z_]\w*=`)

// ParseCommand reads a run command as it is pasted from an EAS service:
//
//	pip install a.whl && python main.py --listen --port 8000 --data-dir /mnt/data
//
// What would need a shell is refused by name.
func ParseCommand(text string) (Command, error) {
	lists, err := splitCommand(text)
	if err != nil {
		return Command{}, err
	}
	var c Command
	for _, words := range lists {
		if c.Script != "" {
			return Command{}, commandError("something follows main.py: "+Step{words}.String(), "main.py must be the last command")
		}
		if err := c.take(words); err != nil {
			return Command{}, err
		}
	}
	if c.Script == "" {
		return Command{}, commandError("it runs no main.py", "paste the whole run command, as: python main.py --listen --port 8000")
	}
	return c, nil
}

// take reads one simple command.
func (c *Command) take(words []string) error {
	var env []string
	for len(words) > 0 && (assignment.MatchString(words[0]) || words[0] == "env") {
		if words[0] != "env" {
			env = append(env, words[0])
		}
		words = words[1:]
	}
	for len(words) > 0 && slices.Contains([]string{"exec", "nohup", "time"}, words[0]) {
		words = words[1:]
	}
	if len(words) == 0 {
		c.Env = append(c.Env, env...) // VAR=value alone
		return nil
	}
	switch name := path.Base(words[0]); {
	case name == "export":
		return c.export(words[1:])
	case name == "cd" && len(words) == 2:
		c.Dir = join(c.Dir, words[1])
		return nil
	case (name == "source" || name == ".") && len(words) == 2 && path.Base(words[1]) == "activate":
		c.Python = join(path.Dir(words[1]), "python")
		return nil
	case name == "set" || name == "echo" || name == "true" || name == ":":
		c.Notes = append(c.Notes, "left out: "+Step{words}.String())
		return nil
	case isPip(words):
		c.Prepare = append(c.Prepare, Step{Argv: words})
		return nil
	case isPython(name):
		c.Env = append(c.Env, env...)
		return c.python(words)
	}
	return commandError(fmt.Sprintf("%q would need a shell", Step{words}.String()), "do it once by hand, then take it out of the command")
}

func (c *Command) export(words []string) error {
	for _, w := range words {
		if !assignment.MatchString(w) {
			return commandError("export "+w+" sets nothing", "write export NAME=value")
		}
		c.Env = append(c.Env, w)
	}
	return nil
}

// join is where dir leads from base.
func join(base, dir string) string {
	if base == "" || path.IsAbs(dir) {
		return dir
	}
	return path.Join(base, dir)
}

var pythonName = regexp.MustCompile(`^python(\d+(\.\d+)?t?)?$`)

func isPython(name string) bool { return pythonName.MatchString(name) }

// isPip reports whether a command installs packages: pip install, python -m pip,
// uv pip install.
func isPip(words []string) bool {
	name := path.Base(words[0])
	switch {
	case name == "pip" || strings.HasPrefix(name, "pip3"):
		return true
	case isPython(name):
		return len(words) > 2 && words[1] == "-m" && words[2] == "pip"
	case name == "uv":
		return len(words) > 1 && words[1] == "pip"
	}
	return false
}

// python reads python [flags] main.py [flags].
func (c *Command) python(words []string) error {
	if c.Python == "" || path.IsAbs(words[0]) {
		c.Python = words[0]
	}
	rest := words[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		switch rest[0] {
		case "-m", "-c":
			return commandError("python "+rest[0]+" runs something else than main.py", "name ComfyUI's main.py")
		case "-X", "-W":
			if len(rest) > 1 {
				c.PyArgs = append(c.PyArgs, rest[0])
				rest = rest[1:]
			}
		}
		c.PyArgs = append(c.PyArgs, rest[0])
		rest = rest[1:]
	}
	if len(rest) == 0 || path.Base(rest[0]) != "main.py" {
		return commandError("python runs something else than main.py", "name ComfyUI's main.py")
	}
	c.Script = rest[0]
	return c.flags(rest[1:])
}

// flags takes out what is Easel's or the image's, and leaves ComfyUI's.
func (c *Command) flags(args []string) error {
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(args[i], "=")
		next := func(need bool) (string, error) {
			if inline {
				return value, nil
			}
			if i+1 < len(args) && !isFlag(args[i+1]) {
				i++
				return args[i], nil
			}
			if need {
				return "", commandError(name+" has no value", "write the value after "+name)
			}
			return "", nil
		}
		var err error
		switch name {
		case "--listen":
			c.Listen, err = next(false)
			if c.Listen == "" {
				c.Listen = "0.0.0.0"
			}
		case "--port":
			err = c.port(next(true))
		case "--data-dir":
			c.Data, err = next(true)
		case "--cache-root":
			c.Cache, err = next(true)
		case "--api":
			c.Notes = append(c.Notes, "--api left out: Easel's gateway serves that API")
		default:
			c.Args = append(c.Args, args[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Command) port(value string, err error) error {
	if err != nil {
		return err
	}
	n, convErr := strconv.Atoi(value)
	if convErr != nil || n < 1 || n > 65535 {
		return commandError("--port "+value+" is no port", "write a number from 1 to 65535")
	}
	c.Port = n
	return nil
}

// splitCommand cuts a command line into simple commands and these into words, by
// the quoting rules of sh. What only a shell can do is refused.
func splitCommand(text string) ([][]string, error) {
	l := lexer{in: strings.ReplaceAll(strings.TrimSpace(text), "\r\n", "\n")}
	if err := l.run(); err != nil {
		return nil, err
	}
	if len(l.lists) == 0 {
		return nil, commandError("it is empty", "paste the run command of the service")
	}
	return l.lists, nil
}

// lexer is the state of splitCommand.
type lexer struct {
	in     string
	pos    int
	word   strings.Builder
	inWord bool
	words  []string
	lists  [][]string
}

func (l *lexer) endWord() {
	if l.inWord {
		l.words = append(l.words, l.word.String())
		l.word.Reset()
		l.inWord = false
	}
}

func (l *lexer) endList() {
	l.endWord()
	if len(l.words) > 0 {
		l.lists = append(l.lists, l.words)
		l.words = nil
	}
}

func (l *lexer) add(b byte) { l.inWord = true; l.word.WriteByte(b) }

// peek is the byte n after the present one, 0 past the end.
func (l *lexer) peek(n int) byte {
	if l.pos+n < len(l.in) {
		return l.in[l.pos+n]
	}
	return 0
}

func (l *lexer) run() error {
	for ; l.pos < len(l.in); l.pos++ {
		if err := l.step(l.in[l.pos]); err != nil {
			return err
		}
	}
	l.endList()
	return nil
}

func (l *lexer) step(b byte) error {
	switch b {
	case ' ', '\t':
		l.endWord()
	case '\n', ';':
		l.endList()
	case '&':
		return l.ampersand()
	case '|':
		return l.pipe()
	case '>', '<':
		return l.redirect(b)
	case '#':
		if l.inWord {
			l.add(b)
			return nil
		}
		for l.peek(1) != '\n' && l.peek(1) != 0 {
			l.pos++
		}
	case '\'', '"':
		return l.quoted(b)
	case '\\':
		l.pos++
		if l.pos < len(l.in) && l.in[l.pos] != '\n' { // a backslash at the end of a line joins lines
			l.add(l.in[l.pos])
		}
	case '$', '`', '(', ')':
		return needsShell(b)
	default:
		if b < ' ' || b == 0x7f {
			return commandError("it holds a control character", "paste it as plain text")
		}
		l.add(b)
	}
	return nil
}

func needsShell(b byte) error {
	what := map[byte]string{'$': "a variable ($…)", '`': "a command in backquotes", '(': "a bracket", ')': "a bracket"}[b]
	return commandError("it holds "+what+", which only a shell can fill in", "write the value itself; a literal one goes between single quotes")
}

func (l *lexer) ampersand() error {
	if l.peek(1) == '&' {
		l.pos++
	} else if l.peek(1) == '>' {
		l.pos++
		return l.redirect('>')
	}
	l.endList() // a single & would run it in the background: Easel does that anyway
	return nil
}

func (l *lexer) pipe() error {
	l.endWord()
	rest := strings.TrimLeft(l.in[l.pos+1:], " \t&")
	if l.peek(1) == '|' || !strings.HasPrefix(rest, "tee ") {
		return commandError("it holds a pipe ("+"|"+"), which only a shell can do", "take it out: Easel keeps the log itself (easel worker logs)")
	}
	for l.peek(1) != 0 && l.peek(1) != '\n' && l.peek(1) != ';' && l.peek(1) != '&' { // tee FILE: the log is kept anyway
		l.pos++
	}
	return nil
}

// redirect steps over > FILE, 2>&1 and the like: Easel keeps the log itself.
func (l *lexer) redirect(b byte) error {
	if b == '<' {
		return commandError("it reads its input from a file (<), which only a shell can do", "take that out")
	}
	if w := l.word.String(); w == "1" || w == "2" {
		l.word.Reset()
		l.inWord = false
	}
	l.endWord()
	for l.peek(1) == '>' || l.peek(1) == '&' || l.peek(1) == ' ' {
		l.pos++
	}
	for c := l.peek(1); c != 0 && !strings.ContainsRune(" \t\n;&|", rune(c)); c = l.peek(1) {
		l.pos++
	}
	return nil
}

// quoted reads up to the closing quote.
func (l *lexer) quoted(q byte) error {
	l.inWord = true
	for l.pos++; l.pos < len(l.in); l.pos++ {
		b := l.in[l.pos]
		switch {
		case b == q:
			return nil
		case q == '"' && (b == '$' || b == '`'):
			return needsShell(b)
		case q == '"' && b == '\\' && strings.IndexByte("\"\\$`\n", l.peek(1)) >= 0 && l.peek(1) != 0:
			l.pos++
			if l.in[l.pos] != '\n' {
				l.add(l.in[l.pos])
			}
		default:
			l.add(b)
		}
	}
	return commandError("a quote is not closed", "close it")
}
