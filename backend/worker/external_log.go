package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"easel/backend"
	"easel/backend/comfy"
	"easel/backend/process"
)

// oldLines is how much of a log that was there before us is read.
const oldLines = 300

// followLog reads the log that worker.log names until the context ends. Where it
// cannot be read, ComfyUI's own /internal/logs takes its place, and that is said in
// the log.
func (x *external) followLog(ctx context.Context) {
	var read func(context.Context, *logPlace) error
	switch x.place.kind {
	case placeJournal:
		read = x.readJournal
	case placeDocker:
		read = x.readDocker
	case placeFile:
		read = x.readFile
	default:
		return
	}
	x.m.lines.joined()
	at := &logPlace{}
	wait := logAgain
	for ctx.Err() == nil {
		began := at.lines
		err := read(ctx, at)
		if ctx.Err() != nil {
			return
		}
		if at.lines > began {
			wait = logAgain
		}
		if err != nil && at.said != err.Error() {
			at.said = err.Error()
			x.remark(fmt.Sprintf("worker.log = %s cannot be read: %s", x.m.spec.Log, err))
		}
		if err != nil && at.lines == 0 {
			x.fallBack(ctx)
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = min(wait*2, 30*time.Second)
	}
}

// logAgain is the first wait before a log is read again that ended.
const logAgain = 500 * time.Millisecond

// logPlace is how far a log was read.
type logPlace struct {
	lines  int       // read in all
	cursor string    // of the journal
	at     time.Time // of the last line from docker
	same   []string  // lines of that time
	said   string    // the error that was told
	user   bool      // the journal of a user's unit
	known  bool      // user is known
}

// fallBack takes the lines of /internal/logs.
func (x *external) fallBack(ctx context.Context) {
	x.mu.Lock()
	was := x.own
	x.own = true
	x.mu.Unlock()
	if !was {
		x.subscribe(ctx)
	}
}

// line takes a whole line of a log of whatever place.
func (x *external) line(at time.Time, text string, bar bool) {
	if at.IsZero() {
		at = time.Now()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !bar {
		x.number++
		x.say(x.m.lastLaunch(), x.number, backend.At(at), lastBar(text), false)
		return
	}
	x.say(x.m.lastLaunch(), x.number+1, backend.At(at), lastBar(text), true)
}

// remark puts a line of ours into the log.
func (x *external) remark(text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.number++
	x.tell(backend.LogLine{Launch: x.m.lastLaunch(), N: x.number, At: backend.Now(), Text: comfy.Plain("easel: "+text, 400), Level: "warning"})
}

// readJournal follows the journal of a unit.
func (x *external) readJournal(ctx context.Context, at *logPlace) error {
	if !at.known {
		u, user, err := showUnit(ctx, x.place.name)
		if err != nil {
			return err
		}
		if u.load == "not-found" {
			return fmt.Errorf("systemd has no unit %s", x.place.name)
		}
		at.user, at.known = user, true
	}
	args := []string{"-u", x.place.name}
	if at.user {
		args = []string{"--user-unit", x.place.name}
	}
	args = append(args, "-f", "-a", "-q", "--no-pager", "-o", "json")
	if at.cursor != "" {
		args = append(args, "--after-cursor="+at.cursor)
	} else {
		args = append(args, "-n", fmt.Sprint(oldLines))
	}
	return x.stream(ctx, "journalctl", args, func(b []byte) {
		e, ok := parseJournal(b)
		if !ok {
			return
		}
		at.lines, at.cursor = at.lines+1, e.Cursor
		text := e.Text
		if e.Systemd {
			text = "systemd: " + text
		}
		for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
			x.line(e.At, line, false)
		}
	})
}

// readDocker follows the log of a container; it ends when the container does.
func (x *external) readDocker(ctx context.Context, at *logPlace) error {
	args := []string{"logs", "-f", "--timestamps"}
	if at.at.IsZero() {
		args = append(args, "--tail", fmt.Sprint(oldLines))
	} else { // its lines are given again
		args = append(args, "--since", at.at.Format(time.RFC3339Nano))
	}
	seen := at.same
	return x.stream(ctx, "docker", append(args, x.place.name), func(b []byte) {
		stamp, text, _ := strings.Cut(string(b), " ")
		when, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			when, text = time.Now(), string(b)
		}
		switch {
		case when.Before(at.at):
			return
		case when.After(at.at):
			at.at, at.same, seen = when, nil, nil
		case len(seen) > 0 && seen[0] == text:
			seen = seen[1:]
			return
		}
		at.same = append(at.same, text)
		at.lines++
		x.line(when, text, false)
	})
}

// readFile follows a file.
func (x *external) readFile(ctx context.Context, at *logPlace) error {
	var from int64
	if at.lines == 0 {
		lines, err := process.ReadTail(x.place.name, oldLines)
		if err != nil {
			return rootCause(err)
		}
		for _, l := range lines {
			if !l.Bar {
				x.line(time.Time{}, l.Text, false)
				at.lines, from = at.lines+1, l.Offset
			}
		}
	}
	return process.Follow(ctx, x.place.name, from, func(l process.Line) {
		at.lines++
		x.line(time.Time{}, l.Text, l.Bar)
	})
}

// maxEntry bounds one line of a program that prints a log.
const maxEntry = 1 << 20

// stream runs a program and gives each line that it prints to fn. A program that
// fails is an error with its last words; the end of one that does not is none.
func (x *external) stream(ctx context.Context, name string, args []string, fn func([]byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	r, w := io.Pipe()
	words := &tailWriter{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w, words, time.Second
	if name == "docker" { // it splits the two streams of the container
		cmd.Stderr = w
	}
	ended := make(chan error, 1)
	if err := startTied(cmd, func(err error) { ended <- err; _ = w.Close() }); err != nil {
		return err
	}
	in := bufio.NewReaderSize(r, 64<<10)
	last := ""
	for {
		line, err := readLine(in, maxEntry)
		if len(line) > 0 {
			last = string(line)
			fn(line)
		}
		if err != nil {
			break
		}
	}
	err := <-ended
	if err == nil || ctx.Err() != nil {
		return nil
	}
	why := comfy.Plain(firstOf(words.last(), last), 200)
	if errors.Is(err, exec.ErrNotFound) || why == "" {
		why = err.Error()
	}
	return errors.New(why)
}

// readLine reads a line without its end; what is longer than most is cut.
func readLine(in *bufio.Reader, most int) ([]byte, error) {
	var out []byte
	for {
		b, err := in.ReadSlice('\n')
		if room := most - len(out); len(b) > room {
			b = b[:max(0, room)]
		}
		out = append(out, b...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return []byte(strings.TrimRight(string(out), "\r\n")), err
		}
	}
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct{ b []byte }

func (t *tailWriter) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - 4<<10; n > 0 {
		t.b = t.b[n:]
	}
	return len(p), nil
}

// last is the last line that says something.
func (t *tailWriter) last() string {
	return lastLine(strings.Split(string(t.b), "\n"))
}

// subscribe reads the log that the server kept, once a launch, and asks for what
// comes. Not every server gives it.
func (x *external) subscribe(ctx context.Context) {
	_, launch, ok := x.m.Client()
	x.mu.Lock()
	fresh, own := x.heard != launch, x.own
	x.mu.Unlock()
	if !ok || !own {
		return
	}
	if fresh {
		if entries, err := x.c.LogsRaw(ctx); err == nil {
			x.mu.Lock()
			x.heard, x.number, x.piece, x.log = launch, 0, "", startLog{}
			for _, e := range entries {
				x.text(launch, e)
			}
			x.mu.Unlock()
		}
	}
	if err := x.c.SubscribeLogs(ctx, x.id, true); err != nil && ctx.Err() == nil {
		x.m.log.Info("no log from this ComfyUI", "err", err)
	}
}

// entries takes new pieces of the log.
func (x *external) entries(list []comfy.LogEntry) {
	_, launch, ok := x.m.Client()
	if !ok {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.own {
		return
	}
	for _, e := range list {
		x.text(launch, e)
	}
}

// text cuts a piece into lines; what follows a carriage return is a bar until its
// line ends. It needs mu.
func (x *external) text(launch string, e comfy.LogEntry) {
	at := backend.Now()
	if !e.At.IsZero() {
		at = backend.At(e.At)
	}
	x.piece += e.Text
	for {
		line, rest, ended := strings.Cut(x.piece, "\n")
		if !ended {
			break
		}
		x.piece = rest
		x.number++
		x.say(launch, x.number, at, lastBar(line), false)
	}
	if len(x.piece) > maxPiece {
		x.piece = x.piece[len(x.piece)-maxPiece:]
	}
	if bar := lastBar(x.piece); bar != "" && strings.Contains(x.piece, "\r") {
		x.say(launch, x.number+1, at, bar, true)
	}
}

// maxPiece is how much of a line without an end is kept, in bytes.
const maxPiece = 64 << 10

// lastBar is what a terminal would show of a line that is redrawn by \r.
func lastBar(s string) string {
	s = strings.TrimRight(s, "\r")
	return process.Clean([]byte(s[strings.LastIndexByte(s, '\r')+1:]))
}

// say notes what a line tells, and passes it on. It needs mu.
func (x *external) say(launch string, n int64, at backend.Time, text string, bar bool) {
	x.heardAt, x.bar = time.Now(), ""
	l := backend.LogLine{Launch: launch, N: n, At: at, Text: text, Level: levelInfo, Bar: bar}
	if bar {
		x.bar = text
	} else {
		l.Level = x.log.line(text)
		if threadDied(text) {
			x.thread = x.heardAt
		}
	}
	x.tell(l)
}

func (x *external) tell(l backend.LogLine) {
	x.m.lines.add(l)
	if x.m.o.OnLine != nil {
		x.m.o.OnLine(l)
	}
}

// lastWords are the last lines of its log, for a verdict.
func (x *external) lastWords() []string {
	lines := x.m.lines.last(tailLines)
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		if !l.Bar && !strings.HasPrefix(l.Text, "systemd: ") {
			out = append(out, l.Text)
		}
	}
	return out
}

// activity is what it was last seen doing.
func (x *external) activity() Activity {
	m := x.m
	m.mu.Lock()
	a := Activity{Launch: m.w.Launch, Alive: m.w.Launch != ""}
	m.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	a.Line, a.Bar, a.ThreadDied = x.heardAt, x.bar, x.thread
	return a
}
