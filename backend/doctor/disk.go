package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Least free space before a job fails for want of it.
const (
	diskProblem = 1 << 30
	diskWarning = 10 << 30
)

// space is one file system.
type space struct {
	free, total  int64
	inodes       int64 // free ones; 0 with inodesTotal 0 where they are not counted
	inodesTotal  int64
	readOnly     bool
	device       uint64
	fs           string // its kind by name where that is known
	cannotDoWAL  bool   // remote: no database of ours may lie there
	localMemory  bool   // tmpfs: gone at the next boot
	notAvailable error
}

// places are the directories that matter, with what they are for.
func (b *Box) places() []place {
	list := []place{{"state", b.StateDir}}
	w := b.Config.Worker
	if w.Data != "" {
		list = append(list, place{"mount", w.Data})
	}
	if w.ComfyUI != "" && w.URL == "" {
		list = append(list, place{"ComfyUI", w.ComfyUI})
	}
	for _, m := range b.Config.Mount {
		list = append(list, place{"mount", m.Path})
	}
	list = append(list, place{"temporary files", orElse(b.env("TMPDIR"), "/tmp")})
	return list
}

type place struct{ use, dir string }

// checkDisk looks at the space of each file system that is written to.
func checkDisk(ctx context.Context, b *Box) []Finding {
	var list []Finding
	seen := map[uint64]bool{}
	for _, p := range b.places() {
		s := look(ctx, b.path(p.dir))
		if s.notAvailable != nil || s.total == 0 || seen[s.device] {
			continue
		}
		seen[s.device] = true
		list = append(list, spaceFinding(p, s))
	}
	return list
}

func spaceFinding(p place, s space) Finding {
	f := Finding{ID: "disk-" + strings.ReplaceAll(p.use, " ", "-"), Title: "disk of the " + p.use, Verdict: OK}
	f.Seen = fmt.Sprintf("%s: %s of %s free", p.dir, gib(s.free), gib(s.total))
	remedy := "make room: easel storage clean --dry-run shows what could go"
	switch {
	case s.free < diskProblem:
		f.Verdict, f.Remedy = Problem, remedy
	case s.free < diskWarning:
		f.Verdict, f.Remedy = Warning, remedy
	case s.inodesTotal > 0 && s.inodes < s.inodesTotal/100:
		f.Verdict, f.Remedy = Warning, "many small files use them up: look at caches and temp directories"
		f.Seen += fmt.Sprintf(", but only %d more files can be made", s.inodes)
	case s.localMemory:
		f.Verdict, f.Remedy = Note, "put what should last on a disk"
		f.Seen += "; it is memory (tmpfs) and gone at the next boot"
		if p.use == "state" {
			f.Verdict = Warning
			f.Remedy = "the queue is lost at the next boot: set EASEL_HOME to a directory on a disk"
		}
	}
	return f
}

// Bounds of the sample: how often and how long at most a block is made durable.
const (
	syncMost   = 20
	syncWithin = 1500 * time.Millisecond
	syncSlow   = 30 * time.Millisecond
	syncBad    = 200 * time.Millisecond
)

// checkDiskSpeed times what each submitted job waits for: 4 KiB and an fsync in the
// state directory.
func checkDiskSpeed(ctx context.Context, b *Box) []Finding {
	if _, err := os.Stat(b.StateDir); err != nil {
		return nil
	}
	f, err := os.CreateTemp(b.StateDir, ".doctor-*")
	if err != nil {
		return nil // told by checkPermissions
	}
	defer os.Remove(f.Name())
	defer f.Close()
	times, err := syncSample(ctx, f)
	if err != nil {
		return one(Problem, "look at dmesg: the disk, or what it is mounted from, fails", "writing in %s failed: %v", b.StateDir, cause(err))
	}
	median := times[len(times)/2]
	v, remedy := OK, ""
	switch {
	case median > syncBad:
		v, remedy = Warning, "set EASEL_HOME to a faster local disk: every submitted job waits that long"
	case median > syncSlow:
		v, remedy = Note, "a faster disk makes single submissions quicker; groups share one wait"
	}
	return one(v, remedy, "4 KiB are safe after %s (median of %d), worst %s", median.Round(10*time.Microsecond), len(times), times[len(times)-1].Round(10*time.Microsecond))
}

// syncSample is how long each write took to be durable, shortest first.
func syncSample(ctx context.Context, f *os.File) ([]time.Duration, error) {
	block := make([]byte, 4096)
	var times []time.Duration
	for begin := time.Now(); len(times) < syncMost && time.Since(begin) < syncWithin && ctx.Err() == nil; {
		start := time.Now()
		if _, err := f.WriteAt(block, int64(len(times))*4096); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	if len(times) == 0 {
		return nil, errors.Join(ctx.Err(), errors.New("no time left"))
	}
	slices.Sort(times)
	return times, nil
}

// mountPatience is how long a mount may take to answer one question.
const mountPatience = 3 * time.Second

// look asks a directory about its file system, in a goroutine that is left behind
// when the kernel does not answer.
func look(ctx context.Context, dir string) space {
	answer := make(chan space, 1)
	go func() { answer <- statfs(dir) }()
	select {
	case s := <-answer:
		return s
	case <-ctx.Done():
	case <-time.After(mountPatience):
	}
	return space{notAvailable: errHangs}
}

var errHangs = fmt.Errorf("it does not answer within %s", mountPatience)

// checkMounts looks at the directories that come from elsewhere.
func checkMounts(ctx context.Context, b *Box) []Finding {
	var list []Finding
	for _, p := range b.places() {
		s := look(ctx, b.path(p.dir))
		f := Finding{ID: "mount-" + strings.ReplaceAll(p.use, " ", "-"), Title: p.use + " at " + p.dir, Verdict: OK}
		switch {
		case errors.Is(s.notAvailable, errHangs):
			f.Verdict, f.Seen = Problem, "it does not answer: whoever reads it hangs"
			f.Remedy = "mount it again (umount -l " + p.dir + " first); jobs that need it wait meanwhile"
		case missing(s.notAvailable) && p.use == "state":
			continue // it is made by the first start
		case s.notAvailable != nil:
			f.Verdict, f.Seen, f.Remedy = Problem, fmt.Sprintf("%v", cause(s.notAvailable)), "mount it, or correct the configuration"
		case s.cannotDoWAL && p.use == "state":
			f.Verdict, f.Seen = Problem, s.fs+" cannot hold the records safely"
			f.Remedy = "set EASEL_HOME to a directory on a local disk"
		case s.readOnly && p.use != "temporary files" && !b.mayBeReadOnly(p.dir):
			f.Verdict, f.Seen, f.Remedy = Problem, "it is mounted read-only", "mount -o remount,rw "+p.dir+"; after a disk error the kernel does that by itself: dmesg"
		case s.cannotDoWAL:
			f.Seen = s.fs + ": models load at the speed of the network"
		default:
			continue
		}
		list = append(list, f)
	}
	if len(list) == 0 {
		return one(OK, "", "every directory answers")
	}
	return list
}

// mayBeReadOnly reports whether the configuration says that a mount is.
func (b *Box) mayBeReadOnly(dir string) bool {
	for _, m := range b.Config.Mount {
		if m.Path == dir {
			return m.ReadOnly
		}
	}
	return false
}

// checkPermissions looks at who may read and write what.
func checkPermissions(_ context.Context, b *Box) []Finding {
	var list []Finding
	if st, err := os.Stat(b.StateDir); err == nil {
		if perm := st.Mode().Perm(); perm&0o077 != 0 && onUnix {
			list = append(list, Finding{
				ID: "permissions-state", Verdict: Warning, Seen: fmt.Sprintf("%s has mode %04o: others can read the queue, or reach its socket", b.StateDir, perm),
				Remedy: "chmod 700 " + b.StateDir,
			})
		}
		if !writable(b.StateDir) {
			list = append(list, Finding{
				ID: "permissions-state", Verdict: Problem, Seen: b.StateDir + " cannot be written by this account",
				Remedy: "ls -ld " + b.StateDir + "; another account started Easel there? chown it back, or set EASEL_HOME",
			})
		}
	}
	base := b.Config.Worker.Data
	if base == "" {
		base = b.Config.Worker.ComfyUI
	}
	for _, name := range []string{"output", "input", "user", "custom_nodes"} {
		if base == "" || b.Config.Worker.URL != "" {
			break
		}
		dir := filepath.Join(base, name)
		if b.exists(dir) && !writable(b.path(dir)) {
			list = append(list, Finding{
				ID: "permissions-" + name, Verdict: Warning, Seen: dir + " cannot be written by this account, which runs ComfyUI",
				Remedy: "chown or chmod it; ls -ld " + dir,
			})
		}
	}
	if len(list) == 0 {
		return one(OK, "", "what must be written can be written, and the state is private")
	}
	return list
}
