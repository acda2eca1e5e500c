package backend

// Status is `easel status --json`.
type Status struct {
	Engine  *EngineInfo  `json:"engine"` // null: no engine answered
	Keeper  *KeeperInfo  `json:"keeper"`
	Edition string       `json:"edition"`
	Gateway GatewayInfo  `json:"gateway"`
	Workers []Worker     `json:"workers"`
	Queue   QueueCounts  `json:"queue"`
	GPUs    []GPU        `json:"gpus"`
	Disk    DiskInfo     `json:"disk"`
	Notices []string     `json:"notices,omitempty"` // standing remarks: disk nearly full, log-out ends Easel …
	Found   []FoundComfy `json:"found,omitempty"`   // ComfyUI installs seen on this box that are not used
}

// EngineInfo says which engine answers.
type EngineInfo struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Started  Time   `json:"started"`
	StateDir string `json:"state_dir"`
	Socket   string `json:"socket"`
	Host     string `json:"host"`
}

// KeeperInfo is what the parent of the engine knows.
type KeeperInfo struct {
	PID       int        `json:"pid"`
	Restarts  int        `json:"restarts"` // of the engine
	LastCrash *CrashInfo `json:"last_crash"`
}

// CrashInfo says when and how the engine last ended by itself.
type CrashInfo struct {
	At     Time     `json:"at"`
	Reason string   `json:"reason"`
	Lines  []string `json:"lines"`
}

// GatewayInfo says where the public HTTP surface is.
type GatewayInfo struct {
	URL       string `json:"url"`
	Listening bool   `json:"listening"`
}

// DiskInfo is the file system of the state and the outputs.
type DiskInfo struct {
	Path  string `json:"path"`
	Free  int64  `json:"free"`
	Total int64  `json:"total"`
}

// GPU is one card, read once. Unknown figures are null.
type GPU struct {
	Index       int          `json:"index"`
	UUID        string       `json:"uuid"`
	Name        string       `json:"name"`
	MemoryUsed  *int64       `json:"memory_used"`
	MemoryTotal *int64       `json:"memory_total"`
	Utilisation *float64     `json:"utilisation"` // percent
	Temperature *float64     `json:"temperature_c"`
	Power       *float64     `json:"power_w"`
	PowerLimit  *float64     `json:"power_limit_w"`
	Throttle    []string     `json:"throttle"`
	Source      string       `json:"source"` // nvml smi amdgpu comfyui
	Processes   []GPUProcess `json:"processes"`
	Note        string       `json:"note"`
	Driver      string       `json:"driver"`           // its version, "" when unknown
	ClockSM     *float64     `json:"clock_sm_mhz"`     // of the cores
	ClockMemory *float64     `json:"clock_memory_mhz"` // of the memory
	ECC         *int64       `json:"ecc_uncorrected"`  // errors that ECC could not correct, over the card's life
	Lost        bool         `json:"lost"`             // it no longer answers: its figures are unknown
	At          Time         `json:"at"`               // when it was read
}

// GPUProcess is one user of a card's memory.
type GPUProcess struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	User   string `json:"user"`
	Memory *int64 `json:"memory"`
	Ours   bool   `json:"ours"`
	// Worker is the worker it belongs to, "" when it is not ours.
	Worker string `json:"worker,omitempty"`
	// Inferred says that the driver does not name it by a pid that means anything
	// here, as in a container: it was found by how the card's memory changed.
	Inferred bool `json:"inferred,omitempty"`
}

// GPUHistory is what the cards did in the last 10 minutes. It lives in memory and
// begins anew with the engine.
type GPUHistory struct {
	StepS float64     `json:"step_s"` // length of one bin
	To    Time        `json:"to"`     // when the newest bin ends
	Cards []GPUSeries `json:"cards"`
	Marks []GPUMark   `json:"marks"` // oldest first
}

// GPUSeries is one card over time: one value for each bin, oldest first, null
// where nothing is known. Memory is the highest of the bin, the others its mean.
type GPUSeries struct {
	Index       int        `json:"index"`
	UUID        string     `json:"uuid"`
	Utilisation []*float64 `json:"utilisation"`
	MemoryUsed  []*float64 `json:"memory_used"`
	Temperature []*float64 `json:"temperature_c"`
	Power       []*float64 `json:"power_w"`
}

// What a mark on the cards' time line stands for.
const (
	MarkJob     = "job"     // a job began
	MarkOOM     = "oom"     // memory ran out: the card's or the box's
	MarkDeath   = "death"   // a worker ended by itself
	MarkRestart = "restart" // a worker was started again
)

// GPUMark is something that happened, marked on the cards' time line.
type GPUMark struct {
	At     Time   `json:"at"`
	Kind   string `json:"kind"`
	Text   string `json:"text"`          // in words
	Job    string `json:"job,omitempty"` // id
	Worker string `json:"worker,omitempty"`
}

// FoundComfy is a ComfyUI seen on this box: a running server, or a checkout.
type FoundComfy struct {
	Dir    string `json:"dir,omitempty"`
	URL    string `json:"url,omitempty"`
	PID    int    `json:"pid,omitempty"`
	User   string `json:"user,omitempty"`
	Python string `json:"python,omitempty"`
}
