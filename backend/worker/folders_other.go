//go:build !linux

package worker

import "easel/backend/comfy"

// foldersOf is unknown elsewhere: engines run on Linux.
func foldersOf(int) comfy.Dirs { return comfy.Dirs{} }
