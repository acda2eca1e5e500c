// Package child keeps a gpu.Sampler in a process of its own, since a call into a
// hung driver never returns and would make its process unkillable.
//
// The parent writes one empty line for each reading it wants, the child answers
// with one line of JSON. The child ends when its input ends. A child that is silent
// for too long is killed; one that cannot be killed is abandoned, and said.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"easel/gpu"
)

// answer is a line of the child.
type answer struct {
	Reading *gpu.Reading `json:"reading,omitempty"`
	Error   *gpu.Error   `json:"error,omitempty"`
}

// Serve is the child: it opens the sampler, then answers each line of in with a
// reading on out. It returns when in ends, also while a reading hangs; the caller
// then leaves the process at once.
func Serve(in io.Reader, out io.Writer, open func() (gpu.Sampler, error)) error {
	asks, ended := make(chan struct{}, 1), make(chan error, 2)
	go func() {
		r := bufio.NewReader(in)
		for {
			if _, err := r.ReadString('\n'); err != nil {
				ended <- nil
				return
			}
			select {
			case asks <- struct{}{}:
			default: // one waits already
			}
		}
	}()
	go func() { ended <- work(asks, json.NewEncoder(out), open) }()
	return <-ended
}

// work reads the cards for every ask, until an answer cannot be written.
func work(asks <-chan struct{}, out *json.Encoder, open func() (gpu.Sampler, error)) error {
	var s gpu.Sampler
	for range asks {
		var err error
		if s == nil {
			s, err = open()
		}
		var a answer
		if err == nil {
			var r gpu.Reading
			if r, err = s.Sample(context.Background()); err == nil {
				a.Reading = &r
			}
		}
		if err != nil {
			a.Error = asError(err)
		}
		if err := out.Encode(a); err != nil {
			return fmt.Errorf("answer the engine: %w", err)
		}
	}
	return nil
}

func asError(err error) *gpu.Error {
	var e *gpu.Error
	if errors.As(err, &e) {
		return e
	}
	return gpu.Errorf(gpu.Broken, "%v", err)
}

// The times of a Sampler.
const (
	Silence = 5 * time.Second // without an answer the child is ended
	dying   = 2 * time.Second // from SIGKILL until it is abandoned
)

// Sampler asks a child. It is a gpu.Sampler whose Sample always returns.
type Sampler struct {
	// Silence is how long the child may be silent; New sets the constant.
	Silence time.Duration

	source string
	argv   []string
	env    []string
	p      *proc
	left   *proc // abandoned, and not known to have ended
}

var _ gpu.Sampler = (*Sampler)(nil)

// proc is one child process.
type proc struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan answer   // closed at its end
	gone  chan struct{} // closed when it was reaped
	err   error         // how it ended, once gone
	told  atomic.Bool   // it was ended on purpose
}

// New makes a Sampler of the named source over a child that is started by argv
// with the environment env when it is first asked.
func New(source string, argv, env []string) *Sampler {
	return &Sampler{Silence: Silence, source: source, argv: argv, env: env}
}

// Source is the source that the child reads.
func (s *Sampler) Source() string { return s.source }

// PID is the child's process, 0 while there is none.
func (s *Sampler) PID() int {
	if s.p == nil {
		return 0
	}
	return s.p.cmd.Process.Pid
}

// Sample asks the child, and starts it when it does not run. A silent one is ended.
func (s *Sampler) Sample(ctx context.Context) (gpu.Reading, error) {
	if err := s.start(); err != nil {
		return gpu.Reading{}, err
	}
	p := s.p
	timer := time.NewTimer(s.Silence)
	defer timer.Stop()
	// A pipe takes the line at once; when the child has ended, its lines end too.
	_, _ = io.WriteString(p.in, "\n")
	select {
	case a, ok := <-p.lines:
		switch {
		case !ok:
			<-p.gone
			s.p = nil
			return gpu.Reading{}, gpu.Errorf(gpu.Broken, "the process that reads the cards ended: %v", p.err)
		case a.Error != nil:
			_ = s.Close()
			return gpu.Reading{}, a.Error
		case a.Reading == nil:
			_ = s.Close()
			return gpu.Reading{}, gpu.Errorf(gpu.Broken, "the process that reads the cards answered nothing")
		}
		return *a.Reading, nil
	case <-timer.C:
		return gpu.Reading{}, s.hung()
	case <-ctx.Done():
		_ = s.Close()
		return gpu.Reading{}, ctx.Err()
	}
}

// hung ends a child that does not answer.
func (s *Sampler) hung() error {
	p := s.p
	s.p = nil
	if p.end() {
		return gpu.Errorf(gpu.Hung, "the driver did not answer for %s: its reader was ended", s.Silence)
	}
	s.left = p
	return gpu.Errorf(gpu.Hung, "the driver did not answer for %s, and its reader (pid %d) hangs in the kernel and cannot be ended: left behind; only a restart of the box will mend that", s.Silence, p.cmd.Process.Pid)
}

// start starts the child, unless it runs. While an abandoned one still hangs no
// other is started: they would pile up.
func (s *Sampler) start() error {
	if s.p != nil {
		return nil
	}
	if s.left != nil {
		select {
		case <-s.left.gone:
			s.left = nil
		default:
			return gpu.Errorf(gpu.Hung, "the driver hangs: the reader that was left behind (pid %d) has still not ended", s.left.cmd.Process.Pid)
		}
	}
	p, err := begin(s.argv, s.env)
	if err != nil {
		return gpu.Errorf(gpu.Broken, "start the process that reads the cards: %v", err)
	}
	s.p = p
	return nil
}

func begin(argv, env []string) (*proc, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own: Wait would close the other kind under the reader.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	p := &proc{cmd: cmd, in: in, lines: make(chan answer), gone: make(chan struct{})}
	go p.read(r)
	go func() {
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// read passes the child's lines on until it ends or is told to.
func (p *proc) read(r *os.File) {
	defer close(p.lines)
	defer r.Close()
	dec := json.NewDecoder(r)
	for {
		var a answer
		if dec.Decode(&a) != nil {
			return
		}
		if p.told.Load() {
			return
		}
		p.lines <- a
	}
}

// end kills the child, and reports whether it has ended.
func (p *proc) end() bool {
	p.told.Store(true)
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	go func() {
		for range p.lines { // an answer may be on its way
			continue
		}
	}()
	select {
	case <-p.gone:
		return true
	case <-time.After(dying):
		return false
	}
}

// Close ends the child.
func (s *Sampler) Close() error {
	p := s.p
	if p == nil {
		return nil
	}
	s.p = nil
	if !p.end() {
		s.left = p
		return fmt.Errorf("the process that reads the cards (pid %d) cannot be ended: it hangs in the driver", p.cmd.Process.Pid)
	}
	return nil
}
