package dispatch

import (
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/workflow"
)

func verdict(kind, certainty string) *backend.Verdict {
	return &backend.Verdict{Kind: kind, Certainty: certainty, Summary: "it ended", At: backend.Now()}
}

func lostAttempts(verdicts ...*backend.Verdict) backend.Job {
	var j backend.Job
	for i, v := range verdicts {
		j.Attempts = append(j.Attempts, backend.Attempt{N: i + 1, Outcome: backend.OutcomeLost, Verdict: v})
	}
	j.Attempts = append(j.Attempts, backend.Attempt{N: len(verdicts) + 1, Outcome: backend.OutcomeRunning})
	return j
}

func TestWhatBecomesOfALostJob(t *testing.T) {
	crash, killed := verdict(backend.KindCrash, backend.Certain), verdict(backend.KindKilled, backend.Certain)
	maybe, oom := verdict(backend.KindHostOOM, backend.Likely), verdict(backend.KindHostOOM, backend.Certain)
	cancelling := lostAttempts()
	cancelling.Cancelling = true
	for _, c := range []struct {
		name  string
		job   backend.Job
		v     *backend.Verdict
		state backend.JobState
		aside bool
	}{
		{"a first crash is tried again", lostAttempts(), crash, backend.JobQueued, false},
		{"a second crash sets it aside", lostAttempts(crash), crash, backend.JobFailed, true},
		{"kills from outside do not count", lostAttempts(killed, killed, killed), killed, backend.JobQueued, false},
		{"five attempts of any kind are the end", lostAttempts(killed, killed, killed, killed), killed, backend.JobFailed, false},
		{"a likely out-of-memory does not count", lostAttempts(maybe), maybe, backend.JobQueued, false},
		{"a certain one does", lostAttempts(oom), crash, backend.JobFailed, true},
		{"a cancelled job is not tried again", cancelling, killed, backend.JobCancelled, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := lost(c.job, len(c.job.Attempts), c.v)
			if e.State != c.state || e.Outcome != backend.OutcomeLost {
				t.Errorf("became %s (%s), want %s", e.State, e.Outcome, c.state)
			}
			if aside := e.Error != nil && e.Error.Quarantined; aside != c.aside {
				t.Errorf("set aside: %v, want %v", aside, c.aside)
			}
			if e.State == backend.JobFailed && (e.Error.Kind != c.v.Kind || e.Error.Remedy == "") {
				t.Errorf("error %+v", e.Error)
			}
		})
	}
}

func TestProgressCountsSamplersHeavier(t *testing.T) {
	graph := json.RawMessage(`{"1":{"class_type":"EmptyLatentImage"},"2":{"class_type":"KSampler","_meta":{"title":"paint"}},"3":{"class_type":"SaveImage"}}`)
	p := &prompt{done: map[string]bool{}, outputs: map[string]json.RawMessage{}, startAt: time.Now().Add(-10 * time.Second)}
	p.nodes, p.total = readNodes(graph)
	p.apply(comfy.ExecutionCached{Nodes: []string{"1"}})
	node := "2"
	p.apply(comfy.Executing{Node: &node})
	p.apply(comfy.Progress{Node: "2", Value: 10, Max: 20})
	got := p.progress(time.Now())
	if got.Title != "paint" || got.Class != "KSampler" || got.Value != 10 || got.Fraction != 0.5 {
		t.Errorf("progress %+v", got)
	}
	if got.ETAS == nil || *got.ETAS < 9 || *got.ETAS > 11 {
		t.Errorf("eta %v", got.ETAS)
	}
	p.expect = 12
	if eta := p.progress(time.Now()).ETAS; eta == nil || *eta < 1 || *eta > 3 {
		t.Errorf("eta by the past: %v", eta)
	}
}

func TestShapeIgnoresSeedsAndTexts(t *testing.T) {
	one := workflow.Shape(json.RawMessage(`{"1":{"class_type":"K","inputs":{"seed":18446744073709551615,"steps":20,"text":"a"}}}`))
	two := workflow.Shape(json.RawMessage(`{"1":{"class_type":"K","inputs":{"seed":4,"steps":20,"text":"b"},"_meta":{"title":"x"}}}`))
	three := workflow.Shape(json.RawMessage(`{"1":{"class_type":"K","inputs":{"seed":4,"steps":21}}}`))
	if one == "" || one != two || one == three {
		t.Errorf("shapes %q %q %q", one, two, three)
	}
}

func TestMailboxKeepsOrderAndNewestPicture(t *testing.T) {
	b := newMailbox()
	b.connected(true)
	b.put(comfy.ExecutionStart{PromptID: "p"})
	for i := range 100 {
		b.put(comfy.Progress{PromptID: "p", Node: "1", Value: float64(i)})
		b.put(comfy.PreviewImage{Data: []byte{byte(i)}})
		b.put(comfy.Status{})
	}
	b.put(comfy.ExecutionSuccess{PromptID: "p"})
	mail, preview, online, came := b.take()
	if !online || !came || len(mail) != 3 || preview == nil || preview.Data[0] != 99 {
		t.Fatalf("mail %v preview %v online %v came %v", mail, preview, online, came)
	}
	if p, ok := mail[1].(comfy.Progress); !ok || p.Value != 99 {
		t.Errorf("progress %v", mail[1])
	}
	if mail, _, _, came := b.take(); len(mail) != 0 || came {
		t.Errorf("the box was not emptied: %v", mail)
	}
}

func TestMeasureSeesTruncatedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.png")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 40, 30))); err != nil {
		t.Fatal(err)
	}
	f.Close()
	o := backend.Output{Kind: "image", Path: path}
	if err := measure(&o); err != nil || *o.Width != 40 || *o.Height != 30 {
		t.Errorf("a whole file: %v, %+v", err, o)
	}
	st, _ := os.Stat(path)
	if err := os.Truncate(path, st.Size()-5); err != nil {
		t.Fatal(err)
	}
	if err := measure(&o); err == nil {
		t.Error("a truncated file passes")
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := measure(&o); err == nil {
		t.Error("an empty file passes")
	}
	o.Path = path + ".gone"
	if err := measure(&o); err == nil {
		t.Error("a missing file passes")
	}
}

func TestRunErrorsAreInWordsWithoutTracebacks(t *testing.T) {
	p := &prompt{nodes: map[string]node{"4": {class: "KSampler", title: "paint"}}}
	e := runError(p, &comfy.ExecutionError{Node: "4", Class: "KSampler", Type: "torch.OutOfMemoryError", Message: "CUDA out of memory. Tried to allocate 2 GiB\nmore"})
	if e.Kind != backend.KindCUDAOOM || e.Title != "paint" || e.Remedy == "" || e.Message != "CUDA out of memory. Tried to allocate 2 GiB" {
		t.Errorf("%+v", e)
	}
	if e := runError(p, &comfy.ExecutionError{Node: "4", Type: "ValueError"}); e.Kind != backend.KindException || e.Message == "" {
		t.Errorf("%+v", e)
	}
}
