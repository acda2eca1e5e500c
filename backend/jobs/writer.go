package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"easel/backend"
	"easel/backend/fault"
)

// Bounds of one group: so many changes share a commit, or as many as fit the time.
const (
	groupMax  = 256
	groupTime = 20 * time.Millisecond
)

// States of an op.
const (
	opWaiting int32 = iota
	opTaken
	opAbandoned
)

// op is one change that waits for the writer. fn runs inside the transaction,
// perhaps more than once (a group that failed is tried one by one), so it sets
// its results anew each time.
type op struct {
	fn    func(*tx) error
	fault string // fault point before the commit, "" for none
	state atomic.Int32
	done  chan struct{} // closed after err is set
	err   error
}

// do runs fn in the writer and returns after the commit. It waits at most limit:
// a change that was not begun by then is never made.
func (s *Store) do(ctx context.Context, what string, limit time.Duration, fn func(*tx) error) error {
	return s.enqueue(ctx, s.queue, what, limit, &op{fn: fn, done: make(chan struct{})})
}

// enqueue hands o to the writer through queue and waits for its answer.
func (s *Store) enqueue(ctx context.Context, queue chan<- *op, what string, limit time.Duration, o *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.quit:
		return errClosed()
	case queue <- o:
	case <-timer.C:
		return errBusy(what, fmt.Sprintf("the disk could not keep up for %v, nothing was written down", limit))
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-o.done:
		return describe(s.path, o.err)
	case <-timer.C:
		if o.state.CompareAndSwap(opWaiting, opAbandoned) {
			return errBusy(what, fmt.Sprintf("the disk could not keep up for %v, nothing was written down", limit))
		}
	case <-ctx.Done():
		if o.state.CompareAndSwap(opWaiting, opAbandoned) {
			return ctx.Err()
		}
	}
	// It is being written at this moment: only the commit knows the answer.
	timer.Reset(limit)
	select {
	case <-o.done:
		return describe(s.path, o.err)
	case <-timer.C:
		return errBusy(what, "the disk has not confirmed it, so it may or may not be written down")
	}
}

// writer owns the one connection that writes. Only its goroutine uses the
// fields.
type writer struct {
	s     *Store
	conn  *sql.Conn
	stmts map[string]*sql.Stmt

	seq     int64 // last event
	hi, lo  int64 // last rank given out above, and below
	version int64 // data_version when the three were read

	commits int // since the WAL was last folded
}

// run serves the queue until the store is closed, and upkeep when it is empty.
func (w *writer) run() {
	for {
		select {
		case o := <-w.s.queue:
			w.group(o)
			continue
		default:
		}
		select {
		case o := <-w.s.queue:
			w.group(o)
		case o := <-w.s.idle:
			w.groupOf([]*op{o})
		case <-w.s.quit:
			w.drain()
			return
		}
	}
}

// drain makes what was already accepted into the queue, then the end.
func (w *writer) drain() {
	for {
		select {
		case o := <-w.s.queue:
			w.group(o)
		default:
			return
		}
	}
}

// group takes what waits beside o and makes all of it.
func (w *writer) group(o *op) {
	ops := make([]*op, 0, 16)
	for {
		if o.state.CompareAndSwap(opWaiting, opTaken) {
			ops = append(ops, o)
		}
		if len(ops) >= groupMax {
			break
		}
		select {
		case o = <-w.s.queue:
			continue
		default:
		}
		break
	}
	for len(ops) > 0 {
		ops = ops[w.groupOf(ops):]
	}
	if w.s.wide.CompareAndSwap(true, false) {
		_, _ = w.conn.ExecContext(context.Background(), `PRAGMA wal_checkpoint(PASSIVE)`) // tried again by keepWAL
	}
}

// groupOf makes as many of ops as fit the time in one transaction, answers
// them, and says how many. When the transaction fails, each is tried alone, so
// that one bad change does not refuse its neighbours.
func (w *writer) groupOf(ops []*op) int {
	t, done, err := w.attempt(ops)
	if err != nil && done > 1 && t != nil {
		for _, o := range ops[:done] {
			w.groupOf([]*op{o})
		}
		return done
	}
	if err == nil {
		w.publish(t)
	}
	for _, o := range ops[:done] {
		if err != nil {
			o.err = err
		}
		close(o.done)
	}
	return done
}

// attempt runs ops in one transaction and commits it. An op that fails before
// it wrote anything only gets its own error; one that fails later undoes all.
func (w *writer) attempt(ops []*op) (t *tx, done int, err error) {
	ctx := context.Background()
	begin := time.Now()
	if err := w.begin(ctx); err != nil {
		return nil, len(ops), err
	}
	t = &tx{queries: queries{ctx: ctx, prepare: w.prepare}, w: w, now: w.s.now()}
	defer func() {
		if err != nil {
			w.rollback(ctx)
		}
	}()
	points := map[string]bool{}
	for _, o := range ops {
		done++
		o.err = t.run(o.fn)
		if o.err != nil && t.wrote {
			return t, done, o.err
		}
		points[o.fault] = true
		if time.Since(begin) > groupTime {
			break
		}
	}
	if err := t.flush(); err != nil {
		return t, done, err
	}
	for p := range points {
		if p != "" {
			fault.Hit(p)
		}
	}
	if _, err := t.exec(`COMMIT`); err != nil {
		return t, done, err
	}
	return t, done, nil
}

// begin starts a transaction and notices when another process has written.
func (w *writer) begin(ctx context.Context) error {
	st, err := w.prepare(`BEGIN IMMEDIATE`)
	if err == nil {
		_, err = st.ExecContext(ctx)
	}
	if err != nil {
		return err
	}
	version, err := w.dataVersion(ctx)
	if err == nil && version != w.version {
		err = w.reload(ctx)
	}
	if err != nil {
		w.rollback(ctx)
	}
	return err
}

// rollback undoes the open transaction and reads the counters again. SQLite may
// have undone it already (a full disk), which is no error.
func (w *writer) rollback(ctx context.Context) {
	_, _ = w.conn.ExecContext(ctx, `ROLLBACK`)
	if err := w.reload(ctx); err != nil {
		w.version = -1 // read them before the next change
		w.s.log.Error("records: cannot read back after an undone change", "error", describe(w.s.path, err))
	}
}

// reload reads the counters that the writer keeps in memory.
func (w *writer) reload(ctx context.Context) error {
	version, err := w.dataVersion(ctx)
	if err != nil {
		return err
	}
	err = w.conn.QueryRowContext(ctx, `SELECT coalesce((SELECT max(seq) FROM events), 0),
		(SELECT n FROM tally WHERE name = 'hi'), (SELECT n FROM tally WHERE name = 'lo')`).Scan(&w.seq, &w.hi, &w.lo)
	if err != nil {
		return err
	}
	w.version = version
	return nil
}

// dataVersion changes when another connection has changed the file.
func (w *writer) dataVersion(ctx context.Context) (v int64, err error) {
	st, err := w.prepare(`PRAGMA data_version`)
	if err != nil {
		return 0, err
	}
	return v, st.QueryRowContext(ctx).Scan(&v)
}

// prepare compiles a statement once for the writer's connection.
func (w *writer) prepare(q string) (*sql.Stmt, error) {
	if st, ok := w.stmts[q]; ok {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), q)
	if err != nil {
		return nil, err
	}
	w.stmts[q] = st
	return st, nil
}

// publish hands a committed transaction to the readers and subscribers.
func (w *writer) publish(t *tx) {
	if t.pause != nil {
		w.s.pause.Store(t.pause)
	}
	if n := len(t.events); n > 0 {
		w.s.lastSeq.Store(t.events[n-1].Seq)
		w.s.deliver(t.events)
	}
	if w.commits++; w.commits >= foldEvery || t.bytes >= foldBytes {
		w.commits = 0
		select {
		case w.s.tidy <- struct{}{}:
		default:
		}
	}
}

// close ends the writer's connection.
func (w *writer) close() {
	for _, st := range w.stmts {
		_ = st.Close()
	}
	_, _ = w.conn.ExecContext(context.Background(), `PRAGMA wal_checkpoint(TRUNCATE)`)
	_ = w.conn.Close()
}

// tx is one transaction of the writer, shared by the ops of a group.
type tx struct {
	queries
	w     *writer
	now   backend.Time
	wrote bool // something was changed by the op that runs

	events  []backend.Event // of all ops, in order
	opStart int             // where those of the running op begin
	ranks   bool            // hi or lo moved
	pause   *pauseState     // set when the op changed it
	bytes   int             // of graphs written
}

// run runs one op's function; a panic in it becomes an error that undoes it.
func (t *tx) run(fn func(*tx) error) (err error) {
	t.wrote, t.opStart = false, len(t.events)
	defer func() {
		if p := recover(); p != nil {
			t.wrote = true
			err = fmt.Errorf("internal error while writing the records: %v", p)
			t.w.s.log.Error("records: panic in a change", "panic", fmt.Sprint(p))
		}
	}()
	return fn(t)
}

// exec runs a statement that changes something.
func (t *tx) exec(q string, args ...any) (sql.Result, error) {
	t.wrote = true
	st, err := t.prepare(q)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

// flush writes what the transaction kept in memory until its end.
func (t *tx) flush() error {
	if !t.ranks {
		return nil
	}
	_, err := t.exec(`UPDATE tally SET n = CASE name WHEN 'hi' THEN ? ELSE ? END WHERE name IN ('hi', 'lo')`, t.w.hi, t.w.lo)
	return err
}

// top is the next rank above (sooner than) all others.
func (t *tx) top() int64 { t.ranks = true; t.w.lo--; return t.w.lo }

// bottom is the next rank below (later than) all others.
func (t *tx) bottom() int64 { t.ranks = true; t.w.hi++; return t.w.hi }

// A bound LIMIT is written "? + 0": SQLite compiles a statement anew each time a
// bare one is bound, to plan by its value.
//
// queries reads with prepared statements, in the writer's transaction or in a
// reader's snapshot.
type queries struct {
	ctx     context.Context
	prepare func(string) (*sql.Stmt, error)
}

// row reads one row into dest. found is false when there is none.
func (q *queries) row(query string, args []any, dest ...any) (found bool, err error) {
	st, err := q.prepare(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRowContext(q.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// each calls scan for every row.
func (q *queries) each(query string, args []any, scan func(*sql.Rows) error) error {
	st, err := q.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(q.ctx, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// read runs fn on a consistent snapshot.
func (s *Store) read(ctx context.Context, fn func(*queries) error) error {
	t, err := s.readDB.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s.readError(err)
	}
	defer func() { _ = t.Rollback() }()
	q := &queries{ctx: ctx, prepare: func(query string) (*sql.Stmt, error) {
		st, err := s.readStmt(query)
		if err != nil {
			return nil, err
		}
		return t.StmtContext(ctx, st), nil
	}}
	return s.readError(fn(q))
}

// readError is err in words; a closed pool means that the store was closed.
func (s *Store) readError(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.quit:
		var f *backend.Failure
		if !errors.As(err, &f) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return errClosed()
		}
	default:
	}
	return describe(s.path, err)
}

// readStmt compiles a statement once for the readers.
func (s *Store) readStmt(query string) (*sql.Stmt, error) {
	s.stmtMu.RLock()
	st := s.stmts[query]
	s.stmtMu.RUnlock()
	if st != nil {
		return st, nil
	}
	s.stmtMu.Lock()
	defer s.stmtMu.Unlock()
	if st := s.stmts[query]; st != nil {
		return st, nil
	}
	st, err := s.readDB.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	s.stmts[query] = st
	return st, nil
}
