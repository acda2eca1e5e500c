//go:build linux

package engine

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
)

func TestOtherAccountsLookAndRunButDoNotOperate(t *testing.T) {
	h := access(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for _, c := range []struct {
		uid          int
		method, path string
		want         int
	}{
		{os.Getuid(), "POST", "/v1/stop", 204},
		{0, "POST", "/v1/workers/actions", 204},
		{54321, "GET", "/v1/status", 204},
		{54321, "GET", "/v1/events", 204},
		{54321, "POST", "/v1/jobs", 204},
		{54321, "POST", "/v1/jobs/actions", 204},
		{54321, "POST", "/v1/stop", 403},
		{54321, "POST", "/v1/queue/pause", 403},
		{54321, "POST", "/v1/workers/actions", 403},
		{54321, "POST", "/v1/reload", 403},
		{54321, "GET", "/debug/state", 403},
		{54321, "DELETE", "/v1/jobs", 403},
	} {
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), peerKey{}, c.uid), c.method, c.path, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("uid %d, %s %s: %d, want %d", c.uid, c.method, c.path, w.Code, c.want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/stop", nil))
	if w.Code != 403 {
		t.Errorf("a caller whose account is not known: %d", w.Code)
	}
}
