package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// trimAlign is the granularity of what is freed, in bytes: the block size of the
// usual file systems.
const trimAlign = 4096

// Trim frees the head of a file that occupies more than max bytes on the disk,
// and keeps about the last half of max. Offsets stay as they are. Where the file
// system cannot free a part, the file is emptied.
func Trim(path string, max int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("trim %s: %w", path, err)
	}
	if st.Blocks*512 <= max {
		return nil
	}
	cut := (st.Size - max/2) / trimAlign * trimAlign
	if cut <= 0 {
		return nil
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, cut)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = f.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("trim %s: %w", path, err)
	}
	return nil
}

// seekData is the offset of the first byte at or after offset that is not in a
// hole. It answers false where the file system does not tell.
func seekData(f *os.File, offset int64) (int64, bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, false
	}
	next, ok := int64(0), false
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.Seek(int(fd), offset, unix.SEEK_DATA)
		next, ok = n, err == nil
	})
	return next, ok
}
