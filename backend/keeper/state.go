package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"easel/backend"
	"easel/backend/process"
)

// Files of the keeper in the state directory.
const (
	stateName    = "keeper.json"
	launchesName = "keeper-launches.json"
	endsName     = "keeper-ends.json"
	lockName     = "keeper.lock"
	keeperLog    = "keeper.log"
	engineLog    = "engine.log"
)

// State is keeper.json: what the keeper knows about itself and the engine, for
// `easel status` when the socket does not answer. It is gone after an orderly
// stop.
type State struct {
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"` // of the keeper, field 22 of /proc/PID/stat
	Version    string `json:"version"`
	// EnginePID is 0 while no engine runs.
	EnginePID   int                `json:"engine_pid"`
	EngineTicks uint64             `json:"engine_ticks"`
	Serving     bool               `json:"serving"` // the engine said that it serves
	Breaker     bool               `json:"breaker"` // too many crashes: waiting before the next try
	Restarts    int                `json:"restarts"`
	LastCrash   *backend.CrashInfo `json:"last_crash"`
	// NextStart is when the engine will be started, null unless it waits for that.
	NextStart backend.Time `json:"next_start"`
}

// ReadState reads keeper.json. The error wraps fs.ErrNotExist when no keeper runs
// there, or none ever did.
func ReadState(stateDir string) (State, error) {
	var s State
	err := readJSON(filepath.Join(stateDir, stateName), &s)
	return s, err
}

// Running reports whether the keeper that wrote this state still runs.
func (s State) Running() bool { return s.PID != 0 && process.Alive(s.PID, s.StartTicks) }

// launchRecord is a living launch in keeper-launches.json.
type launchRecord struct {
	Living
	Ours      bool `json:"ours"`
	OurSignal int  `json:"our_signal"`
}

// launchesFile is keeper-launches.json. BootID tells pids of this boot from those
// of another.
type launchesFile struct {
	BootID   string         `json:"boot_id"`
	Launches []launchRecord `json:"launches"`
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file at once. It does not wait for the disk: what the
// keeper writes tells of processes, which a power cut ends anyway, and it must
// not be slow when a worker is to be started again.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(tmp)))
	}
	return os.Rename(tmp, path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
