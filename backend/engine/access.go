//go:build linux

package engine

import (
	"context"
	"net/http"
	"os"
	"strings"

	"easel/backend"
)

// mayOperate reports whether the caller may do everything: the account that the
// engine runs as, and root. The socket of a private engine lets nobody else in;
// that of a system service is open to its group.
func mayOperate(ctx context.Context) bool {
	uid, ok := ctx.Value(peerKey{}).(int)
	return ok && (uid == os.Getuid() || uid == 0)
}

// access keeps other accounts to what is theirs: they read all, submit as
// themselves, and change their own jobs (actJobs sees to that).
func access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := peerName(r.Context())
		if mayOperate(r.Context()) || who != "" && open(r) {
			next.ServeHTTP(w, r)
			return
		}
		if who == "" {
			who = "this account"
		}
		fail(w, backend.Fail(backend.FailForbidden, who+" may look and run jobs here, and change its own; not "+r.Method+" "+clip(r.URL.Path),
			"ask the account that runs the engine, or use sudo"))
	})
}

// open reports whether any account that reaches the socket may do this.
func open(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return !strings.HasPrefix(r.URL.Path, "/debug/")
	case http.MethodPost:
		return r.URL.Path == "/v1/jobs" || r.URL.Path == "/v1/jobs/actions" || r.URL.Path == "/v1/uploads"
	}
	return false
}
