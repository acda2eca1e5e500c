package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"easel/backend"
)

// call is one request of the control API.
type call struct {
	method string
	path   string
	query  url.Values
	body   any       // sent as JSON when not nil
	raw    io.Reader // sent as it is when not nil
	key    string    // Idempotency-Key
	// once forbids a second try after the request may have been read: doing it
	// twice would do something else than doing it once.
	once bool
}

// send does the request and gives the response when its status is 2xx. A
// connection that breaks (the engine was killed under the request) is tried once
// more: the keeper holds the listener, so the second try waits for the next
// engine.
func (c *Client) send(ctx context.Context, q call) (*http.Response, error) {
	payload, err := q.payload()
	if err != nil {
		return nil, err
	}
	resp, err := c.try(ctx, q, payload)
	if err != nil && q.again(ctx, err) {
		if err := sleep(ctx, retryPause); err != nil {
			return nil, err
		}
		resp, err = c.try(ctx, q, payload)
	}
	if err != nil {
		return nil, tidy(ctx, q, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, failureFrom(resp)
	}
	return resp, nil
}

// payload is the body as something that can be sent twice.
func (q call) payload() (func() (io.Reader, error), error) {
	if q.raw != nil {
		return rawPayload(q.raw)
	}
	if q.body == nil {
		return func() (io.Reader, error) { return http.NoBody, nil }, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(q.body); err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return func() (io.Reader, error) { return bytes.NewReader(b.Bytes()), nil }, nil
}

// rawPayload is r as something that can be sent twice, when r allows it. Each try
// reads through a reader of its own: net/http closes the body it was given, and
// may still read the first one while the second is on its way.
func rawPayload(r io.Reader) (func() (io.Reader, error), error) {
	f, ok := r.(sizedReaderAt)
	if !ok {
		return func() (io.Reader, error) { return io.NopCloser(r), nil }, nil
	}
	start, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("find the place in the file: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("measure the file: %w", err)
	}
	return func() (io.Reader, error) { return io.NewSectionReader(f, start, end-start), nil }, nil
}

// sizedReaderAt is a body that can be sent more than once: a file, or bytes.
type sizedReaderAt interface {
	io.ReaderAt
	io.Seeker
}

func (c *Client) try(ctx context.Context, q call, payload func() (io.Reader, error)) (*http.Response, error) {
	body, err := payload()
	if err != nil {
		return nil, err
	}
	target := base + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, body)
	if err != nil {
		return nil, err
	}
	if s, ok := body.(*io.SectionReader); ok {
		req.ContentLength = s.Size()
		if s.Size() == 0 {
			req.Body = http.NoBody
		}
	}
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else if q.raw != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if q.key != "" {
		req.Header.Set("Idempotency-Key", q.key)
	}
	return c.hc.Do(req)
}

// again reports whether a failed try deserves the second one.
func (q call) again(ctx context.Context, err error) bool {
	var dial *dialError
	return ctx.Err() == nil && !q.once && !IsNotRunning(err) && !errors.As(err, &dial)
}

// tidy takes net/http's method and URL off an error, which say nothing to a
// person, and says what was being done instead.
func tidy(ctx context.Context, q call, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if strings.Contains(err.Error(), "looked like an HTTP/1.1 header") {
		// The keeper itself speaks only HTTP/1.1: no engine serves.
		return backend.Fail(backend.FailEngineDown, "the engine does not serve at the moment",
			"`easel status` on that box says when it starts again")
	}
	var f *backend.Failure
	if errors.As(err, &f) {
		return err
	}
	return fmt.Errorf("%w (%s): %w", errBroken, q.path, err)
}

// errBroken begins the message of a call whose connection broke: twice, or in
// the middle of the answer.
var errBroken = errors.New("the connection to the engine broke")

// failureFrom reads the error that came with a status that is not 2xx.
func failureFrom(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var body struct {
		Error *backend.Failure `json:"error"`
	}
	if json.Unmarshal(b, &body) == nil && body.Error != nil && body.Error.Message != "" {
		return body.Error
	}
	return &backend.Failure{
		Kind:    kindOf(resp.StatusCode),
		Message: fmt.Sprintf("the engine answered %s: %.200s", resp.Status, bytes.TrimSpace(b)),
	}
}

// kindOf is the kind of failure that a status stands for, for an answer without
// one in its body.
func kindOf(status int) string {
	switch status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return backend.FailUsage
	case http.StatusNotFound:
		return backend.FailNotFound
	case http.StatusConflict:
		return backend.FailConflict
	case http.StatusRequestEntityTooLarge:
		return backend.FailTooLarge
	case http.StatusUnprocessableEntity:
		return backend.FailInvalid
	case http.StatusTooManyRequests:
		return backend.FailFull
	case http.StatusServiceUnavailable:
		return backend.FailEngineDown
	case http.StatusInsufficientStorage:
		return backend.FailDisk
	}
	return backend.FailInternal
}

// into sends q and decodes the answer into out (nil: the answer is not read).
func (c *Client) into(ctx context.Context, q call, out any) (int, error) {
	resp, err := c.send(ctx, q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("%w while it answered %s: %w", errBroken, q.path, err)
	}
	return resp.StatusCode, nil
}

// sleep waits for d or for the end of ctx, whose error it returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
