package sketch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// request is one HTTP request with what the route took from its path.
type request struct {
	*http.Request
	w    *Worker
	vars map[string]string
}

// reply is what a handler answers; the zero value is 200 without a body.
type reply struct {
	status int
	typ    string
	body   []byte
	head   map[string]string
	// raw writes the answer itself, status and all.
	raw func(http.ResponseWriter, *http.Request)
}

func jsonReply(v any) (reply, error) {
	return reply{typ: "application/json; charset=utf-8", body: dumpJSON(v)}, nil
}

func textReply(status int, s string) (reply, error) {
	return reply{status: status, typ: "text/plain; charset=utf-8", body: []byte(s)}, nil
}

func statusReply(status int) (reply, error) { return reply{status: status}, nil }

// route is one method and path. A segment "{x}" takes any one segment.
type route struct {
	method string
	segs   []string
	fn     func(*request) (reply, error)
}

type router struct {
	w      *Worker
	routes []route
}

// add registers a route as it is written.
func (rt *router) add(method, path string, fn func(*request) (reply, error)) {
	rt.routes = append(rt.routes, route{method, strings.Split(path[1:], "/"), fn})
}

// both registers a route bare and under /api.
func (rt *router) both(method, path string, fn func(*request) (reply, error)) {
	rt.add(method, path, fn)
	rt.add(method, "/api"+path, fn)
}

// match finds the route, or the methods that the path would allow.
func (rt *router) match(method string, segs []string) (*route, map[string]string, []string) {
	var allow []string
	for i := range rt.routes {
		r := &rt.routes[i]
		vars, ok := r.take(segs)
		if !ok {
			continue
		}
		if r.method == method || r.method == http.MethodGet && method == http.MethodHead {
			return r, vars, nil
		}
		allow = append(allow, r.method)
		if r.method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	return nil, nil, slices.Compact(allow)
}

func (r *route) take(segs []string) (map[string]string, bool) {
	if len(segs) != len(r.segs) {
		return nil, false
	}
	vars := map[string]string{}
	for i, s := range r.segs {
		plain, err := url.PathUnescape(segs[i])
		switch {
		case err != nil:
			return nil, false
		case strings.HasPrefix(s, "{"):
			if plain == "" {
				return nil, false
			}
			vars[s[1:len(s)-1]] = plain
		case s != plain:
			return nil, false
		}
	}
	return vars, true
}

// ServeHTTP answers as aiohttp does, in status, type and the text of errors.
func (rt *router) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := rt.w
	w.loop.RLock()   // waits while the loop is blocked
	w.loop.RUnlock() //nolint:staticcheck // the wait is all it is for
	rw.Header().Set("Server", "easel-sketch")
	if w.opts.CORS == "" && !w.originAllowed(r) {
		write(rw, r, reply{status: http.StatusForbidden})
		return
	}
	if w.opts.CORS != "" {
		h := rw.Header()
		h.Set("Access-Control-Allow-Origin", w.opts.CORS)
		h.Set("Access-Control-Allow-Methods", "POST, GET, DELETE, PUT, OPTIONS, PATCH")
		h.Set("Access-Control-Allow-Headers", "Content-Type, Authorization")
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method == http.MethodOptions {
		write(rw, r, reply{})
		return
	}
	escaped := r.URL.EscapedPath()
	if strings.Contains(escaped, "/../") || strings.Contains(escaped, "/./") {
		escaped = path.Clean(escaped)
	}
	found, vars, allow := rt.match(r.Method, strings.Split(strings.TrimPrefix(escaped, "/"), "/"))
	if found == nil {
		if len(allow) > 0 {
			rw.Header().Set("Allow", strings.Join(allow, ","))
			write(rw, r, errorReply(http.StatusMethodNotAllowed))
			return
		}
		write(rw, r, errorReply(http.StatusNotFound))
		return
	}
	limit := int64(w.opts.MaxUploadMB * (1 << 20))
	r.Body = http.MaxBytesReader(nil, r.Body, limit)
	write(rw, r, w.answer(found, &request{Request: r, w: w, vars: vars}, limit))
}

// answer runs the handler. An error or a panic in it is a 500, as an exception
// in a handler of ComfyUI is.
func (w *Worker) answer(rt *route, r *request, limit int64) (rep reply) {
	defer func() {
		if p := recover(); p != nil {
			w.log.error("Error handling request\n%v\n%s", p, debug.Stack())
			rep = serverError()
		}
	}()
	rep, err := rt.fn(r)
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		rep, _ = textReply(http.StatusRequestEntityTooLarge, fmt.Sprintf("Maximum request body size %d exceeded, actual body size %d", limit, max(r.ContentLength, limit+1)))
	case err != nil:
		e := asRaised(err)
		w.log.error("Error handling request\nTraceback (most recent call last):\n%s%s: %s", frame("handle", r.Method+" "+r.URL.Path), e.class, e.msg)
		rep = serverError()
	}
	return rep
}

func serverError() reply {
	rep, _ := textReply(http.StatusInternalServerError, "500 Internal Server Error\n\nServer got itself in trouble")
	return rep
}

func errorReply(status int) reply {
	rep, _ := textReply(status, strconv.Itoa(status)+": "+http.StatusText(status))
	return rep
}

func write(rw http.ResponseWriter, r *http.Request, rep reply) {
	if rep.raw != nil {
		rep.raw(rw, r)
		return
	}
	h := rw.Header()
	for k, v := range rep.head {
		h.Set(k, v)
	}
	if rep.status == 0 {
		rep.status = http.StatusOK
	}
	if rep.status != http.StatusNoContent {
		if rep.typ == "" {
			rep.typ = "application/octet-stream"
		}
		h.Set("Content-Type", rep.typ)
		h.Set("Content-Length", strconv.Itoa(len(rep.body)))
	}
	rw.WriteHeader(rep.status)
	if r.Method != http.MethodHead {
		_, _ = rw.Write(rep.body)
	}
}

// originAllowed is ComfyUI's guard against web pages that post to a server on
// the same machine: where the host is a loopback one, Origin must agree with it.
func (w *Worker) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || r.Host == "" {
		return true
	}
	host, o := strings.ToLower(r.Host), strings.ToLower(origin)
	u, err := url.Parse(o)
	if err != nil || u.Host == "" {
		return true
	}
	hostURL, err := url.Parse("//" + host)
	if err != nil || !loopback(hostURL.Hostname()) {
		return true
	}
	from := u.Host
	if u.Port() == "" {
		host = hostURL.Hostname()
	}
	if hostURL.Port() == "" {
		from = u.Hostname()
	}
	if host != from {
		w.log.warn("WARNING: request with non matching host and origin %s != %s, returning 403", host, from)
		return false
	}
	return true
}

func loopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// json reads the body as JSON, whatever its content type says.
func (r *request) json() (any, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	v, err := parseJSON(b)
	if err != nil {
		return nil, raise("json.decoder.JSONDecodeError", "%v", err)
	}
	return v, nil
}

// object reads the body as a JSON object. What has no keys to ask for counts
// as an empty one, as lists do in ComfyUI.
func (r *request) object() (*object, error) {
	v, err := r.json()
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *object:
		return v, nil
	case []any, string:
		return newObject(), nil
	}
	return nil, raise("TypeError", "argument of type '%s' is not iterable", pyType(v))
}

// number reads a whole number from the query.
func (r *request) number(name string, absent int) (int, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return absent, nil
	}
	n, exc := toInt(q.Get(name))
	if exc != nil {
		return 0, exc
	}
	i, ok := n.(int64)
	if !ok || i > math.MaxInt32 || i < math.MinInt32 {
		return 0, raise("OverflowError", "%s is out of range", pyStr(n))
	}
	return int(i), nil
}

func meminfo(b []byte, key string) int64 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}
