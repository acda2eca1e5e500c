package home

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/tui/live"
	"easel/tui/text"
	"easel/tui/widget"
)

// gpuLines are the cards, one line each; with details a second one where there is
// something to say.
func (m *Model) gpuLines(w int, details bool) []string {
	t, s := m.env.Theme, m.env.State
	if len(s.GPUs) == 0 {
		say := text.T("no GPU seen")
		if !s.Have {
			say = text.T("not known yet")
		}
		return []string{t.Title.Render("GPU") + "  " + t.Muted.Render(say)}
	}
	var lines []string
	for _, g := range s.GPUs {
		lines = append(lines, m.gpuLine(g, w))
		if details && m.hasDetail(g) {
			lines = append(lines, m.gpuDetail(g, w))
		}
	}
	return lines
}

// gpuName is how a card's line begins.
func (m *Model) gpuName(g backend.GPU) string {
	t := m.env.Theme
	name := t.Title.Render("GPU "+strconv.Itoa(g.Index)) + "  " + t.Strong.Render(widget.CutMiddle(widget.Clean(g.Name), 28))
	if g.Note != "" {
		name += "  " + t.Warn.Render(text.Said(widget.Clean(g.Note)))
	}
	return name
}

// longestSpark is all that the history holds.
const longestSpark = 60

// sparkAt is where the history of a card is drawn: its first cell, and how many; 0
// when there is no room.
func (m *Model) sparkAt(g backend.GPU, w int) (from, cells int) {
	figures := widget.Width(gpuFigures(g))
	room := w - widget.Width(m.gpuName(g)) - figures - 4
	if room < 8 {
		return 0, 0
	}
	cells = min(room, longestSpark)
	return w - figures - 2 - cells, cells
}

// gpuLine is one card: name, history, memory, use, temperature, power. Figures
// have fixed widths, so that they do not jump.
func (m *Model) gpuLine(g backend.GPU, w int) string {
	spark := ""
	if _, cells := m.sparkAt(g, w); cells > 0 {
		spark = m.env.Theme.Accent.Render(widget.Spark(m.env.State.History(g.Index), cells))
	}
	return widget.Spread(m.gpuName(g), spark+"  "+gpuFigures(g), w)
}

// gpuFigures is the figures of a card. They are in one style, without colour: they
// change at every sample, and each change of style is bytes on a slow line.
func gpuFigures(g backend.GPU) string {
	var parts []string
	add := func(v string, width int, u string) {
		parts = append(parts, widget.FitRight(v, width)+" "+u)
	}
	if g.MemoryUsed != nil && g.MemoryTotal != nil {
		add(widget.GiB(*g.MemoryUsed)+" / "+widget.GiB(*g.MemoryTotal), 11, "GiB")
	}
	if g.Utilisation != nil {
		add(strconv.Itoa(int(*g.Utilisation+0.5)), 3, "%")
	}
	if g.Temperature != nil {
		add(strconv.Itoa(int(*g.Temperature+0.5)), 3, "°C")
	}
	if g.Power != nil {
		add(strconv.Itoa(int(*g.Power+0.5)), 3, "W")
	}
	return strings.Join(parts, "  ")
}

// detailed counts the cards that have a second line.
func (m *Model) detailed() int {
	n := 0
	for _, g := range m.env.State.GPUs {
		if m.hasDetail(g) {
			n++
		}
	}
	return n
}

func (m *Model) hasDetail(g backend.GPU) bool {
	return len(g.Processes) > 0 || slowed(g) != "" || len(m.marksOf(g)) > 0
}

// slowed is what slows a card's clocks, when that is not as it should be: every
// card meets its power cap under load.
func slowed(g backend.GPU) string {
	var why []string
	for _, r := range g.Throttle {
		if r != "power cap" && r != "sync boost" {
			why = append(why, widget.Clean(r))
		}
	}
	if len(why) == 0 {
		return ""
	}
	return text.T("slowed: %s", strings.Join(why, ", "))
}

// gpuDetail is the second line of a card: what slows it, what happened below its
// history, and who holds its memory.
func (m *Model) gpuDetail(g backend.GPU, w int) string {
	t := m.env.Theme
	from, cells := m.sparkAt(g, w)
	line, used := timeLine(m.marksOf(g), m.env.Now, m.env.Loc, cells)
	left, style := slowed(g), t.Warn
	ours, others := holders(m.env.State, g)
	if full := words(others, wordFull); left == "" && full != "" && used > 0 && widget.Width(full) <= from-6 {
		left, style, others = full, t.Muted, nil
	}
	left = "  " + style.Render(left)
	if used > 0 && widget.Width(left) < from {
		left = widget.Fit(left, from) + t.Warn.Render(strings.TrimRight(line, " "))
	}
	room := max(w-widget.Width(left)-2, 0)
	right := ""
	for _, how := range []wording{wordFull, wordUser, wordCount} {
		if right = join(words(ours, wordFull), words(others, how)); widget.Width(right) <= room {
			break
		}
	}
	return widget.Spread(left, t.Muted.Render(widget.Cut(right, room)), w)
}

// wording is how much is said of a process.
type wording int

const (
	wordFull  wording = iota // program, user, memory
	wordUser                 // user, memory
	wordCount                // how many
)

// words names processes; each is given in full and short.
func words(list [][2]string, how wording) string {
	if how == wordCount && len(list) > 0 {
		return text.N(len(list), "%d process more", "%d processes more")
	}
	parts := make([]string, 0, len(list))
	for _, p := range list {
		parts = append(parts, p[how])
	}
	return strings.Join(parts, " · ")
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " · " + b
}

// holders are the processes that hold a card's memory: ours by what they are,
// others by name and user.
func holders(s *live.State, g backend.GPU) (ours, others [][2]string) {
	for _, p := range g.Processes {
		memory := ""
		if p.Memory != nil {
			memory = " " + widget.Bytes(*p.Memory)
		}
		name, user := widget.CutMiddle(widget.Clean(p.Name), 24), widget.Clean(p.User)
		switch {
		case p.Ours:
			name = "ComfyUI"
			if len(s.Workers) > 1 {
				name = widget.Clean(p.Worker)
			}
			if p.Inferred {
				memory += " " + text.T("(inferred)")
			}
			ours = append(ours, [2]string{name + memory, name + memory})
		case user != "":
			others = append(others, [2]string{text.T("%s of %s", name, user) + memory, user + memory})
		default:
			others = append(others, [2]string{name + memory, name + memory})
		}
	}
	return ours, others
}

// marksOf are the marks of the last ten minutes that belong to a card, or to none
// in particular.
func (m *Model) marksOf(g backend.GPU) []backend.GPUMark {
	s := m.env.State
	var out []backend.GPUMark
	for _, mk := range s.Marks {
		if ago := live.BinsAgo(mk.At.Time, m.env.Now); ago < 0 || ago >= longestSpark {
			continue
		}
		i := slices.IndexFunc(s.Workers, func(w backend.Worker) bool { return w.ID == mk.Worker })
		if i >= 0 && s.Workers[i].GPU != nil && len(s.GPUs) > 1 {
			if at := *s.Workers[i].GPU; at != strconv.Itoa(g.Index) && (g.UUID == "" || !strings.HasPrefix(g.UUID, at)) {
				continue
			}
		}
		out = append(out, mk)
	}
	return out
}

// timeLine draws marks under the last cells bins of a history, the most telling
// ones with a word and their time where there is room. used is how many were
// drawn.
func timeLine(marks []backend.GPUMark, now time.Time, loc *time.Location, cells int) (line string, used int) {
	row := make([]rune, max(cells, 0))
	for i := range row {
		row[i] = ' '
	}
	each := func(kinds []string, do func(at int, mk backend.GPUMark)) {
		for _, kind := range kinds {
			for i := len(marks) - 1; i >= 0; i-- {
				if at := cells - 1 - live.BinsAgo(marks[i].At.Time, now); marks[i].Kind == kind && at >= 0 && at < cells {
					do(at, marks[i])
				}
			}
		}
	}
	sign := func(at int, mk backend.GPUMark) {
		if row[at] == ' ' {
			row[at] = markSign(mk.Kind)
			used++
		}
	}
	telling := []string{backend.MarkOOM, backend.MarkDeath, backend.MarkRestart}
	each(telling, sign)
	each(telling, func(at int, mk backend.GPUMark) {
		if row[at] == markSign(mk.Kind) {
			label(row, at, markWord(mk.Kind), mk.At.In(loc).Format("15:04"))
		}
	})
	each([]string{backend.MarkJob}, sign)
	return string(row), used
}

// label writes a mark's word and time beside it, right or else left, if that is
// free.
func label(row []rune, at int, word, clock string) {
	free := func(from, to int) bool {
		return from >= 0 && to <= len(row) && !slices.ContainsFunc(row[from:to], func(r rune) bool { return r != ' ' })
	}
	long := []rune(word + " " + clock)
	if n := len(long); free(at+1, min(at+2+n, len(row))) && at+1+n <= len(row) {
		copy(row[at+1:], long)
		return
	}
	if left := []rune(clock + " " + word); free(max(at-len(left)-1, 0), at) && at >= len(left) {
		copy(row[at-len(left):], left)
	}
}

func markSign(kind string) rune {
	switch kind {
	case backend.MarkOOM:
		return '▲'
	case backend.MarkDeath:
		return '✗'
	case backend.MarkRestart:
		return '↻'
	}
	return '╵'
}

// markWord is the word at a mark; the start of a job has none, there are many.
func markWord(kind string) string {
	switch kind {
	case backend.MarkOOM:
		return text.T("oom")
	case backend.MarkDeath:
		return text.T("death")
	case backend.MarkRestart:
		return text.T("restart")
	}
	return ""
}
