package cmd

import (
	"fmt"
	"os"

	"easel/gpu"
	"easel/gpu/child"
	"easel/gpu/nvml"
	"easel/gpu/sysfs"
)

func init() { mains["gpu-sampler"] = gpuSamplerMain }

// gpuSamplerMain is the hidden command in which the engine lets a driver be called:
// `easel gpu-sampler nvml|amdgpu`. It ends when its input does.
func gpuSamplerMain(args []string) int {
	open := nvml.Open
	if len(args) > 0 && args[0] == gpu.AMDGPU {
		open = func() (gpu.Sampler, error) { return sysfs.Open("/sys") }
	}
	if err := child.Serve(os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, "easel gpu-sampler:", err)
		return 1
	}
	return 0
}
