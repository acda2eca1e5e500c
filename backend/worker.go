package backend

// WorkerState is the life of one ComfyUI process.
//
//	stopped → preparing → starting → ready ⇄ busy → stopping → stopped
//	              │           │         │      │
//	              └───────────┴────┬────┴──────┘
//	                               ▼
//	                   exited ── policy ──▶ backoff → preparing
//	                                  └──▶ failed (needs a person)
type WorkerState string

// The states of a worker.
const (
	WorkerStopped   WorkerState = "stopped"
	WorkerPreparing WorkerState = "preparing"
	WorkerStarting  WorkerState = "starting"
	WorkerReady     WorkerState = "ready"
	WorkerBusy      WorkerState = "busy"
	WorkerStopping  WorkerState = "stopping"
	WorkerExited    WorkerState = "exited"
	WorkerBackoff   WorkerState = "backoff"
	WorkerFailed    WorkerState = "failed"
)

// Worker is one ComfyUI process as the screen and `easel status` show it.
type Worker struct {
	ID          string      `json:"id"` // "gpu0", "cpu", "url" …
	State       WorkerState `json:"state"`
	Reason      string      `json:"reason"` // why it is in this state, in words
	Since       Time        `json:"since"`
	PID         *int        `json:"pid"`
	Launch      string      `json:"launch"` // id of the running launch, "" when none
	URL         string      `json:"url"`    // http://127.0.0.1:PORT, "" while unknown
	Started     Time        `json:"started"`
	Restarts    int         `json:"restarts"`
	NextRestart Time        `json:"next_restart"` // while in backoff
	LastDeath   *Verdict    `json:"last_death"`
	Builtin     bool        `json:"builtin"`
	External    bool        `json:"external"` // worker.url: driven, never started or stopped
	// RestartCommand is worker.restart: what restarts a worker that others run, ""
	// when nothing does.
	RestartCommand string       `json:"restart_command,omitempty"`
	ComfyUI        *ComfyUIInfo `json:"comfyui"`
	GPU            *string      `json:"gpu"` // uuid or index, null without one
	Job            *string      `json:"job"` // id of the running job
	// LastLine is the last line of its log while it starts.
	LastLine string `json:"last_line,omitempty"`
	// Packs are the node packs with their import times, slowest first.
	Packs []Pack `json:"packs,omitempty"`
}

// ComfyUIInfo says which ComfyUI a worker runs.
type ComfyUIInfo struct {
	Dir     string `json:"dir"`
	Version string `json:"version"` // "" while unknown
}

// Pack is one directory or file of custom nodes, as the start log reported it.
type Pack struct {
	Path     string  `json:"path"`
	ImportS  float64 `json:"import_s"`
	Failed   bool    `json:"failed"`
	Cause    string  `json:"cause,omitempty"`
	Prestart bool    `json:"prestartup,omitempty"` // its prestartup script, not its import
}

// Verdict kinds (design §4).
const (
	KindHostOOM   = "host-oom"
	KindCUDAOOM   = "cuda-oom"
	KindCUDAFault = "cuda-fault"
	KindCrash     = "crash"
	KindStall     = "stall"
	KindKilled    = "killed"
	KindBadStart  = "bad-start"
	KindAsked     = "asked"
	KindUnknown   = "unknown" // the end was not seen: no status, no evidence

	// Kinds of an Error that are no verdict.
	KindInvalid   = "invalid"
	KindException = "exception"
	KindTimeout   = "timeout"
	KindOutput    = "output" // the run ended well and its file is missing or cut short
)

// Certainties of a verdict.
const (
	Certain = "certain"
	Likely  = "likely"
	Unknown = "unknown"
)

// Verdict explains one end of a worker process, from evidence kept with it.
type Verdict struct {
	Kind      string   `json:"kind"`
	Certainty string   `json:"certainty"`
	Summary   string   `json:"summary"` // one line for people
	Evidence  []string `json:"evidence"`
	Remedy    string   `json:"remedy"`
	ExitCode  *int     `json:"exit_code"`
	Signal    *int     `json:"signal"`
	At        Time     `json:"at"`
	Job       *string  `json:"job"`  // the job that ran
	Node      *string  `json:"node"` // the node that ran
	Worker    string   `json:"worker"`
	Launch    string   `json:"launch"`
}

// WorkerVerb is something done to a worker.
type WorkerVerb string

// The verbs.
const (
	WorkerStart   WorkerVerb = "start"
	WorkerStop    WorkerVerb = "stop"
	WorkerRestart WorkerVerb = "restart"
	WorkerFree    WorkerVerb = "free"
)

// WorkerAction is a verb on one worker. ID "" means the only one, or all.
type WorkerAction struct {
	Verb WorkerVerb `json:"verb"`
	ID   string     `json:"id,omitempty"`
	By   string     `json:"by,omitempty"`
}

// LogLine is one line of a worker's log. A progress bar (redrawn by \r) is one
// line that is replaced: the same N again with Bar set.
type LogLine struct {
	Launch string `json:"launch"`
	N      int64  `json:"n"`  // number of the line within the launch, from 1
	At     Time   `json:"at"` // when Easel read it; the log itself has no times
	Text   string `json:"text"`
	Level  string `json:"level"` // error warning info, guessed from the text
	Bar    bool   `json:"bar"`
}

// LogQuery selects lines of a worker's log.
type LogQuery struct {
	Worker string
	Launch string // "" the running or last one
	Tail   int    // last N lines first; 0: none, -1: all that is kept
	Follow bool   // go on with new lines until the context ends
}
