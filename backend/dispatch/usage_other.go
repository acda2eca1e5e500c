//go:build !linux

package dispatch

// measureTree measures nothing here: only on Linux.
func measureTree(int) usage { return usage{} }

// freeRAM is unknown here.
func freeRAM() int64 { return 0 }

// biggest is unknown here.
func biggest(map[int]bool) holder { return holder{} }

// freeDisk is unknown here.
func freeDisk(string) (int64, bool) { return 0, false }

// treeOf is the process alone.
func treeOf(pid int) []int { return []int{pid} }
