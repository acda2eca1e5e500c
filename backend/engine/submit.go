//go:build linux

package engine

import (
	"context"
	"encoding/json"
	"net/http"

	"easel/backend"
	"easel/backend/workflow"
)

// submit serves POST /v1/jobs. It answers after the job is on disk.
func (e *Engine) submit(w http.ResponseWriter, r *http.Request) {
	var sub backend.Submission
	if err := readJSON(r, &sub); err != nil {
		fail(w, err)
		return
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" {
		sub.Key = key
	}
	if sub.Owner == "" || !mayOperate(r.Context()) {
		sub.Owner = peerName(r.Context())
	}
	if sub.Source == "" {
		sub.Source = backend.SourceCLI
	}
	doc, err := readGraph(&sub)
	if err != nil {
		fail(w, err)
		return
	}
	// A request seen before is answered as it was, whatever a check says by now.
	if job, found, err := e.store.Replay(r.Context(), sub); err != nil || found {
		if err != nil {
			fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, e.dress(job))
		return
	}
	if err := e.check(r.Context(), doc, &sub); err != nil {
		fail(w, err)
		return
	}
	job, created, err := e.store.Submit(r.Context(), sub)
	if err != nil {
		fail(w, err)
		return
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	writeJSON(w, status, e.dress(job))
}

// readGraph reads the graph of a submission, and what a picture carried beside it.
func readGraph(sub *backend.Submission) (workflow.Doc, error) {
	doc, err := workflow.Read(sub.Graph)
	if err != nil {
		return doc, err
	}
	sub.Graph = doc.GraphJSON
	if len(sub.Workflow) == 0 && len(doc.Workflow) > 0 {
		sub.Workflow = doc.Workflow
	}
	if string(sub.Workflow) == "null" {
		sub.Workflow = nil
	}
	return doc, nil
}

// check looks at a graph with the eyes of the running ComfyUI. While none runs
// only what needs no eyes is looked at, and ComfyUI's own answer decides when the
// job is sent. Warnings never stop a job. A submission that asks for no check is
// still refused when a Load node leads out of the input folder.
func (e *Engine) check(ctx context.Context, doc workflow.Doc, sub *backend.Submission) error {
	var bad []backend.Problem
	for _, p := range e.problems(ctx, doc) {
		switch {
		case p.Severity == workflow.SeverityError && (!sub.NoCheck || p.Kind == workflow.KindUnsafePath):
			bad = append(bad, p)
		case p.Severity == workflow.SeverityWarning && !sub.NoCheck:
			sub.Warnings = append(sub.Warnings, p.Message)
		}
	}
	if len(bad) > 0 {
		return workflow.Failure(bad)
	}
	return nil
}

// problems is what is wrong with a workflow. ComfyUI reads its lists of models
// and input files anew at each prompt, so a value that is in none of those known
// here is looked up once more before it counts as missing.
func (e *Engine) problems(ctx context.Context, doc workflow.Doc) []backend.Problem {
	var info *workflow.ObjectInfo
	w := e.readyWorker()
	if w != nil {
		info = w.classes(ctx)
	}
	found := workflow.Check(doc, info)
	if info == nil {
		return found
	}
	stale := workflow.Stale(found)
	if len(stale) == 0 {
		return found
	}
	if info = w.refresh(ctx, info, stale); info == nil {
		return found
	}
	return workflow.Check(doc, info)
}

func (e *Engine) objectInfo(w http.ResponseWriter, r *http.Request) {
	wk := e.readyWorker()
	if wk == nil {
		fail(w, backend.Fail(backend.FailWorker, "no worker is ready, so nobody knows which nodes there are", "easel status says what it is doing"))
		return
	}
	raw, err := wk.m.ObjectInfo(r.Context())
	if err != nil {
		fail(w, backend.Fail(backend.FailWorker, "the worker does not tell its nodes: "+clip(err.Error()), "easel worker logs"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

// upload puts the body into the input folder of the worker.
func (e *Engine) upload(r *http.Request) (any, error) {
	name := r.URL.Query().Get("name")
	if name == "" {
		return nil, backend.Fail(backend.FailUsage, "an upload needs ?name=", "")
	}
	wk, err := e.waitReady(r.Context())
	if err != nil {
		return nil, err
	}
	c, _, ok := wk.m.Client()
	if !ok {
		return nil, backend.Fail(backend.FailWorker, "no worker is ready to take the upload", "easel status says what it is doing")
	}
	up, err := c.Upload(r.Context(), name, "input", "", false, http.MaxBytesReader(nil, r.Body, maxUpload))
	if err != nil {
		return nil, backend.Fail(backend.FailWorker, "the worker did not take the upload: "+clip(err.Error()), "easel worker logs")
	}
	return up, nil
}

// debugState is for people who look at Easel itself.
func (e *Engine) debugState(r *http.Request) (any, error) {
	counts, err := e.store.Counts(r.Context())
	if err != nil {
		return nil, err
	}
	open, err := e.store.Unfinished(r.Context())
	raw, _ := json.Marshal(e.hello)
	return map[string]any{
		"seq": e.store.LastSeq(), "counts": counts, "open": open, "keeper": json.RawMessage(raw), "living": e.conn.Living(),
	}, err
}
