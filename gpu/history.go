package gpu

import (
	"slices"
	"time"
)

// The History's resolution and length.
const (
	Step = 5 * time.Second
	Bins = 120 // 10 minutes
)

// History is the last ten minutes of every card, in bins of Step. It is not safe
// for concurrent use. Its size is bounded by the number of cards.
type History struct {
	bin   int64 // number of the newest bin, counted from the zero of Unix time
	cards []*series
}

// series is one card. The newest bin is the last of each array.
type series struct {
	index                  int
	uuid                   string
	util, mem, temp, power [Bins]mean
}

// mean adds up the values of a bin.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(v float64) { m.sum, m.n = m.sum+v, m.n+1 }

// top keeps the highest value.
func (m *mean) top(v float64) {
	if m.n == 0 || v > m.sum {
		m.sum = v
	}
	m.n = 1
}

func (m mean) value() *float64 {
	if m.n == 0 {
		return nil
	}
	return Known(m.sum / float64(m.n))
}

// Add files a reading. One that is older than the newest bin counts as newest: the
// clock went back.
func (h *History) Add(r Reading) {
	h.advance(r.At)
	for _, c := range r.Cards {
		s := h.card(c)
		last := Bins - 1
		if c.Utilisation != nil {
			s.util[last].add(*c.Utilisation)
		}
		if c.MemoryUsed != nil {
			s.mem[last].top(float64(*c.MemoryUsed))
		}
		if c.Temperature != nil {
			s.temp[last].add(*c.Temperature)
		}
		if c.Power != nil {
			s.power[last].add(*c.Power)
		}
	}
}

// advance makes the bin of t the newest.
func (h *History) advance(t time.Time) {
	bin := t.UnixNano() / int64(Step)
	shift := bin - h.bin
	if h.bin == 0 || shift <= 0 {
		h.bin = max(h.bin, bin)
		return
	}
	h.bin = bin
	n := int(min(shift, Bins))
	for _, s := range h.cards {
		for _, a := range []*[Bins]mean{&s.util, &s.mem, &s.temp, &s.power} {
			copy(a[:], a[n:])
			clear(a[Bins-n:])
		}
	}
	h.cards = slices.DeleteFunc(h.cards, func(s *series) bool { return s.empty() })
}

func (s *series) empty() bool {
	for i := range Bins {
		if s.util[i].n+s.mem[i].n+s.temp[i].n+s.power[i].n > 0 {
			return false
		}
	}
	return true
}

// card finds the series of c, by its UUID where it has one.
func (h *History) card(c Card) *series {
	for _, s := range h.cards {
		if s.uuid == c.UUID && (c.UUID != "" || s.index == c.Index) {
			s.index = c.Index
			return s
		}
	}
	s := &series{index: c.Index, uuid: c.UUID}
	h.cards = append(h.cards, s)
	return s
}

// Series is one card over time, Bins values each, oldest first; nil where nothing
// is known.
type Series struct {
	Index                                   int
	UUID                                    string
	Utilisation, Memory, Temperature, Power []*float64
}

// Series lists the cards by index as they were in the ten minutes before now, and
// when the newest bin ends. What it returns is the caller's.
func (h *History) Series(now time.Time) (list []Series, to time.Time) {
	h.advance(now)
	for _, s := range h.cards {
		out := Series{Index: s.index, UUID: s.uuid}
		for i := range Bins {
			out.Utilisation = append(out.Utilisation, s.util[i].value())
			out.Memory = append(out.Memory, s.mem[i].value())
			out.Temperature = append(out.Temperature, s.temp[i].value())
			out.Power = append(out.Power, s.power[i].value())
		}
		list = append(list, out)
	}
	slices.SortStableFunc(list, func(a, b Series) int { return a.Index - b.Index })
	return list, time.Unix(0, (h.bin+1)*int64(Step)).UTC()
}
