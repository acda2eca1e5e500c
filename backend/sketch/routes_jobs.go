package sketch

import (
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// The routes of this file are there from 0.6.0 on.

var jobStates = []string{"pending", "in_progress", "completed", "failed"}

// job describes one prompt as /api/jobs does; what is unknown is left out.
func job(it *item, state string) *object {
	extra, _ := it.extra.(*object)
	o := obj("id", it.id, "status", state, "priority", it.number, "create_time", extra.at("create_time"))
	info, _ := extra.at("extra_pnginfo").(*object)
	flow, _ := info.at("workflow").(*object)
	if id, ok := flow.at("id").(string); ok {
		o.set("workflow_id", id)
	}
	o.set("outputs_count", int64(0))
	return o
}

// finishedJob describes an entry of the history.
func finishedJob(e *object) *object {
	p := e.at("prompt").([]any)
	prompt, _ := p[2].(*object)
	it := &item{number: p[0], id: p[1].(string), prompt: prompt, extra: p[3]}
	status := e.at("status").(*object)
	state := "failed"
	if status.at("completed") == true {
		state = "completed"
	}
	base := job(it, state)
	o := obj("id", it.id, "status", state, "priority", it.number, "create_time", base.at("create_time"))
	for _, m := range status.at("messages").([]any) {
		kind, data := m.([]any)[0].(string), m.([]any)[1].(*object)
		switch kind {
		case "execution_start":
			o.set("execution_start_time", data.at("timestamp"))
		case "execution_error":
			o.set("execution_end_time", data.at("timestamp"))
			o.set("execution_error", data)
		case "execution_success", "execution_interrupted":
			o.set("execution_end_time", data.at("timestamp"))
		}
	}
	count, preview := countOutputs(e.at("outputs").(*object))
	o.set("outputs_count", count)
	if preview != nil {
		o.set("preview_output", preview)
	}
	if base.has("workflow_id") {
		o.set("workflow_id", base.at("workflow_id"))
	}
	return o
}

// countOutputs counts the files of a run and picks the one to show: the first
// that was really saved, else the first.
func countOutputs(outputs *object) (int64, *object) {
	var n int64
	var saved, other *object
	for _, id := range outputs.keys {
		ui, _ := outputs.vals[id].(*object)
		for _, kind := range ui.keys {
			list, _ := ui.vals[kind].([]any)
			for _, v := range list {
				f, ok := v.(*object)
				if !ok {
					continue
				}
				n++
				p := clone(f).(*object)
				p.set("nodeId", id)
				p.set("mediaType", kind)
				if f.at("type") == "output" && saved == nil {
					saved = p
				} else if other == nil {
					other = p
				}
			}
		}
	}
	if saved != nil {
		return n, saved
	}
	return n, other
}

func (w *Worker) allJobs() []*object {
	running, pending := w.queue.snapshot()
	var list []*object
	for _, it := range pending {
		list = append(list, job(it, "pending"))
	}
	for _, it := range running {
		list = append(list, job(it, "in_progress"))
	}
	h := w.queue.history(-1, -1)
	for _, id := range slices.Backward(h.keys) {
		list = append(list, finishedJob(h.vals[id].(*object)))
	}
	return list
}

func jobsError(msg string) (reply, error) {
	rep, err := jsonReply(obj("error", msg))
	rep.status = http.StatusBadRequest
	return rep, err
}

func (w *Worker) getJobs(r *request) (reply, error) {
	q := r.URL.Query()
	states := jobStates
	if s := q.Get("status"); s != "" {
		states = nil
		var bad []string
		for _, one := range strings.Split(s, ",") {
			one = strings.ToLower(strings.TrimSpace(one))
			if !slices.Contains(jobStates, one) {
				bad = append(bad, one)
			}
			states = append(states, one)
		}
		if bad != nil {
			return jobsError("Invalid status value(s): " + strings.Join(bad, ", ") + ". Valid values: " + strings.Join(jobStates, ", "))
		}
	}
	by := cmpOr(strings.ToLower(q.Get("sort_by")), "created_at")
	if by != "created_at" && by != "execution_duration" {
		return jobsError("sort_by must be 'created_at' or 'execution_duration'")
	}
	order := cmpOr(strings.ToLower(q.Get("sort_order")), "desc")
	if order != "asc" && order != "desc" {
		return jobsError("sort_order must be 'asc' or 'desc'")
	}
	var limit any
	if q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil {
			return jobsError("limit must be an integer")
		}
		if n <= 0 {
			return jobsError("limit must be a positive integer")
		}
		limit = int64(n)
	}
	offset := 0
	if q.Has("offset") {
		n, err := strconv.Atoi(q.Get("offset"))
		if err != nil {
			return jobsError("offset must be an integer")
		}
		offset = max(n, 0)
	}
	return w.listJobs(states, q.Get("workflow_id"), by, order == "desc", limit, offset)
}

func cmpOr(s, absent string) string {
	if s == "" {
		return absent
	}
	return s
}

func (w *Worker) listJobs(states []string, workflow, by string, desc bool, limit any, offset int) (reply, error) {
	var list []*object
	for _, j := range w.allJobs() {
		if slices.Contains(states, j.at("status").(string)) && (workflow == "" || j.at("workflow_id") == workflow) {
			list = append(list, j)
		}
	}
	key := func(j *object) float64 {
		if by == "created_at" {
			return toFloat(j.at("create_time"))
		}
		return toFloat(j.at("execution_end_time")) - toFloat(j.at("execution_start_time"))
	}
	sort.SliceStable(list, func(i, k int) bool {
		if desc {
			i, k = k, i
		}
		return key(list[i]) < key(list[k])
	})
	total := len(list)
	list = list[min(offset, total):]
	if n, ok := limit.(int64); ok && int(n) < len(list) {
		list = list[:n]
	}
	jobs := []any{}
	for _, j := range list {
		jobs = append(jobs, j)
	}
	return jsonReply(obj("jobs", jobs, "pagination", obj("offset", int64(offset), "limit", limit, "total", int64(total), "has_more", offset+len(list) < total)))
}

func (w *Worker) getJob(r *request) (reply, error) {
	id := r.vars["id"]
	running, pending := w.queue.snapshot()
	for _, it := range running {
		if it.id == id {
			return jsonReply(job(it, "in_progress"))
		}
	}
	for _, it := range pending {
		if it.id == id {
			return jsonReply(job(it, "pending"))
		}
	}
	e, ok := w.queue.entry(id)
	if !ok {
		rep, err := jsonReply(obj("error", "Job not found"))
		rep.status = http.StatusNotFound
		return rep, err
	}
	o := finishedJob(e)
	p := e.at("prompt").([]any)
	o.set("outputs", e.at("outputs"))
	o.set("execution_status", e.at("status"))
	o.set("workflow", obj("prompt", p[2], "extra_data", p[3]))
	return jsonReply(o)
}
