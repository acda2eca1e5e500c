//go:build linux

package cards

import (
	"slices"
	"time"

	"easel/backend"
	"easel/gpu"
)

// maxMarks bounds the marks of the time line.
const maxMarks = 200

// Mark puts something on the time line.
func (c *Cards) Mark(m backend.GPUMark) {
	if m.At.IsZero() {
		m.At = backend.Now()
	}
	c.mu.Lock()
	c.marks = append(slices.Clone(c.fresh(time.Now())), m)
	if len(c.marks) > maxMarks {
		c.marks = c.marks[len(c.marks)-maxMarks:]
	}
	marks := c.marks
	c.mu.Unlock()
	if c.hooks.Watched() {
		c.hooks.Marked(marks)
	}
}

// fresh are the marks that the time line still shows. It needs mu.
func (c *Cards) fresh(now time.Time) []backend.GPUMark {
	from := now.Add(-gpu.Bins * gpu.Step)
	i := slices.IndexFunc(c.marks, func(m backend.GPUMark) bool { return m.At.After(from) })
	if i < 0 {
		return nil
	}
	return c.marks[i:]
}

// History is the last ten minutes.
func (c *Cards) History() backend.GPUHistory {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, to := c.history.Series(time.Now())
	h := backend.GPUHistory{
		StepS: gpu.Step.Seconds(), To: backend.At(to), Cards: []backend.GPUSeries{},
		Marks: append([]backend.GPUMark{}, c.fresh(time.Now())...),
	}
	for _, s := range list {
		h.Cards = append(h.Cards, backend.GPUSeries{
			Index: s.Index, UUID: s.UUID, Utilisation: s.Utilisation, MemoryUsed: s.Memory, Temperature: s.Temperature, Power: s.Power,
		})
	}
	return h
}
