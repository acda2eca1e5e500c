package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/evidence"
)

// Record is what a new engine needs to go on with a worker that runs: it lies in
// <state>/workers/<id>.json. It is written in one step but not forced to the disk:
// it has a meaning only while the process runs, and that does not survive what
// loses it.
type Record struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// BootID tells this boot of the machine from others, in which the pid means
	// nothing.
	BootID     string    `json:"boot_id"`
	Launch     string    `json:"launch"`
	PID        int       `json:"pid"` // 0: the launch was asked for, and not yet answered
	StartTicks uint64    `json:"start_ticks"`
	Started    time.Time `json:"started"`
	Port       int       `json:"port"`
	URL        string    `json:"url"`
	Argv       []string  `json:"argv"`
	Dir        string    `json:"dir"`
	Python     string    `json:"python,omitempty"`
	Log        string    `json:"log"`
	// Offset is where to follow the log, Lines the number of the last line before
	// it.
	Offset int64 `json:"offset"`
	Lines  int64 `json:"lines"`
	// Ready says that it had answered.
	Ready bool `json:"ready"`
	// Asked is who asked for its end, while it is being stopped.
	Asked string `json:"asked,omitempty"`
	// Stall is why Easel ends it, while it does.
	Stall *backend.Verdict `json:"stall,omitempty"`
	// Group is the cgroup made for the launch, OOMKills what its counter of kills
	// showed last.
	Group    evidence.Group `json:"group,omitzero"`
	OOMKills int64          `json:"oom_kills,omitempty"`
	// Again says that it is to be started after that stop.
	Again bool           `json:"again,omitempty"`
	Dirs  comfy.Dirs     `json:"dirs"`
	Comfy string         `json:"comfyui"` // version, "" unknown
	GPU   string         `json:"gpu,omitempty"`
	Packs []backend.Pack `json:"packs,omitempty"`
	// Runner is who runs it, for a worker of somebody else.
	Runner *runner `json:"runner,omitempty"`
	// Restarts counts the restarts of this worker; Deaths are those that the policy
	// still looks at, oldest first.
	Restarts  int              `json:"restarts"`
	Deaths    []Death          `json:"deaths,omitempty"`
	LastDeath *backend.Verdict `json:"last_death,omitempty"`
}

const recordVersion = 1

func recordPath(stateDir, id string) string {
	return filepath.Join(stateDir, "workers", id+".json")
}

// ReadRecord reads the record of a worker; found is false when there is none. A
// record that cannot be used is an error.
func ReadRecord(stateDir, id string) (r Record, found bool, err error) {
	path := recordPath(stateDir, id)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("read the record of worker %s: %w", id, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, false, fmt.Errorf("read the record of worker %s (%s): %w", id, path, err)
	}
	if r.Version != recordVersion || r.ID != id {
		return Record{}, false, fmt.Errorf("the record of worker %s (%s) is of another version or worker", id, path)
	}
	return r, true, nil
}

// write replaces the record.
func (r Record) write(stateDir string) error {
	r.Version = recordVersion
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record of worker %s: %w", r.ID, err)
	}
	if err := writeFile(recordPath(stateDir, r.ID), b); err != nil {
		return fmt.Errorf("write the record of worker %s: %w", r.ID, err)
	}
	return nil
}

// writeFile replaces a file in one step, readable by this user only. It makes the
// directory if need be.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		tmp, err = os.CreateTemp(filepath.Dir(path), ".new-*")
	}
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
