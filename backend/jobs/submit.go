package jobs

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
	"lukechampine.com/blake3"

	"easel/backend"
)

// keyLife is for how long an idempotency key is remembered.
const keyLife = 24 * time.Hour

// maxGraph is how large a stored graph may be when it is unpacked again.
const maxGraph = 256 << 20

// blob is a graph or workflow on its way into the records.
type blob struct {
	hash [32]byte
	size int
	data []byte // compressed
}

// codec packs and unpacks graphs. Both halves may be used by several goroutines.
var codec = sync.OnceValues(func() (*zstd.Encoder, *zstd.Decoder) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("jobs: zstd options: " + err.Error()) // constants above
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxGraph))
	if err != nil {
		panic("jobs: zstd options: " + err.Error())
	}
	return enc, dec
})

// pack prepares a graph to be stored; nil for an absent one.
func pack(raw []byte) *blob {
	if len(raw) == 0 {
		return nil
	}
	enc, _ := codec()
	return &blob{hash: blake3.Sum256(raw), size: len(raw), data: enc.EncodeAll(raw, nil)}
}

// unpack is the inverse of pack.
func unpack(data []byte) (json.RawMessage, error) {
	_, dec := codec()
	raw, err := dec.DecodeAll(data, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack a stored graph: %w", err)
	}
	return raw, nil
}

// newJob is a job about to be accepted.
type newJob struct {
	record
	graphBlob, workflowBlob *blob  // nil when the record names stored ones
	key                     string // idempotency key, "" for none
	body                    [32]byte
}

// Submit accepts a job. It returns after the job is on disk, with created true;
// or with created false and the first job, when the submission's key was seen in
// the last 24 h with the same body. Failures: FailConflict for a key that came
// with another body, FailFull at the limit, FailBusy when it could not be
// written down in 5 s, FailDisk when the disk refuses it.
func (s *Store) Submit(ctx context.Context, sub backend.Submission) (job backend.Job, created bool, err error) {
	n, err := s.prepareJob(sub)
	if err != nil {
		return backend.Job{}, false, err
	}
	err = s.do(ctx, "accept the job", s.opts.patience, func(t *tx) error {
		first, err := t.seenKey(n)
		if err != nil {
			return err
		}
		if first != nil {
			created = false
			job, err = t.shown(first)
			return err
		}
		fresh := *n // the op may run twice
		created = true
		job, err = t.insert(&fresh)
		return err
	})
	if err != nil {
		return backend.Job{}, false, err
	}
	return job, created, nil
}

// prepareJob does all that needs no transaction: checks, packing, hashing.
func (s *Store) prepareJob(sub backend.Submission) (*newJob, error) {
	graph := bytes.TrimSpace(sub.Graph)
	if len(graph) == 0 || graph[0] != '{' || !json.Valid(graph) {
		return nil, backend.Fail(backend.FailInvalid, "the graph is not a JSON object", "send a workflow in ComfyUI's API format")
	}
	if len(sub.Workflow) > 0 && !json.Valid(sub.Workflow) {
		return nil, backend.Fail(backend.FailInvalid, "the workflow beside the graph is not JSON", "send it as ComfyUI saved it, or leave it out")
	}
	if math.IsNaN(sub.TimeoutS) || math.IsInf(sub.TimeoutS, 0) || sub.TimeoutS < 0 {
		return nil, backend.Fail(backend.FailUsage, fmt.Sprintf("timeout_s %v is not a number of seconds", sub.TimeoutS), "")
	}
	now := s.now()
	n := &newJob{graphBlob: pack(graph), workflowBlob: pack(bytes.TrimSpace(sub.Workflow)), key: sub.Key}
	n.noCheck = sub.NoCheck
	n.job = backend.Job{
		ID: uuid.NewString(), Name: sub.Name, Owner: sub.Owner, Source: sub.Source, Priority: clampPriority(sub.Priority),
		Labels: sub.Labels, Group: sub.Group, TimeoutS: sub.TimeoutS, Warnings: sub.Warnings, Created: now,
		State: backend.JobQueued, Attempts: []backend.Attempt{}, Outputs: []backend.Output{}, NotBefore: backend.At(sub.NotBefore.Time),
	}
	if n.job.Labels == nil {
		n.job.Labels = map[string]string{}
	}
	if sub.RetryOf != "" {
		n.job.RetryOf = &sub.RetryOf
	}
	if sub.Hold {
		n.job.State = backend.JobHeld
	}
	if n.job.NotBefore.After(now.Time) {
		n.wake = n.job.NotBefore.Milli()
	}
	if sub.Key != "" {
		body, err := bodyHash(sub)
		if err != nil {
			return nil, backend.Fail(backend.FailUsage, "the submission cannot be written as JSON: "+err.Error(), "")
		}
		n.body = body
	}
	return n, nil
}

// clampPriority keeps priorities in a range where adding to one never overflows.
func clampPriority(p int) int { return max(min(p, 1_000_000), -1_000_000) }

// bodyHash identifies what a submission asks for. White space inside the graph
// makes no difference, nor do warnings, which Easel adds itself.
func bodyHash(sub backend.Submission) ([32]byte, error) {
	sub.Key, sub.Warnings = "", nil
	b, err := json.Marshal(sub)
	return blake3.Sum256(b), err
}

// seenKey returns the job that the key of n was first used for, nil when the key
// is new or older than keyLife.
func (t *tx) seenKey(n *newJob) (*record, error) {
	if n.key == "" {
		return nil, nil
	}
	var hash []byte
	var id string
	found, err := t.row(`SELECT hash, job_id FROM keys WHERE owner = ? AND key = ? AND at > ?`,
		[]any{n.job.Owner, n.key, t.now.Add(-keyLife).UnixMilli()}, &hash, &id)
	if err != nil || !found {
		return nil, err
	}
	if !bytes.Equal(hash, n.body[:]) {
		return nil, backend.Fail(backend.FailConflict, fmt.Sprintf("the key %.64q was used for job %s with another body", n.key, short(id)),
			"use a new key for a new request")
	}
	r, err := t.find(id)
	if err != nil && backend.FailureOf(err).Kind == backend.FailNotFound {
		return nil, backend.Fail(backend.FailConflict, fmt.Sprintf("the key %.64q was used for job %s, which was cleared from the records", n.key, short(id)),
			"use a new key to run it again")
	}
	return r, err
}

// insert writes a new job at the end of its lane.
func (t *tx) insert(n *newJob) (backend.Job, error) {
	if err := t.checkLimit(); err != nil {
		return backend.Job{}, err
	}
	r := &n.record
	var err error
	if n.graphBlob != nil {
		r.graph, err = t.keepBlob(n.graphBlob)
	} else {
		err = t.holdBlob(r.graph)
	}
	if err != nil {
		return backend.Job{}, err
	}
	if n.workflowBlob != nil {
		r.workflow, err = t.keepBlob(n.workflowBlob)
	} else if r.workflow != 0 {
		err = t.holdBlob(r.workflow)
	}
	if err != nil {
		return backend.Job{}, err
	}
	r.seq = t.bottom()
	r.rank, r.fresh = r.seq, true
	j := &r.job
	data := map[string]any{"state": j.State}
	if j.RetryOf != nil {
		data["retry_of"] = *j.RetryOf
	}
	if err := t.emit(r, backend.EventAccepted, data); err != nil {
		return backend.Job{}, err
	}
	if err := t.insertRow(r); err != nil {
		return backend.Job{}, err
	}
	if n.key != "" {
		if _, err := t.exec(`INSERT OR REPLACE INTO keys (owner, key, hash, job_id, at) VALUES (?, ?, ?, ?, ?)`,
			j.Owner, n.key, n.body[:], j.ID, t.now.Milli()); err != nil {
			return backend.Job{}, err
		}
	}
	return t.shown(r)
}

// insertRow writes the row of a new job.
func (t *tx) insertRow(r *record) error {
	j := &r.job
	_, err := t.exec(`INSERT INTO jobs (seq, id, name, owner, source, grp, labels, retry_of, timeout_s, no_check, graph, workflow, created,
		priority, rank, state, ready, open, wake, not_before, cancelling, started, finished, warnings, events)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 0, 0, 0, ?, ?)`,
		r.seq, j.ID, j.Name, j.Owner, string(j.Source), j.Group, labelText(j.Labels), j.RetryOf, j.TimeoutS, r.noCheck, r.graph, r.workflow, j.Created.Milli(),
		j.Priority, r.rank, string(j.State), r.ready(), r.wake, j.NotBefore.Milli(), toJSON(j.Warnings), r.events)
	return err
}

// labelText is the column of labels, "" for none.
func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	s, _ := toJSON(labels).(string)
	return s
}

// checkLimit refuses a job when as many wait as may.
func (t *tx) checkLimit() error {
	limit := t.w.s.opts.Limit
	if limit < 0 {
		return nil
	}
	var waiting int
	if _, err := t.row(`SELECT sum(n) FROM tally WHERE name IN ('queued', 'held')`, nil, &waiting); err != nil {
		return err
	}
	if waiting >= limit {
		return backend.Fail(backend.FailFull, fmt.Sprintf("the queue is full: %d jobs wait", waiting), "try again later, or cancel jobs that are not needed")
	}
	return nil
}

// keepBlob stores a graph once and counts who uses it.
func (t *tx) keepBlob(b *blob) (id int64, err error) {
	found, err := t.row(`SELECT id FROM blobs WHERE hash = ?`, []any{b.hash[:]}, &id)
	if err != nil {
		return 0, err
	}
	if found {
		return id, t.holdBlob(id)
	}
	t.bytes += len(b.data)
	res, err := t.exec(`INSERT INTO blobs (hash, size, refs, data) VALUES (?, ?, 1, ?)`, b.hash[:], b.size, b.data)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// holdBlob counts one more user of a stored graph.
func (t *tx) holdBlob(id int64) error {
	_, err := t.exec(`UPDATE blobs SET refs = refs + 1 WHERE id = ?`, id)
	return err
}

// dropBlob counts one user less and removes a graph that nobody uses.
func (t *tx) dropBlob(id int64) error {
	if id == 0 {
		return nil
	}
	if _, err := t.exec(`UPDATE blobs SET refs = refs - 1 WHERE id = ?`, id); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM blobs WHERE id = ? AND refs <= 0`, id)
	return err
}

// Graph returns the graph of a job in ComfyUI's API format and the UI workflow
// it came with, nil when there was none, byte by byte as they were submitted.
func (s *Store) Graph(ctx context.Context, id string) (graph, workflow json.RawMessage, err error) {
	var packed [2][]byte
	err = s.read(ctx, func(q *queries) error {
		seq, err := q.resolve(id)
		if err != nil {
			return err
		}
		_, err = q.row(`SELECT g.data, w.data FROM jobs j JOIN blobs g ON g.id = j.graph LEFT JOIN blobs w ON w.id = j.workflow WHERE j.seq = ?`,
			[]any{seq}, &packed[0], &packed[1])
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if graph, err = unpack(packed[0]); err != nil || packed[1] == nil {
		return graph, nil, err
	}
	workflow, err = unpack(packed[1])
	return graph, workflow, err
}

// NoCheck reports whether the job was submitted to be run without a check of its
// graph.
func (s *Store) NoCheck(ctx context.Context, id string) (bool, error) {
	var no sql.NullBool
	err := s.read(ctx, func(q *queries) error {
		seq, err := q.resolve(id)
		if err == nil {
			_, err = q.row(`SELECT no_check FROM jobs WHERE seq = ?`, []any{seq}, &no)
		}
		return err
	})
	return no.Bool, err
}

// Replay finds the job that an earlier submission with the same key and body made,
// so that a repeated request is answered alike even if it would be refused by now.
// found is false when the key is new or there is none; failures are those of
// Submit.
func (s *Store) Replay(ctx context.Context, sub backend.Submission) (job backend.Job, found bool, err error) {
	if sub.Key == "" {
		return job, false, nil
	}
	n, err := s.prepareJob(sub)
	if err != nil {
		return job, false, err
	}
	err = s.do(ctx, "look for the key", s.opts.patience, func(t *tx) error {
		first, err := t.seenKey(n)
		if err != nil || first == nil {
			found = false
			return err
		}
		found = true
		job, err = t.shown(first)
		return err
	})
	return job, found && err == nil, err
}
