// Package live is what the console knows of its engine: a State built from the
// frames of the event stream. It does no I/O, takes the time as an argument, and
// every list in it is bounded. Views read it; only the root model writes to it.
package live

import (
	"slices"
	"time"

	"easel/backend"
)

// Link says how the console stands with the engine.
type Link int

// The states of the link.
const (
	Looking   Link = iota // nothing has answered yet
	Connected             // the stream is open and a snapshot came
	Lost                  // it was open and broke; the client tries again by itself
	Down                  // the engine could not be found or started: a person must act
	Stopping              // the engine said that it is being stopped on purpose
)

// Bounds of the lists.
const (
	MaxRecent  = 200
	maxDeaths  = 50
	MinWaiting = 500 // waiting jobs kept at least
	binLength  = 10 * time.Second
	bins       = 60 // 10 minutes
)

// State is everything that the screens draw from.
type State struct {
	Box   string // name of the box that is looked at
	Link  Link
	Since time.Time // when Link last changed
	Note  string    // what the console is doing about it, in words: "starting the engine"
	Err   string    // why the link is Lost or Down, "" when it is not
	Hint  string    // what to do about Err, a line for each way

	Have    bool // a snapshot came: the fields below mean something
	Status  backend.Status
	Workers []backend.Worker
	Queue   backend.QueueCounts
	GPUs    []backend.GPU
	Marks   []backend.GPUMark // of the cards' time line, oldest first
	Notices []string

	Running []backend.Job // oldest first
	Waiting []backend.Job // queued and held, in the order of dispatch
	Recent  []backend.Job // finished, newest first
	Deaths  []backend.Verdict

	Preview  map[string]*backend.Preview // by job; only of running jobs
	Previews int                         // counts preview frames

	// Rev grows with every change, so that drawn text can be kept.
	Rev int
	// OrderRev grows when the order of Waiting may no longer be right and should
	// be asked for.
	OrderRev int
	// Window is how many waiting jobs are kept.
	Window int

	history map[int]*series // by GPU index
}

// New is the State before anything is known.
func New(box string, now time.Time) *State {
	return &State{
		Box: box, Since: now, Window: MinWaiting,
		Preview: map[string]*backend.Preview{}, history: map[int]*series{},
	}
}

// SetLink changes the link.
func (s *State) SetLink(l Link, note, err, hint string, now time.Time) {
	if s.Link != l {
		s.Since = now
	}
	s.Link, s.Note, s.Err, s.Hint = l, note, err, hint
	s.Rev++
}

// Apply takes one frame in.
func (s *State) Apply(f backend.Frame, now time.Time) {
	s.Rev++
	switch f.Kind {
	case backend.FrameSnapshot:
		s.snapshot(f.Snapshot, now)
	case backend.FrameReset: // a snapshot follows
	case backend.FrameEvent:
		s.event(f.Event)
	case backend.FrameWorkers:
		s.setWorkers(f.Workers)
	case backend.FrameQueue:
		if f.Queue != nil {
			s.Queue = *f.Queue
		}
	case backend.FrameProgress:
		s.progress(f.Progress)
	case backend.FramePreview:
		if p := f.Preview; p != nil && s.isRunning(p.Job) {
			s.Preview[p.Job] = p
			s.Previews++
		}
	case backend.FrameGPUs:
		s.setGPUs(f.GPUs, now)
	case backend.FrameMarks:
		s.Marks = f.Marks
	case backend.FrameNotices:
		s.Notices = f.Notices
	case backend.FrameStopping:
		s.SetLink(Stopping, "", "", "", now)
	}
}

func (s *State) snapshot(sn *backend.Snapshot, now time.Time) {
	if sn == nil {
		return
	}
	s.Have = true
	s.Status = sn.Status
	s.Deaths = slices.Clone(sn.Deaths)
	s.setWorkers(sn.Status.Workers)
	s.Queue = sn.Status.Queue
	s.Notices = sn.Status.Notices
	s.Running, s.Waiting = s.Running[:0:0], s.Waiting[:0:0]
	for _, j := range sn.Jobs {
		if j.State == backend.JobRunning {
			s.Running = append(s.Running, j)
		} else {
			s.Waiting = append(s.Waiting, j)
		}
	}
	s.Recent = slices.Clone(sn.Recent)
	s.seed(sn.GPUHistory, sn.Status.GPUs, now)
	s.setGPUs(sn.Status.GPUs, now)
	s.dropPreviews()
	if s.Queue.Queued+s.Queue.Held > len(s.Waiting) {
		s.OrderRev++
	}
}

func (s *State) setWorkers(ws []backend.Worker) {
	for _, w := range ws {
		d := w.LastDeath
		if d == nil || d.Kind == backend.KindAsked {
			continue
		}
		if !slices.ContainsFunc(s.Deaths, func(o backend.Verdict) bool { return o.Launch == d.Launch && o.At.Equal(d.At.Time) }) && s.Have {
			s.Deaths = slices.Insert(s.Deaths, 0, *d)
		}
	}
	if len(s.Deaths) > maxDeaths {
		s.Deaths = s.Deaths[:maxDeaths]
	}
	s.Workers = ws
}

func (s *State) progress(p *backend.JobProgress) {
	if p == nil {
		return
	}
	for i := range s.Running {
		if s.Running[i].ID == p.Job {
			pr := p.Progress
			s.Running[i].Progress = &pr
		}
	}
}

// event files the job of a numbered event where it now belongs.
func (s *State) event(e *backend.Event) {
	if e == nil {
		return
	}
	if e.Kind == backend.EventCleared {
		s.remove(e.JobID)
		return
	}
	if e.Job == nil {
		s.OrderRev++
		return
	}
	if e.Kind == backend.EventMoved {
		s.OrderRev++
	}
	s.place(*e.Job)
	s.dropPreviews()
}

func (s *State) place(j backend.Job) {
	same := func(o backend.Job) bool { return o.ID == j.ID }
	switch {
	case j.State == backend.JobRunning:
		if i := slices.IndexFunc(s.Running, same); i >= 0 {
			if j.Progress == nil {
				j.Progress = s.Running[i].Progress
			}
			s.Running[i] = j
			return
		}
		s.remove(j.ID)
		s.Running = append(s.Running, j)
	case j.State.Final():
		if i := slices.IndexFunc(s.Recent, same); i >= 0 {
			s.Recent[i] = j
			return
		}
		s.remove(j.ID)
		s.Recent = slices.Insert(s.Recent, 0, j)
		if len(s.Recent) > MaxRecent {
			s.Recent = s.Recent[:MaxRecent]
		}
	default:
		if i := slices.IndexFunc(s.Waiting, same); i >= 0 && s.Waiting[i].Priority == j.Priority {
			s.Waiting[i] = j
			return
		}
		s.remove(j.ID)
		s.insert(j)
	}
}

// insert puts a waiting job behind those of its priority; the engine's own order
// is asked for soon after.
func (s *State) insert(j backend.Job) {
	at := len(s.Waiting)
	for at > 0 && s.Waiting[at-1].Priority < j.Priority {
		at--
	}
	if at >= s.Window {
		return
	}
	s.Waiting = slices.Insert(s.Waiting, at, j)
	if len(s.Waiting) > s.Window {
		s.Waiting = s.Waiting[:s.Window]
	}
	s.OrderRev++
}

func (s *State) remove(id string) {
	is := func(o backend.Job) bool { return o.ID == id }
	s.Running = slices.DeleteFunc(s.Running, is)
	s.Waiting = slices.DeleteFunc(s.Waiting, is)
	s.Recent = slices.DeleteFunc(s.Recent, is)
}

// SetWaiting replaces the waiting jobs by what the engine answered; jobs that have
// begun or ended since are left out.
func (s *State) SetWaiting(jobs []backend.Job) {
	w := make([]backend.Job, 0, len(jobs))
	for _, j := range jobs {
		if (j.State == backend.JobQueued || j.State == backend.JobHeld) && !s.isRunning(j.ID) && !s.isRecent(j.ID) {
			w = append(w, j)
		}
	}
	s.Waiting = w
	s.Rev++
}

// Job finds a job in the lists by its id.
func (s *State) Job(id string) (backend.Job, bool) {
	for _, l := range [][]backend.Job{s.Running, s.Waiting, s.Recent} {
		for _, j := range l {
			if j.ID == id {
				return j, true
			}
		}
	}
	return backend.Job{}, false
}

func (s *State) isRunning(id string) bool {
	return slices.ContainsFunc(s.Running, func(j backend.Job) bool { return j.ID == id })
}

func (s *State) isRecent(id string) bool {
	return slices.ContainsFunc(s.Recent, func(j backend.Job) bool { return j.ID == id })
}

func (s *State) dropPreviews() {
	for id := range s.Preview {
		if !s.isRunning(id) {
			delete(s.Preview, id)
		}
	}
}

// Worker is the worker that matters most: the one with the given id, or the
// first that is not well, or the first.
func (s *State) Worker(id string) (backend.Worker, bool) {
	for _, w := range s.Workers {
		if w.ID == id {
			return w, true
		}
	}
	if id != "" || len(s.Workers) == 0 {
		return backend.Worker{}, false
	}
	for _, w := range s.Workers {
		if w.State == backend.WorkerFailed || w.State == backend.WorkerBackoff {
			return w, true
		}
	}
	return s.Workers[0], true
}

// ETA guesses how long the jobs ahead take, from the seconds of the last
// finished ones; ok is false when nothing is known. One worker is one lane.
func (s *State) ETA() (time.Duration, bool) {
	var sum float64
	var n int
	for _, j := range s.Recent {
		if j.State == backend.JobSucceeded && j.InferenceS != nil && n < 20 {
			sum += *j.InferenceS
			n++
		}
	}
	left := 0.0
	for _, j := range s.Running {
		if j.Progress != nil && j.Progress.ETAS != nil {
			left += *j.Progress.ETAS
		}
	}
	if n == 0 {
		return time.Duration(left * float64(time.Second)), left > 0
	}
	left += sum / float64(n) * float64(s.Queue.Queued)
	return time.Duration(left / float64(max(1, len(s.Workers))) * float64(time.Second)), true
}
