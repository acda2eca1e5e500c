package backend

import "errors"

// Failure is an error that crosses the control API: what went wrong, in words
// for a person, with a kind that programs decide by and a hint of what to do.
type Failure struct {
	Kind     string    `json:"kind"`
	Message  string    `json:"message"`
	Hint     string    `json:"hint,omitempty"`
	Problems []Problem `json:"problems,omitempty"` // of an invalid graph
}

// Kinds of a Failure.
const (
	FailUsage      = "usage"       // the request itself is wrong: 400
	FailInvalid    = "invalid"     // the workflow is wrong: 422
	FailForbidden  = "forbidden"   // 403: another account's job, or only for the engine's own account
	FailNotFound   = "not-found"   // 404
	FailConflict   = "conflict"    // 409: key reused with another body, wrong state
	FailFull       = "queue-full"  // 429
	FailTooLarge   = "too-large"   // 413
	FailEngineDown = "engine-down" // 503, from the keeper
	FailBusy       = "busy"        // 503: could not be written down in time
	FailDisk       = "disk"        // 507: the record could not be written
	FailWorker     = "worker"      // 503: no worker can do it
	FailInternal   = "internal"    // 500
)

// Error is the message.
func (f *Failure) Error() string { return f.Message }

// Fail makes a Failure.
func Fail(kind, message, hint string) *Failure {
	return &Failure{Kind: kind, Message: message, Hint: hint}
}

// FailureOf is err as a Failure; an error of another type becomes kind internal.
func FailureOf(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Kind: FailInternal, Message: err.Error()}
}

// Problem is one finding of a check of a workflow. Severity is error, warning or
// note.
type Problem struct {
	Severity   string   `json:"severity"`
	Kind       string   `json:"kind"`
	Node       string   `json:"node"`
	Title      string   `json:"title"`
	Class      string   `json:"class"`
	Input      string   `json:"input"`
	Value      string   `json:"value"`
	Message    string   `json:"message"`
	Candidates []string `json:"candidates"`
	Fix        string   `json:"fix"`
}
