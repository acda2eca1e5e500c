//go:build linux

package cards

import (
	"context"
	"strings"
	"time"

	"easel/backend/comfy"
	"easel/gpu"
)

// statsWithin bounds the one question to a worker.
const statsWithin = 10 * time.Second

// fromComfy is what the running workers said of their cards when they became ready.
// Each launch is asked once.
func (c *Cards) fromComfy(ctx context.Context) (gpu.Reading, bool) {
	r := gpu.Reading{At: time.Now(), Source: gpu.ComfyUI}
	live := map[string]bool{}
	for _, w := range c.hooks.Workers() {
		if !w.Paints || !w.Ready || w.Launch == "" {
			continue
		}
		live[w.Launch] = true
		for _, card := range c.askOnce(ctx, w) {
			card.Index = len(r.Cards)
			r.Cards = append(r.Cards, card)
		}
	}
	c.sampling.Lock()
	for launch := range c.asked {
		if !live[launch] {
			delete(c.asked, launch)
		}
	}
	c.sampling.Unlock()
	return r, len(r.Cards) > 0
}

// askOnce asks a worker for its devices, unless this launch was asked before.
func (c *Cards) askOnce(ctx context.Context, w Worker) []gpu.Card {
	c.sampling.Lock()
	cards, asked := c.asked[w.Launch]
	c.sampling.Unlock()
	if asked {
		return cards
	}
	ctx, cancel := context.WithTimeout(ctx, statsWithin)
	defer cancel()
	devices, err := c.hooks.Stats(ctx, w.ID)
	if err != nil {
		c.log.Warn("ask a worker for its cards", "worker", w.ID, "err", err)
	}
	for _, d := range devices {
		if d.Type != "cpu" && d.VRAMTotal > 0 {
			cards = append(cards, deviceCard(d))
		}
	}
	c.sampling.Lock()
	c.asked[w.Launch] = cards
	c.sampling.Unlock()
	return cards
}

// deviceCard is a device of /system_stats. Its name there is "cuda:0 NVIDIA A10 :
// cudaMallocAsync".
func deviceCard(d comfy.Device) gpu.Card {
	name, _, _ := strings.Cut(d.Name, " : ")
	if kind, rest, ok := strings.Cut(name, " "); ok && strings.HasPrefix(kind, d.Type) {
		name = rest
	}
	return gpu.Card{
		Name: name, MemoryTotal: gpu.Known(d.VRAMTotal), MemoryUsed: gpu.Known(max(d.VRAMTotal-d.VRAMFree, 0)),
		Note: "as ComfyUI said when it became ready, not measured since",
	}
}
