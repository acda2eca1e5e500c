package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/process"
)

// attentionLine is what ComfyUI says at its start (comfy/ldm/modules/attention.py).
var attentionLine = regexp.MustCompile(`(?i)^Using (.*?)(?: (?:optimization )?for attention| attention|, if you have memory)`)

// startBytes is how much of a log's beginning is looked at.
const startBytes = 2 << 20

// newestLog is the log of the last launch of a worker, "" when there is none.
func (b *Box) newestLog() string {
	for _, f := range b.newestLogs(1) {
		return f
	}
	return ""
}

// startLines calls fn with each of the first lines of a log until it returns false.
func startLines(path string, fn func(string) bool) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for read := 0; s.Scan() && read < startBytes; read += len(s.Bytes()) {
		if !fn(process.Clean(s.Bytes())) {
			return
		}
	}
}

// checkAttention says which attention the last launch used: the slow ones are used
// without a word when a package is missing.
func checkAttention(_ context.Context, b *Box) []Finding {
	name := ""
	if log := b.newestLog(); log != "" {
		startLines(log, func(line string) bool {
			if m := attentionLine.FindStringSubmatch(line); m != nil {
				name = strings.TrimSpace(m[1])
			}
			return !strings.HasPrefix(line, "To see the GUI go to")
		})
	}
	switch low := strings.ToLower(name); {
	case name == "":
		return nil
	case strings.Contains(low, "sub quadratic"), strings.Contains(low, "split"):
		return one(Warning, "--use-pytorch-cross-attention in worker.args is faster on every card that has it", "%s, a slow one", name)
	default:
		return one(OK, "", "%s", name)
	}
}

// Bounds for node packs.
const (
	slowPack  = 20 * time.Second
	packsMost = 5
)

// checkPacks names the packs that failed or are slow.
func checkPacks(_ context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	var list []Finding
	var failed, late []string
	for _, w := range b.Status.Workers {
		for _, p := range w.Packs {
			switch {
			case p.Failed:
				failed = append(failed, filepath.Base(p.Path)+because(p))
			case p.ImportS >= slowPack.Seconds():
				late = append(late, fmt.Sprintf("%s %.0f s", filepath.Base(p.Path), p.ImportS))
			}
		}
	}
	if len(failed) > 0 {
		list = append(list, Finding{
			ID: "packs-failed", Verdict: Warning, Seen: "not loaded: " + some(failed, packsMost),
			Remedy: "install what the pack lacks, or disable it: rename its directory to NAME.disabled and restart the worker",
		})
	}
	if len(late) > 0 {
		list = append(list, Finding{
			ID: "packs-slow", Verdict: Note, Seen: "slow at the start: " + some(late, packsMost),
			Remedy: "a pack that is not needed can be disabled: rename its directory to NAME.disabled",
		})
	}
	return list
}

func because(p backend.Pack) string {
	if p.Cause == "" {
		return ""
	}
	return " (" + p.Cause + ")"
}

// Bounds of what makes ComfyUI's lists slow: the page asks for them at each start.
const (
	infoSlow   = 5 * time.Second
	manyFiles  = 10_000
	walkWithin = 4 * time.Second
)

// checkObjectInfo times /object_info of the workers of this machine, and counts the
// files that it lists.
func checkObjectInfo(ctx context.Context, b *Box) []Finding {
	if b.Status == nil {
		return nil
	}
	var list []Finding
	for _, w := range b.Status.Workers {
		if w.URL == "" || w.State != backend.WorkerReady && w.State != backend.WorkerBusy {
			continue
		}
		c := comfy.New(w.URL, comfy.WithTimeout(slow))
		start := time.Now()
		info, err := c.ObjectInfo(ctx)
		took, bytes := time.Since(start), 0
		if err == nil {
			bytes = len(info.Raw())
		}
		c.Close()
		f := Finding{ID: "object-info-" + w.ID, Verdict: OK, Seen: fmt.Sprintf("worker %s: /object_info took %s for %s", w.ID, took.Round(time.Millisecond), gib(int64(bytes)))}
		switch {
		case err != nil:
			f.Verdict, f.Remedy = Warning, "its event loop is busy or blocked: look at easel worker logs"
			f.Seen = fmt.Sprintf("worker %s does not answer /object_info: %v", w.ID, err)
		case took > infoSlow:
			f.Verdict, f.Remedy = Warning, "fewer files in the directories named below make it faster: easel storage clean --dry-run"
		}
		list = append(list, f)
	}
	return append(list, fullDirs(ctx, b)...)
}

// fullDirs names the directories that hold so many files that every list is slow.
func fullDirs(ctx context.Context, b *Box) []Finding {
	base := b.Config.Worker.Data
	if base == "" {
		base = b.Config.Worker.ComfyUI
	}
	if base == "" || b.Config.Worker.URL != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, walkWithin)
	defer cancel()
	var list []Finding
	for _, name := range []string{"input", "output", "temp", "models"} {
		dir := filepath.Join(base, name)
		n, whole := countFiles(ctx, b.path(dir), name == "models")
		if n < manyFiles {
			continue
		}
		most := ""
		if !whole {
			most = "more than "
		}
		f := Finding{ID: "files-" + name, Verdict: Warning, Seen: fmt.Sprintf("%s holds %s%d files", dir, most, n)}
		if f.Remedy = "easel storage clean --dry-run shows what could go"; name == "models" {
			f.Verdict, f.Remedy = Note, "every list of models reads all of them; move what is not needed out of "+dir
		}
		list = append(list, f)
	}
	return list
}

// countFiles counts the files of a directory, and of those below it when deep.
// whole is false when it gave up.
func countFiles(ctx context.Context, dir string, deep bool) (n int, whole bool) {
	pending := []string{dir}
	for len(pending) > 0 {
		at := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		f, err := os.Open(at)
		if err != nil {
			continue
		}
		for {
			entries, err := f.ReadDir(1024)
			for _, e := range entries {
				if !e.IsDir() {
					n++
				} else if deep {
					pending = append(pending, filepath.Join(at, e.Name()))
				}
			}
			if ctx.Err() != nil {
				_ = f.Close()
				return n, false
			}
			if err != nil {
				break
			}
		}
		_ = f.Close()
	}
	return n, true
}
