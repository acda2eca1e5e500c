// Package engine puts the parts of Easel's service together: the durable queue,
// the dispatcher, the workers, and the control API over them. It runs as a child
// of the keeper, which holds its listener and is the parent of its workers, so
// that an engine may end at any moment and the next one goes on where it was.
package engine
