// Package workflow reads ComfyUI workflows in API format, from JSON and out of
// the metadata of PNG files, changes single values in them, and checks them
// against what a server's nodes take (its object_info), so that a fault is named
// with node, input and remedy before anything is queued.
//
// A graph is kept as the bytes it came in: numbers are never turned into
// float64, the order of nodes and inputs stays, and an edit touches only the
// value that it changes. The package does no I/O but reading what it is given,
// talks to no server, and does not convert the UI format.
package workflow
