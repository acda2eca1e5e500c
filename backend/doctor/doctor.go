// Package doctor looks at a box and says what of it will make ComfyUI or Easel
// fail, wait or crawl: one finding a check, each with a verdict, what was seen and
// a remedy. It works with and without an engine. It changes nothing but one
// temporary file in the state directory, by which the disk is timed.
//
// Every check is a plain function over a Box, which names the root of the file
// system to read, so that a test states the machine it wants.
package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/config"
)

// Verdict is how bad a finding is.
type Verdict string

// The verdicts, from good to bad.
const (
	OK      Verdict = "ok"
	Note    Verdict = "note"    // worth knowing; nothing to do
	Warning Verdict = "warning" // works, and will hurt some day
	Problem Verdict = "problem" // does not work
)

// rank orders verdicts.
func (v Verdict) rank() int { return slices.Index([]Verdict{OK, Note, Warning, Problem}, v) }

// Finding is what one check found.
type Finding struct {
	ID      string  `json:"id"`
	Title   string  `json:"title"`
	Verdict Verdict `json:"verdict"`
	Seen    string  `json:"seen"`   // in one line for people
	Remedy  string  `json:"remedy"` // "" when there is nothing to do
}

// Report is `easel doctor --json`.
type Report struct {
	At      backend.Time `json:"at"`
	Version string       `json:"version"` // of this command
	Verdict Verdict      `json:"verdict"` // the worst of the findings
	Checks  []Finding    `json:"checks"`  // in the order of the checks
}

// Box is what is looked at. Root and StateDir must be set; everything else may be
// absent, and a check that lacks what it needs says nothing.
type Box struct {
	Root       string // "/" but in tests
	StateDir   string // absolute
	ConfigPath string
	Config     config.Config
	ConfigErr  error
	Environ    []string
	Version    string
	// Terminal says that a person looks at this process's output.
	Terminal bool
	// Status is nil when no engine answers; StatusErr then says why.
	Status    *backend.Status
	StatusErr error
	Deaths    []backend.Verdict // newest first
	Jobs      []backend.Job     // some of the last ones
	// Logout is keeper.LogoutNote.
	Logout func(context.Context) string
	// Run runs a command to its end and returns its output; nil runs it for real.
	Run func(ctx context.Context, env, argv []string) ([]byte, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// check is one look at the box. It returns no finding when it has nothing to look
// at.
type check struct {
	id, title string
	within    time.Duration
	run       func(context.Context, *Box) []Finding
}

// checks are all of them, in the order in which they are shown.
var checks = []check{
	{"config", "configuration", quick, checkConfig},
	{"engine", "engine", quick, checkEngine},
	{"worker", "workers", quick, checkWorkers},
	{"waiting", "what jobs wait for", quick, checkWaiting},
	{"deaths", "ends of workers", quick, checkDeaths},
	{"install", "ComfyUI", slow, checkInstall},
	{"python", "python, torch and CUDA", python, checkPython},
	{"driver", "GPU driver", slow, checkDriver},
	{"vram", "memory of the card", quick, checkVRAM},
	{"attention", "attention", quick, checkAttention},
	{"packs", "node packs", quick, checkPacks},
	{"object-info", "lists of nodes and files", slow, checkObjectInfo},
	{"ports", "ports", quick, checkPorts},
	{"users", "other accounts", quick, checkUsers},
	{"memory", "memory", quick, checkMemory},
	{"cgroup", "control groups", quick, checkCgroup},
	{"oom-killers", "who kills when memory runs out", quick, checkKillers},
	{"disk", "disk space", slow, checkDisk},
	{"disk-speed", "disk speed", slow, checkDiskSpeed},
	{"mounts", "mounts", slow, checkMounts},
	{"permissions", "permissions", quick, checkPermissions},
	{"logout", "log-out", slow, checkLogout},
	{"terminal", "terminal", quick, checkTerminal},
	{"locale", "locale", quick, checkLocale},
	{"clock", "clock", quick, checkClock},
}

// Bounds of one check. A mount that hangs must not stop the report.
const (
	quick  = 5 * time.Second
	slow   = 15 * time.Second
	python = 90 * time.Second // importing torch from a cold disk takes minutes at worst
)

// Examine runs every check, side by side, and returns when all have answered or
// ran out of their time.
func Examine(ctx context.Context, b *Box) Report {
	b.defaults()
	results := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i] = bounded(ctx, b, c)
		}()
	}
	wg.Wait()
	r := Report{At: backend.At(b.Now()), Version: b.Version, Verdict: OK, Checks: []Finding{}}
	for _, list := range results {
		for _, f := range list {
			f.Seen, f.Remedy = comfy.Plain(f.Seen, 600), comfy.Plain(f.Remedy, 600)
			r.Checks = append(r.Checks, f)
			if f.Verdict.rank() > r.Verdict.rank() {
				r.Verdict = f.Verdict
			}
		}
	}
	return r
}

func (b *Box) defaults() {
	if b.Now == nil {
		b.Now = time.Now
	}
	if b.Run == nil {
		b.Run = runCommand
	}
	if b.Root == "" {
		b.Root = "/"
	}
}

// bounded runs one check. One that hangs in the kernel is left behind, and said.
func bounded(ctx context.Context, b *Box, c check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	answer := make(chan []Finding, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				answer <- c.say(Warning, fmt.Sprintf("this check failed itself: %v", p), "please report it")
			}
		}()
		answer <- c.run(ctx, b)
	}()
	select {
	case list := <-answer:
		for i := range list {
			if list[i].ID == "" {
				list[i].ID = c.id
			}
			if list[i].Title == "" {
				list[i].Title = c.title
			}
		}
		return list
	case <-time.After(c.within + time.Second):
		return c.say(Problem, fmt.Sprintf("no answer within %s: something it reads hangs in the kernel", c.within),
			"a mount or a driver that does not answer does that: look at `dmesg`, and for processes in state D in `ps aux`")
	}
}

func (c check) say(v Verdict, seen, remedy string) []Finding {
	return []Finding{{ID: c.id, Title: c.title, Verdict: v, Seen: seen, Remedy: remedy}}
}

// one is a single finding; its id and title are those of the check.
func one(v Verdict, remedy, format string, args ...any) []Finding {
	return []Finding{{Verdict: v, Remedy: remedy, Seen: fmt.Sprintf(format, args...)}}
}

// path is where an absolute path lies under the box's root.
func (b *Box) path(abs string) string {
	if b.Root == "/" {
		return abs
	}
	return filepath.Join(b.Root, abs)
}

// read is the text of a file of the box, "" when it cannot be read.
func (b *Box) read(abs string) string {
	text, err := os.ReadFile(b.path(abs))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (b *Box) exists(abs string) bool {
	_, err := os.Stat(b.path(abs))
	return err == nil
}

// env is the last value of a variable.
func (b *Box) env(name string) string {
	for i := len(b.Environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(b.Environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// gib is a size for people.
func gib(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// some is the first n of a list, and how many more there are.
func some(list []string, n int) string {
	if len(list) <= n {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:n], ", "), len(list)-n)
}
