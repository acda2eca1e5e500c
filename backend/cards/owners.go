//go:build linux

package cards

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"easel/backend"
	"easel/backend/process"
	"easel/gpu"
)

// owners finds out whose processes hold a card's memory.
//
// A driver names processes by the pids of the machine. Inside a container those
// mean nothing, or something else, and often the driver names none at all. What is
// ours is then what came on top of the card's memory since no worker ran there, and
// is marked as inferred.
type owners struct {
	// nested: this process is in a pid namespace of its own, so that a pid of the
	// driver may be that of another process here.
	nested bool
	seen   map[int]person    // processes by pid
	users  map[uint32]string // names by uid
	empty  map[string]before // by card
}

// person is what is shown of a process.
type person struct {
	ticks      uint64
	name, user string
}

// before is a card while no worker of ours ran on it.
type before struct {
	used int64
	pids []int
}

// rootNamespace is the pid namespace of the machine itself: its number is fixed in
// the kernel (PROC_PID_INIT_INO).
const rootNamespace = "pid:[4026531836]"

func newOwners() *owners {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return &owners{
		nested: err == nil && ns != rootNamespace,
		seen:   map[int]person{}, users: map[uint32]string{}, empty: map[string]before{},
	}
}

// Bounds of what is guessed, in bytes: a driver holds some memory of its own.
const (
	leastOurs    = 16 << 20
	leastNobodys = 256 << 20
)

// resolve turns a reading into what people are shown.
func (o *owners) resolve(r gpu.Reading, workers []Worker) []backend.GPU {
	list := make([]backend.GPU, 0, len(r.Cards))
	live := map[int]bool{}
	for _, c := range r.Cards {
		g := shape(r, c)
		o.attribute(&g, c, on(c, workers, len(r.Cards)), workers, live)
		list = append(list, g)
	}
	for pid := range o.seen {
		if !live[pid] {
			delete(o.seen, pid)
		}
	}
	return list
}

// shape is a card without its processes.
func shape(r gpu.Reading, c gpu.Card) backend.GPU {
	return backend.GPU{
		Index: c.Index, UUID: c.UUID, Name: c.Name, MemoryUsed: c.MemoryUsed, MemoryTotal: c.MemoryTotal,
		Utilisation: c.Utilisation, Temperature: c.Temperature, Power: c.Power, PowerLimit: c.PowerLimit,
		Throttle: append([]string{}, c.Throttle...), Source: r.Source, Processes: []backend.GPUProcess{}, Note: c.Note,
		Driver: r.Driver, ClockSM: c.ClockSM, ClockMemory: c.ClockMemory, ECC: c.ECC, Lost: c.Lost, At: backend.At(r.At),
	}
}

// on is the worker that runs, or may run, on a card; nil when none does, or when it
// cannot be told which card it uses.
func on(c gpu.Card, workers []Worker, cards int) *Worker {
	for i, w := range workers {
		if !w.Paints || w.PID == 0 {
			continue
		}
		switch {
		case w.GPU == "" && cards == 1,
			w.GPU != "" && w.GPU == strconv.Itoa(c.Index),
			strings.HasPrefix(w.GPU, "GPU-") && strings.HasPrefix(c.UUID, w.GPU):
			return &workers[i]
		}
	}
	return nil
}

// attribute fills in the processes of a card. here is the worker on it, if any.
func (o *owners) attribute(g *backend.GPU, c gpu.Card, here *Worker, all []Worker, live map[int]bool) {
	if c.Lost || g.Source == gpu.ComfyUI {
		return
	}
	var strangers []gpu.Process
	ours := false
	for _, p := range c.Processes {
		who, ok := o.lookup(p.PID)
		if !ok {
			strangers = append(strangers, p)
			continue
		}
		live[p.PID] = true
		entry := backend.GPUProcess{PID: p.PID, Name: who.name, User: who.user, Memory: p.Memory, Worker: owner(p.PID, all)}
		entry.Ours = entry.Worker != ""
		ours = ours || entry.Ours
		g.Processes = append(g.Processes, entry)
	}
	key := cardKey(c)
	if here == nil {
		o.rememberEmpty(key, c, strangers)
	} else if !ours {
		strangers = o.infer(g, c, here, strangers, live)
	}
	for _, p := range strangers {
		name := p.Name
		if name == "" {
			name = "not of this container"
		}
		g.Processes = append(g.Processes, backend.GPUProcess{PID: p.PID, Name: filepath.Base(name), Memory: p.Memory})
	}
	slices.SortStableFunc(g.Processes, func(a, b backend.GPUProcess) int {
		return int(min(max(size(b.Memory)-size(a.Memory), -1), 1))
	})
	o.sayUnnamed(g, c)
}

func cardKey(c gpu.Card) string {
	if c.UUID != "" {
		return c.UUID
	}
	return strconv.Itoa(c.Index)
}

func size(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

// rememberEmpty keeps how a card is without a worker.
func (o *owners) rememberEmpty(key string, c gpu.Card, strangers []gpu.Process) {
	if c.MemoryUsed == nil {
		return
	}
	b := before{used: *c.MemoryUsed}
	for _, p := range strangers {
		b.pids = append(b.pids, p.PID)
	}
	o.empty[key] = b
}

// infer finds the worker's memory on a card whose processes say nothing, by what
// came since the card was without it. It returns the strangers that remain.
func (o *owners) infer(g *backend.GPU, c gpu.Card, w *Worker, strangers []gpu.Process, live map[int]bool) []gpu.Process {
	b, known := o.empty[cardKey(c)]
	if !known || c.MemoryUsed == nil || *c.MemoryUsed-b.used < leastOurs {
		return strangers
	}
	memory := gpu.Known(*c.MemoryUsed - b.used)
	if len(strangers) > 0 {
		var came, were []gpu.Process
		for _, p := range strangers {
			if slices.Contains(b.pids, p.PID) {
				were = append(were, p)
			} else {
				came = append(came, p)
			}
		}
		if len(came) == 0 {
			return strangers
		}
		if sum := total(came); sum > 0 {
			memory = &sum
		}
		strangers = were
	}
	who, ok := o.lookupHere(w.PID)
	if !ok {
		return strangers
	}
	live[w.PID] = true
	g.Processes = append(g.Processes, backend.GPUProcess{
		PID: w.PID, Name: who.name, User: who.user, Memory: memory, Ours: true, Worker: w.ID, Inferred: true,
	})
	return strangers
}

func total(list []gpu.Process) (sum int64) {
	for _, p := range list {
		sum += size(p.Memory)
	}
	return sum
}

// sayUnnamed adds a sentence when memory is in use and nobody is named.
func (o *owners) sayUnnamed(g *backend.GPU, c gpu.Card) {
	if len(g.Processes) > 0 || c.MemoryUsed == nil || *c.MemoryUsed < leastNobodys || g.Note != "" {
		return
	}
	if c.MemoryTotal != nil && *c.MemoryUsed < *c.MemoryTotal/20 {
		return
	}
	why := "the driver names no process that holds it"
	if c.Processes == nil {
		why = "who holds it cannot be read"
	}
	if o.nested {
		why += " (usual in a container)"
	}
	g.Note = fmt.Sprintf("%s in use: %s", people(*c.MemoryUsed), why)
}

// owner is the worker that a process belongs to, "" when it is not ours: it is the
// worker's process, of its session or cgroup, or descends from it.
func owner(pid int, workers []Worker) string {
	info, err := process.Stat(pid)
	if err != nil {
		return ""
	}
	for at, depth := info, 0; depth < 32; depth++ {
		for _, w := range workers {
			if w.PID != 0 && (w.PID == at.PID || w.PID == at.SID) {
				return w.ID
			}
		}
		if at.PPID <= 1 {
			break
		}
		if at, err = process.Stat(at.PPID); err != nil {
			break
		}
	}
	group := cgroup(pid)
	for _, w := range workers {
		if w.PID != 0 && group != "" && group == cgroup(w.PID) && group != cgroup(os.Getpid()) {
			return w.ID
		}
	}
	return ""
}

// cgroup is a process's place among the control groups, "" when unknown.
func cgroup(pid int) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	return string(b)
}

// lookup finds the process that a driver's pid means. In a namespace of our own the
// same number may be another process: it then must hold the card's device open.
func (o *owners) lookup(pid int) (person, bool) {
	if o.nested && !holdsDevice(pid) {
		return person{}, false
	}
	return o.lookupHere(pid)
}

// lookupHere is what is shown of a process of our own namespace.
func (o *owners) lookupHere(pid int) (person, bool) {
	info, err := process.Stat(pid)
	if err != nil || info.Dead() {
		return person{}, false
	}
	if p, ok := o.seen[pid]; ok && p.ticks == info.StartTicks {
		return p, true
	}
	p := person{ticks: info.StartTicks, name: programName(pid, info.Name)}
	if st, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			p.user = o.userName(sys.Uid)
		}
	}
	o.seen[pid] = p
	return p, true
}

func (o *owners) userName(uid uint32) string {
	if n, ok := o.users[uid]; ok {
		return n
	}
	n := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(n); err == nil {
		n = u.Username
	}
	o.users[uid] = n
	return n
}

// programName is the program of a process; for an interpreter, its script too.
func programName(pid int, comm string) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	args := bytes.Split(bytes.TrimRight(b, "\x00"), []byte{0})
	if err != nil || len(args[0]) == 0 {
		return comm
	}
	name := filepath.Base(string(args[0]))
	if !strings.HasPrefix(name, "python") {
		return name
	}
	for i, a := range args[1:] {
		switch {
		case string(a) == "-m" && i+2 < len(args):
			return name + " -m " + string(args[i+2])
		case len(a) > 0 && a[0] != '-':
			return name + " " + filepath.Base(string(a))
		}
	}
	return name
}

// holdsDevice reports whether a process has a card's device open.
func holdsDevice(pid int) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		to, err := os.Readlink(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		for _, dev := range []string{"/dev/nvidia", "/dev/dxg", "/dev/kfd", "/dev/dri/"} {
			if strings.HasPrefix(to, dev) {
				return true
			}
		}
	}
	return false
}

// people writes bytes for people: small ones in MiB.
func people(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
