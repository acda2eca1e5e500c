//go:build linux

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"easel/backend"
)

// Sizes of the list of outputs.
const (
	usualPage = 200
	maxPage   = 1000
	maxBriefs = 20_000 // jobs whose prompt and seed are kept
	maxPrompt = 400    // bytes
	maxModels = 4
	// textBatch is how many outputs are read at once while words are looked for.
	textBatch = 500
)

// listOutputs serves GET /v1/outputs?limit=&before=&kind=&job=&group=&owner=&state=
// &since=&until=&q=&plain=: what jobs made, that of the newest jobs first. Its cost
// follows the length of the answer, not that of the list, except with q.
func (e *Engine) listOutputs(r *http.Request) (any, error) {
	f, err := assetFilter(r)
	if err != nil {
		return nil, err
	}
	page, err := e.assets(r.Context(), f)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Text != "":
		page.Total = -1
	case f.Before == "":
		if page.Total, err = e.store.CountOutputs(r.Context(), f); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// assetFilter reads the query of the list.
func assetFilter(r *http.Request) (backend.AssetFilter, error) {
	q := r.URL.Query()
	f := backend.AssetFilter{
		Limit: usualPage, Before: q.Get("before"), Job: q.Get("job"), Group: q.Get("group"), Owner: q.Get("owner"),
		Text: strings.TrimSpace(q.Get("q")), Plain: q.Has("plain"),
	}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return f, backend.Fail(backend.FailUsage, "limit must be a number from 1 on, not "+clip(s), "")
		}
		f.Limit = min(n, maxPage)
	}
	if s := q.Get("kind"); s != "" {
		f.Kinds = strings.Split(s, ",")
	}
	if s := q.Get("state"); s != "" {
		for _, st := range strings.Split(s, ",") {
			f.States = append(f.States, backend.JobState(st))
		}
	}
	for name, to := range map[string]*backend.Time{"since": &f.Since, "until": &f.Until} {
		if s := q.Get(name); s != "" {
			t, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return f, backend.Fail(backend.FailUsage, name+" must be a time as 2006-01-02T15:04:05Z, not "+clip(s), "")
			}
			*to = backend.At(t)
		}
	}
	return f, nil
}

// assets gathers one page.
func (e *Engine) assets(ctx context.Context, f backend.AssetFilter) (backend.AssetPage, error) {
	page := backend.AssetPage{Assets: []backend.Asset{}}
	words := strings.Fields(strings.ToLower(f.Text))
	ask := f
	if len(words) > 0 {
		ask.Limit = max(f.Limit, textBatch)
	}
	for {
		list, next, err := e.store.Outputs(ctx, ask)
		if err != nil {
			return page, err
		}
		for i, a := range list {
			if !f.Plain || len(words) > 0 {
				b := e.brief(ctx, a.Job)
				a.Prompt, a.Seed, a.Models = b.prompt, b.seed, b.models
			}
			if !says(a, words) {
				continue
			}
			if f.Plain {
				a.Prompt, a.Seed, a.Models = "", "", nil
			}
			page.Assets = append(page.Assets, a)
			if len(page.Assets) == f.Limit && (i < len(list)-1 || next != "") {
				page.Next = a.Job + "/" + strconv.Itoa(a.N)
				return page, nil
			}
		}
		if next == "" || ctx.Err() != nil {
			return page, ctx.Err()
		}
		ask.Before = next
	}
}

// says reports whether each of the words, in lower case, is in what is known of an
// output.
func says(a backend.Asset, words []string) bool {
	if len(words) == 0 {
		return true
	}
	hay := strings.ToLower(strings.Join(append([]string{
		a.Output.Filename, a.Output.Kind, a.Name, a.Group, a.Job, a.Owner, string(a.State), a.Prompt, a.Seed, a.Output.Text,
	}, a.Models...), "\x00"))
	for _, w := range words {
		if !strings.Contains(hay, w) {
			return false
		}
	}
	return true
}

// brief is what a graph says of its picture, as much as a list needs.
type brief struct {
	prompt, seed string
	models       []string
}

// briefs keeps what was read out of graphs: a graph never changes.
var briefs struct {
	sync.Mutex
	of map[string]brief
}

// brief reads the graph of a job once.
func (e *Engine) brief(ctx context.Context, id string) brief {
	briefs.Lock()
	b, ok := briefs.of[id]
	briefs.Unlock()
	if ok {
		return b
	}
	graph, _, err := e.store.Graph(ctx, id)
	if err != nil {
		return brief{} // asked again next time
	}
	b = briefOf(graph)
	briefs.Lock()
	defer briefs.Unlock()
	if briefs.of == nil || len(briefs.of) >= maxBriefs {
		briefs.of = map[string]brief{}
	}
	briefs.of[id] = b
	return b
}

// briefOf reads prompt texts, the first seed and the models out of a graph in API
// format. What is marked as negative by its title is left out.
func briefOf(graph json.RawMessage) brief {
	var nodes map[string]struct {
		Inputs map[string]json.RawMessage `json:"inputs"`
		Meta   struct {
			Title string `json:"title"`
		} `json:"_meta"`
	}
	if json.Unmarshal(graph, &nodes) != nil {
		return brief{}
	}
	ids := make([]string, 0, len(nodes))
	for id := range nodes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // node ids are mostly numbers
		}
		return strings.Compare(a, b)
	})
	var b brief
	var prompts []string
	for _, id := range ids {
		in := nodes[id].Inputs
		if !strings.Contains(strings.ToLower(nodes[id].Meta.Title), "negative") {
			for _, k := range []string{"text", "prompt", "positive", "text_g", "t5xxl", "positive_prompt"} {
				if s := stringOf(in[k]); s != "" && !slices.Contains(prompts, s) {
					prompts = append(prompts, s)
				}
			}
		}
		for _, k := range []string{"seed", "noise_seed"} {
			if v := bytes.TrimSpace(in[k]); b.seed == "" && len(v) > 0 && len(v) < 32 && (v[0] >= '0' && v[0] <= '9' || v[0] == '-') {
				b.seed = string(v)
			}
		}
		for _, k := range []string{"ckpt_name", "unet_name", "model_name", "lora_name"} {
			if s := stringOf(in[k]); s != "" && len(b.models) < maxModels && !slices.Contains(b.models, s) {
				b.models = append(b.models, cutBytes(s, 120))
			}
		}
	}
	b.prompt = cutBytes(strings.Join(prompts, " · "), maxPrompt)
	return b
}

func stringOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return strings.TrimSpace(s)
}

// cutBytes shortens s to n bytes without breaking a character.
func cutBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
