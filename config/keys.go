package config

import (
	"reflect"
	"strconv"
	"strings"
)

// Key describes one setting.
type Key struct {
	Path    string // "worker.comfyui"; a key of a mount is "mount.path"
	Env     string // EASEL_WORKER_COMFYUI
	Type    string // text, yes/no, number, list of texts, list of numbers, duration, size
	Default string // in TOML
	Doc     string // what it does, one or more lines
}

// key is a Key with its place in the structs.
type key struct {
	Key
	index []int // of the field, in Config or, for a mount's, in Mount
	mount bool
}

const envPrefix = "EASEL_"

// docs says what each key does, in the order of the file. A test keeps it equal
// to the structs.
var docs = map[string]string{
	"edition":                 "standard, api, cluster or serverless.",
	"language":                "en or zh-CN; empty: by locale.",
	"worker.comfyui":          "A ComfyUI checkout, as an absolute path. With nothing set and nothing found on\nthe box, the built-in worker draws, and that is said.",
	"worker.python":           "Its interpreter; empty: its venv, else python3.",
	"worker.command":          "An EAS run command, pasted as it is; run in worker.comfyui.",
	"worker.packages":         "Packages installed before a start when they changed, after the mount's\nmodels/whl/*.whl.",
	"worker.pip_index":        "Where packages come from; empty: only wheels of the mount.",
	"worker.builtin":          "true: the built-in worker, whatever else is set or is on this box.",
	"worker.url":              "A ComfyUI that somebody else runs: driven and watched, never started, stopped\nor emptied.",
	"worker.args":             "More flags for ComfyUI, one text each: [\"--lowvram\"].",
	"worker.data":             "The mount (custom_nodes, models, input, output, temp, user); empty: the\ncheckout's own directories, nothing created, nothing moved.",
	"worker.log":              "With worker.url: where its log is: journal:UNIT, docker:NAME or a path.",
	"worker.restart":          "With worker.url: a command that restarts it, e.g. \"systemctl restart comfyui\";\nmakes restart available, always asked.",
	"worker.recycle_after":    "\"100 jobs\", or \"4GiB\" of growth: a restart between jobs before memory runs out.",
	"worker.port":             "Where ComfyUI listens on 127.0.0.1; 0: a free port.",
	"worker.gpus":             "The cards that get a worker, one each, by index.",
	"gateway.listen":          "Address of the public HTTP surface. Elsewhere than on 127.0.0.1 it needs a token.",
	"gateway.service":         "The name in /api/predict/<service>/…",
	"gateway.public_url":      "What links show; empty: the listener, and over SSH the tunnel line.",
	"gateway.task_id_once":    "true: a task_id seen before is the first job again (EAS itself does not check).",
	"gateway.query_token":     "true: take ?token= as well (some plugins can send nothing else; it ends in logs).",
	"gateway.max_body":        "The largest request taken; ComfyUI's own limit is 100 MB.",
	"mount.path":              "The directory.",
	"mount.bucket":            "The same files seen as a bucket: oss://bucket/prefix; empty: none.",
	"mount.endpoint":          "The bucket's endpoint; empty: by region.",
	"mount.region":            "The bucket's region.",
	"mount.layout":            "comfyui, models or a1111; a models-only mount adds and never replaces.",
	"mount.read_only":         "true: nothing is ever written there.",
	"mount.push":              "Directories that go to the bucket when the job ends, e.g. [\"output\"]; a result\nis published only after the upload.",
	"queue.after_restart":     "What the queue does after Easel itself restarted: go-on, pause or as-it-was.",
	"queue.limit":             "Waiting jobs at most; one more is refused.",
	"serverless.unload_after": "Idle time after which models leave the VRAM; \"0\": never.",
	"serverless.stop_after":   "Idle time after which the worker ends; \"0\": never.",
	"restart.attempts":        "Restarts of a worker within the window before a person is needed.",
	"restart.window":          "The window that attempts are counted in.",
	"retention.jobs":          "How long finished jobs are kept in the records.",
	"retention.events":        "How long the events of jobs are kept.",
	"retention.deaths":        "How long the ends of workers are kept.",
	"oom.ladder":              "What is tried when a job does not fit into the GPU's memory: \"free\" (freed and\nalone), \"flags\" (a launch with oom.flags for this job), \"gpu\" (another card).\nEmpty: it fails at once.",
	"oom.flags":               "Flags of the step \"flags\".",
	"guard.min_free_ram":      "Below this much free RAM no job is sent: a worker that holds it is freed, then\nrestarted between jobs; \"0\": no floor.",
	"guard.min_free_disk":     "Below this much free disk no job is sent; \"0\": no floor.",
	"stall.limit":             "Silence after which a job without any sign of life counts as stuck; at least\nfour times what its node ever took; \"0\": never.",
	"stall.grace":             "Time between the warning and the end of the worker.",
	"cancel.free_after":       "A cancel that ComfyUI does not obey: time until /free is tried.",
	"cancel.stop_after":       "Time after that until the worker is stopped.",
}

// pathKeys are keys whose value is a path of this box: "~/" is expanded.
var pathKeys = map[string]bool{
	"worker.comfyui": true, "worker.python": true, "worker.data": true, "mount.path": true,
}

// sectionDocs stand above the section in the file that Init writes.
var sectionDocs = map[string]string{
	"worker":     "The ComfyUI behind Easel.",
	"gateway":    "The public HTTP surface.",
	"mount":      "A directory of models, inputs and outputs; repeat [[mount]] for more.",
	"queue":      "Waiting jobs.",
	"serverless": "What an idle worker gives back (edition serverless).",
	"restart":    "A worker that keeps dying.",
	"retention":  "Records.",
	"oom":        "A job that does not fit into the GPU's memory.",
	"guard":      "What is left free on the machine.",
	"stall":      "A job that shows no sign of life.",
	"cancel":     "A cancel that ComfyUI does not obey.",
}

// keys are all settings in the order of the structs; byPath finds them.
var keys, byPath = table()

func table() ([]key, map[string]*key) {
	var all []key
	defaults := reflect.ValueOf(Default())
	collect(&all, defaults, "", nil, false)
	index := make(map[string]*key, len(all))
	for i := range all {
		index[all[i].Path] = &all[i]
	}
	return all, index
}

// collect appends the keys of the struct v. Its fields become prefix + name.
func collect(all *[]key, v reflect.Value, prefix string, index []int, mount bool) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		path := prefix + field.Tag.Get("toml")
		at := append(append([]int{}, index...), i)
		switch {
		case field.Type == reflect.TypeFor[[]Mount]():
			collect(all, reflect.ValueOf(defaultMount()), path+".", nil, true)
		case isSection(field.Type):
			collect(all, value, path+".", at, mount)
		default:
			*all = append(*all, key{index: at, mount: mount, Key: Key{
				Path: path, Env: envName(path), Type: typeName(value.Interface()),
				Default: literal(value.Interface()), Doc: docs[path],
			}})
		}
	}
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Duration]()
}

// envName is the variable of a key: EASEL_ and its path in capitals.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// typeName says the type in words; it panics for one that nothing here reads.
func typeName(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case bool:
		return "yes/no"
	case int:
		return "number"
	case []string:
		return "list of texts"
	case []int:
		return "list of numbers"
	case Duration:
		return "duration"
	case Size:
		return "size"
	}
	panic("config: a field of a type that has no reader")
}

// Keys lists every setting in the order of the file. The keys of a mount appear
// once, as "mount.path" and so on; those of the second mount are "mount.1.path".
func Keys() []Key {
	list := make([]Key, len(keys))
	for i, k := range keys {
		list[i] = k.Key
	}
	return list
}

// find resolves a path such as "worker.url", "mount.path" (the first mount's) or
// "mount.1.path". mount is the mount's number, 0 otherwise.
func find(path string) (k *key, mount int, ok bool) {
	if rest, is := strings.CutPrefix(path, "mount."); is {
		if number, name, dotted := strings.Cut(rest, "."); dotted {
			n, err := strconv.Atoi(number)
			if err != nil || n < 0 || n >= maxMounts || strconv.Itoa(n) != number {
				return nil, 0, false
			}
			k, ok = byPath["mount."+name]
			return k, n, ok
		}
	}
	k, ok = byPath[path]
	return k, 0, ok
}

// maxMounts bounds how many mounts a configuration may have.
const maxMounts = 64

// in is the field of k in cfg. The mount must exist.
func (k *key) in(cfg *Config, mount int) reflect.Value {
	if k.mount {
		return reflect.ValueOf(&cfg.Mount[mount]).Elem().FieldByIndex(k.index)
	}
	return reflect.ValueOf(cfg).Elem().FieldByIndex(k.index)
}

// numbered is the key's path with the mount's number: "mount.0.path".
func (k *key) numbered(mount int) string {
	if !k.mount {
		return k.Path
	}
	return "mount." + strconv.Itoa(mount) + strings.TrimPrefix(k.Path, "mount")
}

// section is the first part of a key's path, "" at the top.
func (k *key) section() string {
	section, _, found := strings.Cut(k.Path, ".")
	if !found {
		return ""
	}
	return section
}

// name is the last part of a key's path.
func (k *key) name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }
