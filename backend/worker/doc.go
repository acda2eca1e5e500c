// Package worker is everything about one ComfyUI process short of its jobs: how
// it is launched (MakePlan), when it is ready, why it ended (Judge), when it is
// started again (Policy), and how a new engine finds the one that already runs
// (Record). A Manager holds one worker and owns its goroutines; Discover looks
// for ComfyUIs that nobody told Easel about.
//
// The package forks no worker itself: the keeper does, on the word of a Spawner.
// It knows nothing of jobs but the id and node that the dispatcher tells it with
// SetBusy, and it never posts a prompt.
//
// A worker under worker.url belongs to somebody else: its state follows whether
// it answers, and it is never started, stopped, emptied or restarted.
package worker
