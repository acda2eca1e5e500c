package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "image/gif"  // sizes of outputs
	_ "image/jpeg" // sizes of outputs
	_ "image/png"  // sizes of outputs

	_ "golang.org/x/image/webp" // sizes of outputs

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/jobs"
)

// historyTries is how often the history is read after the end of a prompt: it
// is written about 1 ms after the message.
const historyTries = 4

// finish ends a prompt that has ended inside ComfyUI. When the socket told all of
// it, from execution_start over the files to both messages of its end, that is
// taken together with a look at the files; else its history decides, which costs
// a ComfyUI that paints some milliseconds.
func (s *session) finish(ctx context.Context, p *prompt) {
	if p.whole && p.success && len(p.outputs) > 0 {
		s.endBy(ctx, p, heard(p))
		return
	}
	entry, found, err := s.history(ctx, p.id)
	switch {
	case err != nil:
		p.missing = 0 // no answer: the next watch asks again
		return
	case found:
		s.endBy(ctx, p, entry)
	case p.success || p.err != nil || p.stopped:
		s.endBy(ctx, p, heard(p))
	}
}

// history reads an entry, again for a moment while there is none.
func (s *session) history(ctx context.Context, id string) (comfy.HistoryEntry, bool, error) {
	for i := 0; ; i++ {
		entry, found, err := s.c.History(ctx, id)
		if err != nil || found || i == historyTries {
			return entry, found, err
		}
		select {
		case <-ctx.Done():
			return entry, false, ctx.Err()
		case <-time.After(time.Duration(i+1) * 5 * time.Millisecond):
		}
	}
}

// heard makes a history of what the socket said, for when ComfyUI's own is gone.
func heard(p *prompt) comfy.HistoryEntry {
	raw, err := json.Marshal(p.outputs)
	if err != nil {
		raw = []byte("{}")
	}
	return comfy.HistoryEntry{
		PromptID: p.id, Outputs: raw, Success: p.success && p.err == nil && !p.stopped,
		Interrupted: p.stopped, Error: p.err, Started: p.startAt, Ended: time.Now(),
	}
}

// salvage ends the prompts that were done when the launch ended: the server had
// said so, and their files are there.
func (s *session) salvage(ctx context.Context) {
	for _, p := range append([]*prompt(nil), s.inside...) {
		if p.success || p.err != nil || p.stopped {
			s.endBy(ctx, p, heard(p))
		}
	}
}

// endBy ends a prompt by what a history says.
func (s *session) endBy(ctx context.Context, p *prompt, h comfy.HistoryEntry) {
	outs, fault := s.outputs(ctx, h)
	end := jobs.End{Outputs: outs, InferenceS: span(p, h), At: time.Now(), Shape: p.shape}
	s.sample()
	p.peakRAM = max(p.peakRAM, s.life.use.rss())
	end.PeakRAM, end.PeakVRAM = p.peakRAM, p.peakVRAM
	switch {
	case h.Success && fault == nil:
		end.Outcome, end.State = backend.OutcomeSucceeded, backend.JobSucceeded
	case h.Success:
		end.Outcome, end.State, end.Error = backend.OutcomeFailed, backend.JobFailed, fault
	case p.timedOut:
		end.Outcome, end.State, end.Error = backend.OutcomeFailed, backend.JobFailed, timeoutError(p)
	case h.Interrupted || h.Error == nil && p.stopped:
		end.Outcome, end.State = backend.OutcomeCancelled, backend.JobCancelled
		if !s.cancelling(ctx, p) {
			end.Error = &backend.Error{
				Kind: backend.KindException, Message: "interrupted inside ComfyUI, not by Easel",
				Remedy: "somebody pressed Interrupt in ComfyUI's own page; try again with t or easel jobs retry",
			}
		}
	case h.Error != nil && h.Error.OutOfMemory():
		end = s.outOfMemory(p, h.Error, end)
	case h.Error != nil && h.Error.CUDAFault():
		end = s.poison(p, h.Error, end)
	default:
		end.Outcome, end.State, end.Error = backend.OutcomeFailed, backend.JobFailed, runError(p, h.Error)
	}
	s.end(ctx, p, end)
	if end.Outcome == backend.OutcomeSucceeded {
		s.d.learned.note(ctx, p, end.InferenceS)
	}
}

// poison decides what becomes of a job that broke the GPU's context: it counts
// against the job, and the worker is restarted before the next one.
func (s *session) poison(p *prompt, e *comfy.ExecutionError, end jobs.End) jobs.End {
	why := runError(p, e)
	s.restart, s.poisoned = "the GPU's context is broken ("+comfy.Plain(why.Message, 120)+")", true
	v := &backend.Verdict{
		Kind: backend.KindCUDAFault, Certainty: backend.Certain, Summary: why.Message, Evidence: []string{e.Type},
		Remedy: "nothing to do: the worker was restarted; if it happens again, look at the node and its inputs",
		At:     backend.Now(), Job: &p.job.ID, Node: &e.Node, Worker: s.l.id, Launch: s.launch,
	}
	out := lost(p.job, p.n, v)
	out.InferenceS, out.PeakRAM, out.PeakVRAM = end.InferenceS, end.PeakRAM, end.PeakVRAM
	if out.Error != nil {
		out.Error.Node, out.Error.Class, out.Error.Title = why.Node, why.Class, why.Title
	}
	return out
}

// cancelling reports whether a cancel of the job was asked for.
func (s *session) cancelling(ctx context.Context, p *prompt) bool {
	if !p.cancelAt.IsZero() {
		return true
	}
	job, err := s.d.store.Get(ctx, p.job.ID)
	return err == nil && job.Cancelling
}

// end writes the end of an attempt down, and lets go of it.
func (s *session) end(ctx context.Context, p *prompt, e jobs.End) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if _, err := s.d.store.End(ctx, p.job.ID, p.n, e); err != nil {
		// It stays inside: the next watch finds it in the history and tries again.
		s.d.log.Error("write down the end of a job", "job", p.job.ID, "err", err)
		return
	}
	s.ghosts[p.id] = false
	if p.started {
		s.served++
	}
	s.drop(p)
	s.showBusy()
}

// endFailed is an end with an error.
func endFailed(e *backend.Error) jobs.End {
	return jobs.End{Outcome: backend.OutcomeFailed, State: backend.JobFailed, Error: e, At: time.Now()}
}

// span is how long a prompt ran inside ComfyUI, in seconds.
func span(p *prompt, h comfy.HistoryEntry) float64 {
	from, to := h.Started, h.Ended
	if from.IsZero() {
		from = p.startAt
	}
	if from.IsZero() || !to.After(from) {
		return 0
	}
	return to.Sub(from).Seconds()
}

// outputs lists what a prompt made, each file looked at. fault is set when one
// is missing or cut short, which is no result.
func (s *session) outputs(ctx context.Context, h comfy.HistoryEntry) (out []backend.Output, fault *backend.Error) {
	dirs := s.l.worker.Dirs()
	for _, f := range comfy.Files(h.Outputs) {
		o := backend.Output{Node: f.Node, Kind: f.Kind, Filename: f.Filename, Subfolder: f.Subfolder, Type: f.Type, Text: f.Text}
		if f.Filename == "" {
			out = append(out, o)
			continue
		}
		if o.Kind == comfy.FileOther {
			o.Kind = "model"
		}
		path, err := f.Path(dirs)
		if err != nil {
			out = append(out, o) // not on this machine: it can still be read by /view
			continue
		}
		o.Path = path
		if err := measure(&o); err != nil && h.Success {
			fault = &backend.Error{
				Kind: backend.KindOutput, Node: f.Node, Message: fmt.Sprintf("the output %s %v", filepath.Base(path), err),
				Remedy: "is the disk full? easel status shows it; make room and try again",
			}
		}
		out = append(out, o)
	}
	return out, fault
}

// measure reads size and dimensions of a file, and says what is wrong with it.
func measure(o *backend.Output) error {
	f, err := os.Open(o.Path)
	if err != nil {
		if os.IsNotExist(err) {
			return fmt.Errorf("is not where ComfyUI says it wrote it (%s)", filepath.Dir(o.Path))
		}
		return fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("is no regular file")
	}
	size := st.Size()
	o.Bytes, o.Modified = &size, backend.At(st.ModTime())
	if size == 0 {
		return fmt.Errorf("is empty")
	}
	if o.Kind != "image" {
		return nil
	}
	cfg, format, err := image.DecodeConfig(f)
	if err != nil {
		return nil // a format that we do not know is no fault
	}
	o.Width, o.Height = &cfg.Width, &cfg.Height
	if format == "png" && !endsInIEND(f, size) {
		return fmt.Errorf("is cut short (%d bytes)", size)
	}
	return nil
}

// endsInIEND reports whether a PNG is whole: its last chunk is IEND.
func endsInIEND(f *os.File, size int64) bool {
	var tail [12]byte
	if size < int64(len(tail)) {
		return false
	}
	if _, err := f.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return false
	}
	return string(tail[4:8]) == "IEND"
}

// runError puts what a node raised into words.
func runError(p *prompt, e *comfy.ExecutionError) *backend.Error {
	if e == nil {
		return &backend.Error{Kind: backend.KindException, Message: "ComfyUI says that the run failed and not why", Remedy: "its log says more: easel worker logs"}
	}
	n := p.nodeOf(e.Node)
	out := &backend.Error{
		Kind: backend.KindException, Node: e.Node, Class: e.Class, Title: n.title,
		Message: firstLine(e.Message, e.Type),
		Remedy:  "the node's own error; its traceback is in the log: easel worker logs",
	}
	switch {
	case e.OutOfMemory():
		out.Kind = backend.KindCUDAOOM
		out.Remedy = "the GPU's memory was full: make batch, frames or size smaller, or free memory (easel worker free), then try again"
	case e.CUDAFault():
		out.Kind = backend.KindCUDAFault
		out.Remedy = "the GPU context is broken: restart the worker (easel worker restart), then try again"
	case e.HostOutOfMemory():
		out.Remedy = "the machine's memory was full: make batch, frames or size smaller, then try again"
	}
	return out
}

// firstLine is the message on one line, with the exception's name when the
// message alone says nothing.
func firstLine(message, kind string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	line = comfy.Plain(line, 400)
	if line == "" {
		return "the node raised " + comfy.Plain(kind, 100)
	}
	return line
}

// refusal puts a refused prompt into words.
func refusal(e *comfy.PromptError, p *prompt) *backend.Error {
	out := &backend.Error{Kind: backend.KindInvalid, Message: e.Error(), Node: e.Node, Remedy: "correct the workflow and run it again"}
	if len(e.Nodes) > 0 {
		first := e.Nodes[0]
		out.Node, out.Class, out.Input = first.Node, first.Class, first.Input
		out.Message = first.String()
	}
	if out.Node != "" {
		out.Title = p.nodeOf(out.Node).title
	}
	return out
}

func timeoutError(p *prompt) *backend.Error {
	return &backend.Error{
		Kind: backend.KindTimeout, Message: fmt.Sprintf("stopped after its limit of %.0f s", p.job.TimeoutS),
		Node: p.node, Class: p.nodeOf(p.node).class, Title: p.nodeOf(p.node).title,
		Remedy: "raise --timeout, or make the workflow smaller",
	}
}
