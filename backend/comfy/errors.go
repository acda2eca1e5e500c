package comfy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"unicode"
)

// ConnectError says that a call got no answer: connection refused or broken, or
// nothing within the timeout. ComfyUI may be starting, stalled or dead.
type ConnectError struct {
	Op  string // what was tried, as "read the queue"
	URL string // the server's base URL
	// Sent is false when the connection could not be opened, so that the request
	// certainly did not arrive. When it is true the request may have been carried
	// out.
	Sent bool
	Err  error
}

// Error is a sentence for people.
func (e *ConnectError) Error() string {
	why := e.Err.Error()
	switch {
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		why = "nothing listens there (it is starting, or has ended)"
	case errors.Is(e.Err, syscall.ECONNRESET), errors.Is(e.Err, syscall.EPIPE):
		why = "the connection broke (the process may have ended)"
	case isTimeout(e.Err):
		why = "no answer in time (it may be loading a model, or hang)"
	}
	return fmt.Sprintf("%s: ComfyUI at %s does not answer: %s", e.Op, e.URL, why)
}

// Unwrap is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// StatusError is an answer with a status other than 200, where no more can be
// read from it.
type StatusError struct {
	Op     string // what was tried
	Status int    // the HTTP status
	Text   string // the answer's first 300 characters, printable
}

// Error is a sentence for people.
func (e *StatusError) Error() string {
	text := e.Text
	switch {
	case e.Status == 413:
		text = "larger than ComfyUI takes; raise its --max-upload-size"
	case e.Status == 500 && (text == "" || strings.Contains(text, "Server got itself in trouble")):
		text = "an error inside ComfyUI; the reason is in the worker's log"
	case text == "":
		text = "no reason given"
	}
	return fmt.Sprintf("%s: ComfyUI answered %d: %s", e.Op, e.Status, text)
}

// Unreachable reports whether err means that ComfyUI itself gave no answer: no
// connection, a broken one, a timeout, or a proxy's 502, 503 or 504. A context
// that the caller cancelled is not that.
func Unreachable(err error) bool {
	var c *ConnectError
	if errors.As(err, &c) {
		return true
	}
	var s *StatusError
	return errors.As(err, &s) && s.Status >= 502 && s.Status <= 504
}

// Refused reports whether err is an answer of ComfyUI itself: *PromptError, or
// *StatusError but for a proxy's 502, 503 and 504.
func Refused(err error) bool {
	var p *PromptError
	if errors.As(err, &p) {
		return true
	}
	var s *StatusError
	return errors.As(err, &s) && !Unreachable(err)
}

// NotSent reports whether err means that the request certainly did not reach the
// server, because the connection could not be opened.
func NotSent(err error) bool {
	var c *ConnectError
	return errors.As(err, &c) && !c.Sent
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// dialFailed reports whether err happened while the connection was opened.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Plain is s on one line with control and formatting characters taken out and at
// most limit characters long (0: no limit), for text that came from a process or
// the network and goes before people.
func Plain(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(printable(s), unicode.IsSpace), " ")
	if limit <= 0 {
		return s
	}
	n := 0
	for i := range s {
		if n++; n > limit {
			return s[:i] + "…"
		}
	}
	return s
}

// escapes are the sequences that colour a terminal's text, or name its window.
var escapes = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1b.")

// printable is s without terminal sequences, without control and formatting characters
// but newline and tab, and as valid UTF-8.
func printable(s string) string {
	if strings.ContainsRune(s, 0x1b) {
		s = escapes.ReplaceAllString(s, "")
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
