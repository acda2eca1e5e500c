package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"easel/backend"
)

// startPause is the pause before the engine is looked for again.
const startPause = 3 * time.Second

// Run shows the console until the person leaves or ctx ends. The terminal is as
// it was afterwards. The caller handles signals and cancels ctx for them.
func Run(ctx context.Context, svc Service, o Options) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	m := New(ctx, svc, o)
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithoutSignalHandler()}
	if o.Input != nil {
		opts = append(opts, tea.WithInput(o.Input))
	}
	out := io.Writer(os.Stdout)
	if o.Output != nil {
		out = o.Output
		opts = append(opts, tea.WithOutput(o.Output))
	}
	if o.Environ != nil {
		opts = append(opts, tea.WithEnvironment(o.Environ))
	}
	p := tea.NewProgram(m, opts...)
	wait := feed(ctx, svc, o, p.Send, p.Kill)
	_, err := p.Run()
	leave()
	if broke := wait(); broke != nil {
		err = broke
	}
	if free := m.env.Pics.Free(); free != "" {
		_, _ = io.WriteString(out, free)
	}
	if errors.Is(err, tea.ErrProgramKilled) && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// feed starts what tells the program of the engine; the returned function waits
// until all of it has ended, which it does soon after ctx, and returns what broke. A
// panic there ends the program by kill, so that the terminal is restored.
func feed(ctx context.Context, svc Service, o Options, send func(tea.Msg), kill func()) (wait func() error) {
	b := newBridge(send)
	var wg sync.WaitGroup
	broke := make(chan error, 2)
	guard := func(fn func()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() {
				if r := recover(); r != nil {
					broke <- fmt.Errorf("the console broke while it listened to the engine: %v\n%s", r, debug.Stack())
					kill()
				}
			}()
			fn()
		}()
	}
	guard(func() { b.run(ctx) })
	guard(func() {
		if !find(ctx, o, b) {
			return
		}
		_ = svc.Watch(ctx, true,
			func(f backend.Frame) error { b.put(f); return ctx.Err() },
			func(connected bool, err error) { b.say(linkMsg{connected: connected, err: err}) })
	})
	return func() error {
		wg.Wait()
		select {
		case err := <-broke:
			return err
		default:
			return nil
		}
	}
}

// find looks for the engine until there is one; false when ctx ended first.
func find(ctx context.Context, o Options, b *bridge) bool {
	for o.Start != nil {
		started, err := o.Start(ctx, func(s string) { b.say(startMsg{note: s}) })
		if ctx.Err() != nil {
			return false
		}
		b.say(startMsg{started: started, err: err})
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(startPause):
		}
	}
	return true
}
