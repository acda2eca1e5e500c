package backend

import "encoding/json"

// JobState is where a job stands. succeeded, failed and cancelled are final.
//
//	queued ──▶ running ──▶ succeeded
//	  ▲  │        │  ├───▶ failed      (error kind, node, message, remedy)
//	  │  │        │  └───▶ cancelled
//	  │  └────────┼──────▶ cancelled
//	  └───────────┘ worker lost it (attempt + 1, bounded)         held ⇄ queued
type JobState string

// The states of a job.
const (
	JobQueued    JobState = "queued"
	JobHeld      JobState = "held"
	JobRunning   JobState = "running"
	JobSucceeded JobState = "succeeded"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Final reports whether a job in this state will never change again.
func (s JobState) Final() bool {
	return s == JobSucceeded || s == JobFailed || s == JobCancelled
}

// Valid reports whether s is one of the six states.
func (s JobState) Valid() bool {
	switch s {
	case JobQueued, JobHeld, JobRunning, JobSucceeded, JobFailed, JobCancelled:
		return true
	}
	return false
}

// Source says through which door a job came in.
type Source string

// The doors.
const (
	SourceCLI     Source = "cli"
	SourceConsole Source = "console"
	SourceComfyUI Source = "comfyui"
	SourceEAS     Source = "eas"
	SourceAPI     Source = "api"
)

// Job is one picture (or batch, or video) that somebody asked for.
type Job struct {
	ID         string            `json:"id"` // UUIDv4, lower case
	Name       string            `json:"name"`
	Owner      string            `json:"owner"`
	Source     Source            `json:"source"`
	Priority   int               `json:"priority"` // higher = sooner
	Labels     map[string]string `json:"labels"`
	State      JobState          `json:"state"`
	Cancelling bool              `json:"cancelling"` // a cancel waits for the worker to confirm it
	// Position is the place in the queue, 1 is next. null when the job does not
	// wait, or is past the first 1,000. Computed when read, never stored.
	Position *int `json:"position"`
	// WaitReason says in words why a waiting job waits, "" when it does not.
	WaitReason string    `json:"wait_reason"`
	RetryOf    *string   `json:"retry_of"`
	Created    Time      `json:"created"`
	Started    Time      `json:"started"`  // first attempt's start
	Finished   Time      `json:"finished"` // when the state became final
	NotBefore  Time      `json:"not_before"`
	Progress   *Progress `json:"progress"` // only while running
	Attempts   []Attempt `json:"attempts"` // oldest first
	Outputs    []Output  `json:"outputs"`
	Error      *Error    `json:"error"`
	Warnings   []string  `json:"warnings,omitempty"`
	InferenceS *float64  `json:"inference_s"` // seconds inside ComfyUI, all attempts
	GPUS       *float64  `json:"gpu_s"`
	PeakVRAM   *int64    `json:"peak_vram"`
	PeakRAM    *int64    `json:"peak_ram"`
	Group      string    `json:"group"`
	// TimeoutS ends a job that runs longer; 0 is no limit.
	TimeoutS float64 `json:"timeout_s,omitempty"`
}

// Outcome is how an attempt stands or ended.
type Outcome string

// The outcomes. A job with an attempt "sent" is still queued: its prompt waits
// inside ComfyUI and can be taken back.
const (
	OutcomeSent      Outcome = "sent"
	OutcomeRunning   Outcome = "running"
	OutcomeSucceeded Outcome = "succeeded"
	OutcomeFailed    Outcome = "failed"
	OutcomeLost      Outcome = "lost"
	OutcomeCancelled Outcome = "cancelled"
)

// Open reports whether the attempt has not ended.
func (o Outcome) Open() bool { return o == OutcomeSent || o == OutcomeRunning }

// Attempt is one try of a job on one worker. Each has its own prompt_id: the
// server is not idempotent, so an id is never posted twice.
type Attempt struct {
	N        int      `json:"n"` // 1, 2, …
	PromptID string   `json:"prompt_id"`
	Worker   string   `json:"worker"`
	Launch   string   `json:"launch"` // id of the worker process's launch
	Started  Time     `json:"started"`
	Finished Time     `json:"finished"`
	Outcome  Outcome  `json:"outcome"`
	Verdict  *Verdict `json:"verdict"`
	// Leftovers are files that this attempt wrote before it was lost, found by
	// their metadata. They are listed, never taken for results.
	Leftovers []string `json:"leftovers,omitempty"`
}

// Progress of the running attempt. Fraction is of the whole job, 0–1.
type Progress struct {
	Node     string   `json:"node"`
	Class    string   `json:"class"`
	Title    string   `json:"title"`
	Value    float64  `json:"value"` // of this node
	Max      float64  `json:"max"`
	Fraction float64  `json:"fraction"`
	ETAS     *float64 `json:"eta_s"`
}

// Output is one file (or text) that a job produced.
type Output struct {
	Node      string  `json:"node"`
	Kind      string  `json:"kind"` // image video audio model text
	Filename  string  `json:"filename"`
	Subfolder string  `json:"subfolder"`
	Type      string  `json:"type"` // output or temp
	Path      string  `json:"path"` // where the engine finds it
	URL       *string `json:"url"`
	Bytes     *int64  `json:"bytes"`
	Width     *int    `json:"width"`
	Height    *int    `json:"height"`
	SHA256    *string `json:"sha256"`
	Text      string  `json:"text,omitempty"` // of kind text
	// Modified is the file's own time when it was recorded; a file with another one
	// is not this output any more.
	Modified Time `json:"modified,omitzero"`
	// Trashed is where the file lies since somebody put it into the trash.
	Trashed string `json:"trashed,omitempty"`
}

// Error says why a job failed and what to do. Kind is invalid, exception,
// timeout, or the kind of a verdict.
type Error struct {
	Kind        string `json:"kind"`
	Message     string `json:"message"`
	Node        string `json:"node"`
	Class       string `json:"class"`
	Title       string `json:"title"`
	Input       string `json:"input"`
	Remedy      string `json:"remedy"`
	Quarantined bool   `json:"quarantined"`
}

// Submission is what somebody asks for. Graph is in ComfyUI's API format.
type Submission struct {
	Name      string            `json:"name,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Source    Source            `json:"source,omitempty"`
	Priority  int               `json:"priority,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Graph     json.RawMessage   `json:"graph"`
	Workflow  json.RawMessage   `json:"workflow,omitempty"` // the UI form, if there was one
	Group     string            `json:"group,omitempty"`
	Hold      bool              `json:"hold,omitempty"`
	NotBefore Time              `json:"not_before,omitzero"`
	TimeoutS  float64           `json:"timeout_s,omitempty"`
	NoCheck   bool              `json:"no_check,omitempty"`
	// Key makes the submission idempotent for 24 h: the same key with the same
	// body returns the first job, with another body it is refused.
	Key string `json:"key,omitempty"`
	// RetryOf names the job that this one tries again.
	RetryOf  string   `json:"retry_of,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// JobFilter selects jobs. An empty field does not filter.
type JobFilter struct {
	IDs    []string   `json:"ids,omitempty"` // whole ids, or prefixes of at least 4 characters
	Group  string     `json:"group,omitempty"`
	Owner  string     `json:"owner,omitempty"`
	States []JobState `json:"states,omitempty"`
	Limit  int        `json:"limit,omitempty"`  // 0: no limit
	Before string     `json:"before,omitempty"` // id: only jobs older than that one
	// Order "queue" lists in the order of dispatch; otherwise newest first.
	Order string `json:"order,omitempty"`
}

// Empty reports whether the filter selects every job.
func (f JobFilter) Empty() bool {
	return len(f.IDs) == 0 && f.Group == "" && f.Owner == "" && len(f.States) == 0
}

// Verb is something done to jobs.
type Verb string

// The verbs. Each acts on every selected job in a state where it means
// something and leaves the others alone; with an id that names a job in the
// wrong state it is an error that says so.
const (
	VerbCancel   Verb = "cancel"
	VerbRetry    Verb = "retry"    // makes a new job with retry_of
	VerbHold     Verb = "hold"     // queued → held
	VerbRelease  Verb = "release"  // held → queued, also drops not_before
	VerbPromote  Verb = "promote"  // to the top of its priority
	VerbUp       Verb = "up"       // one place up
	VerbDown     Verb = "down"     // one place down
	VerbBottom   Verb = "bottom"   //
	VerbPriority Verb = "priority" // Delta is added to the priority
	VerbClear    Verb = "clear"    // final jobs leave the records
)

// JobAction is a verb on a selection.
type JobAction struct {
	Verb  Verb      `json:"verb"`
	Jobs  JobFilter `json:"jobs"`
	Delta int       `json:"delta,omitempty"`
	By    string    `json:"by,omitempty"`
}

// ForeignPrompt is a prompt that somebody else posted into a worker, past Easel.
// It is shown and counted, never cancelled.
type ForeignPrompt struct {
	Worker   string   `json:"worker"`
	PromptID string   `json:"prompt_id"`
	ClientID string   `json:"client_id"` // who posted it, "" when nobody said
	State    JobState `json:"state"`     // running or queued
	Since    Time     `json:"since"`     // when Easel first saw it so
	// Node, Class and Title are the node that draws a progress bar, Value and Max
	// the bar itself as the log shows it; empty and 0 while they are not known.
	Node  string  `json:"node"`
	Class string  `json:"class"`
	Title string  `json:"title"`
	Value float64 `json:"value"`
	Max   float64 `json:"max"`
}

// QueueCounts is the queue in a few numbers.
type QueueCounts struct {
	Queued  int  `json:"queued"`
	Running int  `json:"running"`
	Held    int  `json:"held"`
	Paused  bool `json:"paused"`
	// Foreign counts the prompts of others inside the workers, which run before
	// what is sent next.
	Foreign int `json:"foreign,omitempty"`
	// PauseReason says who or what paused the queue, "" when nothing did.
	PauseReason string `json:"pause_reason,omitempty"`
}
