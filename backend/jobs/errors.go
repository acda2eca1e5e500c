package jobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"easel/backend"
)

// errClosed answers calls on a store that is being closed.
func errClosed() error {
	return backend.Fail(backend.FailEngineDown, "the engine is stopping and takes no more changes", "try again when it runs")
}

// errBusy answers a change that could not be written down in time.
func errBusy(what, why string) error {
	return backend.Fail(backend.FailBusy, fmt.Sprintf("%s: %s", what, why),
		"try again; with the same key nothing is done twice. If it stays so, the disk of the state directory is slow or stuck")
}

// notFound answers an id that names no job.
func notFound(id string) error {
	return backend.Fail(backend.FailNotFound, fmt.Sprintf("no job %.64q", id), "easel jobs ls lists the jobs; finished ones leave the records in time")
}

// describe turns an error of SQLite or of the file system into one that says
// what is wrong with the record and what to do. Failures and the context's own
// errors pass unchanged.
func describe(path string, err error) error {
	var f *backend.Failure
	if err == nil || errors.As(err, &f) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	dir := filepath.Dir(path)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return diskFull(dir)
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return readOnly(dir)
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return backend.Fail(backend.FailDisk, fmt.Sprintf("cannot use the records in %s: %v", path, err), "")
	}
	switch se.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return diskFull(dir)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return readOnly(dir)
	case sqlite3.SQLITE_CANTOPEN:
		return cannotOpen(path, dir)
	case sqlite3.SQLITE_NOTADB:
		return backend.Fail(backend.FailDisk, path+" is not a database",
			"move it away to begin with an empty queue, or put a copy back")
	case sqlite3.SQLITE_CORRUPT:
		return backend.Fail(backend.FailDisk, path+" is damaged: "+se.Error(),
			fmt.Sprintf("stop Easel, keep a copy of the file, then try: sqlite3 %s .recover | sqlite3 recovered.db", path))
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return backend.Fail(backend.FailBusy, path+" is locked by another process", "see who holds it: fuser "+path)
	case sqlite3.SQLITE_IOERR:
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the disk of %s answers with errors: %v", dir, se),
			"see the kernel's log (dmesg) and the disk's health")
	}
	return fmt.Errorf("records in %s: %w", path, err)
}

// diskFull says that there is no space for the records.
func diskFull(dir string) error {
	return backend.Fail(backend.FailDisk, "the disk of "+dir+" is full: nothing could be written down",
		hintFull)
}

// hintFull is what to do about a full disk while the engine runs.
const hintFull = "free some space there; Easel goes on by itself"

// atStart corrects the advice of an error that keeps the records from being opened:
// without them no engine runs that could go on by itself.
func atStart(err error) error {
	var f *backend.Failure
	if errors.As(err, &f) && f.Hint == hintFull {
		return backend.Fail(f.Kind, f.Message, "free some space there, then start Easel again")
	}
	return err
}

// readOnly says that the records' directory cannot be written.
func readOnly(dir string) error {
	return backend.Fail(backend.FailDisk, "cannot write in the state directory "+dir,
		"make it writable for this account, or choose another with EASEL_HOME")
}

// cannotOpen finds out why SQLite could not open the file.
func cannotOpen(path, dir string) error {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return backend.Fail(backend.FailDisk, path+" is a directory", "move it away")
	}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return backend.Fail(backend.FailDisk, "the state directory "+dir+" does not exist", "make it, or choose another with EASEL_HOME")
	case err == nil && !st.IsDir():
		return backend.Fail(backend.FailDisk, dir+" is not a directory", "choose another state directory with EASEL_HOME")
	}
	return readOnly(dir)
}

// isUnsupported reports whether a sync failed because the object has none.
func isUnsupported(err error) bool {
	return runtime.GOOS == "windows" || errors.Is(err, syscall.EINVAL) || strings.Contains(err.Error(), "not supported")
}
