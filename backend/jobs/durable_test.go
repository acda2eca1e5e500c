package jobs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"easel/backend"
)

// childSubmits is the life of the process that TestKillLosesNothing kills: it
// submits with several callers and prints the id of each accepted job.
func childSubmits(path string) {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	var mu sync.Mutex // guards stdout
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for {
				j, _, err := s.Submit(context.Background(), sub(fmt.Sprint("owner", w)))
				if err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(j.ID)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestKillLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	acked := map[string]bool{}
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		goal := len(acked) + 150 + 40*round
		for lines.Scan() {
			if len(lines.Text()) != 36 {
				t.Errorf("child: %s", lines.Text())
				break
			}
			acked[lines.Text()] = true
			if len(acked) == goal {
				_ = cmd.Process.Kill() // SIGKILL; what it printed before is read on
			}
		}
		_ = cmd.Wait()
	}
	s := openAt(t, path, Options{})
	all, err := s.List(context.Background(), backend.JobFilter{})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, j := range all {
		have[j.ID] = true
	}
	for id := range acked {
		if !have[id] {
			t.Errorf("job %s was accepted and is gone", id)
		}
	}
	if len(acked) < 450 || len(all) > len(acked)+3*4 {
		t.Errorf("%d accepted, %d in the records", len(acked), len(all))
	}
	c, err := s.Counts(context.Background())
	if err != nil || c.Queued != len(all) {
		t.Errorf("counts %+v of %d jobs, %v", c, len(all), err)
	}
}

func TestReopenKeepsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	first := sub("a")
	first.Key = "k"
	a, b := submit(t, s, first), submit(t, s, sub("b"))
	n := runJob(t, s, a.ID)
	if err := s.SetPaused(ctx, true, "by ann"); err != nil {
		t.Fatal(err)
	}
	last := s.LastSeq()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Submit(ctx, sub("a")); err == nil {
		t.Error("a closed store accepted a job")
	}
	s = openAt(t, path, Options{})
	if s.LastSeq() != last {
		t.Errorf("last event %d, was %d", s.LastSeq(), last)
	}
	open, err := s.Unfinished(ctx)
	if err != nil || len(open) != 1 || open[0].ID != a.ID || open[0].Attempts[0].Launch != "l1" {
		t.Errorf("unfinished %+v, %v", open, err)
	}
	again, created, err := s.Submit(ctx, first)
	if err != nil || created || again.ID != a.ID {
		t.Errorf("the key made %s (created %v), %v", again.ID, created, err)
	}
	if got := get(t, s, b.ID); got.WaitReason != "queue paused: by ann" {
		t.Errorf("wait reason %q", got.WaitReason)
	}
	finish(t, s, a.ID, n)
	events, err := s.Events(ctx, last, 0)
	if err != nil || len(events) != 2 || events[0].Seq != last+1 {
		t.Errorf("events after the restart: %+v, %v", events, err)
	}
}

func TestStuckDiskRefusesInTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.db")
	s := openAt(t, path, Options{patience: 100 * time.Millisecond})
	lock, err := openDB(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	tx, err := lock.Begin() // holds the only write lock
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 3)
	for range 3 {
		go func() {
			_, _, err := s.Submit(context.Background(), sub("a"))
			results <- err
		}()
	}
	for range 3 {
		wantKind(t, <-results, backend.FailBusy)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	// One may have been in the writer's hands; none of the others was made.
	if err := s.SetMeta(context.Background(), "x", "y"); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Counts(context.Background()); err != nil || c.Queued > 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestWALStaysShort(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 100 MB")
	}
	s := open(t, Options{Limit: -1})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 250 {
				in := sub("a")
				in.Graph = json.RawMessage(fmt.Sprintf(`{"%d":%q}`, i, noise(40_000)))
				submit(t, s, in)
			}
		})
	}
	wg.Wait()
	st, err := os.Stat(s.path + "-wal")
	if err != nil || st.Size() > 3*walMax*4096 {
		t.Errorf("the WAL has %d MB, %v", st.Size()>>20, err)
	}
	t.Logf("the WAL has %d MB", st.Size()>>20)
}
