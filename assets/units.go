package assets

import "embed"

// Units holds the templates of systemd's unit files, under "systemd/". Their fields
// are Exe, Env, Socket, User (all quoted for a unit file) and System.
//
//go:embed systemd/*
var Units embed.FS
