package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"easel/backend"
)

// Outputs lists what jobs made, that of the newest jobs first, one page at a time:
// give the page's Next as Before for the one that follows.
func (c *Client) Outputs(ctx context.Context, f backend.AssetFilter) (backend.AssetPage, error) {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	set("before", f.Before)
	set("kind", strings.Join(f.Kinds, ","))
	set("job", f.Job)
	set("group", f.Group)
	set("owner", f.Owner)
	set("state", strings.Join(states, ","))
	set("q", f.Text)
	for key, at := range map[string]backend.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			q.Set(key, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if f.Plain {
		q.Set("plain", "1")
	}
	var page backend.AssetPage
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/outputs", query: q}, &page)
	return page, err
}

// Trash moves the files of outputs into the trash of their data directory; they
// leave the list. Restore brings them back, as long as nothing took their place.
func (c *Client) Trash(ctx context.Context, list []backend.AssetRef) (backend.AssetsDone, error) {
	return c.assetsDo(ctx, "/v1/outputs/trash", list)
}

// Restore is the inverse of Trash.
func (c *Client) Restore(ctx context.Context, list []backend.AssetRef) (backend.AssetsDone, error) {
	return c.assetsDo(ctx, "/v1/outputs/restore", list)
}

func (c *Client) assetsDo(ctx context.Context, path string, list []backend.AssetRef) (backend.AssetsDone, error) {
	body := struct {
		Outputs []backend.AssetRef `json:"outputs"`
	}{list}
	var out backend.AssetsDone
	_, err := c.into(ctx, call{method: http.MethodPost, path: path, body: body}, &out)
	return out, err
}

// View is what PictureView asks for.
type View struct {
	W, H int // of the answer, in pixels, at most
	// X, Y, CW and CH are the part that is shown, in pixels of the file; CW 0 is all
	// of it.
	X, Y, CW, CH int
	// Frames above 1 asks for an animation or a video as an APNG of at most that many
	// frames.
	Frames int
}

// Shown is a picture made by the engine, and what it found out about the file.
type Shown struct {
	PNG     []byte
	W, H    int     // of the file in pixels, before scaling; 0 for a sound
	Frames  int     // in PNG; 1: it stands still
	Moves   bool    // the file plays, also when one frame was asked for
	Seconds float64 // length of a sound or a video, 0 when unknown
}

// Headers of a scaled picture.
const (
	HeaderSize    = "X-Easel-Size"    // 1024x768
	HeaderFrames  = "X-Easel-Frames"  // in the answer
	HeaderMoves   = "X-Easel-Moves"   // 1: the file plays
	HeaderSeconds = "X-Easel-Seconds" // 12.5
)

// PictureView is a part of output n (from 0) of a job, scaled by the engine, as a
// PNG. Videos are shown where the engine has ffmpeg; sounds are drawn as a wave.
func (c *Client) PictureView(ctx context.Context, jobID string, n int, v View) (Shown, error) {
	q := url.Values{"w": {strconv.Itoa(v.W)}, "h": {strconv.Itoa(v.H)}}
	if v.CW > 0 && v.CH > 0 {
		for k, n := range map[string]int{"x": v.X, "y": v.Y, "cw": v.CW, "ch": v.CH} {
			q.Set(k, strconv.Itoa(n))
		}
	}
	if v.Frames > 1 {
		q.Set("frames", strconv.Itoa(v.Frames))
	}
	resp, err := c.send(ctx, call{method: http.MethodGet, path: outputPath(jobID, n), query: q})
	if err != nil {
		return Shown{}, err
	}
	defer resp.Body.Close()
	var s Shown
	if s.PNG, err = io.ReadAll(resp.Body); err != nil {
		return Shown{}, fmt.Errorf("read the picture: %w", err)
	}
	w, h, _ := strings.Cut(resp.Header.Get(HeaderSize), "x")
	s.W, _ = strconv.Atoi(w)
	s.H, _ = strconv.Atoi(h)
	s.Frames, _ = strconv.Atoi(resp.Header.Get(HeaderFrames))
	s.Moves = resp.Header.Get(HeaderMoves) == "1"
	s.Seconds, _ = strconv.ParseFloat(resp.Header.Get(HeaderSeconds), 64)
	return s, nil
}
