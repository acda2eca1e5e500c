package home

import "easel/tui/live"

// layout is how Home's lines are shared out.
//
//	top lines   cards, workers, remarks
//	1           ├ now ──┬ queue ┤
//	body lines  now │ queue
//	1           ├ recent ─┴─────┤
//	recent lines
type layout struct {
	w, split int
	gpus     int  // lines of cards
	details  bool // cards have a second line
	workers  int  // lines of workers
	top      int  // gpus + workers
	body     int
	recent   int
	note     int // lines of the now pane above its picture
}

// Bounds of the layout.
const (
	maxGPUs    = 4
	minRecent  = 3
	noteLines  = 2
	headerRoom = 8 // lines of cards and workers at most
)

// plan shares the screen out for what is there now.
func (m *Model) plan() layout {
	s := m.env.State
	l := layout{w: m.w, split: m.w * 56 / 100, note: noteLines}
	l.gpus = max(1, min(len(s.GPUs), maxGPUs))
	l.workers = len(m.workerLines(max(m.w-4, 1)))
	room := min(headerRoom, max(m.h/3, 2))
	if l.gpus+l.workers > room {
		l.workers = max(room-l.gpus, 1)
		l.gpus = max(min(l.gpus, room-l.workers), 1)
	} else if more := m.detailed(); len(s.GPUs) <= maxGPUs && l.gpus+more+l.workers <= room {
		l.gpus, l.details = l.gpus+more, more > 0
	}
	l.top = l.gpus + l.workers
	rest := max(m.h-l.top-2, 2)
	l.recent = min(max(minRecent, rest/4), 12)
	if len(s.Recent) < l.recent && s.Link == live.Connected {
		l.recent = max(min(len(s.Recent), l.recent), minRecent)
	}
	l.recent = min(l.recent, rest-1)
	l.body = rest - l.recent
	return l
}

// picture is the room for the picture in the now pane.
func (l layout) picture() (cols, rows int) { return l.split - 3, l.body - l.note }
