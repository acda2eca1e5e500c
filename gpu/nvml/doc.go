//go:build cgo && linux

// Package nvml reads NVIDIA cards through libnvidia-ml, by NVIDIA's own binding.
package nvml

import _ "github.com/NVIDIA/go-nvml/pkg/nvml" // the binding
