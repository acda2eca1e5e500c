package doctor

import (
	"os"

	"golang.org/x/sys/unix"
)

const onUnix = true

// kinds names file systems by their magic numbers (statfs(2), linux/magic.h), and
// says whether they are remote.
var kinds = map[uint32]struct {
	name   string
	remote bool
}{
	unix.NFS_SUPER_MAGIC: {"NFS", true}, unix.FUSE_SUPER_MAGIC: {"FUSE (ossfs, sshfs, s3fs and the like)", true},
	unix.CIFS_SUPER_MAGIC: {"CIFS", true}, unix.SMB2_SUPER_MAGIC: {"SMB", true}, unix.SMB_SUPER_MAGIC: {"SMB", true},
	unix.V9FS_MAGIC: {"9P", true}, unix.CEPH_SUPER_MAGIC: {"CephFS", true}, unix.AFS_SUPER_MAGIC: {"AFS", true},
	0x0BD00BD0: {"Lustre", true}, 0x47504653: {"GPFS", true}, unix.TMPFS_MAGIC: {"tmpfs", false},
}

// statfs asks the kernel about the file system of dir.
func statfs(dir string) space {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return space{notAvailable: &os.PathError{Op: "statfs", Path: dir, Err: err}}
	}
	var file unix.Stat_t
	if err := unix.Stat(dir, &file); err != nil {
		return space{notAvailable: &os.PathError{Op: "stat", Path: dir, Err: err}}
	}
	block := st.Bsize
	kind := kinds[uint32(st.Type)] //nolint:gosec // magic numbers have 32 bits
	return space{
		free: int64(st.Bavail) * block, total: int64(st.Blocks) * block, inodes: int64(st.Ffree), inodesTotal: int64(st.Files),
		readOnly: st.Flags&unix.ST_RDONLY != 0, device: file.Dev,
		fs: kind.name, cannotDoWAL: kind.remote, localMemory: st.Type == unix.TMPFS_MAGIC,
	}
}

// writable reports whether this process may make files in dir.
func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// clockSynced reports whether the kernel's clock is kept in step (adjtimex(2)). A
// kernel that does not say counts as in step.
func clockSynced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err != nil || state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
