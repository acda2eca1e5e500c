//go:build linux

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/jobs"
	"easel/backend/raster"
)

// served is an engine that only has a store and pictures, behind its client.
type served struct {
	*Engine
	c   *client.Client
	out string // output directory
}

func serve(t testing.TB) *served {
	t.Helper()
	home := t.TempDir()
	store, err := jobs.Open(t.Context(), filepath.Join(home, "jobs.db"), jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	e := &Engine{store: store, thumbs: newThumbs(filepath.Join(home, "cache")), cards: nil}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/outputs", answer(e.listOutputs))
	mux.Handle("POST /v1/outputs/trash", answer(e.trashOutputs))
	mux.Handle("POST /v1/outputs/restore", answer(e.restoreOutputs))
	mux.HandleFunc("GET /v1/jobs/{id}/outputs/{n}", e.output)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s := &served{Engine: e, out: filepath.Join(home, "data", "output")}
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		t.Fatal(err)
	}
	s.c = client.New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	})
	return s
}

// file writes a file into the output directory and describes it as the dispatcher
// does.
func (s *served) file(t testing.TB, kind, name string, b []byte) backend.Output {
	t.Helper()
	p := filepath.Join(s.out, name)
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	size := st.Size()
	o := backend.Output{Node: "9", Kind: kind, Filename: name, Type: "output", Path: p, Bytes: &size, Modified: backend.At(st.ModTime())}
	if c, err := png.DecodeConfig(bytes.NewReader(b)); err == nil {
		o.Width, o.Height = &c.Width, &c.Height
	}
	return o
}

// job records a finished job with outputs.
func (s *served) job(t testing.TB, sub backend.Submission, at time.Time, outs ...backend.Output) backend.Job {
	t.Helper()
	ctx := t.Context()
	if sub.Graph == nil {
		sub.Graph = json.RawMessage(`{"1":{"class_type":"A","inputs":{}}}`)
	}
	j, _, err := s.store.Submit(ctx, sub)
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := s.store.Sent(ctx, j.ID, backend.Attempt{PromptID: uuid.NewString(), Worker: "w", Launch: "l"})
	if err != nil {
		t.Fatal(err)
	}
	j, err = s.store.End(ctx, j.ID, n, jobs.End{Outcome: backend.OutcomeSucceeded, State: backend.JobSucceeded, At: at, InferenceS: 1, Outputs: outs})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func pngOf(t testing.TB, w, h int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, color.RGBA{uint8(x), uint8(y), uint8(x / 256 * 64), 255})
		}
	}
	b, err := raster.PNG(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func names(p backend.AssetPage) string {
	var out []string
	for _, a := range p.Assets {
		out = append(out, a.Output.Filename+a.Output.Text)
	}
	return strings.Join(out, " ")
}

func TestOutputsAreListedAndFiltered(t *testing.T) {
	t.Parallel()
	s := serve(t)
	now := time.Now()
	graph := json.RawMessage(`{"6":{"class_type":"CLIPTextEncode","inputs":{"text":"a Lighthouse at dusk"}},"7":{"class_type":"CLIPTextEncode","inputs":{"text":"blurry"},"_meta":{"title":"Negative"}},
		"3":{"class_type":"KSampler","inputs":{"seed":18446744073709551615}},"4":{"class_type":"L","inputs":{"ckpt_name":"xl.safetensors"}}}`)
	img := func(n string) backend.Output { return s.file(t, "image", n, pngOf(t, 8, 8)) }
	s.job(t, backend.Submission{Name: "old", Group: "g1"}, now.Add(-2*time.Hour), img("a.png"), img("b.png"))
	s.job(t, backend.Submission{Name: "mid", Owner: "ann", Graph: graph}, now.Add(-time.Hour), img("c.png"), backend.Output{Node: "2", Kind: "text", Text: "hello"})
	last := s.job(t, backend.Submission{Name: "new", Group: "g1"}, now, s.file(t, "audio", "d.wav", []byte("x")))
	cases := []struct {
		what string
		f    backend.AssetFilter
		want string
	}{
		{"all, newest job first, each job in its order", backend.AssetFilter{}, "d.wav c.png hello a.png b.png"},
		{"kind", backend.AssetFilter{Kinds: []string{"image"}}, "c.png a.png b.png"},
		{"two kinds", backend.AssetFilter{Kinds: []string{"audio", "text"}}, "d.wav hello"},
		{"group", backend.AssetFilter{Group: "g1"}, "d.wav a.png b.png"},
		{"owner", backend.AssetFilter{Owner: "ann"}, "c.png hello"},
		{"job", backend.AssetFilter{Job: last.ID[:8]}, "d.wav"},
		{"since", backend.AssetFilter{Since: backend.At(now.Add(-90 * time.Minute))}, "d.wav c.png hello"},
		{"until", backend.AssetFilter{Until: backend.At(now.Add(-90 * time.Minute))}, "a.png b.png"},
		{"state", backend.AssetFilter{States: []backend.JobState{backend.JobFailed}}, ""},
		{"words of the prompt", backend.AssetFilter{Text: "dusk lighthouse"}, "c.png hello"},
		{"not of the negative one", backend.AssetFilter{Text: "blurry"}, ""},
		{"seed and model", backend.AssetFilter{Text: "18446744073709551615 xl", Plain: true}, "c.png hello"},
		{"the name and the state", backend.AssetFilter{Text: "OLD succeeded"}, "a.png b.png"},
	}
	for _, c := range cases {
		page, err := s.c.Outputs(t.Context(), c.f)
		if err != nil || names(page) != c.want {
			t.Errorf("%s: %q, want %q (%v)", c.what, names(page), c.want, err)
		}
		if c.f.Text == "" && page.Total != len(page.Assets) {
			t.Errorf("%s: total %d of %d", c.what, page.Total, len(page.Assets))
		}
		var all []string // one by one it is the same
		f := c.f
		for f.Limit = 1; ; {
			page, err := s.c.Outputs(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if n := names(page); n != "" {
				all = append(all, n)
			}
			if f.Before = page.Next; f.Before == "" {
				break
			}
		}
		if got := strings.Join(all, " "); got != c.want {
			t.Errorf("%s, in pages of one: %q, want %q", c.what, got, c.want)
		}
	}
	page, err := s.c.Outputs(t.Context(), backend.AssetFilter{Kinds: []string{"image"}, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if a := page.Assets[0]; a.Prompt != "a Lighthouse at dusk" || a.Seed != "18446744073709551615" || !slices.Equal(a.Models, []string{"xl.safetensors"}) {
		t.Errorf("what made it: %+v", a)
	}
	for _, bad := range []backend.AssetFilter{{Before: "nonsense"}, {Before: "ffffffff/1"}, {States: []backend.JobState{"x"}}, {Job: "ffffffff"}} {
		if _, err := s.c.Outputs(t.Context(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestTenThousandOutputsInPages(t *testing.T) {
	if testing.Short() {
		t.Skip("it records 1,250 jobs")
	}
	t.Parallel()
	s := serve(t)
	outs := make([]backend.Output, 8)
	for j := range 1250 {
		for i := range outs {
			outs[i] = backend.Output{Node: "9", Kind: "image", Type: "output", Filename: fmt.Sprintf("p_%04d_%d.png", j, i), Path: "/nowhere"}
		}
		s.job(t, backend.Submission{Name: "n"}, time.Now(), outs...)
	}
	seen := map[string]bool{}
	f := backend.AssetFilter{Limit: 1000, Plain: true}
	worst := time.Duration(0)
	for {
		start := time.Now()
		page, err := s.c.Outputs(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(start))
		for _, a := range page.Assets {
			seen[a.Output.Filename] = true
		}
		if f.Before == "" && page.Total != 10_000 {
			t.Errorf("total %d", page.Total)
		}
		if f.Before = page.Next; f.Before == "" {
			break
		}
	}
	if len(seen) != 10_000 {
		t.Errorf("%d outputs were listed", len(seen))
	}
	t.Logf("the slowest page of 1,000 took %v", worst)
}

func kindOf(err error) string { return backend.FailureOf(err).Kind }

func TestPictureIsScaledCroppedAndKept(t *testing.T) {
	t.Parallel()
	s := serve(t)
	j := s.job(t, backend.Submission{}, time.Now(), s.file(t, "image", "a.png", pngOf(t, 400, 200)))
	get := func(v client.View) (client.Shown, image.Image) {
		t.Helper()
		p, err := s.c.PictureView(t.Context(), j.ID, 0, v)
		if err != nil {
			t.Fatal(err)
		}
		m, err := png.Decode(bytes.NewReader(p.PNG))
		if err != nil {
			t.Fatal(err)
		}
		return p, m
	}
	p, m := get(client.View{W: 100, H: 100})
	if m.Bounds().Size() != image.Pt(100, 50) || p.W != 400 || p.H != 200 || p.Frames != 1 || p.Moves {
		t.Errorf("scaled: %v %+v", m.Bounds(), p)
	}
	for range 2 { // the second out of the lens
		_, m = get(client.View{W: 100, H: 100, X: 300, Y: 150, CW: 40, CH: 30})
		if m.Bounds().Size() != image.Pt(40, 30) || m.At(0, 0) != (color.RGBA{300 - 256, 150, 64, 255}) {
			t.Errorf("the part is %v and begins with %v", m.Bounds(), m.At(0, 0))
		}
	}
	if e, _ := os.ReadDir(s.thumbs.dir); len(e) != 2 {
		t.Errorf("%d pictures on disk", len(e))
	}
	s.thumbs = newThumbs(s.thumbs.dir) // the next day
	again, _ := get(client.View{W: 100, H: 100})
	if !bytes.Equal(again.PNG, p.PNG) || again.W != 400 {
		t.Error("the kept picture is another one")
	}
}

func TestOutputThatChangedIsGone(t *testing.T) {
	t.Parallel()
	s := serve(t)
	body := pngOf(t, 20, 20)
	a, b, c := s.file(t, "image", "a.png", body), s.file(t, "image", "b.png", body), s.file(t, "image", "c.png", body)
	j := s.job(t, backend.Submission{}, time.Now(), a, b, c)
	if err := os.Remove(a.Path); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(b.Path, later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.Path, c.Path+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.Path, 0o755); err != nil {
		t.Fatal(err)
	}
	for n, why := range []string{"not there any more", "changed or replaced", "changed or replaced"} {
		_, err := s.c.PictureView(t.Context(), j.ID, n, client.View{W: 9, H: 9})
		if err == nil || kindOf(err) != backend.FailNotFound || !strings.Contains(err.Error(), why) {
			t.Errorf("output %d: %v", n, err)
		}
	}
}

func TestTrashAndBack(t *testing.T) {
	t.Parallel()
	s := serve(t)
	body := pngOf(t, 20, 20)
	if err := os.Mkdir(filepath.Join(s.out, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := s.file(t, "image", "sub/a.png", body)
	o.Filename, o.Subfolder = "a.png", "sub"
	j := s.job(t, backend.Submission{}, time.Now(), o, backend.Output{Kind: "text", Text: "t"})
	refs := []backend.AssetRef{{Job: j.ID, N: 0}, {Job: j.ID, N: 1}, {Job: j.ID, N: 7}}
	done, err := s.c.Trash(t.Context(), refs)
	if err != nil || len(done.Done) != 1 || len(done.Faults) != 2 || done.Faults[1].N != 7 {
		t.Fatalf("%+v %v", done, err)
	}
	in := filepath.Join(filepath.Dir(s.out), trashDir, j.ID[:8]+"-0-a.png")
	if _, err := os.Stat(in); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(o.Path); err == nil {
		t.Error("the file is still there")
	}
	page, err := s.c.Outputs(t.Context(), backend.AssetFilter{})
	if err != nil || names(page) != "t" || page.Total != 1 {
		t.Errorf("the list has %q of %d, %v", names(page), page.Total, err)
	}
	if _, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 9, H: 9}); err == nil || !strings.Contains(err.Error(), "in the trash") {
		t.Errorf("in the trash: %v", err)
	}
	if err := os.WriteFile(o.Path, []byte("another"), 0o644); err != nil {
		t.Fatal(err)
	}
	if done, err = s.c.Restore(t.Context(), refs[:1]); err != nil || len(done.Faults) != 1 || done.Faults[0].Error.Kind != backend.FailConflict {
		t.Errorf("over another file: %+v %v", done, err)
	}
	if err := os.RemoveAll(filepath.Dir(o.Path)); err != nil {
		t.Fatal(err)
	}
	if done, err = s.c.Restore(t.Context(), refs[:1]); err != nil || len(done.Done) != 1 {
		t.Errorf("back: %+v %v", done, err)
	}
	if got, err := os.ReadFile(o.Path); err != nil || !bytes.Equal(got, body) {
		t.Error("the file did not come back", err)
	}
	if _, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 9, H: 9}); err != nil {
		t.Error(err)
	}
}

func TestAnimationsComeAsFrames(t *testing.T) {
	t.Parallel()
	s := serve(t)
	pal := color.Palette{color.Black, color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}}
	g := &gif.GIF{}
	for i := range 6 {
		m := image.NewPaletted(image.Rect(0, 0, 40, 30), pal)
		for k := range m.Pix {
			m.Pix[k] = uint8(1 + i%2)
		}
		g.Image, g.Delay = append(g.Image, m), append(g.Delay, 10)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	j := s.job(t, backend.Submission{}, time.Now(), s.file(t, "image", "a.gif", b.Bytes()))
	for frames, want := range map[int]int{1: 1, 3: 3, 60: 6} {
		p, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 20, H: 20, Frames: frames})
		if err != nil {
			t.Fatal(err)
		}
		fs, err := raster.Frames(t.Context(), p.PNG, 100, 100, 100)
		if err != nil || len(fs) != want || p.Frames != want || !p.Moves {
			t.Errorf("%d frames asked: %d came, %d said, %v", frames, len(fs), p.Frames, err)
		}
	}
}

func TestVideoAndSound(t *testing.T) {
	t.Parallel()
	s := serve(t)
	wav := wavOf(2)
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		j := s.job(t, backend.Submission{}, time.Now(), s.file(t, "video", "v.mp4", []byte("x")))
		if _, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 9, H: 9}); err == nil || !strings.Contains(err.Error(), "no ffmpeg on this box") {
			t.Errorf("without ffmpeg: %v", err)
		}
		t.Skip("the rest needs ffmpeg")
	}
	make := func(name string, args ...string) []byte {
		t.Helper()
		p := filepath.Join(t.TempDir(), name)
		if out, err := exec.CommandContext(t.Context(), "ffmpeg", append(append([]string{"-v", "error", "-nostdin"}, args...), p)...).CombinedOutput(); err != nil {
			t.Skipf("this ffmpeg makes no %s: %s", name, out)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mp4 := make("v.mp4", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2", "-c:v", "mpeg4")
	mp3 := make("s.mp3", "-f", "lavfi", "-i", "sine=duration=3")
	j := s.job(t, backend.Submission{}, time.Now(), s.file(t, "video", "v.mp4", mp4), s.file(t, "audio", "s.wav", wav), s.file(t, "audio", "s.mp3", mp3),
		s.file(t, "video", "list.mp4", []byte("ffconcat version 1.0\nfile v.mp4\n")), s.file(t, "video", "hls.mp4", []byte("#EXTM3U\n#EXTINF:1,\nv.mp4\n")))
	p, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 32, H: 32})
	if err != nil || p.W != 64 || p.H != 48 || p.Seconds < 1.8 || p.Seconds > 2.2 || !p.Moves || p.Frames != 1 {
		t.Errorf("poster: %dx%d %v s, %d frames, %v", p.W, p.H, p.Seconds, p.Frames, err)
	}
	if p, err = s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 32, H: 32, Frames: 8}); err != nil || p.Frames != 8 {
		t.Errorf("frames: %d, %v", p.Frames, err)
	}
	if p, err = s.c.PictureView(t.Context(), j.ID, 1, client.View{W: 60, H: 40}); err != nil || p.Seconds != 2 {
		t.Errorf("wav: %v s, %v", p.Seconds, err)
	}
	if p, err = s.c.PictureView(t.Context(), j.ID, 2, client.View{W: 60, H: 40}); err != nil || p.Seconds < 2.9 || p.Seconds > 3.2 {
		t.Errorf("mp3: %v s, %v", p.Seconds, err)
	}
	for n := 3; n <= 4; n++ { // a playlist under the name of a video reads no other file
		if _, err := s.c.PictureView(t.Context(), j.ID, n, client.View{W: 9, H: 9}); err == nil {
			t.Errorf("output %d, a playlist, was played", n)
		}
	}
}

// wavOf is a silent WAV of so many seconds.
func wavOf(seconds int) []byte {
	const rate = 8000
	n := rate * seconds
	b := []byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data")
	b = append(b, byte(n), byte(n>>8), byte(n>>16), 0)
	return append(b, bytes.Repeat([]byte{128}, n)...)
}

// TestPictureStopsWhenNobodyWaits: one huge picture is decoded at a time, and who
// waits for that leaves the line when its asker goes.
func TestPictureStopsWhenNobodyWaits(t *testing.T) {
	s := serve(t)
	j := s.job(t, backend.Submission{}, time.Now(), s.file(t, "image", "a.png", pngOf(t, 300, 300)))
	if err := decoding.Acquire(t.Context(), decodePixels); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := s.c.PictureView(ctx, j.ID, 0, client.View{W: 9, H: 9})
		errs <- err
	}()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	decoding.Release(decodePixels)
	if _, err := s.c.PictureView(t.Context(), j.ID, 0, client.View{W: 9, H: 9}); err != nil {
		t.Error(err)
	}
	if err := decoding.Acquire(t.Context(), decodePixels); err != nil { // all room came back
		t.Error(err)
	}
	decoding.Release(decodePixels)
}

func TestThumbsAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for i := range 10 {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(p, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if n := prune(dir, 1000, 100); n != 1000 {
		t.Errorf("nothing had to go, but %d bytes are left", n)
	}
	if n := prune(dir, 900, 500); n != 500 {
		t.Errorf("%d bytes are left", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "9")); err != nil {
		t.Error("the one used last went")
	}
	c := newThumbs("")
	for i := range 100 {
		c.put(fmt.Sprint(i), client.Shown{PNG: make([]byte, maxKept)})
	}
	if c.bytes > thumbBytes || len(c.items) != thumbBytes/maxKept {
		t.Errorf("%d bytes in memory", c.bytes)
	}
}
