// Package sketch is the built-in worker: a small server that speaks ComfyUI's
// HTTP and WebSocket API and runs the image nodes that need no model.
//
// It runs as a process of its own (`easel sketch`), so that whatever supervises
// a real ComfyUI supervises this one in the same way: the same flags, the same
// start-up lines on stderr, the same exits. It does no diffusion and holds no
// model. Its one slow node, EaselSketch, draws a picture that depends on the
// words, the seed and the size, and reports progress and previews as a sampler
// does. Switches (`--fault`) make it fail in the ways a real worker fails.
//
// What it answers follows recordings of ComfyUI 0.3.64 and 0.8.0; the
// conformance test replays a selection of them. Statements about "ComfyUI" in
// the comments of this package are facts of these two versions.
package sketch
