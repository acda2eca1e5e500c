// Package picture shows images in a terminal: as kitty graphics with Unicode
// placeholders where the terminal can, as half blocks in the colours it has
// elsewhere, as a ramp of characters where it has none.
//
// It decodes and scales (Decode, Size, Scale, Fit), writes what goes to the terminal out of
// band (Transmit, Delete, Query) and what goes into a frame (Placeholder, HalfBlocks),
// decides from the terminal's answers which of them to use (Caps), and keeps ids
// (IDs) and results (Cache).
//
// It does no I/O and knows no program: all functions are pure, except for IDs and
// Cache, which are safe for concurrent use. Decoding, scaling and encoding take
// milliseconds to tens of them: do them in a command, never in a view.
package picture
