package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"easel/backend"
)

// Status is the state of engine, keeper, workers, queue, cards and disk.
func (c *Client) Status(ctx context.Context) (backend.Status, error) {
	var s backend.Status
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/status"}, &s)
	return s, err
}

// Submit hands a job in. When it returns without an error the job is on disk.
// created is false when the key was seen before and the first job came back. A
// submission without a key gets one for this call, so that a broken connection
// can be tried again without making two jobs.
func (c *Client) Submit(ctx context.Context, s backend.Submission) (job backend.Job, created bool, err error) {
	key := s.Key
	if key == "" {
		key = uuid.NewString()
	}
	status, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/jobs", body: s, key: key}, &job)
	return job, status == http.StatusCreated, err
}

// Jobs lists the jobs that f selects, newest first unless f.Order says
// otherwise.
func (c *Client) Jobs(ctx context.Context, f backend.JobFilter) ([]backend.Job, error) {
	var jobs []backend.Job
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/jobs", query: filterQuery(f)}, &jobs)
	return jobs, err
}

// filterQuery is f as the query of GET /v1/jobs.
func filterQuery(f backend.JobFilter) url.Values {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	set("state", strings.Join(states, ","))
	set("ids", strings.Join(f.IDs, ","))
	set("group", f.Group)
	set("owner", f.Owner)
	set("before", f.Before)
	set("order", f.Order)
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// Job is one job by its id, or by a prefix of at least 4 characters.
func (c *Client) Job(ctx context.Context, id string) (backend.Job, error) {
	var j backend.Job
	_, err := c.into(ctx, call{method: http.MethodGet, path: jobPath(id)}, &j)
	return j, err
}

func jobPath(id string) string { return "/v1/jobs/" + url.PathEscape(id) }

// Graph is what a job runs: its graph in API format, and the UI workflow it was
// made from (null when there was none).
func (c *Client) Graph(ctx context.Context, id string) (graph, workflow json.RawMessage, err error) {
	var out struct {
		Graph    json.RawMessage `json:"graph"`
		Workflow json.RawMessage `json:"workflow"`
	}
	_, err = c.into(ctx, call{method: http.MethodGet, path: jobPath(id) + "/graph"}, &out)
	if string(out.Workflow) == "null" {
		out.Workflow = nil
	}
	return out.Graph, out.Workflow, err
}

// JobEvents lists every kept event of a job, oldest first.
func (c *Client) JobEvents(ctx context.Context, id string) ([]backend.Event, error) {
	var events []backend.Event
	_, err := c.into(ctx, call{method: http.MethodGet, path: jobPath(id) + "/events"}, &events)
	return events, err
}

// Act does a verb to the selected jobs and returns them as they are then (for
// retry: the new jobs).
func (c *Client) Act(ctx context.Context, a backend.JobAction) ([]backend.Job, error) {
	var out struct {
		Jobs []backend.Job `json:"jobs"`
	}
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/jobs/actions", body: a, once: !idempotent(a.Verb)}, &out)
	return out.Jobs, err
}

// idempotent reports whether doing v twice is the same as doing it once.
func idempotent(v backend.Verb) bool {
	switch v {
	case backend.VerbCancel, backend.VerbHold, backend.VerbRelease, backend.VerbPromote, backend.VerbBottom, backend.VerbClear:
		return true
	}
	return false
}

// Pause stops the queue: at once what is not running stays where it is. With
// afterCurrent the prompt that already waits inside the worker runs too.
func (c *Client) Pause(ctx context.Context, afterCurrent bool, by string) error {
	body := struct {
		AfterCurrent bool   `json:"after_current"`
		By           string `json:"by,omitempty"`
	}{afterCurrent, by}
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/queue/pause", body: body}, nil)
	return err
}

// Resume lets the queue go on.
func (c *Client) Resume(ctx context.Context, by string) error {
	body := struct {
		By string `json:"by,omitempty"`
	}{by}
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/queue/resume", body: body}, nil)
	return err
}

// Workers lists the workers in the order of their ids.
func (c *Client) Workers(ctx context.Context) ([]backend.Worker, error) {
	var ws []backend.Worker
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/workers"}, &ws)
	return ws, err
}

// WorkerAct asks for something to be done to a worker and returns the workers as
// they are when the engine has taken the order, which may be before it is done.
func (c *Client) WorkerAct(ctx context.Context, a backend.WorkerAction) ([]backend.Worker, error) {
	var ws []backend.Worker
	once := a.Verb == backend.WorkerRestart
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/workers/actions", body: a, once: once}, &ws)
	return ws, err
}

// Deaths lists the last ends of workers, newest first; limit 0 is the engine's
// own.
func (c *Client) Deaths(ctx context.Context, limit int) ([]backend.Verdict, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var out []backend.Verdict
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/deaths", query: q}, &out)
	return out, err
}

// Picture is output n (from 0) of a job as a PNG scaled by the engine to fit in
// w×h pixels.
func (c *Client) Picture(ctx context.Context, jobID string, n, w, h int) ([]byte, error) {
	q := url.Values{"w": {strconv.Itoa(w)}, "h": {strconv.Itoa(h)}}
	resp, err := c.send(ctx, call{method: http.MethodGet, path: outputPath(jobID, n), query: q})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the picture: %w", err)
	}
	return b, nil
}

func outputPath(jobID string, n int) string {
	return jobPath(jobID) + "/outputs/" + strconv.Itoa(n)
}

// OutputFile opens output n (from 0) of a job as it is on disk and names the
// file, without any directory. The caller closes it. A stream that ends early is
// an error of Read, never a short file.
func (c *Client) OutputFile(ctx context.Context, jobID string, n int) (io.ReadCloser, string, error) {
	resp, err := c.send(ctx, call{method: http.MethodGet, path: outputPath(jobID, n)})
	if err != nil {
		return nil, "", err
	}
	name := ""
	if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil {
		name = path.Base(strings.ReplaceAll(params["filename"], `\`, "/"))
	}
	if name == "" || name == "." || name == "/" || name == ".." {
		name = fmt.Sprintf("output-%d", n)
	}
	return resp.Body, name, nil
}

// ObjectInfo is ComfyUI's object_info as the worker gave it, several MB.
func (c *Client) ObjectInfo(ctx context.Context) ([]byte, error) {
	resp, err := c.send(ctx, call{method: http.MethodGet, path: "/v1/object_info"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read object_info: %w", err)
	}
	return b, nil
}

// Uploaded says where an uploaded file lies in the worker's directories.
type Uploaded struct {
	Name      string `json:"name"`
	Subfolder string `json:"subfolder"`
	Type      string `json:"type"` // input
}

// Value is the file as a Load node wants it: its name, with its subfolder.
func (u Uploaded) Value() string {
	if u.Subfolder == "" {
		return u.Name
	}
	return u.Subfolder + "/" + u.Name
}

// Upload puts a file into the worker's input directory under name. When r is
// a file or bytes, a broken connection is tried again.
func (c *Client) Upload(ctx context.Context, name string, r io.Reader) (Uploaded, error) {
	var out Uploaded
	_, again := r.(sizedReaderAt)
	_, err := c.into(ctx, call{
		method: http.MethodPost, path: "/v1/uploads", query: url.Values{"name": {name}}, raw: r, once: !again,
	}, &out)
	return out, err
}

// Stop asks the engine to stop itself, its keeper and its workers; with
// keepWorker a worker is left to be adopted by the next engine. It returns when
// the order is taken, not when all has ended.
func (c *Client) Stop(ctx context.Context, keepWorker bool) error {
	body := struct {
		KeepWorker bool `json:"keep_worker"`
	}{keepWorker}
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/stop", body: body, once: true}, nil)
	return err
}
