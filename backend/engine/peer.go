//go:build linux

package engine

import (
	"context"
	"net"
	"os/user"
	"strconv"
)

// peerKey is the context key of the uid at the other end of a connection.
type peerKey struct{}

// withPeer notes who is at the other end of the unix socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if uid, ok := peerUID(c); ok {
		return context.WithValue(ctx, peerKey{}, uid)
	}
	return ctx
}

// peerName is the user at the other end, "" when that is not known.
func peerName(ctx context.Context) string {
	uid, ok := ctx.Value(peerKey{}).(int)
	if !ok {
		return ""
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}
