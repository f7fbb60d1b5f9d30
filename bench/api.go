//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/parleyd/parley/bench/load"
)

// apiCells are about programs that publish over HTTP, to a room with one member. Connections to the API stay open, as those of
// a backend's pool do.
var apiCells = []cell{
	{name: "api-publish", title: "Publishes over HTTP, 128 B, a room with one member, 16 connections with a request each", plan: apiPlan(16, 1, 0),
		figure: cpuFigure, only: "parley,centrifugo", base: "centrifugo", targets: []target{{kind: ratioMost, bound: 0.85}}},
	{name: "api-batch", title: "Batches of 100 publishes over HTTP, 128 B, a room with one member, 4 connections with a batch each", plan: apiPlan(4, 100, 0),
		figure: cpuFigure, only: "parley,centrifugo", base: "centrifugo", targets: []target{{kind: ratioMost, bound: 0.35}}},
	{name: "api-socket", title: "Publishes on a socket, 128 B, a room with one member, 2,000 under way", plan: socketPlan(),
		figure: coreFigure, only: "parley", base: "parley", targets: []target{{kind: figureLeast, bound: 300_000}}},
	{name: "api-half", title: "Publishes over HTTP, 128 B, a room with one member, at half of what each server can do: from request to member", plan: apiPlan(16, 1, half),
		figure: latencyFigure, only: "parley,centrifugo", base: "centrifugo", targets: []target{{kind: ratioMost, bound: 1}}},
	{name: "api-workers", title: "Publishes over HTTP, 128 B, a room with one member, 500 a second, one process and four workers: from request to member",
		plan: apiPlan(16, 1, 500), figure: medianFigure, only: "parley,parley-4", base: "parley", targets: []target{{server: "parley-4", kind: addedMost, bound: 1000}}},
}

func init() { cells = append(cells, apiCells...) }

// apiPlan is a plan in which backends publish. A batch of one is a publish by itself.
func apiPlan(backends, batch int, rate float64) load.Plan {
	return load.Plan{Scenario: "publishes", Conns: 1, Rooms: 1, Window: 1, Size: 128, Backends: backends, Batch: batch, Rate: rate,
		Key: benchKey, Warmup: warmup, Measure: measure}
}

func socketPlan() load.Plan {
	p := apiPlan(1, 1, 0)
	p.Socket, p.Window = true, 2000
	return p
}

// benchKey is the key of the API of every server here. They listen on loopback and end with the run.
var benchKey = "pk_bench_" + strings.Repeat("0", 43)

// variants are servers that are parley with further arguments.
var variants = map[string][]string{
	"parley-4":     {"--processes", "4"},
	"parley-hs256": {"--auth", "required", "--jwt-secret-file", secretFile},
	"parley-es256": {"--auth", "required", "--jwt-keys-file", publicFile},
}

// arguments are those of Parley's command line that a cell or the variant's name demands. A peer has none.
func (c cell) arguments(name string) []string {
	if name != before && !strings.HasPrefix(name, "parley") {
		return nil
	}
	return append(slices.Clone(variants[name]), c.args...)
}

// serveParley is the command of parley or one of its variants.
func (b *bench) serveParley(c cell, name, addr, api string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(addr)
	_, apiPort, _ := net.SplitHostPort(api)
	args := []string{"serve", "--host", host, "--port", port}
	cmd := exec.Command(b.program(name))
	cmd.Dir, cmd.Env = b.out, os.Environ() // where the keys of tokens are
	if name != before || b.earlier.knows("--admin-port") {
		args = append(args, "--admin-port", "0")
	}
	if name != before || b.earlier.knows("--api-port") {
		args = append(args, "--api-port", apiPort)
		cmd.Env = append(cmd.Env, "PARLEY_API_KEY="+benchKey)
	}
	cmd.Args = slices.Concat(cmd.Args, args, c.arguments(name))
	return cmd
}

// serveCentrifugo is Centrifugo as it comes, with the memory engine and one address for clients and API. Its clients need no
// token, as Parley's in these scenarios.
func (b *bench) serveCentrifugo(host, port string) *exec.Cmd {
	cmd := exec.Command(b.centrifugo(), "--config", "", "--http_server.address", host, "--http_server.port", port)
	cmd.Dir = b.out // it looks for a configuration file there, and finds none
	cmd.Env = append(os.Environ(), "CENTRIFUGO_HTTP_API_KEY="+benchKey, "CENTRIFUGO_CLIENT_ALLOW_ANONYMOUS_CONNECT_WITHOUT_TOKEN=true",
		"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT=true", "CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_ANONYMOUS=true")
	return cmd
}

func (b *bench) centrifugo() string { return filepath.Join(b.root, "bin", "centrifugo") }

// buildCentrifugo builds the version that its go.mod names.
func (b *bench) buildCentrifugo() error {
	fmt.Println("building centrifugo: minutes the first time")
	return b.shell(filepath.Join(b.root, "bench", "peers", "centrifugo"), "go", "build", "-o", b.centrifugo(), modules["centrifugo"])
}
