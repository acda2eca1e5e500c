package evidence

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestGroupsOf(t *testing.T) {
	const (
		v1    = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
		both  = "36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" + v1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		v2    = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		inner = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	)
	for _, c := range []struct {
		name, cgroup, mounts string
		want                 []Group
	}{
		{"v1, with v2 beside it", "9:name=systemd:/\n4:memory:/a/b\n0::/other\n", both, []Group{
			{Path: "/a/b", Dir: "/sys/fs/cgroup/memory/a/b"}, {Path: "/a", Dir: "/sys/fs/cgroup/memory/a"}, {Path: "/", Dir: "/sys/fs/cgroup/memory"},
		}},
		{"v2", "0::/system.slice/easel.service\n", v2, []Group{
			{Path: "/system.slice/easel.service", Dir: "/sys/fs/cgroup/system.slice/easel.service", V2: true},
			{Path: "/system.slice", Dir: "/sys/fs/cgroup/system.slice", V2: true},
			{Path: "/", Dir: "/sys/fs/cgroup", V2: true},
		}},
		{"a container without a namespace of cgroups", "4:memory:/docker/abc\n", inner, []Group{{Path: "/", Dir: "/sys/fs/cgroup/memory"}}},
		{"outside of what is mounted", "4:memory:/docker/xyz\n", inner, nil},
		{"none", "0::/x\n", v1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			proc := t.TempDir()
			write(t, filepath.Join(proc, "7", "cgroup"), c.cgroup)
			write(t, filepath.Join(proc, "self", "mountinfo"), c.mounts)
			got, err := groupsOf(proc, 7)
			if (err != nil) != (c.want == nil) || len(got) != len(c.want) {
				t.Fatalf("%+v, %v", got, err)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%+v, want %+v", got[i], c.want[i])
				}
			}
			if above, ok := (Group{Path: "/a", Dir: "/m/a"}).Above(); !ok || above.Dir != "/m" || above.Path != "/" {
				t.Errorf("above: %+v", above)
			}
		})
	}
}

func TestCounters(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"v1/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "v1/memory.usage_in_bytes": "734003200\n",
		"v1/memory.limit_in_bytes": "9223372036854771712\n", "v1/memory.stat": "cache 5\ntotal_inactive_file 3200\n",
		"v2/memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", "v2/memory.current": "1000\n",
		"v2/memory.max": "2000\n", "v2/memory.stat": "inactive_file 100\n", "open/memory.max": "max\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	for _, c := range []struct {
		g    Group
		want Counters
	}{
		{Group{Dir: filepath.Join(dir, "v1")}, Counters{OOMKills: 3, Usage: 734000000}},
		{Group{Dir: filepath.Join(dir, "v2"), V2: true}, Counters{OOMKills: 1, Usage: 900, Limit: 2000}},
		{Group{Dir: filepath.Join(dir, "open"), V2: true}, Counters{OOMKills: -1, Usage: -1}},
		{Group{Dir: filepath.Join(dir, "none")}, Counters{OOMKills: -1, Usage: -1, Limit: -1}},
	} {
		if got := c.g.Read(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.g.Dir, got, c.want)
		}
	}
}

// lines are as the kernel writes them to /dev/kmsg.
func lines(t *testing.T, boot time.Time, records ...string) []KernelLine {
	t.Helper()
	var out []KernelLine
	for _, r := range records {
		if l, ok := parseKmsg(r, boot); ok && telling(l.Text) {
			out = append(out, l)
		}
	}
	return out
}

func TestKernelLines(t *testing.T) {
	boot := time.Unix(1000, 0)
	got := lines(
		t, boot,
		"4,100,2369125942,-;python3 invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
		"6,101,2369133845,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/fixture-oom,task_memcg=/fixture-oom/x,task=python3,pid=23575,uid=0",
		"3,102,2369133883,-;Memory cgroup out of memory: Killed process 23575 (python3) total-vm:1607280kB, anon-rss:713388kB\n SUBSYSTEM=memory",
		"6,103,2369200000,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice,task=stress,pid=99,uid=1000",
		"3,104,2369200001,-;Out of memory: Killed process 99 (stress) total-vm:16kB",
		"3,105,2369300000,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=4711, name=python, Ch 00000008, intr 10000000",
		"3,106,2369300001,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
		"12,107,2369300002,-;Memory cgroup out of memory: Killed process 1 (written by a program)",
		"nonsense",
	)
	kills := OOMKills(got)
	if len(kills) != 2 || kills[0].PID != 23575 || kills[0].Group != "/fixture-oom" || kills[0].Task != "/fixture-oom/x" || kills[0].Name != "python3" {
		t.Errorf("%+v", kills)
	}
	if at := boot.Add(2369133883 * time.Microsecond); !kills[0].At.Equal(at) {
		t.Errorf("at %s, want %s", kills[0].At, at)
	}
	if kills[1].PID != 99 || kills[1].Group != "" || kills[1].Task != "/user.slice" {
		t.Errorf("%+v", kills[1])
	}
	xids := Xids(got)
	if len(xids) != 2 || xids[0].Code != 31 || xids[0].PID != 4711 || xids[1].Code != 79 || xids[1].PID != 0 || xids[1].Device != "0000:3b:00" {
		t.Errorf("%+v", xids)
	}
}

func TestThisMachine(t *testing.T) {
	if m := ReadMemory(); m.Total <= 0 || m.Available <= 0 || m.Available > m.Total {
		t.Errorf("memory %+v", m)
	}
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	u := UsageOf([]int{os.Getpid(), c.Process.Pid})
	if u.Processes != 2 || u.RSS < 1<<20 || u.Peak < 1<<20 {
		t.Errorf("usage %+v", u)
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	if u := UsageOf([]int{c.Process.Pid}); u.Processes != 0 {
		t.Errorf("a process that is gone uses %+v", u)
	}
	if p := Program(os.Getpid()); p != filepath.Base(must(os.Executable())) {
		t.Errorf("this program is %q", p)
	}
	k, err := OpenKernelLog(true)
	if err != nil {
		t.Logf("pid %s: %v", strconv.Itoa(os.Getpid()), err)
		return
	}
	defer k.Close()
	for _, l := range k.Lines(time.Time{}) {
		if l.At.After(time.Now().Add(time.Minute)) {
			t.Errorf("a line of the future: %+v", l)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
