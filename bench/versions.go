//go:build linux

package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// modules are the module paths of the peers written in Go.
var modules = map[string]string{
	"gws":        "github.com/lxzan/gws",
	"nbio":       "github.com/lesismal/nbio",
	"gorilla":    "github.com/gorilla/websocket",
	"coder":      "github.com/coder/websocket",
	"gobwas":     "github.com/gobwas/ws",
	"melody":     "github.com/olahol/melody",
	"centrifuge": "github.com/centrifugal/centrifuge",
	"centrifugo": "github.com/centrifugal/centrifugo/v6",
}

// versions lists the servers that were measured, with their versions.
func (b *bench) versions() string {
	var list []string
	for _, name := range b.servers {
		name = strings.TrimSuffix(name, historySuffix)
		if v := b.version(name); v != "" && !slices.Contains(list, name+" "+v) {
			list = append(list, name+" "+v)
		}
	}
	return strings.Join(list, ", ")
}

// version is a peer's version; "" for servers of this repository.
func (b *bench) version(name string) string {
	if info, ok := debug.ReadBuildInfo(); ok && modules[name] != "" {
		for _, m := range info.Deps {
			if m.Path == modules[name] {
				return m.Version
			}
		}
	}
	if name == "centrifugo" {
		if info, err := buildinfo.ReadFile(b.centrifugo()); err == nil {
			return info.Main.Version
		}
	}
	text, err := os.ReadFile(filepath.Join(b.js, "node_modules", packages[name], "package.json"))
	if err != nil {
		return ""
	}
	var p struct{ Version string }
	if json.Unmarshal(text, &p) != nil {
		return ""
	}
	if name == "ws" || name == "socketio" {
		return p.Version + " on node " + b.line("node", "--version")
	}
	return p.Version
}
