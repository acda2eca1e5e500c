//go:build linux

package engine

import (
	"context"
	"time"

	"easel/backend"
)

// queueGap is how often the counts of the queue go out at most.
const queueGap = 100 * time.Millisecond

// relayEvents passes the durable events on to the readers. When it was too slow
// itself the readers are cut off, and resume from the records.
func (e *Engine) relayEvents(ctx context.Context) error {
	for ctx.Err() == nil {
		events, cancel := e.store.Subscribe(4096)
		e.relayFrom(ctx, events)
		cancel()
		if ctx.Err() == nil {
			e.hub.cutOff()
		}
	}
	return nil
}

func (e *Engine) relayFrom(ctx context.Context, events <-chan backend.Event) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-events:
			if !ok {
				return
			}
			if ev.Job != nil {
				job := e.dress(*ev.Job)
				ev.Job = &job
			}
			e.markEvent(ev)
			e.hub.publish(backend.Frame{Kind: backend.FrameEvent, Seq: ev.Seq, Event: &ev})
			e.queueChanged()
		}
	}
}

// queueChanged asks for a new frame of the queue's counts.
func (e *Engine) queueChanged() {
	select {
	case e.queueBell <- struct{}{}:
	default:
	}
}

// relayQueue sends the counts of the queue, not more often than people can see.
func (e *Engine) relayQueue(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.queueBell:
		}
		if any, _ := e.hub.watched(); any {
			if counts, err := e.counts(ctx); err == nil {
				e.hub.publish(backend.Frame{Kind: backend.FrameQueue, Queue: &counts})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(queueGap):
		}
	}
}

func (e *Engine) onProgress(p backend.JobProgress) {
	e.hub.publish(backend.Frame{Kind: backend.FrameProgress, Progress: &p})
}

func (e *Engine) onPreview(p backend.Preview) {
	if _, want := e.hub.watched(); want {
		e.hub.publish(backend.Frame{Kind: backend.FramePreview, Preview: &p})
	}
}

// keepHouse prunes old records and looks at the disk now and then.
func (e *Engine) keepHouse(ctx context.Context) error {
	prune := time.NewTicker(time.Hour)
	look := time.NewTicker(30 * time.Second)
	defer prune.Stop()
	defer look.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-prune.C:
			if _, err := e.store.Retention(ctx); err != nil && ctx.Err() == nil {
				e.log.Warn("prune old records", "err", err)
			}
		case <-look.C:
			notes := e.notices(backend.Status{Disk: disk(e.opts.StateDir)})
			if joined := join(notes); joined != last {
				last = joined
				e.hub.publish(backend.Frame{Kind: backend.FrameNotices, Notices: notes})
			}
		}
	}
}

func join(list []string) string {
	out := ""
	for _, s := range list {
		out += s + "\n"
	}
	return out
}
