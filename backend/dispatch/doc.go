// Package dispatch takes jobs from the durable queue to the workers and finds
// out what became of them. It knows no processes (a worker is something with a
// client and a launch) and no screen.
//
// Each worker has a lane: one goroutine that owns what is inside that ComfyUI,
// at most the running prompt and the next, so that the GPU never waits. What is
// done is never taken from one signal: the lane listens before it posts, reads
// the history when a prompt ends, and asks /queue and then /history whenever it
// may have missed something, after a restart of Easel above all.
package dispatch
