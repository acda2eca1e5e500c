package sketch

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// raised is an exception as a client of ComfyUI sees it: the name of its
// class, its message, and where it came from.
type raised struct {
	class  string
	msg    string
	frames []string
	oom    bool
}

func (e *raised) Error() string { return e.msg }

func raise(class, format string, args ...any) *raised {
	return &raised{class: class, msg: fmt.Sprintf(format, args...)}
}

// errInterrupted ends a prompt that somebody interrupted.
var errInterrupted = errors.New("processing interrupted")

// errWorkerDied is raised by what ends ComfyUI's worker thread for good.
var errWorkerDied = errors.New("worker thread died")

// asRaised gives any Go error the form of a Python exception.
func asRaised(err error) *raised {
	var r *raised
	if errors.As(err, &r) {
		return r
	}
	var path *fs.PathError
	var no syscall.Errno
	if errors.As(err, &no) {
		class := map[syscall.Errno]string{
			syscall.ENOENT: "FileNotFoundError", syscall.EACCES: "PermissionError",
			syscall.EPERM: "PermissionError", syscall.EEXIST: "FileExistsError",
			syscall.EISDIR: "IsADirectoryError", syscall.ENOTDIR: "NotADirectoryError",
		}[no]
		if class == "" {
			class = "OSError"
		}
		text := no.Error()
		msg := fmt.Sprintf("[Errno %d] %s", int(no), strings.ToUpper(text[:1])+text[1:])
		if errors.As(err, &path) && no != syscall.ENOSPC {
			msg += ": " + pyRepr(path.Path)
		}
		return &raised{class: class, msg: msg}
	}
	return &raised{class: "RuntimeError", msg: err.Error()}
}

// frame is one entry of a traceback. The places named are ours: no file of
// ComfyUI's runs here.
func frame(where, what string) string {
	return fmt.Sprintf("  File \"easel sketch\", line 1, in %s\n    %s\n", where, what)
}

func (e *raised) traceback(where string) []string {
	if len(e.frames) > 0 {
		return e.frames
	}
	return []string{frame("execute", "output_data = run(node)"), frame(where, "raise "+e.class)}
}
