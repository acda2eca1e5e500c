//go:build linux

package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/comfy"
)

// These are the budgets of design §18 that whole processes are needed for. Run
// them with: go test -run '^$' -bench . -benchtime 1x ./cmd

// BenchmarkStatusCommand is exec to result of `easel status`.
func BenchmarkStatusCommand(b *testing.B) {
	box := benchBox(b)
	var rss int64
	for b.Loop() {
		cmd := exec.Command(box.bin, "status", "--json")
		cmd.Env = box.env
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		rss = max(rss, maxRSS(cmd.ProcessState))
	}
	b.ReportMetric(float64(rss)/(1<<20), "MiB-rss")
}

// BenchmarkFirstFrame is exec of the console to its first bytes that draw a
// frame, in a real pty.
func BenchmarkFirstFrame(b *testing.B) {
	box := benchBox(b)
	for _, what := range []struct{ name, needle string }{{"first-frame", "easel"}, {"attached-with-data", "builtin"}} {
		b.Run(what.name, func(b *testing.B) {
			for b.Loop() {
				c := box.console(b, 120, 40)
				c.until(b, what.needle)
				b.StopTimer()
				c.close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkConsoleBytes is what the console writes to the terminal and what it
// costs while it looks at a worker with nothing to do, and at one that paints.
func BenchmarkConsoleBytes(b *testing.B) {
	box := benchBox(b)
	for _, painting := range []bool{false, true} {
		name := map[bool]string{false: "idle", true: "painting"}[painting]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c := box.console(b, 120, 40)
				c.until(b, "builtin")
				if painting {
					box.submit(box.sketch("bytes", 1, 12))
				}
				time.Sleep(2 * time.Second)
				from, cpu := c.count(), cpuSeconds(c.cmd.Process.Pid)
				time.Sleep(8 * time.Second)
				b.ReportMetric(float64(c.count()-from)/8, "B/s")
				b.ReportMetric((cpuSeconds(c.cmd.Process.Pid)-cpu)/8*100, "%cpu")
				b.ReportMetric(rssMiB(c.cmd.Process.Pid), "MiB-rss")
				c.close()
			}
		})
	}
}

// BenchmarkIdleEngine is what engine and keeper cost while nothing happens.
func BenchmarkIdleEngine(b *testing.B) {
	box := benchBox(b)
	st := box.status()
	for b.Loop() {
		e, k := cpuSeconds(st.Engine.PID), cpuSeconds(st.Keeper.PID)
		time.Sleep(10 * time.Second)
		b.ReportMetric((cpuSeconds(st.Engine.PID)-e)*10, "%cpu-engine")
		b.ReportMetric((cpuSeconds(st.Keeper.PID)-k)*10, "%cpu-keeper")
		b.ReportMetric(rssMiB(st.Engine.PID), "MiB-engine")
		b.ReportMetric(rssMiB(st.Keeper.PID), "MiB-keeper")
	}
}

// BenchmarkHundredPrompts runs 100 trivial prompts through Easel and the same
// posted straight to the worker, and reports the ratio: with the built-in worker,
// and with a real ComfyUI when EASEL_LIVE_COMFYUI names one.
func BenchmarkHundredPrompts(b *testing.B) {
	b.Run("built-in", func(b *testing.B) { hundredPrompts(b, benchBox(b)) })
	b.Run("comfyui", func(b *testing.B) {
		box := liveBox(b)
		box.must("serve", "--detach")
		box.workerPID()
		hundredPrompts(b, box)
	})
}

func hundredPrompts(b *testing.B, box *box) {
	st := box.status()
	direct := comfy.New(st.Workers[0].URL)
	for b.Loop() {
		from := time.Now()
		straight(b, direct, 100)
		plain := time.Since(from)
		cpu := cpuSeconds(st.Engine.PID)
		from = time.Now()
		through(b, box, 100)
		b.ReportMetric((cpuSeconds(st.Engine.PID)-cpu)*10, "ms-cpu-engine/prompt")
		b.ReportMetric(plain.Seconds(), "s-direct")
		b.ReportMetric(time.Since(from).Seconds(), "s-easel")
		b.ReportMetric(time.Since(from).Seconds()/plain.Seconds(), "ratio")
	}
}

// trivial is a prompt that is never cached.
func trivial(n int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"1":{"class_type":"EmptyImage","inputs":{"width":512,"height":512,"batch_size":1,"color":%d}},
"2":{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"bench"}}}`, time.Now().UnixNano()/100%0xfffff0+int64(n%15)))
}

// straight posts n prompts at once and waits until the last has run.
func straight(b *testing.B, c *comfy.Client, n int) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	last := ""
	for i := range n {
		r, err := c.Post(ctx, comfy.PromptRequest{Graph: trivial(i), ClientID: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		last = r.PromptID
	}
	for {
		if _, found, err := c.History(ctx, last); err != nil || found {
			if err != nil {
				b.Fatal(err)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// through submits n jobs from a few callers and waits for the last one's end on
// the event stream.
func through(b *testing.B, box *box, n int) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	c := box.client()
	done := make(chan error, 1)
	go func() {
		ended := 0
		done <- c.Events(ctx, client.EventsOptions{}, func(f backend.Frame) error {
			if f.Event != nil && f.Event.Job != nil && f.Event.Job.State.Final() && f.Event.Kind == backend.EventState {
				ended++
			}
			if ended == n {
				return errAll
			}
			return nil
		})
	}()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < n; i += 4 {
				if _, _, err := c.Submit(ctx, backend.Submission{Graph: trivial(i)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := <-done; !errors.Is(err, errAll) {
		b.Fatal(err)
	}
}

var errAll = errors.New("all have ended")

// BenchmarkRestart is how long things are away after a kill -9.
func BenchmarkRestart(b *testing.B) {
	box := benchBox(b)
	b.Run("worker-new-process", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			pid := box.workerPID()
			time.Sleep(1100 * time.Millisecond) // a quick series of kills is slowed down by the policy
			b.StartTimer()
			kill(b, pid)
			for childOf(box, pid) == 0 {
				time.Sleep(200 * time.Microsecond)
			}
		}
	})
	b.Run("engine-next-answer", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			pid := box.status().Engine.PID
			time.Sleep(200 * time.Millisecond)
			b.StartTimer()
			kill(b, pid)
			if st, err := box.client().Status(b.Context()); err != nil || st.Engine.PID == pid {
				b.Fatal(err)
			}
		}
	})
}

// childOf finds a built-in worker of the box other than pid, 0 when there is none.
func childOf(b *box, pid int) int {
	for _, p := range b.processes() {
		if p != pid && strings.Contains(cmdline(p), " sketch ") {
			return p
		}
	}
	return 0
}

// BenchmarkSubmit is a durable submit over the control API, one caller.
func BenchmarkSubmit(b *testing.B) {
	box := benchBox(b)
	c := box.client()
	if err := c.Pause(b.Context(), false, "bench"); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, _, err := c.Submit(b.Context(), backend.Submission{Graph: trivial(i)}); err != nil {
			b.Fatal(err)
		}
	}
}

// benchBox is a box with a ready built-in worker.
func benchBox(b *testing.B) *box {
	b.Helper()
	box := newBox(b)
	box.must("serve", "--detach")
	box.workerPID()
	return box
}

// terminal is a console in a pty.
type terminal struct {
	cmd *exec.Cmd
	tty *os.File

	mu   sync.Mutex
	seen bytes.Buffer
	done chan struct{}
}

// console starts the console in a pty of that size.
func (b *box) console(t testing.TB, cols, rows uint16) *terminal {
	t.Helper()
	cmd := exec.Command(b.bin)
	cmd.Env = append(append([]string{}, b.env...), "TERM=xterm-256color", "COLORTERM=truecolor")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: cols, Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	c := &terminal{cmd: cmd, tty: tty, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		buf := make([]byte, 32<<10)
		for {
			n, err := tty.Read(buf)
			c.mu.Lock()
			c.seen.Write(buf[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(c.close)
	return c
}

// until waits until the console has written needle.
func (c *terminal) until(t testing.TB, needle string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		c.mu.Lock()
		ok := bytes.Contains(c.seen.Bytes(), []byte(needle))
		c.mu.Unlock()
		if ok {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Fatalf("the console never showed %q, but %q", needle, tail(c.seen.String(), 30))
}

func (c *terminal) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.Len()
}

func (c *terminal) close() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.tty.Close()
	<-c.done
}

// cpuSeconds is the CPU time that a process has used.
func cpuSeconds(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	var u, s float64
	_, _ = fmt.Sscan(f[11], &u)
	_, _ = fmt.Sscan(f[12], &s)
	return (u + s) / 100
}

// rssMiB is a process's resident memory without what is mapped from files.
func rssMiB(pid int) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(raw), "\n") {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

// maxRSS is the most memory a process that ended had, in bytes.
func maxRSS(st *os.ProcessState) int64 {
	if u, ok := st.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss << 10
	}
	return 0
}
