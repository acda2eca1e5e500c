package keeper

import (
	"net"
	"time"

	"easel/backend"
)

// Handover is what one keeper leaves to the next: by an engine whose keeper died,
// or by a keeper that replaces itself. Inherit reads it.
type Handover struct {
	StateDir  string             `json:"state_dir"`
	OldKeeper int                `json:"old_keeper"` // pid; our own after an exec in place
	Engine    int                `json:"engine"`     // pid that must end before a new engine starts, 0: none
	Restarts  int                `json:"restarts"`
	LastCrash *backend.CrashInfo `json:"last_crash"`
	Living    []Living           `json:"living"`
	Listeners []handedListener   `json:"listeners"`
	LockFD    int                `json:"lock_fd"` // 0: the lock must be taken
	// Children says that the living are children of this process.
	Children bool `json:"children"`
	// Replace is the engine of the old binary, a child too: it goes on until the new
	// keeper has asked it to end.
	Replace *handedEngine `json:"replace,omitempty"`

	answer net.Conn // where the outcome is told, nil after an exec in place
}

// handedListener is a listener that lies open at a descriptor.
type handedListener struct {
	Name    string `json:"name"` // controlName: the control socket
	Network string `json:"network"`
	Address string `json:"address"`
	FD      int    `json:"fd"`
	Given   bool   `json:"given,omitempty"` // by a service manager
}

// handedEngine is an engine that runs across an exec in place.
type handedEngine struct {
	PID     int       `json:"pid"`
	Ticks   uint64    `json:"ticks"`
	FD      int       `json:"fd"` // the keeper's end of the pair
	Unread  []byte    `json:"unread"`
	Ready   bool      `json:"ready"`
	Started time.Time `json:"started"`
	LogFrom int64     `json:"log_from"`
}

// controlName is the name of the control socket among the listeners.
const controlName = "control"

// TakeoverOptions is what an engine knows when its keeper died.
type TakeoverOptions struct {
	StateDir string
	Listener *net.UnixListener // the control listener
	// Args are the arguments of the new keeper: {"keeper-takeover"}.
	Args []string
}
