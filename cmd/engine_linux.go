package cmd

import (
	"os"

	"easel/backend/engine"
	"easel/config"
)

func init() { mains["engine"] = engineMain }

// engineMain is the hidden command with which the keeper starts the engine.
func engineMain([]string) int {
	environ := os.Environ()
	return engine.Main(engine.Options{
		StateDir: config.StateDir(environ), ConfigPath: config.Path(environ), Environ: environ, Version: Version(),
	})
}
