package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	nvrmVersion = regexp.MustCompile(`Kernel Module(?: for \S+)?\s+(\d[\d.]*)`)
	smiCUDA     = regexp.MustCompile(`CUDA(?: UMD)? Version\s*:\s*([\d.]+)`)
)

// checkDriver looks for a driver and whether this account may use it.
func checkDriver(ctx context.Context, b *Box) []Finding {
	text := b.read("/proc/driver/nvidia/version")
	if text == "" {
		return otherDriver(b)
	}
	version := "of unknown version"
	if m := nvrmVersion.FindStringSubmatch(text); m != nil {
		version = m[1]
	}
	for _, dev := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm"} {
		f, err := os.OpenFile(b.path(dev), os.O_RDWR, 0)
		if err != nil {
			remedy := "join the group that owns it: ls -l " + dev
			if missing(err) {
				remedy = "nvidia-modprobe -u -c0 makes it; a container must be given the cards (--gpus all)"
			}
			return one(Problem, remedy, "NVIDIA driver %s is loaded and %s cannot be opened: %v", version, dev, cause(err))
		}
		_ = f.Close()
	}
	out, err := b.Run(ctx, b.Environ, []string{"nvidia-smi"})
	switch {
	case err != nil && strings.Contains(string(out), "Driver/library version mismatch"):
		return one(Problem, "reboot, or unload and load the nvidia modules: the driver was updated under the running kernel module",
			"the kernel module is %s and its libraries are of another version", version)
	case err != nil && ctx.Err() != nil:
		return one(Problem, "a card that fell off the bus does that: dmesg | grep -i xid; a reboot usually helps", "NVIDIA driver %s does not answer", version)
	case err != nil:
		return one(Note, "", "NVIDIA driver %s; nvidia-smi does not run: %v", version, err)
	}
	if m := smiCUDA.FindSubmatch(out); m != nil {
		return one(OK, "", "NVIDIA driver %s, for CUDA up to %s", version, m[1])
	}
	return one(OK, "", "NVIDIA driver %s", version)
}

// otherDriver is what there is without NVIDIA's.
func otherDriver(b *Box) []Finding {
	cards, err := filepath.Glob(b.path("/sys/class/drm/card[0-9]*/device/vendor"))
	if err != nil {
		return nil
	}
	for _, f := range cards {
		vendor, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		switch strings.TrimSpace(string(vendor)) {
		case "0x1002":
			return amdDriver(b)
		case "0x10de":
			return one(Problem, "install NVIDIA's driver", "there is a card of NVIDIA and its driver is not loaded")
		}
	}
	return one(Note, "ComfyUI runs with --cpu only", "no driver of a GPU is loaded")
}

func amdDriver(b *Box) []Finding {
	f, err := os.OpenFile(b.path("/dev/kfd"), os.O_RDWR, 0)
	if err != nil {
		return one(Problem, "join the groups render and video, or give the container --device=/dev/kfd --device=/dev/dri", "a card of AMD, and /dev/kfd cannot be opened: %v", cause(err))
	}
	_ = f.Close()
	return one(OK, "", "amdgpu, %s", orElse(b.read("/sys/module/amdgpu/version"), "version of the kernel"))
}

// meminfo is one line of /proc/meminfo in bytes, 0 when it is not there.
func (b *Box) meminfo(name string) int64 {
	for line := range strings.SplitSeq(b.read("/proc/meminfo"), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// leastRAM is what a ComfyUI with a small model needs.
const leastRAM = 8 << 30

// checkMemory looks at RAM, swap and shared memory.
func checkMemory(_ context.Context, b *Box) []Finding {
	total, free, swap := b.meminfo("MemTotal"), b.meminfo("MemAvailable"), b.meminfo("SwapTotal")
	if total == 0 {
		return nil
	}
	limit := total
	where := ""
	if n, dir := b.memoryLimit(); n > 0 && n < total {
		limit, where = n, " (limit of "+dir+")"
	}
	f := Finding{Verdict: OK, Seen: fmt.Sprintf("%s of %s free, %s of swap", gib(min(free, limit)), gib(limit)+where, gib(swap))}
	switch {
	case limit < leastRAM:
		f.Verdict, f.Remedy = Warning, "models are read through RAM: more of it, or smaller models; --disable-pinned-memory and --cache-none in worker.args need less"
	case free < limit/10:
		f.Verdict, f.Remedy = Warning, "something holds it: ps aux --sort=-rss | head; easel worker free gives back what ComfyUI caches"
	case swap == 0 && limit < 32<<30:
		f.Verdict, f.Remedy = Note, "a few GiB of swap turn a kill by the kernel into a slow minute"
	}
	list := []Finding{f}
	if b.read("/proc/sys/vm/overcommit_memory") == "2" {
		list = append(list, Finding{
			ID: "overcommit", Verdict: Warning, Seen: "vm.overcommit_memory is 2: torch reserves far more address space than it uses, and may be refused",
			Remedy: "sysctl vm.overcommit_memory=0",
		})
	}
	return list
}

// own is the path of this process's control group below its root, and whether that
// is version 2.
func (b *Box) own() (path string, v2 bool) {
	for line := range strings.SplitSeq(b.read("/proc/self/cgroup"), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && parts[1] == "" && b.exists("/sys/fs/cgroup/cgroup.controllers") {
			return parts[2], true
		}
		if strings.Contains(","+parts[1]+",", ",memory,") {
			return parts[2], false
		}
	}
	return "", false
}

// ancestors are the directories of our control group and all above it, ours first.
func (b *Box) ancestors() (dirs []string, v2 bool) {
	path, v2 := b.own()
	if path == "" {
		return nil, v2
	}
	root := "/sys/fs/cgroup"
	if !v2 {
		root = "/sys/fs/cgroup/memory"
	}
	for p := filepath.Clean("/" + path); ; p = filepath.Dir(p) {
		if dir := filepath.Join(root, p); b.exists(dir) {
			dirs = append(dirs, dir)
		}
		if p == "/" {
			return dirs, v2
		}
	}
}

// memoryLimit is the tightest limit above us and where it is set, 0 when none is.
func (b *Box) memoryLimit() (int64, string) {
	dirs, v2 := b.ancestors()
	name := "memory.max"
	if !v2 {
		name = "memory.limit_in_bytes"
	}
	var least int64
	at := ""
	for _, dir := range dirs {
		n, err := strconv.ParseInt(b.read(filepath.Join(dir, name)), 10, 64)
		if err == nil && n < 1<<60 && (least == 0 || n < least) {
			least, at = n, dir
		}
	}
	return least, at
}

// checkCgroup says whether a worker can get a limit of its own, and whether an
// ancestor dies as a whole.
func checkCgroup(_ context.Context, b *Box) []Finding {
	dirs, v2 := b.ancestors()
	if len(dirs) == 0 {
		return one(Note, "", "none can be seen: a kill by the kernel is told from its log or the counters of the machine only")
	}
	var list []Finding
	for _, dir := range dirs {
		if v2 && b.read(filepath.Join(dir, "memory.oom.group")) == "1" {
			list = append(list, Finding{
				ID: "oom-group", Verdict: Warning,
				Seen:   dir + " has memory.oom.group = 1: when memory runs out there, everything in it is killed together, Easel too",
				Remedy: "in a container restart it with its engine (restart: always): the queue is kept; on a machine of your own: echo 0 > " + dir + "/memory.oom.group",
			})
		}
	}
	version := "v1"
	if v2 {
		version = "v2"
	}
	if writable(b.path(dirs[0])) {
		return append(list, Finding{Verdict: OK, Seen: version + ", and a worker can get a limit of its own in " + dirs[0]})
	}
	return append(list, Finding{
		Verdict: Note, Seen: version + ", and " + dirs[0] + " cannot be written: a worker gets no limit of its own, oom_score_adj makes it the first to go instead",
		Remedy: "easel service install gives Easel a control group of its own (Delegate=yes)",
	})
}

// checkKillers names the programs that kill others when memory runs short.
func checkKillers(_ context.Context, b *Box) []Finding {
	var seen []string
	for _, comm := range b.processNames() {
		switch comm {
		case "systemd-oomd", "systemd-oom":
			seen = append(seen, "systemd-oomd (kills whole control groups under memory pressure)")
		case "earlyoom":
			seen = append(seen, "earlyoom (kills the largest process before the kernel would)")
		case "nohang", "oomd":
			seen = append(seen, comm)
		}
	}
	if len(seen) == 0 {
		return one(OK, "", "only the kernel")
	}
	return one(Note, "a worker killed by it is started again and says so; to keep it away, ManagedOOMPreference=avoid (systemd-oomd) or --avoid python (earlyoom)", "%s", some(seen, 3))
}

// processNames are the names of all processes.
func (b *Box) processNames() []string {
	files, err := filepath.Glob(b.path("/proc/[0-9]*/comm"))
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil {
			names = append(names, strings.TrimSpace(string(text)))
		}
	}
	return names
}

// account is one line of /etc/passwd.
type account struct {
	name string
	uid  int
}

// people are the accounts that a person can log in with.
func (b *Box) people() []account {
	var list []account
	for line := range strings.SplitSeq(b.read("/etc/passwd"), "\n") {
		f := strings.Split(line, ":")
		if len(f) < 7 {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		if err != nil || uid != 0 && uid < 1000 || uid >= 65534 || strings.HasSuffix(f[6], "nologin") || strings.HasSuffix(f[6], "false") {
			continue
		}
		list = append(list, account{f[0], uid})
	}
	return list
}

// checkUsers says who else can log in: ComfyUI's own port asks nobody for a token.
func checkUsers(_ context.Context, b *Box) []Finding {
	var others []string
	for _, a := range b.people() {
		if a.uid != os.Getuid() && a.uid != 0 {
			others = append(others, a.name)
		}
	}
	if len(others) == 0 {
		return one(OK, "", "nobody else can log in here")
	}
	open := ""
	if b.Status != nil {
		for _, w := range b.Status.Workers {
			if w.URL != "" {
				open = "; ComfyUI's own port (" + w.URL + ") asks nobody for a token and is open to them"
			}
		}
	}
	return one(Note, "run ComfyUI in a network namespace or a container of its own if they must not reach it", "%s can log in here too%s", some(others, 4), open)
}

// checkLocale looks for a locale in which names and prompts survive.
func checkLocale(_ context.Context, b *Box) []Finding {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		v := b.env(name)
		if v == "" {
			continue
		}
		if up := strings.ToUpper(v); strings.Contains(up, "UTF-8") || strings.Contains(up, "UTF8") {
			return one(OK, "", "%s=%s", name, v)
		}
		return one(Warning, "export LANG=C.UTF-8", "%s=%s is no UTF-8: names and prompts that are not English may be drawn or written wrong", name, v)
	}
	return one(Note, "export LANG=C.UTF-8", "none is set")
}

// checkTerminal says what this terminal can show.
func checkTerminal(ctx context.Context, b *Box) []Finding {
	term := b.env("TERM")
	if !b.Terminal {
		return one(OK, "", "no terminal: this was not run by hand")
	}
	if term == "" || term == "dumb" {
		return one(Warning, "export TERM=xterm-256color, or easel --plain", "TERM=%q cannot draw a screen", term)
	}
	pictures := picturesOf(b)
	seen := "TERM=" + term + ", pictures as " + pictures
	if strings.EqualFold(b.env("COLORTERM"), "truecolor") || b.env("COLORTERM") == "24bit" {
		seen += ", all colours"
	}
	if b.env("TMUX") == "" {
		return one(OK, "", "%s", seen)
	}
	out, err := b.Run(ctx, b.Environ, []string{"tmux", "show", "-gv", "allow-passthrough"})
	if got := strings.TrimSpace(string(out)); err == nil && (got == "on" || got == "all") {
		return one(OK, "", "%s, in tmux with allow-passthrough %s", seen, got)
	}
	return one(Note, "tmux set -g allow-passthrough on lets pictures through", "%s, in tmux without allow-passthrough: pictures are drawn as half blocks", seen)
}

// picturesOf guesses by the environment how pictures are shown; the console asks
// the terminal itself.
func picturesOf(b *Box) string {
	program := strings.ToLower(b.env("TERM_PROGRAM") + " " + b.env("TERM"))
	switch {
	case b.env("KITTY_WINDOW_ID") != "", strings.Contains(program, "kitty"), strings.Contains(program, "ghostty"), strings.Contains(program, "wezterm"):
		return "kitty graphics"
	case strings.Contains(program, "iterm"):
		return "iTerm2 images"
	case strings.Contains(program, "foot"), strings.Contains(program, "mlterm"), b.env("WT_SESSION") != "":
		return "sixel"
	}
	return "half blocks, unless the terminal answers that it can do better"
}

// longAgo is before this program was written.
var longAgo = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// checkClock looks for a clock that is wrong or stands alone.
func checkClock(_ context.Context, b *Box) []Finding {
	now := b.Now()
	if now.Before(longAgo) {
		return one(Problem, "set it: date -s, or timedatectl set-ntp true", "it says %s", now.Format(time.DateTime))
	}
	if st, err := os.Stat(filepath.Join(b.StateDir, "jobs.db")); err == nil && st.ModTime().After(now.Add(time.Minute)) {
		return one(Warning, "timedatectl set-ntp true", "it was set back: the records were last written at %s", st.ModTime().Format(time.DateTime))
	}
	if !clockSynced() {
		return one(Note, "timedatectl set-ntp true", "%s; the kernel does not know it to be in step with the world's", now.Format(time.RFC3339))
	}
	return one(OK, "", "%s, in step", now.Format(time.RFC3339))
}

// cause is the innermost error.
func cause(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error }) //nolint:errorlint // one step at a time
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}
