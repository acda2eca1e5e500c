package dispatch

import (
	"context"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
)

// foreignEvery is how often prompts of others are looked at while there are any:
// /queue carries whole graphs.
const foreignEvery = 2 * time.Second

// lookAtOthers asks /queue when ComfyUI says that it holds more than we sent.
func (s *session) lookAtOthers(ctx context.Context) {
	more := s.box.remaining() > len(s.inside)
	if !more && len(s.others) == 0 || time.Since(s.lookedInside) < foreignEvery || time.Since(s.looked) < foreignEvery/2 {
		return
	}
	s.lookInside(ctx)
}

// lookInside reads /queue for prompts of others.
func (s *session) lookInside(ctx context.Context) {
	s.lookedInside = time.Now()
	q, err := s.askQueue(ctx)
	if err != nil {
		return
	}
	s.sort(q)
}

// sort takes the prompts of others out of a queue.
func (s *session) sort(q comfy.Queue) {
	s.lookedInside = time.Now()
	var list []backend.ForeignPrompt
	add := func(items []comfy.QueueItem, state backend.JobState) {
		for _, it := range items {
			if _, gone := s.ghosts[it.PromptID]; gone || it.ClientID == s.clientID || s.find(it.PromptID) != nil {
				continue
			}
			f := backend.ForeignPrompt{Worker: s.l.id, PromptID: comfy.Plain(it.PromptID, 100), ClientID: comfy.Plain(it.ClientID, 100), State: state, Since: backend.Now()}
			if state == backend.JobRunning {
				f.Node, f.Class, f.Title = sampling(it.Prompt)
				f.Value, f.Max = barOf(s.l.activity().Bar)
			}
			for _, old := range s.others {
				if old.PromptID == f.PromptID && old.State == f.State {
					f.Since = old.Since
				}
			}
			list = append(list, f)
		}
	}
	add(q.Running, backend.JobRunning)
	add(q.Pending, backend.JobQueued)
	changed := !slices.Equal(list, s.others)
	s.others = list
	if changed {
		s.d.setForeign(s.l.id, list)
	}
}

// runsOthers reports whether a prompt of somebody else runs.
func (s *session) runsOthers() bool {
	return slices.ContainsFunc(s.others, func(f backend.ForeignPrompt) bool { return f.State == backend.JobRunning })
}

// setForeign publishes the prompts of others in a worker.
func (d *Dispatcher) setForeign(id string, list []backend.ForeignPrompt) {
	d.mu.Lock()
	if len(list) == 0 {
		delete(d.foreign, id)
	} else {
		d.foreign[id] = slices.Clone(list)
	}
	d.mu.Unlock()
	d.hooks.Changed(id)
}

// foreignList is Foreign; d.mu is held.
func (d *Dispatcher) foreignList() []backend.ForeignPrompt {
	out := []backend.ForeignPrompt{}
	for _, id := range slices.Sorted(maps.Keys(d.foreign)) {
		out = append(out, d.foreign[id]...)
	}
	return out
}

// sampling is the node that draws a progress bar, when only one of the graph does:
// what runs inside a prompt of others is told to nobody but them.
func sampling(graph json.RawMessage) (id, class, title string) {
	nodes, _ := readNodes(graph)
	for k, n := range nodes {
		if !strings.Contains(n.class, "Sampler") && n.class != "EaselSketch" {
			continue
		}
		if id != "" {
			return "", "", ""
		}
		id, class, title = comfy.Plain(k, 40), n.class, n.title
	}
	return id, class, title
}

// barRE finds "9/20 [" in a progress bar of tqdm.
var barRE = regexp.MustCompile(`(\d+)/(\d+) \[`)

// barOf reads step and steps off a progress bar, 0 and 0 when there is none.
func barOf(bar string) (value, most float64) {
	m := barRE.FindStringSubmatch(bar)
	if m == nil {
		return 0, 0
	}
	value, _ = strconv.ParseFloat(m[1], 64)
	most, _ = strconv.ParseFloat(m[2], 64)
	return value, most
}
