package sketch

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"

	"github.com/google/uuid"
)

// handler is the table of everything the worker answers.
func (w *Worker) handler() http.Handler {
	rt := &router{w: w}
	rt.add("GET", "/", w.getRoot)
	rt.both("GET", "/ws", func(*request) (reply, error) { return reply{raw: w.hub.serve}, nil })
	rt.both("GET", "/prompt", func(*request) (reply, error) {
		return jsonReply(statusData(w.queue.count()).at("status"))
	})
	rt.both("POST", "/prompt", w.postPrompt)
	rt.both("GET", "/queue", w.getQueue)
	rt.both("POST", "/queue", w.postQueue)
	rt.both("POST", "/interrupt", w.postInterrupt)
	rt.both("POST", "/free", w.postFree)
	rt.both("GET", "/history", w.getHistory)
	rt.both("GET", "/history/{id}", w.getHistoryEntry)
	rt.both("POST", "/history", w.postHistory)
	rt.both("GET", "/object_info", w.getObjectInfo)
	rt.both("GET", "/object_info/{class}", w.getObjectInfo)
	rt.both("GET", "/system_stats", w.getSystemStats)
	rt.both("GET", "/features", func(*request) (reply, error) { return jsonReply(w.features()) })
	rt.both("GET", "/extensions", func(*request) (reply, error) { return jsonReply([]any{}) })
	empty := []string{"/workflow_templates", "/i18n"}
	if w.since("0.8.0") {
		empty = append(empty, "/global_subgraphs")
	}
	for _, p := range empty {
		rt.both("GET", p, func(*request) (reply, error) { return jsonReply(newObject()) })
	}
	w.modelRoutes(rt)
	w.fileRoutes(rt)
	w.userRoutes(rt)
	w.internalRoutes(rt)
	if w.since("0.8.0") {
		rt.add("GET", "/api/jobs", w.getJobs)
		rt.add("GET", "/api/jobs/{id}", w.getJob)
	}
	return rt
}

const page = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Easel's built-in worker</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:40em;margin:12vh auto;padding:0 1em;color:#222;background:#faf8f4}
h1{font-weight:600}code{background:#eee7da;padding:.1em .3em;border-radius:3px}</style></head><body>
<h1>Easel's built-in worker</h1>
<p>This is not ComfyUI. It answers ComfyUI's API (as of version VERSION) and runs image nodes that need no model:
no diffusion, no checkpoints. Easel uses it on a box where no ComfyUI is installed, and for its own tests.</p>
<p>It has no interface of its own. Start <code>easel</code> in a terminal to use it, or point Easel at a ComfyUI with
<code>easel use</code>.</p>
</body></html>
`

func (w *Worker) getRoot(*request) (reply, error) {
	return reply{
		typ: "text/html", body: []byte(strings.ReplaceAll(page, "VERSION", w.opts.Version)),
		head: map[string]string{"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"},
	}, nil
}

func (w *Worker) features() *object {
	o := obj("supports_preview_metadata", true, "max_upload_size", int64(w.opts.MaxUploadMB*(1<<20)))
	if w.since("0.8.0") {
		o.set("extension", obj("manager", obj("supports_v4", true)))
	}
	return o
}

func (w *Worker) postPrompt(r *request) (reply, error) {
	w.log.info("got prompt")
	body, err := r.object()
	if err != nil {
		return reply{}, err
	}
	w.post.Lock()
	defer w.post.Unlock()
	var number any = w.counter
	if v, ok := body.get("number"); ok {
		f, exc := toPyFloat(v)
		if exc != nil {
			return reply{}, exc
		}
		number = f
	} else {
		if truthy(body.at("front")) {
			number = -w.counter
		}
		w.counter++
	}
	prompt, ok := body.get("prompt")
	if !ok {
		return badPrompt(reason("no_prompt", "No prompt provided", "No prompt provided", newObject()), newObject())
	}
	id := uuid.NewString()
	if v, ok := body.get("prompt_id"); ok {
		id = pyStr(v)
	}
	var only []any
	if l, ok := body.at("partial_execution_targets").([]any); ok {
		only = l
	}
	res, err := w.validate(prompt, only)
	if err != nil {
		return reply{}, err
	}
	extra, err := w.extraData(body, res.err == nil)
	if err != nil {
		return reply{}, err
	}
	if res.err != nil {
		w.log.warn("invalid prompt: %s", pyRepr(res.err))
		return badPrompt(res.err, res.nodes)
	}
	if err := w.queue.put(&item{number: number, id: id, prompt: prompt.(*object), extra: extra, outputs: res.outputs}); err != nil {
		return reply{}, raise("TypeError", "%v", err)
	}
	return jsonReply(obj("prompt_id", id, "number", number, "node_errors", res.nodes))
}

func badPrompt(e, nodes *object) (reply, error) {
	rep, err := jsonReply(obj("error", e, "node_errors", nodes))
	rep.status = http.StatusBadRequest
	return rep, err
}

// extraData is the prompt's extra_data with what the server adds. A null
// without a client id goes through in 0.3.64, and kills the worker thread.
func (w *Worker) extraData(body *object, valid bool) (any, error) {
	v, given := body.get("extra_data")
	if !given {
		v = newObject()
	}
	extra, isObject := v.(*object)
	if id, ok := body.get("client_id"); ok {
		if !isObject {
			return nil, raise("TypeError", "'%s' object does not support item assignment", pyType(v))
		}
		extra.set("client_id", id)
	}
	if !valid || !w.since("0.8.0") {
		return v, nil
	}
	if !isObject {
		return nil, raise("TypeError", "argument of type '%s' is not iterable", pyType(v))
	}
	for _, k := range secrets {
		extra.del(k)
	}
	extra.set("create_time", nowMillis())
	return extra, nil
}

func (w *Worker) getQueue(*request) (reply, error) {
	running, pending := w.queue.snapshot()
	lists := func(items []*item) []any {
		l := []any{}
		for _, it := range items {
			l = append(l, it.list())
		}
		return l
	}
	return jsonReply(obj("queue_running", lists(running), "queue_pending", lists(pending)))
}

func (w *Worker) postQueue(r *request) (reply, error) {
	body, err := r.object()
	if err != nil {
		return reply{}, err
	}
	if truthy(body.at("clear")) {
		w.queue.clear()
	}
	return reply{}, eachDeleted(body, w.queue.remove)
}

// eachDeleted calls fn for every id in the list "delete".
func eachDeleted(body *object, fn func(string)) error {
	v, ok := body.get("delete")
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		return raise("TypeError", "'%s' object is not iterable", pyType(v))
	}
	for _, id := range list {
		if s, ok := id.(string); ok {
			fn(s)
		}
	}
	return nil
}

func (w *Worker) postInterrupt(r *request) (reply, error) {
	v, err := r.json()
	if err != nil {
		v = newObject()
	}
	body, ok := v.(*object)
	if !ok {
		return reply{}, raise("AttributeError", "'%s' object has no attribute 'get'", pyType(v))
	}
	id := body.at("prompt_id")
	if !truthy(id) {
		w.log.info("Global interrupt (no prompt_id specified)")
		w.interrupted.Store(true)
		return reply{}, nil
	}
	running, _ := w.queue.snapshot()
	for _, it := range running {
		if id == it.id {
			w.log.info("Interrupting prompt %s", it.id)
			w.interrupted.Store(true)
			return reply{}, nil
		}
	}
	w.log.info("Prompt %s is not currently running, skipping interrupt", pyStr(id))
	return reply{}, nil
}

func (w *Worker) postFree(r *request) (reply, error) {
	body, err := r.object()
	if err != nil {
		return reply{}, err
	}
	for _, k := range []string{"unload_models", "free_memory"} {
		if truthy(body.at(k)) {
			w.queue.setFlag(k)
		}
	}
	return reply{}, nil
}

// freeMemory gives memory back to the system: what the alloc fault holds, and
// what the garbage collector keeps.
func (w *Worker) freeMemory() {
	if w.hog.free() {
		w.log.info("Unloading what the alloc fault holds.")
	}
	debug.FreeOSMemory()
}

func (w *Worker) getHistory(r *request) (reply, error) {
	limit, err := r.number("max_items", -1)
	if err != nil {
		return reply{}, err
	}
	offset, err := r.number("offset", -1)
	if err != nil {
		return reply{}, err
	}
	return jsonReply(w.queue.history(limit, offset))
}

func (w *Worker) getHistoryEntry(r *request) (reply, error) {
	out := newObject()
	if e, ok := w.queue.entry(r.vars["id"]); ok {
		out.set(r.vars["id"], e)
	}
	return jsonReply(out)
}

func (w *Worker) postHistory(r *request) (reply, error) {
	body, err := r.object()
	if err != nil {
		return reply{}, err
	}
	if truthy(body.at("clear")) {
		w.queue.forgetAll()
	}
	return reply{}, eachDeleted(body, w.queue.forget)
}

func (w *Worker) getObjectInfo(r *request) (reply, error) {
	names := w.order
	if c, ok := r.vars["class"]; ok {
		names = nil
		if w.classes[c] != nil {
			names = []string{c}
		}
	}
	out := newObject()
	for _, n := range names {
		out.set(n, w.info(n))
	}
	return jsonReply(out)
}

// info is the declaration of a class as it is now: LoadImage lists the files
// of the input folder.
func (w *Worker) info(name string) *object {
	spec := w.classes[name].spec
	if name != "LoadImage" {
		return spec
	}
	spec = clone(spec).(*object)
	image := spec.at("input").(*object).at("required").(*object).at("image").([]any)
	files := []any{}
	entries, _ := os.ReadDir(w.opts.InputDir)
	for _, e := range entries {
		st, err := os.Stat(filepath.Join(w.opts.InputDir, e.Name()))
		if err == nil && st.Mode().IsRegular() && strings.HasPrefix(contentType(e.Name()), "image/") {
			files = append(files, e.Name())
		}
	}
	sort.Slice(files, func(i, k int) bool { return files[i].(string) < files[k].(string) })
	image[0] = files
	return spec
}

// versions of the parts that a ComfyUI names beside its own.
var parts = map[string][2]string{"0.3.64": {"1.27.10", "0.1.95"}, "0.8.0": {"1.35.9", "0.7.67"}}

func (w *Worker) getSystemStats(*request) (reply, error) {
	total, free := memory()
	argv := make([]any, len(w.opts.Argv))
	for i, a := range w.opts.Argv {
		argv[i] = a
	}
	system := "posix"
	if runtime.GOOS == "windows" {
		system = "nt"
	}
	if w.since("0.8.0") {
		system = runtime.GOOS
	}
	p := parts[w.opts.Version]
	return jsonReply(obj(
		"system", obj("os", system, "ram_total", total, "ram_free", free, "comfyui_version", w.opts.Version,
			"required_frontend_version", p[0], "installed_templates_version", p[1], "required_templates_version", p[1],
			"python_version", "none (Easel's built-in worker, "+runtime.Version()+")", "pytorch_version", "none",
			"embedded_python", false, "argv", argv),
		"devices", []any{obj("name", "cpu", "type", "cpu", "index", nil, "vram_total", total, "vram_free", free,
			"torch_vram_total", total, "torch_vram_free", free)}))
}
