package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/fault"
	"easel/backend/workflow"
)

// Times of a session.
const (
	checkEvery   = 500 * time.Millisecond
	quietFor     = 2 * time.Second // without a message before /queue is asked
	missingAgain = time.Second     // between the two looks that find a prompt nowhere
	interruptGap = 5 * time.Second // between two interrupts of the same prompt
	progressGap  = 100 * time.Millisecond
	lookAhead    = 8 // waiting jobs among which one for this card is chosen
)

// session is the dispatcher's work with one launch of one worker. Everything in
// it belongs to the goroutine of run.
type session struct {
	l        *lane
	d        *Dispatcher
	c        *comfy.Client
	launch   string
	clientID string
	box      *mailbox

	inside  []*prompt       // in the order they were sent
	ghosts  map[string]bool // prompt ids that we gave up and that may still turn up
	looked  time.Time       // when /queue was last asked
	wasUp   bool
	freeing []chan error

	life    watching
	said    bool            // a remark was made since the last round
	served  int             // jobs that ended in this launch, as far as we saw
	adopted bool            // prompts of a former engine were inside: what ran before is not known
	shapes  map[string]bool // of the jobs that ran in this launch

	others       []backend.ForeignPrompt
	lookedInside time.Time

	look     bool      // something changed that review and fill must see
	restart  string    // why the worker is restarted once nothing is inside
	poisoned bool      // and does not wait for prompts of others
	leaving  time.Time // when its end was asked for
	refused  time.Time // when that was refused
	relieved time.Time // when its memory was freed
	freedFor string    // job for which memory was freed
}

// newSession begins with an empty inside; run fills it from the records. The
// client id is the launch, so that an engine which adopts a worker hears what
// belongs to its predecessor's prompts.
func newSession(l *lane, c *comfy.Client, launch string) *session {
	return &session{l: l, d: l.d, c: c, launch: launch, clientID: launch, box: newMailbox(), ghosts: map[string]bool{}, shapes: map[string]bool{}}
}

// run serves the launch until it or ctx ends.
func (s *session) run(ctx context.Context) {
	if !s.waitUp(ctx) {
		return
	}
	s.recall(ctx)
	fault.Hit("before-reconcile")
	s.reconcile(ctx)
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	s.lookInside(ctx)
	s.look = true
	for s.alive(ctx) {
		s.l.settleDeaths(ctx) // of an earlier launch, told late
		look := s.look
		s.look = false
		if look {
			s.review(ctx)
		}
		s.upkeep(ctx)
		if look {
			s.fill(ctx)
		}
		if s.finishOver(ctx) && s.count() < insideMax {
			continue
		}
		s.answerFrees(ctx)
		s.showBusy()
		select {
		case <-ctx.Done():
		case <-s.box.ring:
			s.takeMail(ctx)
		case <-s.l.wake:
			s.look = true
		case reply := <-s.l.frees:
			s.freeing, s.look = append(s.freeing, reply), true
		case <-tick.C:
			s.look = true
			if !s.said {
				s.l.remarkOn("", "")
			}
			s.said = false
			s.watch(ctx)
		}
	}
	s.refuseFrees()
}

// alive reports whether the session still speaks to a living launch.
func (s *session) alive(ctx context.Context) bool {
	if ctx.Err() != nil || s.l.isGone(s.launch) {
		return false
	}
	_, launch, ok := s.l.worker.Client()
	return ok && launch == s.launch
}

// waitUp waits for the socket, since nothing is posted before somebody listens.
func (s *session) waitUp(ctx context.Context) bool {
	for s.alive(ctx) {
		if _, _, online, _ := s.box.take(); online {
			s.wasUp = true
			return true
		}
		select {
		case <-ctx.Done():
		case <-s.box.ring:
		case <-s.l.wake:
		case <-time.After(checkEvery):
		}
	}
	return false
}

// recall puts the open attempts of this launch back inside.
func (s *session) recall(ctx context.Context) {
	open, err := s.d.store.Unfinished(ctx)
	if err != nil {
		s.d.log.Error("read open attempts", "err", err)
		return
	}
	for _, job := range open {
		a := job.Attempts[len(job.Attempts)-1]
		if a.Launch != s.launch || !a.Outcome.Open() {
			continue
		}
		p := s.newPrompt(ctx, job, a.N, a.PromptID)
		s.adopted = true
		if a.Outcome == backend.OutcomeRunning {
			p.started, p.startAt = true, a.Started.Time
			s.inside = append([]*prompt{p}, s.inside...)
			continue
		}
		s.inside = append(s.inside, p)
	}
}

// newPrompt makes the lane's view of one job.
func (s *session) newPrompt(ctx context.Context, job backend.Job, n int, id string) *prompt {
	p := &prompt{
		job: job, n: n, id: id, suspect: suspect(job), nodes: map[string]node{},
		done: map[string]bool{}, outputs: map[string]json.RawMessage{}, took: map[string]float64{}, steps: map[string]float64{},
		sentAt: time.Now(),
	}
	if graph, _, err := s.d.store.Graph(ctx, job.ID); err == nil {
		p.nodes, p.total = readNodes(graph)
		p.shape = workflow.Shape(graph)
		p.known = s.d.learned.shape(ctx, p.shape)
		p.perStep = s.d.learned.perStep
		p.weigh()
	}
	if sec, runs, err := s.d.store.Seconds(ctx, p.shape); err == nil && runs > 0 {
		p.expect = sec
	}
	return p
}

// takeMail applies what the socket said.
func (s *session) takeMail(ctx context.Context) {
	mail, preview, online, came := s.box.take()
	s.look = s.look || came
	if came && s.wasUp {
		for _, p := range s.inside {
			p.whole = false // something may have been missed
		}
		s.reconcile(ctx)
	}
	s.wasUp = s.wasUp || online
	for _, m := range mail {
		s.onMessage(ctx, m)
	}
	if preview != nil {
		s.onPreview(*preview)
	}
}

// find is the prompt inside with that id.
func (s *session) find(id string) *prompt {
	for _, p := range s.inside {
		if p.id == id {
			return p
		}
	}
	return nil
}

// running is the prompt that has started, nil when none has.
func (s *session) running() *prompt {
	for _, p := range s.inside {
		if p.started {
			return p
		}
	}
	return nil
}

// onMessage applies one message. The end of a prompt is acted upon at
// executing(null), when its history is written, or at once for an error.
func (s *session) onMessage(ctx context.Context, m comfy.Message) {
	id := promptOf(m)
	p := s.find(id)
	if p == nil && id == "" {
		if e, ok := m.(comfy.Executing); ok && e.Node != nil {
			p = s.running() // what the server says upon connecting has no id
		}
	}
	if p == nil {
		return
	}
	if start, ok := m.(comfy.ExecutionStart); ok {
		p.whole = true
		s.onStart(ctx, p, start.At)
		return
	}
	if !p.started && !p.ended {
		s.onStart(ctx, p, time.Now())
	}
	before := p.node
	changed := p.apply(m)
	p.clock(before, time.Now())
	if changed {
		s.tell(p, false)
	}
	if p.ended {
		if p.success {
			fault.Hit("after-success-before-history")
		}
		if e, ok := m.(comfy.Executing); ok && e.Node == nil {
			s.look = true
			if p.over = p.success; p.over {
				s.fill(ctx) // at once: the next one already runs
			} else {
				s.finish(ctx, p) // what failed decides what may be sent next
			}
		}
	}
}

// onStart writes down that a prompt runs.
func (s *session) onStart(ctx context.Context, p *prompt, at time.Time) {
	if p.started {
		return
	}
	if at.IsZero() {
		at = time.Now()
	}
	p.started, p.startAt = true, at
	s.shapes[p.shape] = true
	job, err := s.d.store.Started(ctx, p.job.ID, p.n, at)
	if err != nil {
		s.d.log.Error("write down that a job runs", "job", p.job.ID, "err", err)
	} else {
		p.job = job
	}
	s.showBusy()
	s.tell(p, true)
}

// onPreview passes on a live picture.
func (s *session) onPreview(m comfy.PreviewImage) {
	p := s.find(m.PromptID)
	if p == nil {
		if p = s.running(); p == nil || m.PromptID != "" {
			return
		}
	}
	s.d.hooks.Preview(backend.Preview{Job: p.job.ID, Node: m.Node, MIME: m.MIME, Data: m.Data})
}

// tell passes on progress, at most ten times a second unless force is set.
func (s *session) tell(p *prompt, force bool) {
	now := time.Now()
	if !force && now.Sub(p.toldAt) < progressGap {
		return
	}
	p.toldAt = now
	pr := p.progress(now)
	s.d.tell(p.job.ID, &pr)
	id := p.job.ID // a copy: the worker shows it to other goroutines
	s.l.worker.SetBusy(&id, pr.Node)
}

// showBusy tells the worker what runs.
func (s *session) showBusy() {
	if p := s.running(); p != nil {
		id := p.job.ID
		s.l.worker.SetBusy(&id, p.node)
		return
	}
	s.l.worker.SetBusy(nil, "")
}

// fill sends jobs until the running one and the next are inside.
func (s *session) fill(ctx context.Context) {
	for s.count() < insideMax && len(s.freeing) == 0 && !s.wantsQuiet() && s.roomFor() && s.box.isOnline() && s.alive(ctx) {
		if len(s.inside) > 0 && s.inside[0].suspect {
			return
		}
		p, ok := s.take(ctx)
		if !ok {
			return
		}
		if !s.post(ctx, p) {
			return
		}
	}
}

// count is how many prompts are inside that have not ended.
func (s *session) count() int {
	n := 0
	for _, p := range s.inside {
		if !p.over {
			n++
		}
	}
	return n
}

// finishOver writes down the prompts that ended well, after the next was sent: the
// GPU does not wait for our records. It reports whether any is done with.
func (s *session) finishOver(ctx context.Context) bool {
	before := len(s.inside)
	for _, p := range append([]*prompt(nil), s.inside...) {
		if p.over {
			s.finish(ctx, p)
		}
	}
	return len(s.inside) < before
}

// take chooses the next job and writes down that it is sent.
func (s *session) take(ctx context.Context) (*prompt, bool) {
	s.d.pick.Lock()
	defer s.d.pick.Unlock()
	if paused, _ := s.d.store.Paused(); paused {
		return nil, false
	}
	next, err := s.d.store.Waiting(ctx, lookAhead, time.Now())
	if err != nil && ctx.Err() == nil {
		s.d.log.Error("read the next job", "err", err)
	}
	i := slices.IndexFunc(next, func(job backend.Job) bool { return !s.l.notHere(job) })
	if err != nil || i < 0 {
		return nil, false
	}
	job := next[i]
	if suspect(job) && len(s.inside) > 0 || !s.dressed(ctx, job) {
		return nil, false
	}
	id := uuid.NewString()
	job, n, err := s.d.store.Sent(ctx, job.ID, backend.Attempt{PromptID: id, Worker: s.l.id, Launch: s.launch})
	if err != nil {
		if ctx.Err() == nil {
			s.d.log.Error("write down that a job is sent", "job", next[i].ID, "err", err)
		}
		return nil, false
	}
	return s.newPrompt(ctx, job, n, id), true
}

// post gives a job to ComfyUI. It returns false when no more should be sent now.
func (s *session) post(ctx context.Context, p *prompt) bool {
	graph, workflow, err := s.d.store.Graph(ctx, p.job.ID)
	if err != nil {
		// Nothing was posted. When we are being ended, the next engine finds the
		// attempt open and takes it back.
		if ctx.Err() == nil {
			s.d.log.Error("read the workflow of a job", "job", p.job.ID, "err", err)
			s.takeBack(ctx, p, "its workflow could not be read: "+err.Error())
		}
		return false
	}
	s.inside = append(s.inside, p)
	resp, err := s.c.Post(ctx, comfy.PromptRequest{
		Graph: graph, PromptID: p.id, ClientID: s.clientID, Workflow: workflow, Extra: mark(p),
	})
	fault.Hit("after-post-before-commit")
	var refused *comfy.PromptError
	switch {
	case err == nil:
		s.accepted(ctx, p, resp)
		return true
	case errors.As(err, &refused):
		s.fail(ctx, p, refusal(refused, p))
		return true
	case comfy.NotSent(err):
		s.takeBack(ctx, p, "the worker did not answer")
		return false
	case comfy.Refused(err):
		s.fail(ctx, p, &backend.Error{
			Kind: backend.KindInvalid, Message: err.Error(),
			Remedy: "ComfyUI could not read this workflow; load it in ComfyUI's page and export it again",
		})
		return true
	}
	// It may have arrived: the next looks at /queue and /history decide.
	s.d.log.Warn("no answer to a prompt", "job", p.job.ID, "err", err)
	return false
}

// accepted notes what ComfyUI said to a prompt it took.
func (s *session) accepted(ctx context.Context, p *prompt, resp comfy.PromptResponse) {
	if resp.PromptID != "" && resp.PromptID != p.id {
		p.id = resp.PromptID // before 0.3.45 the server chooses
	}
	var words []string
	for _, w := range resp.Warnings {
		words = append(words, w.String())
	}
	if len(words) > 0 {
		if _, err := s.d.store.Warn(ctx, p.job.ID, words); err != nil {
			s.d.log.Warn("write down warnings", "job", p.job.ID, "err", err)
		}
	}
}

// mark is the extra data by which a file tells which attempt wrote it.
func mark(p *prompt) map[string]json.RawMessage {
	tag, _ := json.Marshal(map[string]any{"job": p.job.ID, "attempt": p.n, "prompt_id": p.id})
	raw, _ := json.Marshal(map[string]json.RawMessage{"easel": tag})
	return map[string]json.RawMessage{"extra_pnginfo": raw}
}

// drop takes p out of inside.
func (s *session) drop(p *prompt) {
	s.look = true
	for i, q := range s.inside {
		if q == p {
			s.inside = append(s.inside[:i], s.inside[i+1:]...)
			break
		}
	}
	s.d.tell(p.job.ID, nil)
}

// takeBack undoes sending: nothing ran, no attempt counts.
func (s *session) takeBack(ctx context.Context, p *prompt, why string) {
	s.ghosts[p.id] = true
	if _, err := s.d.store.TakeBack(ctx, p.job.ID, p.n, why); err != nil {
		s.d.log.Error("take a job back", "job", p.job.ID, "err", err)
	}
	s.drop(p)
}

// fail ends a job that ComfyUI would not run.
func (s *session) fail(ctx context.Context, p *prompt, e *backend.Error) {
	s.end(ctx, p, endFailed(e))
}
