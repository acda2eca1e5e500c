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
	packLine  = regexp.MustCompile(`^\s*(\d+(?:\.\d+)?) seconds(?: \((IMPORT FAILED|PRESTARTUP FAILED)\))?: (.+)$`)
	packCause = regexp.MustCompile(`^Cannot import (.+?) module for custom nodes: (.*)$`)
	packSkip  = regexp.MustCompile(`^Skip (.+?) module for custom nodes (due to .*)$`)
	preCause  = regexp.MustCompile(`^Failed to execute startup-script: (.+)/prestartup_script\.py / (.*)$`)
	guiLine   = regexp.MustCompile(`^To see the GUI go to: https?://`)
	// traceCause is the line that ends a traceback.
	traceCause = regexp.MustCompile(`^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Iteration|Fault|NotFound)(?::|$)`)
	// word finds the words by which lines say how bad they are. It is tried only
	// against lines that hold one of wordStems.
	word = regexp.MustCompile(`(?i)\b(?:\w*warn(?:ing)?|deprecat\w*|error|critical|fatal)\b`)
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
	if !strings.Contains(text, " seconds") && !hasHead(text, []string{"Cannot import ", "Skip ", "Failed to execute "}) {
		return
	}
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

// Beginnings of lines that are errors or warnings although no word of them says so.
var (
	errorHeads = []string{"!!! Exception", "Got an OOM", "Failed to ", "Cannot import ", "Exception in thread", "Segmentation fault", "ASSETS_STARTUP_FAILED"}
	warnHeads  = []string{"Skip ", "Please update "}
)

// Parts without which the patterns need not be tried: a flood has many lines.
var (
	traceEnds = []string{"Error", "Exception", "Exit", "Interrupt", "Iteration", "Fault", "NotFound"}
	wordStems = []string{"warn", "deprecat", "error", "critical", "fatal"}
)

func hasPart(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
}

// traceHead opens a traceback.
const traceHead = "Traceback (most recent call last):"

// level guesses how bad a line is. ComfyUI's log has no levels of its own.
func (s *startLog) level(text string) string {
	switch {
	case strings.HasPrefix(text, traceHead):
		s.trace = true
		return levelError
	case s.trace:
		s.trace = text == "" || text[0] == ' ' // the line that names the exception ends it
		return levelError
	case hasHead(text, errorHeads), strings.Contains(text, "CUDA error"), strings.Contains(text, "out of memory"):
		return levelError
	case hasHead(text, warnHeads), strings.Contains(text, " FAILED): "):
		return levelWarning
	}
	return wordLevel(text)
}

func hasHead(text string, heads []string) bool {
	return slices.ContainsFunc(heads, func(h string) bool { return strings.HasPrefix(text, h) })
}

// wordLevel looks for a word like ERROR or UserWarning near the beginning of a line,
// or before a colon.
func wordLevel(text string) string {
	if hasPart(text, traceEnds) && traceCause.MatchString(text) {
		return levelError
	}
	if !hasPart(strings.ToLower(text), wordStems) {
		return levelInfo
	}
	at := word.FindStringIndex(text)
	if at == nil || at[0] > 8 && (at[1] >= len(text) || text[at[1]] != ':') {
		return levelInfo
	}
	if w := strings.ToLower(text[at[0]:at[1]]); strings.Contains(w, "warn") || strings.HasPrefix(w, "deprecat") {
		return levelWarning
	}
	return levelError
}
