//go:build !easelfault

package fault

// Enabled says that fault points are not compiled in.
const Enabled = false

// Hit does nothing: fault points are not compiled in.
func Hit(string) {}

// Worker does nothing: fault points are not compiled in.
func Worker(func() int) {}
