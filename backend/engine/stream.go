//go:build linux

package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"easel/backend"
)

// Bounds of the event stream.
const (
	pingEvery   = 15 * time.Second
	writeWithin = 10 * time.Second // a reader that takes nothing for so long is cut off
	resumeMax   = 10_000           // events that a stream may be behind and still resume
	resumePage  = 500
	snapshotMax = 50 // waiting, and recent, jobs in a snapshot
)

// events serves GET /v1/events: a snapshot, or what came after ?after=N, and
// then every change.
func (e *Engine) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sub := e.hub.subscribe(q.Get("previews") == "1")
	defer e.hub.leave(sub)
	e.cards.Wake()
	after, err := strconv.ParseInt(q.Get("after"), 10, 64)
	resume := q.Has("after") && err == nil
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	s := &sse{w: bufio.NewWriterSize(w, 32<<10), rc: http.NewResponseController(w)}
	seq, err := e.begin(r.Context(), s, resume, after)
	if err != nil {
		return
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-ping.C:
			if s.comment("ping") != nil {
				return
			}
		case <-sub.bell:
			frames, over := sub.take()
			if seq, err = s.frames(frames, seq); err != nil || over {
				return
			}
		}
	}
}

// begin brings a reader up to now, and returns the number of the last event that
// it knows then.
func (e *Engine) begin(ctx context.Context, s *sse, resume bool, after int64) (int64, error) {
	last := e.store.LastSeq()
	if !resume {
		return e.sendSnapshot(ctx, s)
	}
	if after > last || after < 0 || last-after > resumeMax {
		if err := s.frame(backend.Frame{Kind: backend.FrameReset}); err != nil {
			return 0, err
		}
		return e.sendSnapshot(ctx, s)
	}
	seq := after
	for seq < last {
		page, err := e.store.Events(ctx, seq, resumePage)
		if err != nil || len(page) == 0 || page[0].Seq != seq+1 {
			if err := s.frame(backend.Frame{Kind: backend.FrameReset}); err != nil {
				return 0, err
			}
			return e.sendSnapshot(ctx, s)
		}
		for i := range page {
			if job, err := e.store.Get(ctx, page[i].JobID); err == nil {
				job = e.dress(job)
				page[i].Job = &job
			}
			seq = page[i].Seq
			if err := s.frame(backend.Frame{Kind: backend.FrameEvent, Seq: seq, Event: &page[i]}); err != nil {
				return 0, err
			}
		}
	}
	st := e.status(ctx)
	for _, f := range []backend.Frame{
		{Kind: backend.FrameWorkers, Workers: st.Workers},
		{Kind: backend.FrameQueue, Queue: &st.Queue},
		{Kind: backend.FrameNotices, Notices: st.Notices},
		{Kind: backend.FrameGPUs, GPUs: st.GPUs},
	} {
		if err := s.frame(f); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

// sendSnapshot sends all a screen needs. Its number is read first: what changes
// meanwhile is in it already and comes once more as an event, which does no harm
// since every event carries the whole job.
func (e *Engine) sendSnapshot(ctx context.Context, s *sse) (int64, error) {
	snap, err := e.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	return snap.Seq, s.frame(backend.Frame{Kind: backend.FrameSnapshot, Seq: snap.Seq, Snapshot: &snap})
}

func (e *Engine) snapshot(ctx context.Context) (backend.Snapshot, error) {
	o, err := e.store.Overview(ctx, snapshotMax, snapshotMax)
	if err != nil {
		return backend.Snapshot{}, err
	}
	snap := backend.Snapshot{
		Seq: o.Seq, Status: e.status(ctx), Jobs: e.dressAll(o.Jobs), Recent: e.dressAll(o.Recent), Deaths: o.Deaths,
	}
	if h := e.cards.History(); len(h.Cards)+len(h.Marks) > 0 {
		snap.GPUHistory = &h
	}
	return snap, nil
}

// sse writes Server-Sent Events.
type sse struct {
	w  *bufio.Writer
	rc *http.ResponseController
}

// frames writes frames, leaving out events up to seq, which the reader has.
func (s *sse) frames(frames []backend.Frame, seq int64) (int64, error) {
	for _, f := range frames {
		if f.Kind == backend.FrameEvent {
			if f.Seq <= seq {
				continue
			}
			seq = f.Seq
		}
		if err := s.put(f); err != nil {
			return seq, err
		}
	}
	return seq, s.flush()
}

func (s *sse) frame(f backend.Frame) error {
	if err := s.put(f); err != nil {
		return err
	}
	return s.flush()
}

func (s *sse) put(f backend.Frame) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	if f.Seq > 0 {
		fmt.Fprintf(s.w, "id: %d\n", f.Seq)
	}
	fmt.Fprintf(s.w, "event: %s\ndata: ", f.Kind)
	s.w.Write(raw) //nolint:errcheck // bufio keeps the error for Flush
	_, err = s.w.WriteString("\n\n")
	return err
}

func (s *sse) comment(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return err
	}
	fmt.Fprintf(s.w, ": %s\n\n", text)
	return s.flush()
}

func (s *sse) flush() error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.rc.Flush()
}
