// Package assets holds the files that are part of the program.
package assets

import "embed"

// Workflows holds sample workflows in API format, under "workflows/".
// hello.json uses only nodes that every ComfyUI has and needs no model;
// sketch.json uses the node of the built-in worker.
//
//go:embed workflows/*.json
var Workflows embed.FS
