// Package comfy is a client of ComfyUI's HTTP and WebSocket API. It speaks to
// one server, knows the traps of versions 0.3.40 up to the newest seen, and
// turns what the server says into typed values.
//
// What it takes care of: the bare NaN and Infinity that Python writes
// (Sanitize), seeds of 64 unsigned bits (numbers of a graph are never decoded),
// messages of up to 64 MiB, message types and fields it does not know, event
// loops that stall for seconds (timeouts are long), and the server's habit of
// deafening a socket that reconnects too soon.
//
// Errors say who is at fault. An error for which Unreachable reports true means
// that the server did not answer: it may be starting, busy or dead. One for which
// Refused reports true is an answer: *PromptError for a workflow, *StatusError
// for everything else.
//
// The package starts no process, decides nothing about jobs and keeps no state
// but connections. A Client is safe for concurrent use.
package comfy
