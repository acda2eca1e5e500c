package backend

import "encoding/json"

// EventKind names a change of a job that is kept.
type EventKind string

// The kinds. Progress, previews and positions are not events: they are not
// stored and may be dropped.
const (
	EventAccepted EventKind = "accepted"
	EventSent     EventKind = "sent"
	EventBack     EventKind = "taken-back"
	EventStarted  EventKind = "started"
	EventOutput   EventKind = "output"
	EventAttempt  EventKind = "attempt-ended"
	EventState    EventKind = "state"
	EventMoved    EventKind = "moved"
	EventCleared  EventKind = "cleared"
)

// Event is one durable, numbered change of a job.
type Event struct {
	Seq    int64           `json:"seq"`     // global, increasing by 1
	JobSeq int64           `json:"job_seq"` // within the job, from 1
	At     Time            `json:"at"`
	Kind   EventKind       `json:"kind"`
	JobID  string          `json:"job_id"`
	Data   json.RawMessage `json:"data,omitempty"` // details: state, attempt, reason …
	// Job is the job after the change. Set on the live stream; null when an old
	// event is read back from the records.
	Job *Job `json:"job,omitempty"`
}

// FrameKind names what a frame of the event stream carries.
type FrameKind string

// The frames of GET /v1/events. snapshot and reset replace everything the
// reader knows; event is durable and numbered; the others are state that
// replaces itself and may be thinned out.
const (
	FrameSnapshot FrameKind = "snapshot"
	FrameReset    FrameKind = "reset" // the resume point is gone: a snapshot follows
	FrameEvent    FrameKind = "event"
	FrameWorkers  FrameKind = "workers"
	FrameQueue    FrameKind = "queue"
	FrameProgress FrameKind = "progress"
	FramePreview  FrameKind = "preview"
	FrameGPUs     FrameKind = "gpus"
	FrameMarks    FrameKind = "marks" // all marks of the cards' time line
	FrameNotices  FrameKind = "notices"
	FrameStopping FrameKind = "stopping" // the engine is being stopped on purpose
)

// Frame is one message of the event stream. Exactly the field that Kind names
// is set.
type Frame struct {
	Kind     FrameKind    `json:"kind"`
	Seq      int64        `json:"seq,omitempty"` // of snapshot and event: resume from here
	Snapshot *Snapshot    `json:"snapshot,omitempty"`
	Event    *Event       `json:"event,omitempty"`
	Workers  []Worker     `json:"workers,omitempty"`
	Queue    *QueueCounts `json:"queue,omitempty"`
	Progress *JobProgress `json:"progress,omitempty"`
	Preview  *Preview     `json:"preview,omitempty"`
	GPUs     []GPU        `json:"gpus,omitempty"`
	Marks    []GPUMark    `json:"marks,omitempty"`
	Notices  []string     `json:"notices,omitempty"`
}

// Snapshot is all a screen needs to draw itself at Seq.
type Snapshot struct {
	Seq    int64  `json:"seq"`
	Status Status `json:"status"`
	// Jobs holds the running jobs, then the next 50 waiting ones in the order
	// of dispatch.
	Jobs []Job `json:"jobs"`
	// Recent holds the last 50 finished jobs, newest first.
	Recent []Job `json:"recent"`
	// Deaths holds the last ends of workers, newest first.
	Deaths []Verdict `json:"deaths"`
	// GPUHistory is what the cards did before, null on a box without any.
	GPUHistory *GPUHistory `json:"gpu_history,omitempty"`
}

// JobProgress is progress of a running job.
type JobProgress struct {
	Job string `json:"job"`
	Progress
}

// Preview is a live picture while sampling.
type Preview struct {
	Job  string `json:"job"`
	Node string `json:"node"`
	MIME string `json:"mime"` // image/jpeg or image/png
	Data []byte `json:"data"` // base64 in JSON
}
