package worker

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"easel/backend"
)

// Levels of a LogLine.
const (
	levelError   = "error"
	levelWarning = "warning"
	levelInfo    = "info"
)

var (
	packLine   = regexp.MustCompile(`^\s*(\d+(?:\.\d+)?) seconds(?: \((IMPORT FAILED|PRESTARTUP FAILED)\))?: (.+)$`)
	packCause  = regexp.MustCompile(`^Cannot import (.+?) module for custom nodes: (.*)$`)
	packSkip   = regexp.MustCompile(`^Skip (.+?) module for custom nodes (due to .*)$`)
	preCause   = regexp.MustCompile(`^Failed to execute startup-script: (.+)/prestartup_script\.py / (.*)$`)
	guiLine    = regexp.MustCompile(`^To see the GUI go to: https?://`)
	tqdmLine   = regexp.MustCompile(`\d+%\|[^|]*\| *\S+/\S+ \[`)
	tracehead  = regexp.MustCompile(`^Traceback \(most recent call last\):`)
	traceCause = regexp.MustCompile(`^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Warning|Iteration|Fault|NotFound)\b(?::|$)`)
	warnLine   = regexp.MustCompile(`(?i)^\W*(?:\[?warn(?:ing)?\b|\w*Warning:)|\bwarning[:,]|\bdeprecat|IMPORT FAILED|PRESTARTUP FAILED|^Skip .* module for custom nodes|^please update`)
	errorLine  = regexp.MustCompile(`(?i)^\W*(?:\[?error\b|critical\b|fatal\b)|^!!! Exception|\berror:|^Got an OOM|^Failed to |^Cannot import |^Exception in thread|^Fatal Python error|^Segmentation fault|CUDA error|out of memory|ASSETS_STARTUP_FAILED`)
)

// startLog reads what a start log tells, line by line: packs, their import times
// and why they failed, and whether the server says that it listens.
type startLog struct {
	packs     []backend.Pack
	causes    map[string]string // path → why
	prestart  bool              // the times that follow are those of the prestartup scripts
	Loading   bool              // custom nodes are being imported
	Loaded    bool              // their table of times was printed
	Listening bool              // "To see the GUI go to"
	trace     bool              // within a traceback
}

// line takes a line and returns its level.
func (s *startLog) line(text string) string {
	s.facts(text)
	return s.level(text)
}

func (s *startLog) facts(text string) {
	switch {
	case s.Listening:
	case strings.HasPrefix(text, "Prestartup times for custom nodes:"):
		s.prestart = true
	case strings.HasPrefix(text, "Import times for custom nodes:"):
		s.prestart, s.Loading, s.Loaded = false, false, true
	case strings.HasPrefix(text, "[Prompt Server] web root:"):
		s.Loading = true
	case guiLine.MatchString(text):
		s.Listening = true
	default:
		s.pack(text)
	}
}

func (s *startLog) pack(text string) {
	if m := packLine.FindStringSubmatch(text); m != nil {
		secs, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return
		}
		prestart := s.prestart || m[2] == "PRESTARTUP FAILED"
		s.packs = append(s.packs, backend.Pack{
			Path: m[3], ImportS: secs, Failed: m[2] != "", Prestart: prestart, Cause: s.cause(m[3], m[2]),
		})
		return
	}
	for _, re := range []*regexp.Regexp{packCause, packSkip, preCause} {
		if m := re.FindStringSubmatch(text); m != nil {
			if s.causes == nil {
				s.causes = map[string]string{}
			}
			s.causes[m[1]] = m[2]
		}
	}
}

// cause is why a pack failed, "" when it did not.
func (s *startLog) cause(path, failed string) string {
	if failed == "" {
		return ""
	}
	return s.causes[path]
}

// Packs are the node packs seen so far, slowest first. The slice is the caller's.
func (s *startLog) Packs() []backend.Pack {
	packs := slices.Clone(s.packs)
	slices.SortStableFunc(packs, func(a, b backend.Pack) int {
		switch {
		case a.ImportS > b.ImportS:
			return -1
		case a.ImportS < b.ImportS:
			return 1
		}
		return 0
	})
	return packs
}

// level guesses how bad a line is. ComfyUI's log has no levels of its own.
func (s *startLog) level(text string) string {
	switch {
	case tracehead.MatchString(text):
		s.trace = true
		return levelError
	case s.trace:
		if text == "" || strings.HasPrefix(text, " ") {
			return levelError
		}
		s.trace = false // the line that names the exception ends it
		return levelError
	case errorLine.MatchString(text) && !warnLine.MatchString(text), traceCause.MatchString(text) && !strings.Contains(text, "Warning"):
		return levelError
	case warnLine.MatchString(text):
		return levelWarning
	default:
		return levelInfo
	}
}

// isBar reports whether a line is a progress bar of tqdm; its last state is
// written with an end of line and is then a line like any other.
func isBar(text string) bool { return tqdmLine.MatchString(text) }
