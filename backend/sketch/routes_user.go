package sketch

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func (w *Worker) userRoutes(rt *router) {
	rt.both("GET", "/users", func(*request) (reply, error) {
		_, err := os.Stat(w.userRoot())
		return jsonReply(obj("storage", "server", "migrated", err == nil))
	})
	rt.both("GET", "/settings", func(*request) (reply, error) { return jsonReply(w.settings()) })
	rt.both("GET", "/settings/{id}", func(r *request) (reply, error) { return jsonReply(w.settings().at(r.vars["id"])) })
	rt.both("POST", "/settings", func(r *request) (reply, error) {
		body, err := r.object()
		if err != nil {
			return reply{}, err
		}
		return reply{}, w.changeSettings(func(s *object) {
			for _, k := range body.keys {
				s.set(k, body.vals[k])
			}
		})
	})
	rt.both("POST", "/settings/{id}", func(r *request) (reply, error) {
		v, err := r.json()
		if err != nil {
			return reply{}, err
		}
		return reply{}, w.changeSettings(func(s *object) { s.set(r.vars["id"], v) })
	})
	rt.both("GET", "/userdata", w.listUserdata)
	rt.both("GET", "/v2/userdata", w.listUserdataV2)
	rt.both("GET", "/userdata/{file}", w.getUserdata)
	rt.both("POST", "/userdata/{file}", w.postUserdata)
	rt.both("DELETE", "/userdata/{file}", w.deleteUserdata)
	rt.both("POST", "/userdata/{file}/move/{dest}", w.moveUserdata)
}

func (w *Worker) userRoot() string { return filepath.Join(w.opts.UserDir, "default") }

func (w *Worker) settingsFile() string { return filepath.Join(w.userRoot(), "comfy.settings.json") }

func (w *Worker) settings() *object {
	b, err := os.ReadFile(w.settingsFile())
	if err != nil {
		return newObject()
	}
	v, err := parseJSON(b)
	o, ok := v.(*object)
	if err != nil || !ok {
		w.log.error("The user settings file is corrupted: %s", w.settingsFile())
		return newObject()
	}
	return o
}

func (w *Worker) changeSettings(fn func(*object)) error {
	w.user.Lock()
	defer w.user.Unlock()
	s := w.settings()
	fn(s)
	var b bytes.Buffer
	indentJSON(&b, s, "")
	return os.WriteFile(w.settingsFile(), b.Bytes(), 0o644)
}

// userFile is the path of a file in the user's folder; false: outside it.
func (w *Worker) userFile(name string) (string, bool) {
	if strings.Contains(name, "%") {
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
	}
	p := join(w.userRoot(), name)
	return p, inside(w.userRoot(), p)
}

func fileInfo(root, path string, st os.FileInfo) *object {
	rel, _ := filepath.Rel(root, path)
	t := float64(st.ModTime().UnixNano()) / 1e9
	return obj("path", filepath.ToSlash(rel), "size", st.Size(), "modified", t, "created", t)
}

func (w *Worker) listUserdata(r *request) (reply, error) {
	q := r.URL.Query()
	if q.Get("dir") == "" {
		return textReply(http.StatusBadRequest, "Directory not provided")
	}
	dir, ok := w.userFile(q.Get("dir"))
	if !ok {
		return textReply(http.StatusForbidden, "Invalid directory")
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return textReply(http.StatusNotFound, "Directory not found")
	}
	yes := func(k string) bool { return strings.EqualFold(q.Get(k), "true") }
	list := []any{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		if d.IsDir() {
			if !yes("recurse") {
				return filepath.SkipDir
			}
			return nil
		}
		rel, _ := filepath.Rel(dir, p)
		rel = filepath.ToSlash(rel)
		switch {
		case yes("full_info"):
			st, err := d.Info()
			if err == nil {
				list = append(list, fileInfo(dir, p, st))
			}
		case yes("split"):
			list = append(list, append([]any{rel}, texts(strings.Split(rel, "/"))...))
		default:
			list = append(list, rel)
		}
		return nil
	})
	if err != nil {
		return reply{}, err
	}
	return jsonReply(list)
}

func (w *Worker) listUserdataV2(r *request) (reply, error) {
	dir, ok := w.userFile(r.URL.Query().Get("path"))
	if !ok {
		return textReply(http.StatusForbidden, "Invalid directory path requested")
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return textReply(http.StatusNotFound, "Requested path not found")
	}
	list := []any{}
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return nil //nolint:nilerr // what cannot be read is left out
		}
		st, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it went away meanwhile
		}
		rel, _ := filepath.Rel(w.userRoot(), p)
		e := obj("name", d.Name(), "path", filepath.ToSlash(rel), "type", "directory")
		if !d.IsDir() {
			e.set("type", "file")
			e.set("size", st.Size())
			e.set("modified", float64(st.ModTime().UnixNano())/1e9)
		}
		list = append(list, e)
		return nil
	})
	sort.SliceStable(list, func(i, k int) bool {
		return list[i].(*object).at("path").(string) < list[k].(*object).at("path").(string)
	})
	return jsonReply(list)
}

// existing finds a file of the user, or the status that refuses it.
func (w *Worker) existing(name string) (string, int) {
	p, ok := w.userFile(name)
	if !ok {
		return "", http.StatusForbidden
	}
	if _, err := os.Stat(p); err != nil {
		return "", http.StatusNotFound
	}
	return p, 0
}

func (w *Worker) getUserdata(r *request) (reply, error) {
	p, status := w.existing(r.vars["file"])
	if status != 0 {
		return statusReply(status)
	}
	b, err := os.ReadFile(p)
	return reply{typ: contentType(p), body: b}, err
}

func (w *Worker) postUserdata(r *request) (reply, error) {
	p, ok := w.userFile(r.vars["file"])
	if !ok {
		return statusReply(http.StatusForbidden)
	}
	if _, err := os.Stat(p); err == nil && r.URL.Query().Get("overwrite") == "false" {
		return textReply(http.StatusConflict, "File already exists")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return reply{}, err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return reply{}, err
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		return reply{}, err
	}
	return w.describe(r, p)
}

// describe answers with the path of a file, or all about it with full_info.
func (w *Worker) describe(r *request, p string) (reply, error) {
	st, err := os.Stat(p)
	if err != nil {
		return reply{}, err
	}
	info := fileInfo(w.userRoot(), p, st)
	if strings.EqualFold(r.URL.Query().Get("full_info"), "true") {
		return jsonReply(info)
	}
	return jsonReply(info.at("path"))
}

func (w *Worker) deleteUserdata(r *request) (reply, error) {
	p, status := w.existing(r.vars["file"])
	if status != 0 {
		return statusReply(status)
	}
	return reply{status: http.StatusNoContent}, os.Remove(p)
}

func (w *Worker) moveUserdata(r *request) (reply, error) {
	from, status := w.existing(r.vars["file"])
	if status != 0 {
		return statusReply(status)
	}
	to, ok := w.userFile(r.vars["dest"])
	if !ok {
		return statusReply(http.StatusForbidden)
	}
	if _, err := os.Stat(to); err == nil && r.URL.Query().Get("overwrite") == "false" {
		return textReply(http.StatusConflict, "File already exists")
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return reply{}, err
	}
	if err := os.Rename(from, to); err != nil {
		return reply{}, err
	}
	return w.describe(r, to)
}

// internalRoutes are there bare only.
func (w *Worker) internalRoutes(rt *router) {
	rt.add("GET", "/internal/logs", func(*request) (reply, error) {
		var b strings.Builder
		for _, e := range w.log.entries() {
			b.WriteString(e.(*object).at("t").(string) + " - " + e.(*object).at("m").(string))
		}
		return jsonReply(b.String())
	})
	rt.add("GET", "/internal/logs/raw", func(*request) (reply, error) {
		return jsonReply(obj("entries", w.log.entries(), "size", terminalSize()))
	})
	rt.add("PATCH", "/internal/logs/subscribe", func(r *request) (reply, error) {
		body, err := r.object()
		if err != nil {
			return reply{}, err
		}
		for _, k := range []string{"clientId", "enabled"} {
			if !body.has(k) {
				return reply{}, raise("KeyError", "'%s'", k)
			}
		}
		w.hub.subscribe(pyStr(body.at("clientId")), truthy(body.at("enabled")))
		return reply{}, nil
	})
	rt.add("GET", "/internal/folder_paths", func(*request) (reply, error) {
		out := newObject()
		for _, c := range w.categories() {
			out.set(c.name, texts(c.dirs))
		}
		return jsonReply(out)
	})
	rt.add("GET", "/internal/files/{type}", w.internalFiles)
}

func (w *Worker) internalFiles(r *request) (reply, error) {
	dir := w.dirOf(r.vars["type"])
	if dir == "" {
		rep, err := jsonReply(obj("error", "Invalid directory type"))
		rep.status = http.StatusBadRequest
		return rep, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return reply{}, err
	}
	var files []os.FileInfo
	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && st.Mode().IsRegular() {
			files = append(files, st)
		}
	}
	sort.SliceStable(files, func(i, k int) bool { return files[i].ModTime().After(files[k].ModTime()) })
	names := []any{}
	for _, f := range files {
		names = append(names, f.Name())
	}
	return jsonReply(names)
}
