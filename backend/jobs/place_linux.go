package jobs

import "golang.org/x/sys/unix"

// networkFS names the file system of dir when it is one where a WAL is not
// safe (its shared memory needs one kernel), "" otherwise. The numbers are those
// of statfs(2).
func networkFS(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE (ossfs, sshfs …)"
	case unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "SMB"
	}
	return ""
}
