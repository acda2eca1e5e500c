//go:build linux

package engine

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"easel/backend"
	"easel/backend/keeper"
)

// lowDisk is how little room makes a notice, in bytes.
const lowDisk = 2 << 30

// status is what GET /v1/status answers.
func (e *Engine) status(ctx context.Context) backend.Status {
	host, _ := os.Hostname()
	counts, err := e.counts(ctx)
	if err != nil && ctx.Err() == nil {
		e.log.Error("count jobs", "err", err)
	}
	st := backend.Status{
		Engine: &backend.EngineInfo{
			PID: os.Getpid(), Version: e.opts.Version, Started: e.started, StateDir: e.opts.StateDir,
			Socket: keeper.SocketPath(e.opts.StateDir), Host: host,
		},
		Keeper:  &backend.KeeperInfo{PID: e.hello.KeeperPID, Restarts: e.hello.Restarts, LastCrash: e.hello.LastCrash},
		Edition: e.config().Edition,
		Gateway: backend.GatewayInfo{},
		Workers: e.workerStates(),
		Queue:   counts,
		GPUs:    e.cards.Now(),
		Disk:    disk(e.opts.StateDir),
	}
	e.mu.Lock()
	st.Found = e.found
	e.mu.Unlock()
	st.Notices = e.notices(st)
	return st
}

// notices are standing remarks, most urgent first.
func (e *Engine) notices(st backend.Status) []string {
	out := []string{}
	if st.Disk.Total > 0 && st.Disk.Free < lowDisk {
		out = append(out, fmt.Sprintf("the disk of %s has only %d MiB left: make room before pictures are lost", st.Disk.Path, st.Disk.Free>>20))
	}
	out = append(out, e.disp.Notices()...)
	out = append(out, e.cards.Notes()...)
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(out, e.remarks...)
}

// disk measures the file system of dir.
func disk(dir string) backend.DiskInfo {
	var s syscall.Statfs_t
	d := backend.DiskInfo{Path: dir}
	if syscall.Statfs(dir, &s) == nil {
		d.Free, d.Total = int64(s.Bavail)*int64(s.Bsize), int64(s.Blocks)*int64(s.Bsize) //nolint:unconvert // types differ by platform
	}
	return d
}

// dress adds to a job what the records do not hold: live progress, and why it
// waits when the reason is the worker.
func (e *Engine) dress(job backend.Job) backend.Job {
	switch job.State {
	case backend.JobRunning:
		job.Progress = e.disp.Progress(job.ID)
		job.WaitReason = e.disp.Note(job.ID)
	case backend.JobQueued:
		if job.WaitReason == "next" || job.WaitReason == "next in worker" {
			if why := e.whyNext(); why != "" {
				job.WaitReason = why
			}
		}
		if job.WaitReason == "" || job.WaitReason == "next" {
			if why := e.waitReason(); why != "" {
				job.WaitReason = why
			}
		}
	}
	return job
}

func (e *Engine) dressAll(list []backend.Job) []backend.Job {
	if list == nil {
		return []backend.Job{}
	}
	for i := range list {
		list[i] = e.dress(list[i])
	}
	return list
}

// waitReason says which worker a waiting job waits for, "" when it is only its
// turn that has not come.
func (e *Engine) waitReason() string {
	states := e.workerStates()
	if len(states) == 0 {
		if e.looking.Load() {
			return "looking for a ComfyUI on this box"
		}
		return "no worker is set up: easel use"
	}
	for _, w := range states {
		if w.State == backend.WorkerReady || w.State == backend.WorkerBusy {
			return ""
		}
	}
	w := states[0]
	return fmt.Sprintf("worker %s is %s", w.ID, w.State)
}
