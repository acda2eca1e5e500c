//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"easel/backend"
	"easel/backend/cards"
	"easel/backend/dispatch"
	"easel/backend/fault"
	"easel/backend/jobs"
	"easel/backend/keeper"
	"easel/config"
)

// Options are what an engine is started with.
type Options struct {
	StateDir   string
	ConfigPath string
	Environ    []string // as os.Environ
	Version    string
}

// Times of an orderly end.
const (
	drainWithin = 3 * time.Second  // requests in flight
	stopWithin  = 20 * time.Second // workers
)

// Engine is the running service.
type Engine struct {
	opts    Options
	log     *slog.Logger
	conn    *keeper.Conn
	hello   keeper.Hello
	store   *jobs.Store
	disp    *dispatch.Dispatcher
	hub     *hub
	cards   *cards.Cards
	thumbs  *thumbs
	lens    lens
	started backend.Time

	closing context.Context // ends when no new long answers should begin
	stops   chan stopRequest

	// queueBell asks for a new queue frame; holds one.
	queueBell chan struct{}
	// runWorker starts a worker's goroutine; set while the engine serves.
	runWorker func(*worker)
	// background runs a function until it returns or the engine ends; set while the
	// engine serves.
	background func(func(context.Context))
	// replacing is held while the configuration is applied.
	replacing sync.Mutex
	looking   atomic.Bool // for a ComfyUI on this box, before the first worker

	// mu guards the fields that follow.
	mu      sync.Mutex
	cfg     config.Config
	workers []*worker
	found   []backend.FoundComfy
	remarks []string
	// badFlags holds why a launch with more flags failed, by the flags.
	badFlags map[string]string
}

// stopRequest is why the engine ends.
type stopRequest struct {
	whole      bool // the keeper ends too
	keepWorker bool
	takeover   bool // the keeper died
}

// errHopeless wraps what starting again would not mend.
type errHopeless struct{ f *backend.Failure }

func (e errHopeless) Error() string { return e.f.Message }

// Main is the engine's process: it speaks to the keeper over inherited
// descriptors and returns an exit code.
func Main(o Options) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	conn, hello, err := keeper.Attach(keeper.PairFD)
	if err != nil {
		log.Error("the engine is started by `easel serve`, not by hand", "err", err)
		return 2
	}
	err = run(o, log, conn, hello)
	var hopeless errHopeless
	if errors.As(err, &hopeless) {
		log.Error("the engine cannot serve", "err", hopeless.f.Message)
		_ = conn.Refuse(hopeless.f)
		return keeper.ExitHopeless
	}
	if err != nil {
		log.Error("the engine ended", "err", err)
		return 1
	}
	return 0
}

// run opens everything, serves until told to end, and closes in order.
func run(o Options, log *slog.Logger, conn *keeper.Conn, hello keeper.Hello) error {
	ctx := context.Background()
	cfg, _, err := config.Load(o.ConfigPath, o.Environ)
	if err != nil {
		return errHopeless{backend.Fail(backend.FailUsage, err.Error(), "easel config check")}
	}
	store, err := jobs.Open(ctx, dbPath(o.StateDir), storeOptions(cfg, log))
	if err != nil {
		return errHopeless{backend.FailureOf(err)}
	}
	defer func() {
		if err := store.Close(); err != nil {
			log.Error("close the records", "err", err)
		}
	}()
	closing, close := context.WithCancel(ctx)
	defer close()
	e := &Engine{
		opts: o, log: log, conn: conn, hello: hello, store: store, hub: newHub(), started: backend.Now(),
		closing: closing, stops: make(chan stopRequest, 4), queueBell: make(chan struct{}, 1), cfg: cfg,
		badFlags: map[string]string{}, thumbs: newThumbs(filepath.Join(o.StateDir, "cache", "pictures")),
	}
	fault.Worker(e.anyPID)
	e.disp = dispatch.New(store, dispatch.Hooks{Progress: e.onProgress, Preview: e.onPreview, Changed: e.onRemark}, log)
	e.cards = e.newCards()
	e.disp.SetOptions(guardOptions(cfg, o.StateDir))
	e.afterRestart(ctx)
	return e.serve(ctx, close)
}

// serve runs every part until a stop is asked for, then ends them in the order of
// their dependence: intake, workers, dispatcher, records.
func (e *Engine) serve(ctx context.Context, closing func()) error {
	ln, err := keeper.ControlListener()
	if err != nil {
		return fmt.Errorf("take the control listener: %w", err)
	}
	srv := e.server()
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(runCtx)
	e.setUpWorkers(gctx, g)
	g.Go(func() error { return e.disp.Run(gctx) })
	g.Go(func() error { return e.relayEvents(gctx) })
	g.Go(func() error { return e.relayQueue(gctx) })
	g.Go(func() error { return e.watchKeeper(gctx) })
	g.Go(func() error { return e.keepHouse(gctx) })
	g.Go(func() error { return e.cards.Run(gctx) })
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the control API: %w", err)
		}
		return nil
	})
	if err := e.conn.Ready(); err != nil && !errors.Is(err, keeper.ErrGone) {
		e.log.Warn("tell the keeper that we serve", "err", err)
	}
	e.log.Info("serving", "version", e.opts.Version, "state", e.opts.StateDir, "living", len(e.hello.Living))
	stop := e.awaitStop(gctx)
	closing()
	if stop.takeover {
		err = e.handOver(ln)
	}
	err = errors.Join(err, e.wind(ctx, srv, stop))
	cancel()
	if werr := g.Wait(); werr != nil && !errors.Is(werr, context.Canceled) {
		err = errors.Join(err, werr)
	}
	return err
}

// awaitStop waits for a reason to end.
func (e *Engine) awaitStop(ctx context.Context) stopRequest {
	sigs := make(chan os.Signal, 2)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP)
	select {
	case <-ctx.Done():
		return stopRequest{}
	case s := <-sigs:
		e.log.Info("told to end", "signal", s.String())
		return stopRequest{}
	case s := <-e.stops:
		return s
	}
}

// wind ends intake and, for a whole stop, the workers. A second signal is the
// keeper's business: it ends everything by force.
func (e *Engine) wind(ctx context.Context, srv *http.Server, stop stopRequest) error {
	var goodbye *backend.Frame
	if stop.whole {
		goodbye = &backend.Frame{Kind: backend.FrameStopping}
		if err := e.conn.Stop(stop.keepWorker); err != nil && !errors.Is(err, keeper.ErrGone) {
			e.log.Warn("tell the keeper to end", "err", err)
		}
	}
	e.hub.close(goodbye)
	dctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	if stop.takeover {
		_ = srv.Close() // at once: the next engine waits for our end
		return nil
	}
	if serr := srv.Shutdown(dctx); serr != nil {
		_ = srv.Close()
	}
	var err error
	if stop.whole && !stop.keepWorker {
		sctx, cancel := context.WithTimeout(ctx, stopWithin)
		defer cancel()
		err = e.stopWorkers(sctx)
	}
	return err
}

// handOver starts a new keeper, since ours is gone, and gives it the listener.
func (e *Engine) handOver(ln net.Listener) error {
	ul, ok := ln.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("the control listener is a %T", ln)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := keeper.Takeover(ctx, e.conn, keeper.TakeoverOptions{StateDir: e.opts.StateDir, Listener: ul}); err != nil {
		return fmt.Errorf("start a new keeper: %w", err)
	}
	e.log.Info("the keeper was gone: a new one takes over")
	return nil
}

// askStop asks for an end; the first one counts.
func (e *Engine) askStop(s stopRequest) {
	select {
	case e.stops <- s:
	default:
	}
}

// server is the HTTP server of the control API: HTTP/1.1 for curl, unencrypted
// HTTP/2 for --host.
func (e *Engine) server() *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: access(e.handler()), Protocols: &p, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: withPeer, ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return context.Background() },
	}
}

// config is the configuration in force.
func (e *Engine) config() config.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cfg
}

// watchKeeper takes the ends of workers, and notices the end of the keeper.
func (e *Engine) watchKeeper(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case end := <-e.conn.Ends():
			e.onEnded(end)
		case <-e.conn.Replaced():
			e.log.Info("making room for a new binary")
			e.askStop(stopRequest{})
			return nil
		case <-e.conn.Closed():
			e.log.Warn("the keeper is gone")
			e.askStop(stopRequest{takeover: true})
			return nil
		}
	}
}

// dbPath is the file of the durable queue.
func dbPath(stateDir string) string { return filepath.Join(stateDir, "jobs.db") }

// storeOptions are what the configuration says about the records.
func storeOptions(cfg config.Config, log *slog.Logger) jobs.Options {
	return jobs.Options{
		Limit: cfg.Queue.Limit, Logger: log,
		KeepJobs: cfg.Retention.Jobs.Duration, KeepEvents: cfg.Retention.Events.Duration, KeepDeaths: cfg.Retention.Deaths.Duration,
	}
}

// anyPID is the process of a worker, 0 when none runs.
func (e *Engine) anyPID() int {
	for _, w := range e.workerStates() {
		if w.PID != nil {
			return *w.PID
		}
	}
	return 0
}
