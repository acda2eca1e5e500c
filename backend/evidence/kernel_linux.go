package evidence

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kernelKeep is how many telling lines a KernelLog keeps.
const kernelKeep = 200

// KernelLog reads /dev/kmsg and keeps the lines that tell of kills for memory and
// of faults of a card. It is not safe for concurrent use.
type KernelLog struct {
	fd    int
	buf   []byte
	lines []KernelLine
}

// OpenKernelLog opens the kernel log: from its present end, or with whole from the
// oldest line that is kept. The error says that it may not be read, as is usual for
// users other than root and in containers.
func OpenKernelLog(whole bool) (*KernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/kmsg: %w", err)
	}
	whence := unix.SEEK_END
	if whole {
		whence = unix.SEEK_SET
	}
	k := &KernelLog{fd: fd, buf: make([]byte, 8<<10)}
	if _, err := unix.Seek(fd, 0, whence); err != nil {
		k.Close()
		return nil, fmt.Errorf("seek in /dev/kmsg: %w", err)
	}
	return k, nil
}

// Close closes it; the lines stay.
func (k *KernelLog) Close() {
	if k != nil && k.fd >= 0 {
		_ = unix.Close(k.fd)
		k.fd = -1
	}
}

// Lines reads what is new and returns the telling lines that are not older than
// since, oldest first. The slice is the caller's. It does not block.
func (k *KernelLog) Lines(since time.Time) []KernelLine {
	if k == nil {
		return nil
	}
	k.drain()
	var out []KernelLine
	for _, l := range k.lines {
		if !l.At.Before(since) {
			out = append(out, l)
		}
	}
	return out
}

func (k *KernelLog) drain() {
	boot := bootTime()
	for k.fd >= 0 {
		n, err := unix.Read(k.fd, k.buf)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR), errors.Is(err, unix.EINVAL):
			continue // lines were lost, or one longer than the buffer
		case err != nil || n <= 0:
			return
		}
		if l, ok := parseKmsg(string(k.buf[:n]), boot); ok && telling(l.Text) {
			k.lines = append(k.lines, l)
		}
		if len(k.lines) > kernelKeep {
			k.lines = append([]KernelLine(nil), k.lines[len(k.lines)-kernelKeep/2:]...)
		}
	}
}

// bootTime is the moment that the kernel log counts its times from.
func bootTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// parseKmsg takes apart "level,number,microseconds,flags[,…];text\n key=value…".
// Only the kernel's own lines count: programs may write to this log, too.
func parseKmsg(record string, boot time.Time) (KernelLine, bool) {
	head, text, ok := strings.Cut(record, ";")
	f := strings.Split(head, ",")
	if !ok || len(f) < 3 {
		return KernelLine{}, false
	}
	level, err := strconv.Atoi(f[0])
	if err != nil || level>>3 != 0 { // facility: 0 is the kernel
		return KernelLine{}, false
	}
	us, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return KernelLine{}, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return KernelLine{At: boot.Add(time.Duration(us) * time.Microsecond), Text: text}, true
}
