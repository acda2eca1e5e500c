//go:build !linux

package worker

// listeners needs /proc: on other systems none are seen.
func listeners() []listener { return nil }

// listenerOn needs /proc.
func listenerOn(int) (listener, bool) { return listener{}, false }

// comfyProcesses needs /proc.
func comfyProcesses() []listener { return nil }
