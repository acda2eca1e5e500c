//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"

	"easel/backend"
	"easel/backend/comfy"
)

// maxBody bounds the body of a request: ComfyUI's own limit is 100 MB.
const maxBody = 96 << 20

// maxUpload bounds an uploaded input file.
const maxUpload = 4 << 30

// handler is the control API.
func (e *Engine) handler() http.Handler {
	mux := http.NewServeMux()
	routes := map[string]func(*http.Request) (any, error){
		"GET /v1/status":           func(r *http.Request) (any, error) { return e.status(r.Context()), nil },
		"GET /v1/jobs":             e.listJobs,
		"GET /v1/jobs/{id}":        e.getJob,
		"GET /v1/jobs/{id}/graph":  e.getGraph,
		"GET /v1/jobs/{id}/events": e.getJobEvents,
		"POST /v1/jobs/actions":    e.actJobs,
		"POST /v1/queue/pause":     e.pauseQueue,
		"POST /v1/queue/resume":    e.resumeQueue,
		"GET /v1/queue/foreign":    e.listForeign,
		"GET /v1/workers":          func(*http.Request) (any, error) { return e.workerStates(), nil },
		"POST /v1/workers/actions": e.actWorkers,
		"GET /v1/deaths":           e.listDeaths,
		"GET /v1/gpus/history":     func(*http.Request) (any, error) { return e.cards.History(), nil },
		"GET /v1/outputs":          e.listOutputs,
		"POST /v1/outputs/trash":   e.trashOutputs,
		"POST /v1/outputs/restore": e.restoreOutputs,
		"POST /v1/uploads":         e.upload,
		"POST /v1/reload":          e.reload,
		"GET /debug/state":         e.debugState,
	}
	for pattern, fn := range routes {
		mux.Handle(pattern, answer(fn))
	}
	mux.HandleFunc("POST /v1/jobs", e.submit)
	mux.HandleFunc("GET /v1/events", e.events)
	mux.HandleFunc("GET /v1/jobs/{id}/outputs/{n}", e.output)
	mux.HandleFunc("GET /v1/workers/{id}/log", e.workerLog)
	mux.HandleFunc("GET /v1/object_info", e.objectInfo)
	mux.HandleFunc("POST /v1/stop", e.stopCall)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, backend.Fail(backend.FailNotFound, "the control API has no "+r.Method+" "+clip(r.URL.Path), "easel and its engine may be of different versions: easel version"))
	})
	return mux
}

// answer turns a function into a handler that writes JSON.
func answer(fn func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		if err != nil {
			fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, v)
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// fail answers with an error that a person can read and a program decide by.
func fail(w http.ResponseWriter, err error) {
	f := backend.FailureOf(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		f = backend.Fail(backend.FailBusy, "the engine was too busy to answer, or is being stopped", "try again")
	}
	status := map[string]int{
		backend.FailUsage: 400, backend.FailForbidden: 403, backend.FailNotFound: 404, backend.FailConflict: 409, backend.FailTooLarge: 413,
		backend.FailInvalid: 422, backend.FailFull: 429, backend.FailInternal: 500, backend.FailEngineDown: 503,
		backend.FailBusy: 503, backend.FailWorker: 503, backend.FailDisk: 507,
	}[f.Kind]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	if status == 429 || status == 503 {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, map[string]any{"error": f})
}

// readJSON reads a request's body into v.
func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return backend.Fail(backend.FailTooLarge, "the request is larger than 96 MiB", "ComfyUI itself takes no more than 100 MB")
		}
		if errors.Is(err, io.EOF) {
			return nil // an empty body is an empty object
		}
		return backend.Fail(backend.FailUsage, "the request is not the JSON that was expected: "+clip(err.Error()), "")
	}
	return nil
}

// clip makes text that came from outside fit for a sentence.
func clip(s string) string { return comfy.Plain(s, 200) }

// filterOf reads a job filter from a query.
func filterOf(r *http.Request) (backend.JobFilter, error) {
	q := r.URL.Query()
	f := backend.JobFilter{Group: q.Get("group"), Owner: q.Get("owner"), Before: q.Get("before"), Order: q.Get("order")}
	if s := q.Get("ids"); s != "" {
		f.IDs = strings.Split(s, ",")
	}
	if s := q.Get("state"); s != "" {
		for _, name := range strings.Split(s, ",") {
			st := backend.JobState(name)
			if !st.Valid() {
				return f, backend.Fail(backend.FailUsage, "there is no job state "+clip(name), "states: queued held running succeeded failed cancelled")
			}
			f.States = append(f.States, st)
		}
	}
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return f, backend.Fail(backend.FailUsage, "limit must be a number, not "+clip(s), "")
		}
		f.Limit = n
	}
	return f, nil
}

func (e *Engine) listJobs(r *http.Request) (any, error) {
	f, err := filterOf(r)
	if err != nil {
		return nil, err
	}
	list, err := e.store.List(r.Context(), f)
	if err != nil {
		return nil, err
	}
	return e.dressAll(list), nil
}

func (e *Engine) getJob(r *http.Request) (any, error) {
	job, err := e.store.Get(r.Context(), r.PathValue("id"))
	return e.dress(job), err
}

func (e *Engine) getGraph(r *http.Request) (any, error) {
	job, err := e.store.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	graph, workflow, err := e.store.Graph(r.Context(), job.ID)
	if err != nil {
		return nil, err
	}
	if len(workflow) == 0 {
		workflow = json.RawMessage("null")
	}
	return map[string]json.RawMessage{"graph": graph, "workflow": workflow}, nil
}

func (e *Engine) getJobEvents(r *http.Request) (any, error) {
	job, err := e.store.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return e.store.JobEvents(r.Context(), job.ID)
}

func (e *Engine) actJobs(r *http.Request) (any, error) {
	var a backend.JobAction
	if err := readJSON(r, &a); err != nil {
		return nil, err
	}
	if a.By == "" {
		a.By = peerName(r.Context())
	}
	if !mayOperate(r.Context()) {
		a.Jobs.Owner = peerName(r.Context())
	}
	list, err := e.store.Act(r.Context(), a)
	if err != nil {
		return nil, err
	}
	e.disp.Wake()
	return map[string]any{"jobs": e.dressAll(list)}, nil
}

func (e *Engine) pauseQueue(r *http.Request) (any, error) {
	var in struct {
		AfterCurrent bool   `json:"after_current"`
		By           string `json:"by"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.By == "" {
		in.By = peerName(r.Context())
	}
	return e.setPaused(r.Context(), true, "paused by "+clip(in.By))
}

func (e *Engine) resumeQueue(r *http.Request) (any, error) {
	return e.setPaused(r.Context(), false, "")
}

func (e *Engine) setPaused(ctx context.Context, on bool, reason string) (any, error) {
	if err := e.store.SetPaused(ctx, on, reason); err != nil {
		return nil, err
	}
	e.disp.Wake()
	e.queueChanged()
	return e.counts(ctx)
}

func (e *Engine) listDeaths(r *http.Request) (any, error) {
	n, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if n <= 0 || n > 10_000 {
		n = 100
	}
	list, err := e.store.Deaths(r.Context(), n)
	if list == nil {
		list = []backend.Verdict{}
	}
	return list, err
}

// stopCall ends Easel on purpose: the answer goes out before anything ends.
func (e *Engine) stopCall(w http.ResponseWriter, r *http.Request) {
	var in struct {
		KeepWorker bool `json:"keep_worker"`
	}
	if err := readJSON(r, &in); err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, http.StatusAccepted, map[string]any{"stopping": true})
	_ = http.NewResponseController(w).Flush()
	e.askStop(stopRequest{whole: true, keepWorker: in.KeepWorker})
}
