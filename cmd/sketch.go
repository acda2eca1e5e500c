package cmd

import (
	"github.com/spf13/cobra"

	"easel/backend/sketch"
)

func init() {
	mains["sketch"] = sketch.Main
}

// sketchCmd is `easel sketch` in the list of commands. Execute runs it before
// flags are parsed, since its flags are ComfyUI's.
func (a *app) sketchCmd() *cobra.Command {
	return &cobra.Command{
		Use: "sketch [flags of ComfyUI]", Short: "Run the built-in worker by itself: a small ComfyUI that draws without a GPU",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := sketch.Main(args); code != 0 {
				return &exit{code: code}
			}
			return nil
		},
	}
}
