package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// openNamed opens the listener that an engine asks for, or finds it open.
func (k *keeper) openNamed(m *message) ([]*os.File, error) {
	if m.Name == "" || m.Name == controlName {
		return nil, fmt.Errorf("listen: %q is no name for a listener", m.Name)
	}
	if n := k.named[m.Name]; n != nil {
		if n.given || n.network == m.Network && n.address == m.Address {
			return []*os.File{n.file}, nil
		}
		k.closeNamed(m.Name)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), m.Network, m.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", m.Address, err)
	}
	f, err := listenerFile(ln)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", m.Address, err), ln.Close())
	}
	_ = ln.Close() // f keeps it open
	k.named[m.Name] = &named{network: m.Network, address: m.Address, file: f}
	return []*os.File{f}, nil
}

func listenerFile(ln net.Listener) (*os.File, error) {
	switch l := ln.(type) {
	case *net.TCPListener:
		return l.File()
	case *net.UnixListener:
		l.SetUnlinkOnClose(false)
		return l.File()
	}
	return nil, errors.New("only tcp and unix listeners can be held")
}

// closeNamed closes a listener that is not wanted any more.
func (k *keeper) closeNamed(name string) {
	n := k.named[name]
	if n == nil {
		return
	}
	_ = n.file.Close()
	if n.network == "unix" {
		_ = os.Remove(n.address)
	}
	delete(k.named, name)
}

// listening lists every listener.
func (k *keeper) listening() []syscall.Conn {
	list := []syscall.Conn{k.ln}
	for _, n := range k.named {
		list = append(list, n.file)
	}
	return list
}

// takeListeners takes those of a handover.
func (k *keeper) takeListeners(a *Handover) {
	for _, h := range a.Listeners {
		if h.Name == controlName {
			ln, err := inheritListener(h.FD)
			if err != nil {
				k.log.Error("cannot take over the control socket: opening it anew", "err", err)
				continue
			}
			k.ln = ln
			continue
		}
		if f := os.NewFile(uintptr(h.FD), h.Name); f != nil {
			k.named[h.Name] = &named{network: h.Network, address: h.Address, file: f, given: h.Given}
		}
	}
}
