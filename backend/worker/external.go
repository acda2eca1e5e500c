package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/process"
)

// external looks after a ComfyUI that somebody else runs: whether it answers, which
// launch of it that is, and what it logs.
type external struct {
	m  *Manager
	c  *comfy.Client
	id string // of our socket
	// launch is the one seen last, fixed to pid where that can be seen.
	launch string
	pid    int
	told   bool // its end was told

	// mu guards the fields that follow.
	mu     sync.Mutex
	log    startLog
	piece  string // of a line without its end
	number int64  // of the last line
	heard  string // launch whose lines were read
}

// runExternal drives a worker under worker.url until the context ends. Its state
// follows whether it answers: one question when it comes, then an open socket.
func (m *Manager) runExternal(ctx context.Context) error {
	x := &external{m: m, id: "easel-watch-" + uuid.NewString(), c: m.newClient(m.spec.URL)}
	defer x.c.Close()
	if rec, found, err := ReadRecord(m.spec.StateDir, m.spec.ID); err == nil && found && rec.URL == m.spec.URL {
		x.launch, x.pid = rec.Launch, rec.PID
		m.edit(func(w *backend.Worker) { w.LastDeath = rec.LastDeath })
	}
	m.run.rec.ID, m.run.rec.URL = m.spec.ID, m.spec.URL
	m.wg.Add(1)
	go func() { defer m.wg.Done(); m.dropEnds(ctx) }()
	wait := 250 * time.Millisecond
	for ctx.Err() == nil {
		if x.connect(ctx) {
			wait = 250 * time.Millisecond
			x.listen(ctx)
		}
		if !sleep(ctx, wait) {
			break
		}
		wait = min(wait*2, 5*time.Second)
	}
	return nil
}

// dropEnds keeps Ended from filling up: nothing of ours ends here.
func (m *Manager) dropEnds(ctx context.Context) {
	for {
		select {
		case <-m.ends:
		case <-ctx.Done():
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// connect asks once whether the server answers, and makes the worker ready.
func (x *external) connect(ctx context.Context) bool {
	m := x.m
	stats, err := x.c.SystemStats(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		x.lost(err)
		return false
	}
	x.identify()
	var dirs comfy.Dirs
	if x.pid != 0 {
		dirs = foldersOf(x.pid)
	}
	if s := m.State().State; s == backend.WorkerStopped || s == backend.WorkerBackoff {
		_ = m.to(backend.WorkerPreparing, "looking for it at "+m.spec.URL)
	}
	m.mu.Lock()
	m.client, m.last, m.dirs = x.c, x.launch, dirs
	m.w.Launch, m.w.ComfyUI = x.launch, &backend.ComfyUIInfo{Version: stats.Version}
	if x.pid != 0 {
		pid := x.pid
		m.w.PID = &pid
	}
	m.mu.Unlock()
	_ = m.to(backend.WorkerStarting, "it answers")
	_ = m.to(backend.WorkerReady, "ready at "+m.spec.URL+"; run by somebody else")
	m.mu.Lock()
	if m.settleBusy() {
		m.tell()
	}
	m.mu.Unlock()
	return true
}

// identify settles which launch answers. Where the process can be seen on this
// machine, its pid and start time are the launch; else it is the same one until a
// refused connection shows that it ended.
func (x *external) identify() {
	launch, pid := x.launch, 0
	if port, ok := localPort(x.m.spec.URL); ok {
		if l, found := listenerOn(port); found && l.pid != 0 {
			pid = l.pid
			launch = fmt.Sprintf("pid-%d-%d", l.pid, l.ticks)
		}
	}
	if launch == "" || pid == 0 && x.pid != 0 {
		launch = uuid.NewString()
	}
	if x.launch != "" && launch != x.launch {
		x.ended("the ComfyUI at " + x.m.spec.URL + " was restarted by somebody else")
	}
	x.launch, x.pid, x.told = launch, pid, false
	x.save()
}

func (x *external) save() {
	m := x.m
	m.run.rec.Launch, m.run.rec.PID, m.run.rec.Ready = x.launch, x.pid, true
	m.save()
}

// ended tells that a launch is gone, once.
func (x *external) ended(why string) {
	if x.launch == "" || x.told {
		return
	}
	x.told = true
	m := x.m
	v := backend.Verdict{
		Kind: backend.KindUnknown, Certainty: backend.Unknown, Summary: why, Evidence: []string{},
		Remedy: "look where it was started: Easel is not its parent and did not see how it ended",
		At:     backend.Now(), Worker: m.spec.ID, Launch: x.launch,
	}
	m.mu.Lock()
	v.Job = m.job
	if m.job != nil && m.node != "" {
		node := m.node
		v.Node = &node
	}
	m.w.LastDeath = &v
	m.mu.Unlock()
	m.run.rec.LastDeath = &v
	m.report(v, "")
}

// lost notes that the server does not answer. A refused connection means that
// nothing listens there: the process has ended.
func (x *external) lost(err error) {
	m := x.m
	reason := fmt.Sprintf("no answer from %s: %s", m.spec.URL, comfy.Plain(rootCause(err).Error(), 200))
	if errors.Is(err, syscall.ECONNREFUSED) {
		x.ended("the ComfyUI at " + m.spec.URL + " ended: nothing listens there")
		if x.launch != "" {
			x.launch, x.pid = "", 0
			x.save()
		}
	}
	m.mu.Lock()
	m.w.PID, m.w.Launch = nil, ""
	state := m.w.State
	m.mu.Unlock()
	switch state {
	case backend.WorkerStopped, backend.WorkerBackoff: // not seen yet, or waited for
		if m.State().Reason != reason {
			m.edit(func(w *backend.Worker) { w.Reason = reason })
		}
	default:
		_ = m.to(backend.WorkerExited, reason)
		_ = m.to(backend.WorkerBackoff, reason+"; trying again until it does")
	}
}

// listen holds a socket open until it breaks, and reads the log meanwhile.
func (x *external) listen(ctx context.Context) {
	m := x.m
	subscribed := false
	err := x.c.Listen(ctx, x.id, func(msg comfy.Message) {
		switch msg := msg.(type) {
		case comfy.Status:
			if !subscribed {
				subscribed = true
				m.wg.Add(1)
				go func() { defer m.wg.Done(); x.subscribe(ctx) }()
			}
		case comfy.LogEntries:
			x.entries(msg.Entries)
		}
	})
	if ctx.Err() != nil {
		return
	}
	if m.State().State == backend.WorkerReady || m.State().State == backend.WorkerBusy {
		reason := fmt.Sprintf("the connection to %s ended: %s", m.spec.URL, comfy.Plain(rootCause(err).Error(), 200))
		_ = m.to(backend.WorkerExited, reason)
		_ = m.to(backend.WorkerBackoff, reason+"; trying again until it answers")
	}
}

// subscribe reads the log that the server kept, once a launch, and asks for what
// comes. Not every server gives it.
func (x *external) subscribe(ctx context.Context) {
	_, launch, ok := x.m.Client()
	if !ok {
		return
	}
	x.mu.Lock()
	fresh := x.heard != launch
	x.mu.Unlock()
	if fresh {
		if entries, err := x.c.LogsRaw(ctx); err == nil {
			x.mu.Lock()
			x.heard, x.number, x.piece, x.log = launch, 0, "", startLog{}
			for _, e := range entries {
				x.text(launch, e)
			}
			x.mu.Unlock()
		}
	}
	if err := x.c.SubscribeLogs(ctx, x.id, true); err != nil && ctx.Err() == nil {
		x.m.log.Info("no log from this ComfyUI", "err", err)
	}
}

// entries takes new pieces of the log.
func (x *external) entries(list []comfy.LogEntry) {
	_, launch, ok := x.m.Client()
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range list {
		x.text(launch, e)
	}
}

// text cuts a piece into lines; what follows a carriage return is a bar until its
// line ends. It needs mu.
func (x *external) text(launch string, e comfy.LogEntry) {
	at := backend.Now()
	if !e.At.IsZero() {
		at = backend.At(e.At)
	}
	x.piece += e.Text
	for {
		line, rest, ended := strings.Cut(x.piece, "\n")
		if !ended {
			break
		}
		x.piece = rest
		x.number++
		x.tell(backend.LogLine{Launch: launch, N: x.number, At: at, Text: lastBar(line), Level: x.log.line(lastBar(line))})
	}
	if len(x.piece) > maxPiece {
		x.piece = x.piece[len(x.piece)-maxPiece:]
	}
	if bar := lastBar(x.piece); bar != "" && strings.Contains(x.piece, "\r") {
		x.tell(backend.LogLine{Launch: launch, N: x.number + 1, At: at, Text: bar, Level: levelInfo, Bar: true})
	}
}

// maxPiece is how much of a line without an end is kept, in bytes.
const maxPiece = 64 << 10

// lastBar is what a terminal would show of a line that is redrawn by \r.
func lastBar(s string) string {
	s = strings.TrimRight(s, "\r")
	return process.Clean([]byte(s[strings.LastIndexByte(s, '\r')+1:]))
}

func (x *external) tell(l backend.LogLine) {
	x.m.lines.add(l)
	if x.m.o.OnLine != nil {
		x.m.o.OnLine(l)
	}
}

// localPort is the port of a URL that means this machine.
func localPort(address string) (int, bool) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, false
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return 0, false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.Atoi(port)
	return n, err == nil
}
