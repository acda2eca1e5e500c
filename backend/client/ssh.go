package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"easel/backend"
)

// dialError marks an error of making the connection by ssh: trying again would
// only ask for the password again.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// SSHTarget is a box reached by the system's own ssh.
type SSHTarget struct {
	User, Host, Port string
	Command          string // the easel binary over there; "" is easel on its PATH
}

// ParseHost reads ssh://[user@]host[:port][/path/of/easel].
func ParseHost(s string) (SSHTarget, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" {
		return SSHTarget{}, backend.Fail(backend.FailUsage, fmt.Sprintf("--host %q: not an address like ssh://user@box", s), "")
	}
	t := SSHTarget{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}
	if len(u.Path) > 1 {
		t.Command = u.Path
	}
	if strings.HasPrefix(t.Host, "-") || strings.HasPrefix(t.User, "-") {
		return SSHTarget{}, backend.Fail(backend.FailUsage, fmt.Sprintf("--host %q: a name may not begin with a dash", s), "")
	}
	if _, set := u.User.Password(); set {
		return SSHTarget{}, backend.Fail(backend.FailUsage, "--host: no password in the address; ssh asks for it", "")
	}
	return t, nil
}

// String is the target as a person writes it.
func (t SSHTarget) String() string {
	s := t.Host
	if t.User != "" {
		s = t.User + "@" + s
	}
	return s
}

// args are the arguments of ssh. start asks the other side to start an engine
// when none runs.
func (t SSHTarget) args(start bool) []string {
	a := []string{"-T", "-e", "none"}
	if t.Port != "" {
		a = append(a, "-p", t.Port)
	}
	command := t.Command
	if command == "" {
		command = "easel"
	}
	remote := shellQuote(command) + " dial-stdio"
	if start {
		remote += " --start"
	}
	return append(a, "--", t.String(), remote)
}

// shellQuote quotes s for the shell at the other end.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// SSH is a client of the engine of another box: one ssh process, over which
// every call and stream goes as unencrypted HTTP/2. With start the first
// connection starts an engine over there when none runs; a later one does not, so
// that an engine that somebody stops stays stopped. ssh itself asks for passwords
// on the terminal.
func SSH(t SSHTarget, start bool) *Client {
	var first atomic.Bool
	first.Store(start)
	return overCommand(t.String(), func() *exec.Cmd {
		return exec.Command("ssh", t.args(first.Swap(false))...)
	})
}

// overCommand is a client over the standard input and output of a program.
func overCommand(where string, command func() *exec.Cmd) *Client {
	var mu sync.Mutex // guards open
	var open []*pipeConn
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := startPipe(where, command())
			if err != nil {
				return nil, &dialError{err}
			}
			mu.Lock()
			defer mu.Unlock()
			open = append(open, conn)
			return conn, nil
		},
		DisableCompression: true,
	}
	return &Client{
		hc: &http.Client{Transport: t}, silent: streamSilent,
		closer: func() error {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range open {
				_ = c.Close()
			}
			open = nil
			return nil
		},
	}
}

// pipeConn is a child process's input and output as a connection. Closing it
// ends the child.
type pipeConn struct {
	where    string
	cmd      *exec.Cmd
	in       *os.File // we write
	out      *os.File // we read
	errText  *tailBuffer
	ended    chan struct{}
	waitErr  error // set before ended is closed
	closing  sync.Once
	received bool // only touched by Read
}

func startPipe(where string, cmd *exec.Cmd) (*pipeConn, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, childIn.Close(), in.Close())
	}
	p := &pipeConn{where: where, cmd: cmd, in: in, out: out, errText: &tailBuffer{}, ended: make(chan struct{})}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = childIn, childOut, p.errText
	cmd.WaitDelay = 2 * time.Second
	err = cmd.Start()
	_ = childIn.Close()
	_ = childOut.Close()
	if err != nil {
		_ = in.Close()
		_ = out.Close()
		return nil, backend.Fail(backend.FailEngineDown, "cannot start "+cmd.Path+": "+err.Error(), "--host needs the ssh program")
	}
	go func() {
		p.waitErr = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Read reads what the other side sent. At the end it says what the program said
// about why it ended, when it ended without having sent anything.
func (p *pipeConn) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if n > 0 {
		p.received = true
	}
	if errors.Is(err, io.EOF) && n == 0 && !p.received {
		<-p.ended
		return 0, p.whyEnded()
	}
	return n, err
}

// whyEnded turns the last words of ssh, or of the easel over there, into an
// error.
func (p *pipeConn) whyEnded() error {
	text := strings.TrimSpace(p.errText.String())
	hint := "try `ssh " + p.where + " easel status` by hand"
	if i := strings.LastIndex(text, "easel: "); i >= 0 {
		text = strings.TrimPrefix(text[i:], "easel: ")
		if main, rest, ok := strings.Cut(text, "\nhint: "); ok {
			text, hint = main, rest
		}
	}
	if text == "" {
		text = fmt.Sprint("ssh ended: ", p.waitErr)
	}
	fail := backend.Fail(backend.FailEngineDown, p.where+": "+text, hint)
	var exit *exec.ExitError
	if errors.As(p.waitErr, &exit) && exit.ExitCode() == 4 {
		return &dialError{&NotRunningError{Where: p.where, Err: p.waitErr, fail: fail}}
	}
	return &dialError{fail}
}

// Write sends to the other side.
func (p *pipeConn) Write(b []byte) (int, error) {
	n, err := p.in.Write(b)
	if err != nil {
		select {
		case <-p.ended:
			return n, p.whyEnded()
		case <-time.After(time.Second):
		}
	}
	return n, err
}

// Close closes both directions and makes sure that the child ends.
func (p *pipeConn) Close() error {
	p.closing.Do(func() {
		_ = p.in.Close()
		_ = p.out.Close()
		go func() {
			select {
			case <-p.ended:
			case <-time.After(2 * time.Second):
				_ = p.cmd.Process.Kill()
			}
		}()
	})
	return nil
}

// LocalAddr names this end.
func (p *pipeConn) LocalAddr() net.Addr { return pipeAddr("stdio") }

// RemoteAddr names the box.
func (p *pipeConn) RemoteAddr() net.Addr { return pipeAddr(p.where) }

// SetDeadline sets both deadlines, where the system's pipes have them.
func (p *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read.
func (p *pipeConn) SetReadDeadline(t time.Time) error { return p.out.SetReadDeadline(t) }

// SetWriteDeadline bounds Write.
func (p *pipeConn) SetWriteDeadline(t time.Time) error { return p.in.SetWriteDeadline(t) }

type pipeAddr string

func (a pipeAddr) Network() string { return "ssh" }
func (a pipeAddr) String() string  { return string(a) }

// tailBuffer keeps the last 4 KiB written to it.
type tailBuffer struct {
	mu sync.Mutex // guards b
	b  []byte
}

// Write appends p and forgets what is older than the last 4 KiB.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 4<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// String is what is kept, without control characters except line ends.
func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(t.b), ""))
}
