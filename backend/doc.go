// Package backend holds the words of the domain: Job, Attempt, Output,
// Worker, Verdict, Event and the frames of the event stream. It does no I/O
// and imports nothing of this module, so that the console, the command line,
// the engine and the tests all speak of the same things.
//
// The JSON shapes here are the ones other programs rely on. Fields may be
// added, never renamed. Times are RFC 3339 UTC with milliseconds and null until
// they happen, sizes are bytes, durations are seconds as numbers, and what is
// unknown is null, never 0.
package backend
