// Package jobs is the durable queue: every job, its attempts, outputs and
// numbered events, in one SQLite file. A call that changes something returns
// after the change is on disk (WAL, synchronous=FULL), so that killing any
// process at any moment loses nothing that was answered.
//
// One goroutine writes. It takes what waits in a bounded queue, runs all of it
// in one transaction, commits once and answers everybody (group commit), then
// hands the events to the subscribers, in the order of the commit. Readers have
// connections of their own and never wait for it.
//
// The package decides what a job may become (the state machine of
// backend.JobState) and who is next (priority, then the owner served least
// recently, then rank). It knows no worker and starts nothing: the dispatcher
// does.
//
// Errors are *backend.Failure where a person or a program decides by them.
package jobs
