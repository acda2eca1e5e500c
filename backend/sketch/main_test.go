package sketch

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the worker: with EASEL_SKETCH_CHILD set it
// runs `easel sketch` with its arguments.
func TestMain(m *testing.M) {
	if os.Getenv("EASEL_SKETCH_CHILD") != "" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}
