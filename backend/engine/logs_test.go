//go:build linux

package engine

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"easel/backend"
)

// TestLogWriterIsLeftAloneAfterItsHandler: a line sets a timer that sends it, and
// net/http panics, which ends the engine, when that fires after the handler
// returned.
func TestLogWriterIsLeftAloneAfterItsHandler(t *testing.T) {
	rec := httptest.NewRecorder()
	out := &lineWriter{w: rec, rc: http.NewResponseController(rec)}
	for range 2 { // the second is the one that a timer sends
		if err := out.line(backend.LogLine{Text: "got prompt"}); err != nil {
			t.Fatal(err)
		}
	}
	out.close()
	if !rec.Flushed {
		t.Error("close sent nothing")
	}
	rec.Flushed = false
	length := rec.Body.Len()
	out.flush() // the timer
	if err := out.ping(); err != nil {
		t.Error(err)
	}
	if rec.Flushed || rec.Body.Len() != length {
		t.Error("the writer was used after its handler had returned")
	}
}
