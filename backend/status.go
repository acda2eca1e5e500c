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
}

// GPUProcess is one user of a card's memory.
type GPUProcess struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	User   string `json:"user"`
	Memory *int64 `json:"memory"`
	Ours   bool   `json:"ours"`
}

// FoundComfy is a ComfyUI seen on this box: a running server, or a checkout.
type FoundComfy struct {
	Dir    string `json:"dir,omitempty"`
	URL    string `json:"url,omitempty"`
	PID    int    `json:"pid,omitempty"`
	User   string `json:"user,omitempty"`
	Python string `json:"python,omitempty"`
}
