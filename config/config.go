// Package config holds Easel's settings: plain structs, their defaults, and
// the code that loads, checks, shows and edits them.
//
// A setting comes from the default, then from config.toml, then from an EASEL_*
// variable of the environment; flags of a command are its own affair. An
// unknown key is an error that names the nearest known one. The package starts
// nothing and connects to nothing, and it does not look whether a directory or
// a server that is named here exists: that is for those who use it.
package config

import "time"

// Config is everything that can be set. The zero value is not useful: begin
// with Default.
type Config struct {
	Edition    string     `toml:"edition"`  // standard, api, cluster, serverless
	Language   string     `toml:"language"` // en, zh-CN; "" by locale
	Worker     Worker     `toml:"worker"`
	Gateway    Gateway    `toml:"gateway"`
	Mount      []Mount    `toml:"mount"`
	Queue      Queue      `toml:"queue"`
	Serverless Serverless `toml:"serverless"`
	Restart    Restart    `toml:"restart"`
	Retention  Retention  `toml:"retention"`
	OOM        OOM        `toml:"oom"`
	Guard      Guard      `toml:"guard"`
	Stall      Stall      `toml:"stall"`
	Cancel     Cancel     `toml:"cancel"`
}

// Worker says which ComfyUI is run, or driven, and how.
type Worker struct {
	ComfyUI      string   `toml:"comfyui"`  // a checkout; "" none
	Python       string   `toml:"python"`   // "" the checkout's venv, else python3
	Command      string   `toml:"command"`  // an EAS run command, as pasted
	Packages     []string `toml:"packages"` // for pip, in this order
	PipIndex     string   `toml:"pip_index"`
	Builtin      bool     `toml:"builtin"`
	URL          string   `toml:"url"`
	Args         []string `toml:"args"`
	Data         string   `toml:"data"`          // the mount; "" the checkout's own directories
	Log          string   `toml:"log"`           // with URL: journal:UNIT, docker:NAME or a path
	Restart      string   `toml:"restart"`       // with URL: a command
	RecycleAfter string   `toml:"recycle_after"` // see ParseRecycle; "" never
	Port         int      `toml:"port"`          // 0 a free one
	GPUs         []int    `toml:"gpus"`          // one worker each
}

// Gateway is the public HTTP surface.
type Gateway struct {
	Listen     string `toml:"listen"` // host:port
	Service    string `toml:"service"`
	PublicURL  string `toml:"public_url"`
	TaskIDOnce bool   `toml:"task_id_once"`
	QueryToken bool   `toml:"query_token"`
	MaxBody    Size   `toml:"max_body"`
}

// Mount is a directory with models, inputs and outputs, perhaps a bucket too.
type Mount struct {
	Path     string   `toml:"path"`
	Bucket   string   `toml:"bucket"` // oss://bucket/prefix; "" none
	Endpoint string   `toml:"endpoint"`
	Region   string   `toml:"region"`
	Layout   string   `toml:"layout"` // comfyui, models, a1111
	ReadOnly bool     `toml:"read_only"`
	Push     []string `toml:"push"` // directories that go to the bucket when a job ends
}

// Queue says how jobs wait.
type Queue struct {
	AfterRestart string `toml:"after_restart"` // go-on, pause, as-it-was
	Limit        int    `toml:"limit"`         // waiting jobs at most
}

// Serverless says when an idle worker gives its memory back.
type Serverless struct {
	UnloadAfter Duration `toml:"unload_after"`
	StopAfter   Duration `toml:"stop_after"`
}

// Restart bounds the restarts of a worker that keeps dying.
type Restart struct {
	Attempts int      `toml:"attempts"` // within Window
	Window   Duration `toml:"window"`
}

// Retention says how long records are kept.
type Retention struct {
	Jobs   Duration `toml:"jobs"`
	Events Duration `toml:"events"`
	Deaths Duration `toml:"deaths"`
}

// OOM says what is tried when a job does not fit into the GPU's memory.
type OOM struct {
	Ladder []string `toml:"ladder"` // free, flags, gpu; in this order
	Flags  []string `toml:"flags"`  // of the step "flags"
}

// Guard is how much of the machine is left alone.
type Guard struct {
	MinFreeRAM  Size `toml:"min_free_ram"`  // 0: no floor
	MinFreeDisk Size `toml:"min_free_disk"` // 0: no floor
}

// Stall says when a job that shows no sign of life is taken for stuck.
type Stall struct {
	Limit Duration `toml:"limit"` // of silence; 0: never
	Grace Duration `toml:"grace"` // between the warning and the end
}

// Cancel says how patient a cancel is.
type Cancel struct {
	FreeAfter Duration `toml:"free_after"` // after the interrupt
	StopAfter Duration `toml:"stop_after"` // after that
}

// Default is the configuration of a box where nothing is set.
func Default() Config {
	return Config{
		Edition:    "standard",
		Worker:     Worker{Packages: []string{}, Args: []string{}, GPUs: []int{0}},
		Gateway:    Gateway{Listen: "127.0.0.1:8288", Service: "comfyui", MaxBody: 96 << 20},
		Queue:      Queue{AfterRestart: "go-on", Limit: 100_000},
		Serverless: Serverless{UnloadAfter: Minutes(2), StopAfter: Minutes(10)},
		Restart:    Restart{Attempts: 5, Window: Minutes(10)},
		Retention:  Retention{Jobs: Days(90), Events: Days(14), Deaths: Days(365)},
		OOM:        OOM{Ladder: []string{"free"}, Flags: []string{"--lowvram"}},
		Guard:      Guard{MinFreeRAM: 256 << 20, MinFreeDisk: 256 << 20},
		Stall:      Stall{Limit: Minutes(10), Grace: Duration{30 * time.Second}},
		Cancel:     Cancel{FreeAfter: Duration{10 * time.Second}, StopAfter: Duration{10 * time.Second}},
	}
}

// defaultMount is what a [[mount]] has that says nothing.
func defaultMount() Mount { return Mount{Layout: "comfyui", Push: []string{}} }
