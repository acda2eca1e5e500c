package config

import (
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Check looks the values over and says, one sentence each, what cannot work
// (severity error) or will not do what it seems to (warning). It looks at
// nothing outside cfg.
func Check(cfg Config) []Problem {
	c := &checker{}
	c.oneOf("edition", cfg.Edition, "standard", "api", "cluster", "serverless")
	c.oneOf("language", cfg.Language, "", "en", "zh-CN")
	c.worker(cfg.Worker)
	c.gateway(cfg.Gateway)
	for i, m := range cfg.Mount {
		c.mount(fmt.Sprintf("mount.%d.", i), m)
	}
	c.mountsApart(cfg.Mount)
	c.oneOf("queue.after_restart", cfg.Queue.AfterRestart, "go-on", "pause", "as-it-was")
	c.atLeast("queue.limit", cfg.Queue.Limit, 1)
	c.atLeast("restart.attempts", cfg.Restart.Attempts, 0)
	if cfg.Restart.Window.Duration <= 0 {
		c.bad("restart.window", "restart.window must be longer than 0: attempts are counted in it", "")
	}
	for name, d := range map[string]Duration{"jobs": cfg.Retention.Jobs, "events": cfg.Retention.Events, "deaths": cfg.Retention.Deaths} {
		if d.Duration < day {
			c.bad("retention."+name, "retention."+name+" must be a day or more", "")
		}
	}
	unload, stop := cfg.Serverless.UnloadAfter.Duration, cfg.Serverless.StopAfter.Duration
	if stop > 0 && unload > stop {
		c.warn("serverless.unload_after", "serverless.unload_after never happens: the worker ends before, after "+cfg.Serverless.StopAfter.String(), "")
	}
	c.ladder(cfg.OOM)
	slices.SortStableFunc(c.problems, func(a, b Problem) int { return order(a.Key) - order(b.Key) })
	return c.problems
}

// order is the place of a key in the file.
func order(name string) int {
	k, mount, ok := find(name)
	if !ok {
		return 0
	}
	at := slices.IndexFunc(keys, func(other key) bool { return other.Path == k.Path })
	return at + mount*len(keys)
}

type checker struct{ problems []Problem }

func (c *checker) bad(key, message, hint string) {
	c.problems = append(c.problems, Problem{Severity: SeverityError, Key: key, Message: message, Hint: hint})
}

func (c *checker) warn(key, message, hint string) {
	c.problems = append(c.problems, Problem{Severity: SeverityWarning, Key: key, Message: message, Hint: hint})
}

func (c *checker) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	named := slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" })
	message := fmt.Sprintf("%s: %s is not known: it is one of %s", key, quote(clip(value, 40)), strings.Join(named, ", "))
	hint := ""
	for _, a := range named {
		if distance(value, a) <= tolerance(a) {
			hint = "did you mean " + a + "?"
		}
	}
	c.bad(key, message, hint)
}

func (c *checker) atLeast(key string, value, least int) {
	if value < least {
		c.bad(key, fmt.Sprintf("%s: %d is too small: it must be %d or more", key, value, least), "")
	}
}

// worker checks the section of that name.
func (c *checker) worker(w Worker) {
	if w.URL != "" {
		c.httpURL("worker.url", w.URL)
		if w.ComfyUI != "" && !w.Builtin {
			c.bad("worker.url", "worker.url and worker.comfyui are both set: Easel either drives the ComfyUI behind a URL or runs its own",
				"keep one; `easel use URL|DIR` does it")
		}
	}
	if w.Builtin && (w.URL != "" || w.ComfyUI != "") {
		c.warn("worker.builtin", "worker.builtin is true, so worker.url and worker.comfyui are not used", "")
	}
	c.absolute("worker.comfyui", w.ComfyUI)
	c.absolute("worker.data", w.Data)
	if strings.ContainsAny(w.Python, `/\`) {
		c.absolute("worker.python", w.Python)
	}
	if w.URL == "" {
		for key, value := range map[string]string{"worker.log": w.Log, "worker.restart": w.Restart} {
			if value != "" {
				c.warn(key, key+" has a meaning only with worker.url", "")
			}
		}
	}
	c.logPlace(w.Log)
	if w.PipIndex != "" {
		c.httpURL("worker.pip_index", w.PipIndex)
	}
	if _, _, err := ParseRecycle(w.RecycleAfter); err != nil {
		c.bad("worker.recycle_after", "worker.recycle_after: "+err.Error(), "")
	}
	if w.Port < 0 || w.Port > 65535 {
		c.bad("worker.port", fmt.Sprintf("worker.port: %d is no port: it is 0 (a free one) to 65535", w.Port), "")
	}
	c.gpus(w)
	for key, list := range map[string][]string{"worker.args": w.Args, "worker.packages": w.Packages, "worker.command": {w.Command}} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			c.bad(key, key+" contains a NUL character, which no command line can", "")
		}
	}
}

// ladder checks the section oom.
func (c *checker) ladder(o OOM) {
	for i, step := range o.Ladder {
		c.oneOf("oom.ladder", step, "free", "flags", "gpu")
		if slices.Contains(o.Ladder[:i], step) {
			c.bad("oom.ladder", "oom.ladder: "+quote(clip(step, 40))+" stands there twice: what failed is not tried again", "")
		}
	}
	if slices.Contains(o.Ladder, "flags") && len(o.Flags) == 0 {
		c.bad("oom.flags", "oom.flags is empty, and oom.ladder has the step flags", "for example [\"--lowvram\"]")
	}
}

func (c *checker) gpus(w Worker) {
	seen := map[int]bool{}
	for _, gpu := range w.GPUs {
		if gpu < 0 {
			c.bad("worker.gpus", fmt.Sprintf("worker.gpus: %d is no card: they are counted from 0", gpu), "")
		}
		if seen[gpu] {
			c.bad("worker.gpus", fmt.Sprintf("worker.gpus: card %d stands there twice: a card has one worker", gpu), "")
		}
		seen[gpu] = true
	}
	if len(w.GPUs) > 1 && w.Port != 0 {
		c.warn("worker.port", fmt.Sprintf("worker.port: %d workers cannot share port %d: the first gets it, each other one the next free", len(w.GPUs), w.Port), "")
	}
}

func (c *checker) logPlace(place string) {
	kind, name, found := strings.Cut(place, ":")
	if place == "" || path.IsAbs(place) || filepath.IsAbs(place) {
		return
	}
	if found && (kind == "journal" || kind == "docker") && name != "" && !strings.HasPrefix(name, "-") {
		return
	}
	c.bad("worker.log", "worker.log: "+quote(clip(place, 60))+" is neither journal:UNIT, docker:NAME nor an absolute path", "")
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// gateway checks the section of that name.
func (c *checker) gateway(g Gateway) {
	host, port, err := net.SplitHostPort(g.Listen)
	number, numberErr := strconv.Atoi(port)
	switch {
	case err != nil || numberErr != nil || number < 0 || number > 65535:
		c.bad("gateway.listen", "gateway.listen: "+quote(clip(g.Listen, 60))+" is no address: write HOST:PORT, for example \"127.0.0.1:8288\"", "")
	case host != "" && host != "localhost" && net.ParseIP(strings.Split(host, "%")[0]) == nil:
		c.bad("gateway.listen", "gateway.listen: "+quote(clip(host, 60))+" is no IP address of this box: write for example \"127.0.0.1:8288\" or \"0.0.0.0:8288\"", "")
	case host == "" || host != "localhost" && !net.ParseIP(strings.Split(host, "%")[0]).IsLoopback():
		c.warn("gateway.listen", "gateway.listen: "+g.Listen+" can be reached from other machines, so every call needs a token", "`easel token create NAME` makes one")
	}
	if !serviceName.MatchString(g.Service) {
		c.bad("gateway.service", "gateway.service: "+quote(clip(g.Service, 60))+" cannot be part of a path: use letters, digits, - and _", "")
	}
	if g.PublicURL != "" {
		c.httpURL("gateway.public_url", g.PublicURL)
	}
	if g.MaxBody < 1<<10 {
		c.bad("gateway.max_body", "gateway.max_body: "+g.MaxBody.String()+" bytes are too few for any workflow", "the default is \"96MiB\"")
	}
}

// mount checks one mount, whose keys begin with prefix.
func (c *checker) mount(prefix string, m Mount) {
	if m.Path == "" {
		c.bad(prefix+"path", prefix+"path is missing: a mount is a directory", "")
	}
	c.absolute(prefix+"path", m.Path)
	c.oneOf(prefix+"layout", m.Layout, "comfyui", "models", "a1111")
	if m.Bucket != "" {
		u, err := url.Parse(m.Bucket)
		if err != nil || u.Scheme != "oss" || u.Host == "" || u.User != nil {
			c.bad(prefix+"bucket", prefix+"bucket: "+quote(clip(redactText(m.Bucket), 60))+" is no bucket: write oss://bucket/prefix", "")
		}
	}
	for _, dir := range m.Push {
		if !slices.Contains([]string{"output", "input", "temp", "user"}, dir) {
			c.bad(prefix+"push", prefix+"push: "+quote(clip(dir, 40))+" cannot be pushed: it is output, input, temp or user", "")
		}
	}
	if len(m.Push) > 0 && m.Bucket == "" {
		c.bad(prefix+"push", prefix+"push is set, and there is no bucket to push to", "set "+prefix+"bucket")
	}
}

func (c *checker) mountsApart(mounts []Mount) {
	seen := map[string]int{}
	for i, m := range mounts {
		clean := path.Clean(m.Path)
		if first, twice := seen[clean]; twice && m.Path != "" {
			c.bad(fmt.Sprintf("mount.%d.path", i), fmt.Sprintf("mount.%d.path: %s is mount %d already", i, quote(m.Path), first), "")
		}
		seen[clean] = i
	}
}

// absolute wants an absolute path, of this system or of the Linux box that the
// file may be for.
func (c *checker) absolute(key, value string) {
	if value == "" || path.IsAbs(value) || filepath.IsAbs(value) {
		return
	}
	c.bad(key, key+": "+quote(clip(value, 60))+" is no absolute path: Easel is not always started from the same directory", "")
}

func (c *checker) httpURL(key, value string) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" {
		c.bad(key, key+": "+quote(clip(redactText(value), 60))+" is no address of a web server: write http://HOST:PORT", "")
	}
}
