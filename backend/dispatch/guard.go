package dispatch

import (
	"context"
	"fmt"
	"time"
)

// Times of the guard.
const (
	guardEvery   = time.Second
	leaveWithin  = 30 * time.Second // for a restart that was asked for to begin
	restartAgain = time.Minute      // when it was refused
)

// machine is how the guard sees the box; tests put their own in.
type machine struct {
	ram  func() int64 // free, bytes; 0 unknown
	disk func(path string) (free int64, ok bool)
	who  func(skip map[int]bool) holder
}

// guard looks at memory and disk until ctx ends.
func (d *Dispatcher) guard(ctx context.Context) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		d.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Blocked says why nothing is sent to any worker now, "" when nothing stops it.
func (d *Dispatcher) Blocked() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noDisk != "" {
		return d.noDisk
	}
	return d.noRAM
}

// look compares what is free with the floors.
func (d *Dispatcher) look() {
	o := d.opts()
	d.mu.Lock()
	wasDisk, wasRAM := d.noDisk, d.noRAM
	d.mu.Unlock()
	disk, ram := d.lookAtDisk(o, wasDisk != ""), d.lookAtRAM(o, wasRAM != "")
	d.mu.Lock()
	d.noDisk, d.noRAM = disk, ram
	d.mu.Unlock()
	if (disk == "") != (wasDisk == "") || (ram == "") != (wasRAM == "") {
		d.log.Info("guard", "disk", disk, "ram", ram)
		d.Wake()
	}
	if disk != wasDisk || ram != wasRAM {
		d.hooks.Changed("")
	}
}

// above is the floor with a margin once it was fallen below, so that the answer
// does not flap.
func above(floor int64, was bool) int64 {
	if was {
		return floor + floor/10
	}
	return floor
}

// lookAtDisk says which disk has too little room.
func (d *Dispatcher) lookAtDisk(o *Options, was bool) string {
	if o.MinFreeDisk <= 0 {
		return ""
	}
	paths := []string{o.Disk}
	d.mu.Lock()
	for _, l := range d.lanes {
		paths = append(paths, l.worker.Dirs().Output)
	}
	d.mu.Unlock()
	for _, path := range paths {
		if free, ok := d.box.disk(path); ok && free < above(o.MinFreeDisk, was) {
			return fmt.Sprintf("only %s of disk left at %s (floor %s): make room and it goes on by itself", gib(free), path, gib(o.MinFreeDisk))
		}
	}
	return ""
}

// lookAtRAM says who holds the memory that is missing. A worker of ours that does
// is relieved: freed, then restarted between jobs.
func (d *Dispatcher) lookAtRAM(o *Options, was bool) string {
	free := d.box.ram()
	floor := above(o.MinFreeRAM, was)
	if o.MinFreeRAM <= 0 || free <= 0 || free >= floor {
		d.eachLane(func(l *lane) { l.relief = reliefNone })
		return ""
	}
	head := fmt.Sprintf("only %s of RAM left (floor %s)", gib(free), gib(o.MinFreeRAM))
	var hog *lane
	var held int64
	skip := map[int]bool{}
	d.eachLane(func(l *lane) {
		if l.pid > 0 {
			for _, pid := range treeOf(l.pid) {
				skip[pid] = true
			}
		}
		if l.rss > held && l.rss >= floor-free && l.relief != reliefDone {
			hog, held = l, l.rss
		}
	})
	if hog != nil {
		hog.mu.Lock()
		if hog.relief == reliefNone {
			hog.relief = reliefWanted
		}
		hog.mu.Unlock()
		hog.poke()
		return fmt.Sprintf("%s; worker %s holds %s: it is freed, then restarted between jobs", head, hog.id, gib(held))
	}
	h := d.box.who(skip)
	if h.pid == 0 {
		return head + ": it goes on by itself when there is more"
	}
	return fmt.Sprintf("%s; %s (pid %d, user %s) holds %s: it goes on by itself when there is more", head, h.name, h.pid, h.user, gib(h.rss))
}

// eachLane calls fn for every lane, with its fields locked.
func (d *Dispatcher) eachLane(fn func(*lane)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lanes {
		l.mu.Lock()
		fn(l)
		l.mu.Unlock()
	}
}

// relief is how far a worker that holds the missing memory was relieved.
type relief int

const (
	reliefNone   relief = iota
	reliefWanted        // to be freed once nothing is inside
	reliefFreed         // freed; the next look tells whether it was enough
	reliefDone          // restarted: what is still missing others hold
)

func (l *lane) reliefNow() relief {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.relief
}

func (l *lane) setRelief(r relief) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relief != reliefNone {
		l.relief = r
	}
}

// wantsQuiet reports whether nothing may be sent ahead now: the machine is short
// of something, or the worker is to be freed or restarted.
func (s *session) wantsQuiet() bool {
	return s.restart != "" || s.d.Blocked() != "" || !s.leaving.IsZero() || s.l.reliefNow() != reliefNone && s.l.reliefNow() != reliefDone
}

// roomFor reports whether another job may be sent to this launch before its
// planned restart.
func (s *session) roomFor() bool {
	n := s.d.opts().RecycleJobs
	return n <= 0 || s.served+len(s.inside) < n
}

// upkeep frees and restarts the worker between jobs where that is due.
func (s *session) upkeep(ctx context.Context) {
	if !s.leaving.IsZero() {
		if time.Since(s.leaving) < leaveWithin {
			return
		}
		s.leaving = time.Time{} // it never came: go on
	}
	o := s.d.opts()
	switch {
	case s.restart != "":
	case o.RecycleJobs > 0 && s.served >= o.RecycleJobs:
		s.restart = fmt.Sprintf("worker.recycle_after (%s)", count(s.served, "job"))
	case o.RecycleGrowth > 0 && s.life.use.growth() >= o.RecycleGrowth:
		s.restart = fmt.Sprintf("worker.recycle_after (grown by %s)", gib(s.life.use.growth()))
	}
	if len(s.inside) > 0 {
		return
	}
	s.relieve(ctx)
	if s.restart != "" && time.Since(s.refused) > restartAgain {
		s.restartIdle(ctx)
	}
}

// relieve frees the worker that holds the memory which is missing, then has it
// restarted when that was not enough.
func (s *session) relieve(ctx context.Context) {
	switch s.l.reliefNow() {
	case reliefWanted:
		s.say(nil, "freeing its memory: the machine is short of RAM")
		s.freeAndWait(ctx)
		s.relieved = time.Now()
		s.l.setRelief(reliefFreed)
	case reliefFreed:
		if s.restart == "" && time.Since(s.relieved) > 2*guardEvery {
			s.restart = "the machine is short of RAM and freeing was not enough"
		}
	}
}

// restartIdle restarts the worker while nothing is inside, not even of others.
func (s *session) restartIdle(ctx context.Context) {
	if !s.poisoned {
		if s.lookInside(ctx); len(s.others) > 0 {
			s.say(nil, fmt.Sprintf("to be restarted, %s; waiting for %s of others", s.restart, count(len(s.others), "prompt")))
			return
		}
	}
	if err := s.l.restart(ctx, "Easel: "+s.restart); err != nil {
		s.refused = time.Now()
		s.d.log.Warn("restart a worker between jobs", "worker", s.l.id, "why", s.restart, "err", err)
		s.say(nil, "should be restarted, "+s.restart+", and cannot: "+err.Error())
		s.restart, s.served = "", 0
		s.l.setRelief(reliefDone)
		return
	}
	s.l.setRelief(reliefDone)
	s.leaving = time.Now()
}
