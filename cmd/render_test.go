package cmd

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/charmbracelet/x/exp/golden"

	"easel/backend"
)

func ptr[T any](v T) *T { return &v }

var (
	noon    = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	before  = func(d time.Duration) backend.Time { return backend.At(noon.Add(-d)) }
	verdict = &backend.Verdict{
		Kind: backend.KindHostOOM, Certainty: backend.Likely, Summary: "the kernel took the process for memory",
		Evidence: []string{"oom_kill moved from 3 to 4", "RSS just before: 30.1 GiB"}, Remedy: "a smaller batch, or --lowvram",
		Signal: ptr(9), At: before(90 * time.Second), Worker: "gpu0",
	}
)

// jobsOfEachKind are a job in each state, newest first.
func jobsOfEachKind() []backend.Job {
	return []backend.Job{
		{
			ID: "11111111-0000-4000-8000-000000000001", Name: "portrait seed=3", Owner: "me", Source: backend.SourceCLI, State: backend.JobQueued,
			Position: ptr(2), WaitReason: "1 job before it", Created: before(10 * time.Second), Group: "night",
		},
		{ID: "22222222-0000-4000-8000-000000000002", Name: "held\x1b[31m one", State: backend.JobHeld, WaitReason: "held", Created: before(20 * time.Second)},
		{
			ID: "33333333-0000-4000-8000-000000000003", Name: "肖像 wan-vace", State: backend.JobRunning, Created: before(2 * time.Minute), Started: before(100 * time.Second),
			Progress: &backend.Progress{Node: "3", Class: "KSampler", Title: "KSampler", Value: 14, Max: 20, Fraction: 0.68, ETAS: ptr(100.0)},
			Attempts: []backend.Attempt{
				{N: 1, Worker: "gpu0", Started: before(100 * time.Second), Finished: before(90 * time.Second), Outcome: backend.OutcomeLost, Verdict: verdict, Leftovers: []string{"/out/x_00001_.png"}},
				{N: 2, Worker: "gpu0", Started: before(80 * time.Second), Outcome: backend.OutcomeRunning},
			},
			Labels: map[string]string{"task_id": "7", "b": "2"}, Priority: 5, RetryOf: ptr("44444444-0000-4000-8000-000000000004"),
		},
		{ID: "55555555-0000-4000-8000-000000000005", Name: "stopping", State: backend.JobRunning, Cancelling: true, Created: before(3 * time.Minute), Started: before(3 * time.Minute)},
		{
			ID: "44444444-0000-4000-8000-000000000004", Name: "hello", Owner: "me", Source: backend.SourceConsole, State: backend.JobSucceeded,
			Created: before(26 * time.Hour), Started: before(26 * time.Hour), Finished: backend.At(noon.Add(-26*time.Hour + 8200*time.Millisecond)), InferenceS: ptr(7.9),
			Outputs: []backend.Output{
				{Node: "9", Kind: "image", Filename: "hello_00001_.png", Path: "/out/hello_00001_.png", Bytes: ptr(int64(1 << 20)), Width: ptr(1024), Height: ptr(768)},
				{Node: "10", Kind: "text", Text: "what it says\nin two lines"},
			},
			Warnings: []string{"node 7 is not used"},
		},
		{
			ID: "66666666-0000-4000-8000-000000000006", Name: "", State: backend.JobFailed, Created: before(50 * time.Hour), Started: before(50 * time.Hour), Finished: before(49 * time.Hour),
			Error: &backend.Error{Kind: backend.KindException, Message: "CUDA out of memory", Node: "3", Class: "KSampler", Remedy: "m: smaller", Quarantined: true},
		},
	}
}

func TestJobsTable(t *testing.T) {
	var b bytes.Buffer
	writeJobs(&b, jobsOfEachKind(), noon)
	golden.RequireEqual(t, b.Bytes())
}

func TestJobInFull(t *testing.T) {
	var b bytes.Buffer
	for _, j := range jobsOfEachKind() {
		writeJob(&b, j, noon)
		b.WriteString("\n")
	}
	golden.RequireEqual(t, b.Bytes())
}

func TestEventsWithDelays(t *testing.T) {
	at := func(ms int) backend.Time { return backend.At(noon.Add(time.Duration(ms) * time.Millisecond)) }
	data := func(v any) json.RawMessage { b, _ := json.Marshal(v); return b }
	var b bytes.Buffer
	writeEvents(&b, []backend.Event{
		{Seq: 5, JobSeq: 1, At: at(0), Kind: backend.EventAccepted, Data: data(map[string]any{"state": "queued"})},
		{Seq: 6, JobSeq: 2, At: at(3), Kind: backend.EventSent, Data: data(map[string]any{"n": 1, "worker": "gpu0"})},
		{Seq: 9, JobSeq: 3, At: at(45), Kind: backend.EventStarted},
		{Seq: 10, JobSeq: 4, At: at(8200), Kind: backend.EventAttempt, Data: data(map[string]any{"outcome": "lost", "verdict": verdict})},
		{Seq: 11, JobSeq: 5, At: at(130000), Kind: backend.EventOutput, Data: data(map[string]any{"n": 2, "outputs": []backend.Output{{Filename: "a.png", Width: ptr(8), Height: ptr(9)}}})},
		{Seq: 12, JobSeq: 6, At: at(130001), Kind: backend.EventState, Data: json.RawMessage(`not json`)},
		{Seq: 13, JobSeq: 7, At: at(130002), Kind: backend.EventState, Data: data(map[string]any{"from": "running", "to": "succeeded"})},
		{Seq: 14, JobSeq: 8, At: at(130003), Kind: backend.EventMoved, Data: data(map[string]any{"priority": 3, "by": "ann"})},
	}, noon)
	golden.RequireEqual(t, b.Bytes())
}

func TestStatusInWords(t *testing.T) {
	var b bytes.Buffer
	writeStatus(&b, backend.Status{
		Engine: &backend.EngineInfo{PID: 12, Version: "v1", Started: before(134 * time.Minute), StateDir: "/var/easel"},
		Keeper: &backend.KeeperInfo{PID: 11, Restarts: 1, LastCrash: &backend.CrashInfo{At: before(time.Hour), Reason: "signal 9", Lines: []string{"fatal error"}}},
		Workers: []backend.Worker{
			{ID: "gpu0", State: backend.WorkerBusy, Since: before(90 * time.Second), PID: ptr(40), URL: "http://127.0.0.1:8190", ComfyUI: &backend.ComfyUIInfo{Dir: "/opt/ComfyUI", Version: "0.3.64"}, Job: ptr("33333333-0000-4000-8000-000000000003"), Restarts: 1, LastDeath: verdict},
			{ID: "gpu1", State: backend.WorkerBackoff, Reason: "died 3 times", Since: before(time.Second), NextRestart: backend.At(noon.Add(4 * time.Second)), LastDeath: verdict},
			{ID: "cpu", State: backend.WorkerStarting, Builtin: true, LastLine: "importing\x1b[0m nodes"},
			{ID: "url", State: backend.WorkerReady, External: true, ComfyUI: &backend.ComfyUIInfo{}},
		},
		Queue:   backend.QueueCounts{Queued: 12, Running: 1, Held: 2, Paused: true, PauseReason: "me"},
		Gateway: backend.GatewayInfo{URL: "http://127.0.0.1:8288", Listening: true},
		GPUs:    []backend.GPU{{Index: 0, Name: "NVIDIA A10", MemoryUsed: ptr(int64(20 << 30)), MemoryTotal: ptr(int64(24 << 30)), Utilisation: ptr(97.0), Temperature: ptr(71.0), Power: ptr(148.0)}, {Index: 1, Name: "?", Note: "no driver"}},
		Disk:    backend.DiskInfo{Path: "/var/easel", Free: 3 << 30, Total: 100 << 30},
		Notices: []string{"log-out ends Easel"},
		Found:   []backend.FoundComfy{{Dir: "/opt/my ui"}, {URL: "http://127.0.0.1:8188", PID: 7, User: "ann"}},
	}, noon)
	golden.RequireEqual(t, b.Bytes())
}

// TestWhereIsSaidOnce: messages of a check name their node themselves.
func TestWhereIsSaidOnce(t *testing.T) {
	for _, tc := range []struct{ message, want string }{
		{"Invalid image file: x.png", "node 1 LoadImage, input image: Invalid image file: x.png"},
		{"node 1 (LoadImage) image: Invalid image file: x.png", "node 1 (LoadImage) image: Invalid image file: x.png"},
		{"node 12 (LoadImage): gone", "node 1 LoadImage, input image: node 12 (LoadImage): gone"},
	} {
		if got := errorLine(backend.Error{Node: "1", Class: "LoadImage", Input: "image", Message: tc.message}); got != tc.want {
			t.Errorf("%s\nwant %s", got, tc.want)
		}
	}
}
