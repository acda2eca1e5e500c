package tui

import (
	"os"
	"os/signal"
	"testing"
)

// TestMain makes the runtime start its signal goroutine before any bubble does: a
// goroutine of a bubble must not serve the others.
func TestMain(m *testing.M) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	os.Exit(m.Run())
}
