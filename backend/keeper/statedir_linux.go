package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"easel/backend"
)

// remote names the file systems that cannot hold the state: SQLite's WAL needs
// shared memory and locks that these do not give. Magic numbers: statfs(2) and
// include/uapi/linux/magic.h.
var remote = map[uint32]string{
	unix.NFS_SUPER_MAGIC:  "NFS",
	unix.FUSE_SUPER_MAGIC: "FUSE (ossfs, sshfs, s3fs and the like)",
	unix.CIFS_SUPER_MAGIC: "CIFS",
	unix.SMB2_SUPER_MAGIC: "SMB",
	unix.SMB_SUPER_MAGIC:  "SMB",
	unix.V9FS_MAGIC:       "9P",
	unix.CEPH_SUPER_MAGIC: "CephFS",
	unix.AFS_SUPER_MAGIC:  "AFS",
	0x0BD00BD0:            "Lustre",
	0x47504653:            "GPFS",
}

// CheckStateDir makes the state directory (mode 0700) and reports a
// *backend.Failure when it cannot hold the state: on a remote file system,
// read-only, full, or no directory.
func CheckStateDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return backend.Fail(backend.FailUsage, fmt.Sprintf("the state directory %q is not an absolute path", dir), "set EASEL_HOME to a path that begins with /")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dirFailure(dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		if name := remote[uint32(st.Type)]; name != "" {
			return backend.Fail(backend.FailDisk,
				fmt.Sprintf("the state directory %s lies on %s, which cannot hold Easel's database safely", dir, name),
				"set EASEL_HOME to a directory on a local disk, for example "+localDir(dir))
		}
	}
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return dirFailure(dir, err)
	}
	_, err = f.WriteString("probe\n")
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return dirFailure(dir, err)
	}
	return nil
}

// dirFailure says in words why the state directory cannot be used.
func dirFailure(dir string, err error) error {
	switch hint := "set EASEL_HOME to a directory that you can write, for example " + localDir(dir); {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the disk of the state directory %s is full", dir), "free some space there, or "+hint)
	case errors.Is(err, unix.EROFS):
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the state directory %s lies on a file system that is mounted read-only", dir), hint)
	case errors.Is(err, fs.ErrPermission):
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the state directory %s cannot be written by this user", dir), hint)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the state directory %s cannot be made: a part of its path is a file", dir), hint)
	default:
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the state directory %s cannot be used: %v", dir, err), hint)
	}
}

// localDir names a directory on a local disk that can be written, other than not.
func localDir(not string) string {
	uid := strconv.Itoa(os.Getuid())
	candidates := []string{"/var/tmp/easel-" + uid, "/tmp/easel-" + uid}
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append([]string{filepath.Join(home, ".local/state/easel")}, candidates...)
	}
	for _, c := range candidates {
		if c == not {
			continue
		}
		parent := c
		for { // the nearest part that exists
			if _, err := os.Stat(parent); err == nil || parent == "/" {
				break
			}
			parent = filepath.Dir(parent)
		}
		var st unix.Statfs_t
		if unix.Statfs(parent, &st) == nil && remote[uint32(st.Type)] == "" && unix.Access(parent, unix.W_OK) == nil {
			return c
		}
	}
	return "/var/tmp/easel-" + uid
}
