package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/client"
)

// gpuCmd is `easel gpu`.
func (a *app) gpuCmd() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "gpu", Short: "The cards: memory, load, heat, power, and who holds them",
		Long: "The cards: memory, load, heat, power, who holds their memory, and what happened in\n" +
			"the last ten minutes. With --watch one line a second for each card, until interrupted.",
		Example: "  easel gpu\n  easel gpu --watch\n  easel gpu --json | jq '.[0].processes'",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := interruptible(c)
			defer stop()
			if err := a.connect(); err != nil {
				return err
			}
			if watch {
				return a.watchGPUs(ctx)
			}
			return a.gpus(ctx)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	return c
}

// gpus prints the cards once.
func (a *app) gpus(ctx context.Context) error {
	s, err := a.engine.Status(ctx)
	if err != nil {
		return err
	}
	if a.json {
		return printJSON(a.out, list(s.GPUs))
	}
	if len(s.GPUs) == 0 {
		a.sayf("easel: no GPU seen")
		for _, n := range s.Notices {
			a.sayf("hint: %s", oneLine(n))
		}
		return nil
	}
	h, err := a.engine.GPUHistory(ctx)
	if err != nil {
		return err
	}
	for _, g := range s.GPUs {
		writeGPU(a.out, g, h)
	}
	writeMarks(a.out, h.Marks, time.Now())
	return nil
}

// writeGPU prints one card with its processes.
func writeGPU(w io.Writer, g backend.GPU, h backend.GPUHistory) {
	fmt.Fprintln(w, gpuLine(g))
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "  %-9s %s\n", key, fmt.Sprintf(format, args...))
	}
	if i := slices.IndexFunc(h.Cards, func(s backend.GPUSeries) bool { return s.Index == g.Index }); i >= 0 {
		line("load", "%s  the last 10 minutes", spark(h.Cards[i].Utilisation, 60))
	}
	var facts []string
	fact := func(v *float64, format string) {
		if v != nil {
			facts = append(facts, fmt.Sprintf(format, *v))
		}
	}
	fact(g.PowerLimit, "power limit %.0f W")
	fact(g.ClockSM, "cores %.0f MHz")
	fact(g.ClockMemory, "memory %.0f MHz")
	if g.ECC != nil {
		facts = append(facts, plural(int(*g.ECC), "uncorrected memory error"))
	}
	if len(g.Throttle) > 0 {
		facts = append(facts, "slowed by "+oneLine(strings.Join(g.Throttle, ", ")))
	}
	if len(facts) > 0 {
		line("state", "%s", strings.Join(facts, " · "))
	}
	source := g.Source
	if g.Driver != "" {
		source += " · driver " + oneLine(g.Driver)
	}
	if g.UUID != "" {
		source += " · " + oneLine(g.UUID)
	}
	line("source", "%s", source)
	for _, p := range g.Processes {
		line("holds", "%s", gpuProcess(p))
	}
}

// gpuProcess is a holder of a card's memory in words.
func gpuProcess(p backend.GPUProcess) string {
	memory := "memory unknown"
	if p.Memory != nil {
		memory = size(*p.Memory)
	}
	who := fmt.Sprintf("%s (pid %d", oneLine(p.Name), p.PID)
	if p.User != "" {
		who += ", " + oneLine(p.User)
	}
	who += ")"
	switch {
	case p.Ours && p.Inferred:
		return memory + " · worker " + oneLine(p.Worker) + ", inferred from the card's memory · " + who
	case p.Ours:
		return memory + " · worker " + oneLine(p.Worker) + " · " + who
	}
	return memory + " · others · " + who
}

// writeMarks prints what happened, oldest first.
func writeMarks(w io.Writer, marks []backend.GPUMark, now time.Time) {
	for _, m := range marks {
		fmt.Fprintf(w, "%s  %-7s  %s\n", clock(m.At, now), oneLine(m.Kind), cut(oneLine(m.Text), 100))
	}
}

// spark draws percents as n cells, the newest last; two bins of the history make
// one cell when they do not fit.
func spark(values []*float64, n int) string {
	per := max((len(values)+n-1)/n, 1)
	var b strings.Builder
	for bin := range slices.Chunk(values, per) {
		sum, known := 0.0, 0
		for _, v := range bin {
			if v != nil {
				sum, known = sum+*v, known+1
			}
		}
		if known == 0 {
			b.WriteByte(' ')
			continue
		}
		steps := []rune("▁▂▃▄▅▆▇█")
		at := int(sum / float64(known) / 100 * float64(len(steps)))
		b.WriteRune(steps[min(max(at, 0), len(steps)-1)])
	}
	return b.String()
}

// gpuWatchGap is the least time between two lines about a card.
const gpuWatchGap = time.Second

// watchGPUs prints a line for each card every second, and what happens.
func (a *app) watchGPUs(ctx context.Context) error {
	s, err := a.engine.Status(ctx)
	if err != nil {
		return err // no engine now: say so instead of waiting for one
	}
	if len(s.GPUs) == 0 {
		a.sayf("easel: no GPU seen; waiting for one")
	}
	p := gpuPrinter{a: a}
	err = a.engine.Watch(ctx, client.EventsOptions{}, p.frame, func(connected bool, err error) {
		if !connected && ctx.Err() == nil {
			a.sayf("easel: %s; connecting again", oneLine(err.Error()))
		}
	})
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return &exit{code: codeInterrupted, kind: "interrupted", told: true}
	}
	return err
}

// gpuPrinter prints the frames that are about cards.
type gpuPrinter struct {
	a    *app
	last time.Time    // of the lines printed last
	mark backend.Time // of the newest mark printed
}

func (p *gpuPrinter) frame(f backend.Frame) error {
	switch {
	case f.Snapshot != nil:
		if h := f.Snapshot.GPUHistory; h != nil {
			p.marks(h.Marks)
		}
		return p.cards(f.Snapshot.Status.GPUs)
	case f.Kind == backend.FrameMarks:
		p.marks(f.Marks)
	case f.Kind == backend.FrameGPUs:
		return p.cards(f.GPUs)
	}
	return nil
}

func (p *gpuPrinter) cards(gs []backend.GPU) error {
	now := time.Now()
	if len(gs) == 0 || now.Sub(p.last) < gpuWatchGap {
		return nil
	}
	p.last = now
	if p.a.json {
		return printJSON(p.a.out, gs)
	}
	for _, g := range gs {
		held := ""
		for _, h := range g.Processes {
			held += " · " + gpuHolder(h)
		}
		if _, err := fmt.Fprintf(p.a.out, "%s  %s%s\n", now.Format("15:04:05"), gpuLine(g), held); err != nil {
			return err
		}
	}
	return nil
}

// gpuHolder is a process in a few words.
func gpuHolder(p backend.GPUProcess) string {
	name := oneLine(p.Name)
	if p.Ours {
		name = "worker " + oneLine(p.Worker)
	} else if p.User != "" {
		name += " of " + oneLine(p.User)
	}
	if p.Memory != nil {
		name += " " + size(*p.Memory)
	}
	if p.Inferred {
		name += " (inferred)"
	}
	return name
}

// marks prints those that are new. With --json they are left to
// GET /v1/gpus/history, so that every line is an array of cards.
func (p *gpuPrinter) marks(ms []backend.GPUMark) {
	for _, m := range ms {
		if p.a.json || !m.At.After(p.mark.Time) {
			continue
		}
		p.mark = m.At
		writeMarks(p.a.out, []backend.GPUMark{m}, time.Now())
	}
}
