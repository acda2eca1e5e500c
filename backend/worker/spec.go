package worker

import (
	"os"
	"reflect"

	"easel/backend/comfy"
)

// Spec says which ComfyUI a worker is and how it is launched. It is plain: the
// caller fills it from the configuration. Exactly one of URL, Builtin and ComfyUI
// decides what it is, in this order.
type Spec struct {
	ID       string // "gpu0", "cpu", "builtin", "url"; part of file names
	StateDir string // absolute; logs, records and temporary files lie below it

	// URL is a ComfyUI that somebody else runs: driven, never started or stopped.
	URL string
	// Log is where that one's log is (worker.log), RestartCommand what restarts it
	// (worker.restart); both "" when that is not known.
	Log, RestartCommand string
	// Builtin is Easel's own worker.
	Builtin bool
	// BuiltinArgs are added to its command line: --comfy-version, --fault.
	BuiltinArgs []string

	ComfyUI string   // the checkout
	Python  string   // its interpreter; "": its virtual environment, else python3
	Command string   // an EAS run command, pasted
	Args    []string // flags for ComfyUI
	Data    string   // the mount; "": the checkout's own directories
	// Packages are to be installed before a start, from PipIndex when it is set.
	Packages []string
	PipIndex string
	// Port is the port to listen on; 0: a free one.
	Port int
	// GPU is the card it is pinned to, by UUID (GPU-…, MIG-…) or index; "": none.
	GPU string
	// Sibling says that another worker runs from the same directories: this one gets
	// its own user directory and database.
	Sibling bool
	// NoCgroup runs it in the cgroup of its parent. Else it gets one of its own where
	// that can be made, so that a kill for memory can be told from others.
	NoCgroup bool
	// MemoryLimit is the limit of that cgroup, in bytes. 0: a little below what the
	// machine has, so that the kernel takes this worker before anything else.
	// Negative: none.
	MemoryLimit int64
	// Environ is the environment to start from. Nil: that of this process.
	Environ []string
}

// Equal reports whether two specs mean the same worker, launched the same way. The
// environment does not count.
func (s Spec) Equal(other Spec) bool {
	s.Environ, other.Environ = nil, nil
	return reflect.DeepEqual(s, other)
}

// external reports whether somebody else runs the worker.
func (s Spec) external() bool { return s.URL != "" }

// Plan is how a worker is launched, made by MakePlan. It holds no address: Launch
// adds that.
type Plan struct {
	// Argv is the command without --listen and --port.
	Argv []string
	// Env is the whole environment.
	Env []string
	// Dir is the directory it runs in.
	Dir string
	// MakeDirs are made before the start.
	MakeDirs []string
	// Dirs are ComfyUI's folders, absolute.
	Dirs comfy.Dirs
	// Python and Version describe the install; both "" when unknown.
	Python, Version string
	// Checkout is the ComfyUI directory, "" for the built-in worker.
	Checkout string
	// Port is the port wanted; 0: a free one.
	Port int
	// GPU is the card it is pinned to, "" when it is not.
	GPU string
	// Listen and ListenPort are the address that the run command asked for: that of
	// the gateway. "" and 0 when it asked for none.
	Listen     string
	ListenPort int
	// Prepare must be done before the first start; see Refuse.
	Prepare []Step
	// Notes are remarks for people: what was left out or changed, and why.
	Notes []string
	// Session is the file by which ComfyUI-Manager asks for a restart; "" for the
	// built-in worker.
	Session string

	mark  string      // of the install, to see whether it changed
	mount os.FileInfo // of the mount, to see whether it vanished; nil without one
	data  string      // where it is
}
