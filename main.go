// Easel keeps one ComfyUI process per GPU alive, never loses a job, and puts
// the whole box on one terminal screen.
package main

import (
	"os"

	"easel/cmd"
)

func main() { os.Exit(cmd.Execute()) }
