package cmd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// phrase is a text of the source that people read, in English: a format where it
// has verbs.
type phrase struct {
	key string
	at  string // file:line
	// plural is true for the first form of text.N, which needs no translation
	// where a language has no plural.
	one bool
	// must is true for texts that have to be translated, false for those of the
	// engine that are better translated.
	must bool
}

// source is a parsed file of the module.
type source struct {
	path   string // from the root of the module
	fset   *token.FileSet
	file   *ast.File
	consts map[string]string // string constants of its package
}

// silent are packages that say nothing to people: the built-in worker speaks
// ComfyUI's own words, the others belong to tests.
var silent = []string{"backend/sketch", "backend/fault", "gpu/gputest"}

// readSources parses the Go files under dirs that are no tests.
func readSources(t testing.TB, dirs ...string) []source {
	t.Helper()
	var all []source
	byDir := map[string]map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && slices.Contains(silent, strings.TrimPrefix(filepath.ToSlash(path), "../")) {
				return filepath.SkipDir
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			where := filepath.Dir(path)
			if byDir[where] == nil {
				byDir[where] = map[string]string{}
			}
			constants(f, byDir[where])
			all = append(all, source{path: strings.TrimPrefix(filepath.ToSlash(path), "../"), fset: fset, file: f, consts: byDir[where]})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// constants gathers the string constants of a file, those in functions as well.
func constants(f *ast.File, into map[string]string) {
	ast.Inspect(f, func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			return true
		}
		for _, s := range d.Specs {
			v := s.(*ast.ValueSpec)
			for i, name := range v.Names {
				if i < len(v.Values) {
					if text, ok := literal(v.Values[i], into); ok {
						into[name.Name] = text
					}
				}
			}
		}
		return true
	})
}

// literal is the value of a constant text.
func literal(e ast.Expr, consts map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.ParenExpr:
		return literal(e.X, consts)
	case *ast.Ident:
		s, ok := consts[e.Name]
		return s, ok
	case *ast.BinaryExpr:
		l, ok1 := literal(e.X, consts)
		r, ok2 := literal(e.Y, consts)
		return l + r, ok1 && ok2 && e.Op == token.ADD
	}
	return "", false
}

func (s source) at(n ast.Node) string {
	return s.path + ":" + strconv.Itoa(s.fset.Position(n.Pos()).Line)
}

// isText reports whether a call is text.T or text.N (name), also by a local name
// for it (t := text.T).
func isText(c *ast.CallExpr, name string, short map[string]string) bool {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		x, ok := f.X.(*ast.Ident)
		return ok && x.Name == "text" && f.Sel.Name == name
	case *ast.Ident:
		return short[f.Name] == name
	}
	return false
}

// shortNames are the local names for text.T and text.N in a function.
func shortNames(body ast.Node) map[string]string {
	names := map[string]string{}
	ast.Inspect(body, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok {
			return true
		}
		for i, r := range a.Rhs {
			sel, ok := r.(*ast.SelectorExpr)
			if !ok || i >= len(a.Lhs) {
				continue
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "text" && (sel.Sel.Name == "T" || sel.Sel.Name == "N") {
				if id, ok := a.Lhs[i].(*ast.Ident); ok {
					names[id.Name] = sel.Sel.Name
				}
			}
		}
		return true
	})
	return names
}

// spoken gathers the literals of text.T, text.N and sayf. What is no literal is
// a mistake, except in the functions that hand their argument on.
func spoken(t testing.TB, sources []source) []phrase {
	t.Helper()
	var all []phrase
	for _, s := range sources {
		for _, d := range s.file.Decls {
			short := shortNames(d)
			name := ""
			if f, ok := d.(*ast.FuncDecl); ok {
				name = f.Name.Name
			}
			ast.Inspect(d, func(n ast.Node) bool {
				c, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				add := func(i int, one bool) {
					if i >= len(c.Args) {
						return
					}
					key, ok := literal(c.Args[i], s.consts)
					if !ok {
						if !handsOn[name] && s.path != "tui/text/text.go" && s.path != "tui/text/said.go" {
							t.Errorf("%s: not a literal: its translation cannot be checked", s.at(c))
						}
						return
					}
					if hasLetters(key) {
						all = append(all, phrase{key: key, at: s.at(c), one: one, must: true})
					}
				}
				switch {
				case isText(c, "T", short):
					add(0, false)
				case isText(c, "N", short):
					add(1, true)
					add(2, false)
				case isMethod(c, "sayf"):
					add(0, false)
				case isCall(c, "say") && len(c.Args) == 4: // package act
					add(2, false)
					add(3, false)
				}
				return true
			})
		}
	}
	return all
}

// handsOn are functions that give a text they were given to text.T.
var handsOn = map[string]bool{"sayf": true, "say": true, "localise": true, "plural": true}

func isMethod(c *ast.CallExpr, name string) bool {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == name
}

func isCall(c *ast.CallExpr, name string) bool {
	id, ok := c.Fun.(*ast.Ident)
	return ok && id.Name == name
}

// format makes the format of a text that is put together: what is not known
// becomes %s.
func format(e ast.Expr, consts map[string]string) string {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return format(e.X, consts)
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return format(e.X, consts) + format(e.Y, consts)
		}
	case *ast.CallExpr:
		if f, ok := formatted(e, consts); ok {
			return f
		}
	}
	if s, ok := literal(e, consts); ok {
		return s
	}
	return "%s"
}

// formatted is the format of a call such as fmt.Sprintf.
func formatted(c *ast.CallExpr, consts map[string]string) (string, bool) {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || len(c.Args) == 0 {
		return "", false
	}
	switch sel.Sel.Name {
	case "Sprintf", "Errorf":
		if f, ok := literal(c.Args[0], consts); ok {
			return strings.ReplaceAll(f, "%w", "%s"), true
		}
		return format(c.Args[0], consts), true
	case "New":
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == "errors" {
			return format(c.Args[0], consts), true
		}
	}
	return "", false
}

var (
	someWord  = regexp.MustCompile(`[A-Za-z]{2,}`)
	verbShape = regexp.MustCompile(`%(\[\d+\])?[-+# 0]*\d*(\.\d+)?[a-zA-Z]`)
)

// hasLetters reports whether a text says something outside its verbs.
func hasLetters(s string) bool {
	return strings.ContainsFunc(verbShape.ReplaceAllString(s, ""), unicode.IsLetter)
}

// words counts the words of a text outside its verbs.
func words(s string) int { return len(someWord.FindAllString(verbShape.ReplaceAllString(s, " "), -1)) }

// mustNames are fields and variables whose text a person reads and that have to
// be translated.
var mustNames = []string{"summary", "remedy", "hint", "hints", "message", "title", "fix", "reason", "notice"}

// mayNames are those whose text may come through.
var mayNames = []string{"note", "notes", "text", "say", "why", "what", "line", "waitreason", "cause", "s", "asked", "remark", "detail", "finding"}

// made gathers what the engine says: texts in fields and variables with telling
// names, in errors, and what functions that return a text return.
func made(sources []source) []phrase {
	var all []phrase
	for _, s := range sources {
		add := func(e ast.Expr, must bool) {
			key := format(e, s.consts)
			if words(key) < 2 || !strings.Contains(strings.TrimSpace(verbShape.ReplaceAllString(key, "x")), " ") {
				return
			}
			all = append(all, phrase{key: key, at: s.at(e), must: must})
		}
		named := func(name string, e ast.Expr) {
			name = strings.ToLower(name)
			exprs := []ast.Expr{e}
			if lit, ok := e.(*ast.CompositeLit); ok {
				exprs = lit.Elts
			}
			if c, ok := e.(*ast.CallExpr); ok {
				if id, ok := c.Fun.(*ast.Ident); ok && id.Name == "append" {
					exprs = c.Args[1:]
				}
			}
			for _, e := range exprs {
				switch {
				case slices.Contains(mustNames, name):
					add(e, true)
				case slices.Contains(mayNames, name):
					add(e, false)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if id, ok := n.Key.(*ast.Ident); ok {
					named(id.Name, n.Value)
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if i >= len(n.Rhs) {
						break
					}
					switch l := l.(type) {
					case *ast.Ident:
						named(l.Name, n.Rhs[i])
					case *ast.SelectorExpr:
						named(l.Sel.Name, n.Rhs[i])
					}
				}
			case *ast.ReturnStmt:
				for _, r := range n.Results {
					if _, isCall := r.(*ast.CallExpr); !isCall {
						add(r, false)
					}
				}
			case *ast.CallExpr:
				// One word ("signal %d") may be part of a sentence, though it is none.
				if f, ok := formatted(n, s.consts); ok && words(f) >= 1 {
					all = append(all, phrase{key: f, at: s.at(n)})
				}
				if isMethod(n, "Fail") && len(n.Args) == 3 { // backend.Fail
					add(n.Args[1], true)
					add(n.Args[2], true)
				}
			}
			return true
		})
	}
	return all
}
