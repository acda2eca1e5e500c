package process

// Info is one process as /proc/PID/stat shows it.
type Info struct {
	PID        int
	PPID       int
	Group      int  // process group
	SID        int  // session
	State      byte // R S D T Z X …
	StartTicks uint64
	Name       string // at most 15 bytes
}

// Dead reports whether the process has ended and only waits to be reaped.
func (i Info) Dead() bool { return i.State == 'Z' || i.State == 'X' }
