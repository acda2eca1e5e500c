package jobs

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"easel/backend"
)

// Defaults and bounds of a store.
const (
	DefaultLimit = 100_000 // jobs that may wait (queued and held)
	PositionCap  = 1_000   // positions past this one are not computed

	patience     = 5 * time.Second  // how long a submission may wait for the disk
	longPatience = 30 * time.Second // the same for the dispatcher's own records
	queueLen     = 1024             // changes that wait for the writer
)

// Options tune a store. The zero value is ready to use.
type Options struct {
	// Limit is how many jobs may wait; 0 is DefaultLimit, below 0 no limit.
	Limit int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Logger takes what a person may want to know; nil is slog.Default.
	Logger *slog.Logger
	// KeepEvents, KeepJobs and KeepDeaths are for how long Retention leaves
	// events, finished jobs and ends of workers; 0 is 14, 90 and 365 days.
	KeepEvents, KeepJobs, KeepDeaths time.Duration

	migrations []migration   // tests: nil is the package's own
	patience   time.Duration // tests: 0 is patience
}

// withDefaults fills what was left zero.
func (o Options) withDefaults() Options {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	day := 24 * time.Hour
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{{&o.KeepEvents, 14 * day}, {&o.KeepJobs, 90 * day}, {&o.KeepDeaths, 365 * day}, {&o.patience, patience}} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if o.migrations == nil {
		o.migrations = migrations
	}
	return o
}

// Store is the queue. Its methods may be called from any goroutine; those that
// change something return after the change is on disk.
type Store struct {
	path string
	opts Options
	log  *slog.Logger

	writeDB, readDB *sql.DB
	writer          *writer
	queue           chan *op // changes, in the order they are made
	idle            chan *op // upkeep, only while queue is empty
	quit            chan struct{}
	closeOnce       sync.Once
	wg              sync.WaitGroup // writer and keeper of the WAL

	lastSeq atomic.Int64
	pause   atomic.Pointer[pauseState]
	wide    atomic.Bool   // the WAL is long: the writer folds its end
	tidy    chan struct{} // tells the keeper of the WAL that much was written

	// stmtMu guards stmts, the prepared statements of the readers.
	stmtMu sync.RWMutex
	stmts  map[string]*sql.Stmt

	// placesMu guards the cached positions and the event they were read at.
	placesMu  sync.Mutex
	places    map[int64]int
	placesSeq int64

	// subMu guards subs.
	subMu sync.Mutex
	subs  map[*subscriber]struct{}
}

// pauseState is whether the queue is paused, and why.
type pauseState struct {
	Paused bool   `json:"paused"`
	Reason string `json:"reason"`
}

// Open opens the queue in the file path, makes it when there is none, and
// brings an older one to this schema with a copy of it kept. The directory must
// exist and be on a local disk. What cannot be used is refused with a
// *backend.Failure that says why and what to do. The caller closes it.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := checkPlace(path); err != nil {
		return nil, err
	}
	s := &Store{
		path: path, opts: o, log: o.Logger,
		queue: make(chan *op, queueLen), idle: make(chan *op), quit: make(chan struct{}),
		tidy: make(chan struct{}, 1), stmts: map[string]*sql.Stmt{}, subs: map[*subscriber]struct{}{},
	}
	var err error
	if s.writeDB, err = openDB(path, 1); err != nil {
		return nil, atStart(err)
	}
	if s.readDB, err = openDB(path, 4, "query_only(1)"); err != nil {
		_ = s.writeDB.Close()
		return nil, atStart(err)
	}
	if err := s.start(ctx); err != nil {
		_ = s.readDB.Close()
		_ = s.writeDB.Close()
		return nil, atStart(err)
	}
	return s, nil
}

// start migrates, reads what is kept in memory and starts the goroutines.
func (s *Store) start(ctx context.Context) error {
	if err := migrate(ctx, s.writeDB, s.path, s.opts.migrations, s.opts.Now()); err != nil {
		return err
	}
	conn, err := s.writeDB.Conn(ctx)
	if err != nil {
		return describe(s.path, err)
	}
	s.writer = &writer{s: s, conn: conn, stmts: map[string]*sql.Stmt{}}
	if err := s.writer.reload(ctx); err != nil {
		_ = conn.Close()
		return describe(s.path, err)
	}
	if err := s.loadPause(ctx); err != nil {
		_ = conn.Close()
		return describe(s.path, err)
	}
	s.lastSeq.Store(s.writer.seq)
	s.wg.Add(2)
	go func() { defer s.wg.Done(); s.writer.run() }()
	go func() { defer s.wg.Done(); s.keepWAL() }()
	return nil
}

// openDB opens a pool of connections to path. The pragmas hold for each of them.
func openDB(path string, conns int, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}}
	if len(pragmas) > 0 {
		q.Set("_txlock", "deferred")
	}
	for _, p := range append([]string{
		"busy_timeout(5000)", "auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(FULL)",
		"wal_autocheckpoint(0)", "journal_size_limit(16777216)", "cache_size(-2000)", "temp_store(MEMORY)",
	}, pragmas...) {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, describe(path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(min(conns, 2))
	return db, nil
}

// checkPlace refuses a place where SQLite's WAL cannot work or nothing can be
// written, in words that say so.
func checkPlace(path string) error {
	dir := filepath.Dir(path)
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return cannotOpen(path, dir)
	}
	if name := networkFS(dir); name != "" {
		return backend.Fail(backend.FailDisk, fmt.Sprintf("the state directory %s lies on %s, where the records would not be safe", dir, name),
			"choose a directory on a local disk with EASEL_HOME")
	}
	return tryWrite(dir, path)
}

// tryWrite makes sure that the directory and the file can be written, so that
// the answer does not depend on which of SQLite's own files fails first.
func tryWrite(dir, path string) error {
	f, err := os.CreateTemp(dir, ".easel-try-*")
	if err != nil {
		return describe(path, err)
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return describe(path, err)
		}
		_ = f.Close()
		return nil
	}
	return nil
}

// Close ends the goroutines, answers what still waits, closes the streams of
// the subscribers and folds the WAL into the file.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { close(s.quit) })
	s.wg.Wait()
	s.closeSubs()
	s.stmtMu.Lock()
	for _, st := range s.stmts {
		_ = st.Close()
	}
	s.stmts = map[string]*sql.Stmt{}
	s.stmtMu.Unlock()
	err := s.readDB.Close()
	s.writer.close()
	if e := s.writeDB.Close(); e != nil {
		err = e
	}
	return describe(s.path, err)
}

// now is the store's clock, to the millisecond that is kept.
func (s *Store) now() backend.Time { return backend.At(s.opts.Now()) }
