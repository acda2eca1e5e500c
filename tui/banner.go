package tui

import (
	"strings"

	"easel/backend"
	"easel/tui/live"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/widget"
)

// maxBanners is how many are shown; the most serious come first.
const maxBanners = 3

// banner is a remark that stays while its cause lasts.
type banner struct {
	tone screen.Tone
	text string
}

// makeBanners is the banners of the moment. One that follows from another stays
// quiet: while the engine is not reached nothing else is said.
func (m *Model) makeBanners() []banner {
	s := m.env.State
	switch s.Link {
	case live.Down:
		return []banner{{screen.Bad, join(text.T("the engine does not start: %s", s.Err), strings.ReplaceAll(s.Hint, "\n", " · "))}}
	case live.Lost:
		if m.env.Now.Sub(s.Since) < flapTime {
			return nil
		}
		return []banner{{screen.Bad, join(text.T("engine unreachable: reconnecting"), s.Err)}}
	case live.Looking:
		if s.Err != "" && m.env.Now.Sub(s.Since) >= flapTime {
			return []banner{{screen.Warn, join(text.T("no engine yet: %s", s.Err), s.Hint)}}
		}
		return nil
	case live.Stopping:
		return []banner{{screen.Warn, text.T("the engine is being stopped; the queue is kept")}}
	}
	return m.causes()
}

// causes are the banners of a connected console.
func (m *Model) causes() []banner {
	s := m.env.State
	var bs []banner
	for _, w := range s.Workers {
		if w.State != backend.WorkerFailed {
			continue
		}
		b := text.T("worker %s failed: %s", widget.Clean(w.ID), text.Said(widget.Clean(w.Reason)))
		if d := w.LastDeath; d != nil {
			b = join(b, text.Said(widget.Clean(d.Remedy)))
		}
		bs = append(bs, banner{screen.Bad, join(b, text.T("w: start it again, 7: its log"))})
	}
	for _, n := range s.Notices {
		bs = append(bs, banner{screen.Warn, widget.Clean(n)})
	}
	if s.Queue.Paused {
		why := text.T("the queue is paused")
		if s.Queue.PauseReason != "" {
			why += ": " + text.Said(widget.Clean(s.Queue.PauseReason))
		}
		bs = append(bs, banner{screen.Warn, join(why, text.T("p: go on"))})
	}
	if len(bs) > maxBanners {
		bs = bs[:maxBanners]
	}
	return bs
}

// join is two sentences in one line.
func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + " · " + b
}
