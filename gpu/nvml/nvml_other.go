//go:build !linux || !cgo

package nvml

import "easel/gpu"

// Open answers why the library cannot be used in this build.
func Open() (gpu.Sampler, error) {
	return nil, gpu.Errorf(gpu.NoLibrary, "this build of Easel cannot use NVML: it was made without cgo, or not for Linux")
}
