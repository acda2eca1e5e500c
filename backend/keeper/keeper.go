// Package keeper is the parent of engine and workers, and the holder of the
// listeners: the one process of Easel that does not die with the others, since
// only a parent learns how a process ended. It starts the engine and starts it
// again, starts workers on the engine's word, and keeps each one's wait status
// until an engine has written it down. It has no database and decides nothing
// about jobs.
//
// The package has two ends. Run is the keeper's process. Conn is the engine's
// end of the socket pair between them; when it closes, the keeper is gone and
// the engine calls Takeover.
//
// Everything but Dial, SocketPath and ReadState works on Linux only and says so
// elsewhere.
package keeper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"easel/backend"
)

// Version is the version of the protocol between keeper and engine. An end
// speaks to another whose version differs by at most one.
const Version = 1

// Descriptors the keeper gives to the engine.
const (
	PairFD    = 3 // the engine's end of the socket pair, for Attach
	ControlFD = 4 // the listener of the control socket, for ControlListener
)

// ExitHopeless is the exit code (EX_CONFIG) of an engine that would fail the
// same way again: the keeper does not restart it at once, and ends itself when
// no engine has served yet.
const ExitHopeless = 78

// EnvLaunch is the environment variable that carries the id of the launch in
// every worker, by which what a worker left behind is recognised.
const EnvLaunch = "EASEL_LAUNCH"

// Errors of this package that callers decide by.
var (
	// ErrGone says that the keeper ended or closed the connection.
	ErrGone = errors.New("the keeper is gone")
	// ErrNotRunning says that no keeper listens for this state directory.
	ErrNotRunning = errors.New("no engine runs for this state directory")
	// ErrNotLiving says that a launch is unknown or has ended.
	ErrNotLiving = errors.New("this launch is not running")
	// ErrLinuxOnly says that this machine cannot run an engine.
	ErrLinuxOnly = errors.New("the engine runs on Linux only: reach one elsewhere with --host ssh://user@box")
)

// ErrRunning says that another keeper holds the state directory.
type ErrRunning struct {
	PID int // 0 when it could not be read
}

// Error names the other keeper.
func (e ErrRunning) Error() string {
	if e.PID == 0 {
		return "another Easel already runs on this state directory"
	}
	return fmt.Sprintf("another Easel (pid %d) already runs on this state directory", e.PID)
}

// Launch is a worker process to start. ID is a UUIDv4 made by the engine; a
// launch that is known already is not started twice.
type Launch struct {
	ID string `json:"id"`
	// Argv is the command; an Argv[0] without a slash is looked up in the PATH of
	// Env, and "/proc/self/exe" is Easel itself.
	Argv []string `json:"argv"`
	// Env is the whole environment. Nil means the keeper's own.
	Env []string `json:"env,omitempty"`
	Dir string   `json:"dir,omitempty"`
	// Log is the file that gets stdout and stderr, opened for appending.
	Log string `json:"log"`
	// OOMScoreAdj is written to /proc/PID/oom_score_adj; nil leaves it alone.
	OOMScoreAdj *int `json:"oom_score_adj,omitempty"`
	// CoreZero forbids core dumps.
	CoreZero bool `json:"core_zero,omitempty"`
	// Cgroup is the directory of a cgroup that the process is moved to just after it
	// began; "" leaves it in the keeper's. The one who asks sees in /proc whether that
	// worked.
	Cgroup string `json:"cgroup,omitempty"`
}

// Living is a worker process that runs.
type Living struct {
	Launch     string `json:"launch"`
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"` // field 22 of /proc/PID/stat
	// Adopted says that it is no child of this keeper: its end will be seen, its
	// status not.
	Adopted bool      `json:"adopted"`
	Started time.Time `json:"started"`
}

// Ended is how a worker process ended. It is told to every engine until one
// acknowledges it.
type Ended struct {
	Launch      string    `json:"launch"`
	PID         int       `json:"pid"`
	ExitCode    int       `json:"exit_code"`    // -1 unless it exited
	Signal      int       `json:"signal"`       // 0 unless a signal ended it
	StatusKnown bool      `json:"status_known"` // false for an adopted worker
	Ours        bool      `json:"ours"`         // Easel had sent it a signal
	OurSignal   int       `json:"our_signal"`   // the last one Easel sent, 0 when none
	At          time.Time `json:"at"`
	Started     time.Time `json:"started"`
	MaxRSS      int64     `json:"max_rss"` // bytes; 0 when unknown
	UserS       float64   `json:"user_s"`  // seconds of CPU time; 0 when unknown
	SysS        float64   `json:"sys_s"`
}

// Hello is what the keeper tells an engine first.
type Hello struct {
	Version   int                `json:"version"`
	KeeperPID int                `json:"keeper_pid"`
	StateDir  string             `json:"state_dir"`
	Restarts  int                `json:"restarts"` // of the engine
	LastCrash *backend.CrashInfo `json:"last_crash"`
	Living    []Living           `json:"living"`
	Ended     []Ended            `json:"ended"` // not acknowledged yet, oldest first
	// StopWithin is how long an engine has between SIGTERM and SIGKILL.
	StopWithin time.Duration `json:"stop_within"`
}

// Config is what Run and Detach need to know. Zero fields get the defaults
// named beside them.
type Config struct {
	StateDir string
	Version  string // of Easel, for keeper.json
	// Args are the arguments with which Detach starts the keeper:
	// {"serve", "--detached-child"}.
	Args []string
	// EngineArgs are the arguments of the engine: {"engine"}.
	EngineArgs []string
	// TakeoverArgs are those of a keeper that takes over: {"keeper-takeover"}.
	TakeoverArgs []string
	// PreflightArgs are those with which Reload tries a new binary:
	// {"keeper", "--preflight"}.
	PreflightArgs []string
	// Env is added to the environment of the engine.
	Env []string
	// Foreground says that a person or a service manager looks at this process;
	// it changes nothing but where the keeper logs.
	Foreground bool
	// Adopt is what a former keeper or engine handed over, from Inherit.
	Adopt *Handover
	// Policy decides when an ended engine is started again.
	Policy Policy
	// StopEngine and StopWorkers bound an orderly stop: 20 s and 5 s, as PID 1 of
	// a container 6 s and 2 s.
	StopEngine, StopWorkers time.Duration
	// DownAfter is how long nothing serves before the keeper answers 503: 5 s.
	DownAfter time.Duration
	// SilentAfter is how long an engine may be silent before it is ended: 30 s.
	SilentAfter time.Duration
	// StartWithin bounds Detach: 10 s.
	StartWithin time.Duration
	Logger      *slog.Logger // stderr when nil
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	defaultTo(&c.Args, []string{"serve", "--detached-child"})
	defaultTo(&c.EngineArgs, []string{"engine"})
	defaultTo(&c.TakeoverArgs, []string{"keeper-takeover"})
	defaultTo(&c.PreflightArgs, []string{"keeper", "--preflight"})
	engine, workers := 20*time.Second, 5*time.Second
	if os.Getpid() == 1 {
		engine, workers = 6*time.Second, 2*time.Second
	}
	durationTo(&c.StopEngine, engine)
	durationTo(&c.StopWorkers, workers)
	durationTo(&c.DownAfter, 5*time.Second)
	durationTo(&c.SilentAfter, 30*time.Second)
	durationTo(&c.StartWithin, 10*time.Second)
	c.Policy = c.Policy.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return c
}

func defaultTo(v *[]string, d []string) {
	if *v == nil {
		*v = d
	}
}

func durationTo(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}
