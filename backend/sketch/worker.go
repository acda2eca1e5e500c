package sketch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Worker is one running built-in worker.
type Worker struct {
	opts    Options
	log     *logger
	classes map[string]*class
	order   []string // of classes, as /object_info lists them
	faults  faults
	hog     hog
	queue   *queue
	hub     *hub
	cache   *cache // of the worker goroutine

	prompts     atomic.Int64 // how many were begun
	interrupted atomic.Bool
	// loop stands for Python's one event loop: the blocked-loop fault holds it.
	loop sync.RWMutex

	post    sync.Mutex // guards counter; one POST /prompt at a time
	counter int64
	user    sync.Mutex // guards the settings file
}

// errExit ends the process with a status of its own; what there is to say has
// been logged.
type errExit struct{ code int }

func (e errExit) Error() string { return "exit status " + strconv.Itoa(e.code) }

// ExitCode is the status that an error of Run stands for: 0 for none.
func ExitCode(err error) int {
	var usage *UsageError
	var exit errExit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return usage.ExitCode()
	case errors.As(err, &exit):
		return exit.code
	}
	return 1
}

// Main runs `easel sketch` with the arguments after the command's name, and
// returns the status for the process to end with. SIGINT stops the worker
// cleanly; SIGTERM and SIGHUP end the process at once, as they do ComfyUI.
func Main(args []string) int {
	o, err := ParseArgs(args)
	if err != nil {
		fmt.Fprint(os.Stderr, usageLine(), err.Error(), "\n")
		return ExitCode(err)
	}
	if o.Help {
		fmt.Print(Usage())
		return 0
	}
	signal.Reset(syscall.SIGTERM, syscall.SIGHUP)
	if faults(o.Faults).take("ignore-term", 0) != nil {
		signal.Ignore(syscall.SIGTERM)
	}
	ctx := context.Background()
	if faults(o.Faults).take("ignore-int", 0) != nil {
		signal.Ignore(os.Interrupt)
	} else {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
	}
	err = Run(ctx, o)
	var quiet errExit
	if err != nil && !errors.As(err, &quiet) {
		fmt.Fprintln(os.Stderr, "easel sketch:", err)
	}
	return ExitCode(err)
}

// Run is the worker from start to end. It returns nil after a clean stop,
// which the end of ctx asks for; temporary files are deleted then.
func Run(ctx context.Context, o Options) error {
	w, err := newWorker(o)
	if err != nil {
		return err
	}
	if err := w.start(ctx); err != nil {
		return err
	}
	if o.QuickTest {
		return nil
	}
	listeners, err := w.listen()
	if err != nil {
		return err
	}
	return w.serve(ctx, listeners)
}

func newWorker(o Options) (*Worker, error) {
	w := &Worker{opts: o, faults: o.Faults, cache: newCache(), queue: newQueue()}
	w.log = &logger{level: levels[o.Level], out: os.Stderr, errout: os.Stderr}
	if o.LogStdout {
		w.log.out = os.Stdout
	}
	w.hub = newHub(w)
	w.log.notify = w.hub.logged
	w.queue.changed = func() { w.hub.send("status", statusData(w.queue.remaining()), nil) }
	var err error
	if w.classes, w.order, err = loadClasses(o.Version); err != nil {
		return nil, err
	}
	w.loadPromptCount()
	return w, nil
}

// since says whether the version shown is this one or a later one.
func (w *Worker) since(version string) bool {
	for _, v := range Versions { // in order of release
		if v == version {
			return true
		}
		if v == w.opts.Version {
			return false
		}
	}
	return false
}

// start makes the directories, clears what an earlier process left, and says
// on the log what a starting ComfyUI says.
func (w *Worker) start(ctx context.Context) error {
	o := w.opts
	if err := os.RemoveAll(o.tempDir()); err != nil {
		return fmt.Errorf("clear temporary files of an earlier run: %w", err)
	}
	total, _ := memory()
	w.log.info("Total VRAM %d MB, total RAM %d MB", total>>20, total>>20)
	w.log.info("pytorch version: none")
	w.log.info("Set vram state to: DISABLED")
	w.log.info("Device: cpu")
	w.log.info("Python version: none (this is Easel's built-in worker, %s)", runtime.Version())
	w.log.info("ComfyUI version: %s", o.Version)
	w.log.info("ComfyUI frontend version: none (no browser interface: no models, no diffusion)")
	for _, d := range []string{o.OutputDir, o.InputDir, filepath.Join(o.UserDir, "default")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make the worker's directories: %w", err)
		}
	}
	if err := w.importPacks(ctx); err != nil {
		return err
	}
	return os.MkdirAll(o.tempDir(), 0o755)
}

// importPacks is where ComfyUI loads node packs. There are none here but the
// one built in, and those that a fault makes up.
func (w *Worker) importPacks(ctx context.Context) error {
	dir := filepath.Join(w.opts.BaseDir, "custom_nodes")
	if f := w.faults.take("silent-start", 0); f != nil {
		if err := sleep(ctx, f.wait); err != nil {
			return err
		}
	}
	began := time.Now()
	if f := w.faults.take("slow-start", 0); f != nil {
		for left := f.wait; left > 0; left -= 250 * time.Millisecond {
			w.log.info("easel_slow_pack: %.1f seconds to go", left.Seconds())
			if err := sleep(ctx, min(left, 250*time.Millisecond)); err != nil {
				return err
			}
		}
	}
	if f := w.faults.take("exit-at-import", 0); f != nil {
		w.log.info("easel_exit_pack: calls sys.exit(%d)", f.code)
		return errExit{f.code}
	}
	broken := w.faults.take("import-failure", 0)
	if broken != nil {
		pack := filepath.Join(dir, broken.Arg)
		w.log.warn("Traceback (most recent call last):\n  File %q, line 1, in <module>\n    import not_installed_module\nModuleNotFoundError: No module named 'not_installed_module'\n", filepath.Join(pack, "__init__.py"))
		w.log.warn("Cannot import %s module for custom nodes: No module named 'not_installed_module'", pack)
	}
	w.log.info("\nImport times for custom nodes:")
	if broken != nil {
		w.log.info("%6.1f seconds (IMPORT FAILED): %s", 0.0, filepath.Join(dir, broken.Arg))
	}
	w.log.info("%6.1f seconds: %s", time.Since(began).Seconds(), filepath.Join(dir, "easel_sketch"))
	w.log.info("")
	return nil
}

// listen binds every address. A port that is taken is told as Python tells it.
func (w *Worker) listen() ([]net.Listener, error) {
	if !w.opts.QuietStart {
		w.log.info("Starting server\n")
	}
	var list []net.Listener
	port := w.opts.Port
	for _, addr := range w.opts.Listen {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
		if err != nil {
			for _, l := range list {
				_ = l.Close()
			}
			w.bindFailed(addr, port, err)
			return nil, errExit{1}
		}
		list = append(list, l)
		port = l.Addr().(*net.TCPAddr).Port
		if !w.opts.QuietStart {
			w.log.info("To see the GUI go to: http://%s", net.JoinHostPort(addr, strconv.Itoa(port)))
		}
	}
	return list, nil
}

func (w *Worker) bindFailed(addr string, port int, err error) {
	no := syscall.Errno(0)
	errors.As(err, &no)
	reason := err.Error()
	if no != 0 {
		reason = no.Error()
	}
	w.log.line(fmt.Sprintf("Traceback (most recent call last):\n  File \"easel sketch\", line 1, in <module>\n    listen()\n"+
		"OSError: [Errno %d] error while attempting to bind on address ('%s', %d): %s", int(no), addr, port, reason))
}

// serve answers until ctx ends, then closes everything it opened.
func (w *Worker) serve(ctx context.Context, listeners []net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{
		Handler: w.handler(), ReadHeaderTimeout: time.Minute, ErrorLog: nil,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	var running sync.WaitGroup
	running.Go(func() { w.hub.run(ctx) })
	running.Go(func() { w.work(ctx) })
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		running.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
		w.log.info("\nStopped server")
	case err = <-failed:
	}
	stop()
	_ = srv.Close()
	w.hub.closeAll()
	// A node that computes is not waited for longer than this: ComfyUI waits
	// for none at all.
	waited := make(chan struct{})
	go func() { running.Wait(); close(waited) }()
	select {
	case <-waited:
	case <-time.After(2 * time.Second):
	}
	if e := os.RemoveAll(w.opts.tempDir()); err == nil && e != nil {
		err = fmt.Errorf("delete temporary files: %w", e)
	}
	return err
}

// memory reads the size of the memory and what is free of it, in bytes; zero
// where the system does not say.
func memory() (total, free int64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<16))
	return meminfo(b, "MemTotal:"), meminfo(b, "MemAvailable:")
}
