package assets

import "embed"

// Locales holds what Easel says in other languages than English, one file for
// each, under "locales/": TOML, one line `"English" = "translation"` for each
// sentence. Package tui/text reads them.
//
//go:embed locales/*.toml
var Locales embed.FS
