package live

import (
	"slices"
	"time"

	"easel/backend"
)

// series is the last 10 minutes of one card in bins of 10 s. A bin holds the mean
// of its samples; the bins before the first sample are -1.
type series struct {
	bin   int64 // number of the newest bin
	val   [bins]float64
	count int // samples in the newest bin
}

func (r *series) add(v float64, now time.Time) {
	bin := now.UnixNano() / int64(binLength)
	if r.bin == 0 {
		for i := range r.val {
			r.val[i] = -1
		}
		r.bin = bin
	}
	for ; r.bin < bin && bin-r.bin < bins; r.bin++ {
		copy(r.val[:], r.val[1:])
		r.val[bins-1], r.count = -1, 0
	}
	if bin > r.bin {
		*r = series{}
		r.add(v, now)
		return
	}
	if r.count == 0 {
		r.val[bins-1] = 0
	}
	r.val[bins-1] = (r.val[bins-1]*float64(r.count) + v) / float64(r.count+1)
	r.count++
}

func (s *State) setGPUs(gs []backend.GPU, now time.Time) {
	s.GPUs = gs
	for _, g := range gs {
		v, ok := load(g)
		if !ok {
			continue
		}
		r := s.history[g.Index]
		if r == nil {
			r = &series{}
			s.history[g.Index] = r
		}
		r.add(v, now)
	}
}

// seed replaces the history by what the engine has kept. Its bins are put relative
// to now: its clock may be that of another box.
func (s *State) seed(h *backend.GPUHistory, gs []backend.GPU, now time.Time) {
	if h == nil {
		return
	}
	s.Marks = h.Marks
	s.history = map[int]*series{}
	step := time.Duration(h.StepS * float64(time.Second))
	for _, c := range h.Cards {
		var g backend.GPU // what the card has of memory
		if i := slices.IndexFunc(gs, func(g backend.GPU) bool { return g.Index == c.Index }); i >= 0 {
			g.MemoryTotal = gs[i].MemoryTotal
		}
		r := &series{}
		for i := range c.Utilisation {
			g.Utilisation, g.MemoryUsed = c.Utilisation[i], nil
			if i < len(c.MemoryUsed) && c.MemoryUsed[i] != nil {
				used := int64(*c.MemoryUsed[i])
				g.MemoryUsed = &used
			}
			if v, ok := load(g); ok {
				r.add(v, now.Add(-time.Duration(len(c.Utilisation)-1-i)*step))
			}
		}
		if r.bin != 0 {
			s.history[c.Index] = r
		}
	}
}

// load is how busy a card is (0–1): its utilisation, else its memory.
func load(g backend.GPU) (float64, bool) {
	switch {
	case g.Utilisation != nil:
		return *g.Utilisation / 100, true
	case g.MemoryUsed != nil && g.MemoryTotal != nil && *g.MemoryTotal > 0:
		return float64(*g.MemoryUsed) / float64(*g.MemoryTotal), true
	}
	return 0, false
}

// History is how busy a card was, oldest first, one value for each 10 s up to 10
// minutes; -1 where nothing is known. The slice is the caller's.
func (s *State) History(index int) []float64 {
	r := s.history[index]
	if r == nil {
		return nil
	}
	out := make([]float64, bins)
	copy(out, r.val[:])
	return out
}

// BinsAgo is how many bins of History lie between the newest and the one of t;
// negative for the future.
func BinsAgo(t, now time.Time) int {
	return int(now.UnixNano()/int64(binLength) - t.UnixNano()/int64(binLength))
}
