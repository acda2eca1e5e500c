//go:build linux

package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"easel/backend"
	"easel/backend/client"
	"easel/backend/raster"
)

// Limits of what ffmpeg is asked for.
const (
	videoFPS  = 5 // frames a second that are shown of a video
	videoTime = 20 * time.Second
	soundRate = 4000      // samples a second of a sound that is only drawn
	videoMax  = 256 << 20 // bytes that are taken of its answer
)

// mediaFormats are the only ones that ffmpeg may take a file for: a playlist under
// the name of a video must not make it read something else.
const mediaFormats = "mov,mp4,m4a,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,gif,apng,webp,webp_pipe,mp3,flac,wav,aac,asf"

// ffmpegArgs are those before the ones of the output.
func ffmpegArgs(o backend.Output) []string {
	return []string{"-v", "error", "-nostdin", "-protocol_whitelist", "file", "-format_whitelist", mediaFormats, "-i", "file:" + o.Path}
}

// runTool runs ffmpeg or ffprobe on a file of this machine and gives what it wrote.
// What came before an error is given as well.
func runTool(ctx context.Context, name string, o backend.Output, args ...string) ([]byte, error) {
	tool, err := exec.LookPath(name)
	if err != nil {
		return nil, backend.Fail(backend.FailUsage, "there is no "+name+" on this box to show "+o.Filename+" with",
			"install ffmpeg (apt install ffmpeg), or copy the file: easel outputs get")
	}
	if o.Path == "" {
		return nil, backend.Fail(backend.FailUsage, o.Filename+" lies with another ComfyUI, so ffmpeg cannot read it", "easel outputs get copies it")
	}
	ctx, cancel := context.WithTimeout(ctx, videoTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool, args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{b: &out, left: videoMax}, &limited{b: &said, left: 2048}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && out.Len() == 0 {
		var exit *exec.ExitError
		why := said.String()
		if !errors.As(err, &exit) || why == "" {
			why = err.Error()
		}
		return nil, backend.Fail(backend.FailInternal, name+" does not read "+o.Filename+": "+clip(why), "easel outputs get copies the file as it is")
	}
	return out.Bytes(), nil
}

// videoPicture asks ffmpeg for the first frame, or for the first seconds.
func videoPicture(ctx context.Context, o backend.Output, a pictureAsk) (client.Shown, error) {
	done, err := room(ctx, decodePixels/2)
	if err != nil {
		return client.Shown{}, err
	}
	defer done()
	filter := fmt.Sprintf("scale=w='min(%d,iw)':h='min(%d,ih)':force_original_aspect_ratio=decrease", a.w, a.h)
	if c := a.crop; !c.Empty() {
		filter = fmt.Sprintf("crop=w='min(%d,iw)':h='min(%d,ih)':x=%d:y=%d,", c.Dx(), c.Dy(), c.Min.X, c.Min.Y) + filter
	}
	if a.frames > 1 {
		filter = fmt.Sprintf("fps=%d,", videoFPS) + filter
	}
	out, err := runTool(ctx, "ffmpeg", o, append(ffmpegArgs(o), "-an", "-sn", "-vf", filter, "-frames:v", strconv.Itoa(a.frames),
		"-threads", "2", "-f", "image2pipe", "-c:v", "png", "-compression_level", "1", "-")...)
	if err != nil {
		return client.Shown{}, err
	}
	s, err := joinPNGs(out)
	if err != nil {
		return client.Shown{}, err
	}
	s.W, s.H, s.Seconds = probe(ctx, o)
	return s, nil
}

// probe asks for a video's size and length; zeros where that is not known.
func probe(ctx context.Context, o backend.Output) (w, h int, seconds float64) {
	out, err := runTool(ctx, "ffprobe", o, "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", mediaFormats,
		"-select_streams", "v:0", "-show_entries", "stream=width,height:format=duration", "-of", "json", "file:"+o.Path)
	if err != nil {
		return 0, 0, 0
	}
	var v struct {
		Streams []struct{ Width, Height int }
		Format  struct{ Duration string }
	}
	if json.Unmarshal(out, &v) != nil || len(v.Streams) == 0 {
		return 0, 0, 0
	}
	seconds, _ = strconv.ParseFloat(v.Format.Duration, 64)
	return v.Streams[0].Width, v.Streams[0].Height, max(seconds, 0)
}

// ffmpegSound is a sound as a WAV of one channel, coarse: it is only drawn.
func ffmpegSound(ctx context.Context, o backend.Output) ([]byte, error) {
	return runTool(ctx, "ffmpeg", o, append(ffmpegArgs(o), "-vn", "-ac", "1", "-ar", strconv.Itoa(soundRate), "-f", "wav", "-")...)
}

// joinPNGs makes an animation of PNGs that follow each other.
func joinPNGs(b []byte) (client.Shown, error) {
	var frames []raster.Frame
	for _, p := range raster.SplitPNGs(b) {
		img, err := raster.Decode(p)
		if err != nil {
			break
		}
		frames = append(frames, raster.Frame{Image: img, Delay: time.Second / videoFPS})
	}
	if len(frames) == 0 {
		return client.Shown{}, backend.Fail(backend.FailInternal, "the video has no frame that can be shown", "")
	}
	png, err := raster.APNG(frames)
	return client.Shown{PNG: png, Frames: len(frames), Moves: true}, err
}

// limited keeps the first bytes that are written to it.
type limited struct {
	b    *bytes.Buffer
	left int
}

// Write keeps what still fits and says that it took everything.
func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}
