//go:build linux

package engine

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"easel/backend"
)

// reloadWithin bounds the trial of a new binary, which copies the records.
const reloadWithin = 2 * time.Minute

// reloading answers POST /v1/reload.
type reloading struct {
	KeeperPID int `json:"keeper_pid"` // stays
	EnginePID int `json:"engine_pid"` // of the engine that makes room
}

// reload serves POST /v1/reload {"exe": PATH}: the keeper tries that binary, and
// becomes it when it passes. This engine then makes room; workers and their jobs
// go on. It is for the account that Easel runs as, and root.
func (e *Engine) reload(r *http.Request) (any, error) {
	var in struct {
		Exe string `json:"exe"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if uid, ok := r.Context().Value(peerKey{}).(int); !ok || uid != 0 && uid != os.Getuid() {
		return nil, backend.Fail(backend.FailConflict, "only the account that Easel runs as may reload it", "")
	}
	if !filepath.IsAbs(in.Exe) {
		return nil, backend.Fail(backend.FailUsage, "reload needs the absolute path of a binary, not "+clip(in.Exe), "easel serve --reload")
	}
	ctx, cancel := context.WithTimeout(r.Context(), reloadWithin)
	defer cancel()
	if err := e.conn.Reload(ctx, in.Exe); err != nil {
		return nil, backend.Fail(backend.FailConflict, err.Error(), "the old version goes on; nothing was changed")
	}
	return reloading{KeeperPID: e.conn.Hello().KeeperPID, EnginePID: os.Getpid()}, nil
}
