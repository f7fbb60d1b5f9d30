//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// authCells are about clients with tokens. The dials run on all cores, as their target does; the load generator shares them.
var authCells = []cell{
	{name: "auth-check", title: "A policy check: a token with three patterns, the last of four rules", micro: "BenchmarkGuard",
		figure: checkFigure, only: "parley", base: "parley", targets: []target{{kind: figureMost, bound: 150}, {kind: allocsMost}}},
	{name: "auth-dials-hs256", title: "10,500 clients a second come and go, beside 20 that publish to each other 2,000 times a second: without tokens, and with HS256. The load generator shares all cores", plan: dialsPlan(10_500),
		figure: rateFigure, only: "parley,parley-hs256", base: "parley", shared: true, targets: []target{{server: "parley-hs256", kind: figureLeast, bound: 10_000}}},
	{name: "auth-dials-es256", title: "5,250 clients a second come and go, beside 20 that publish to each other 2,000 times a second: without tokens, and with ES256. The load generator shares all cores", plan: dialsPlan(5250),
		figure: rateFigure, only: "parley,parley-es256", base: "parley", shared: true, targets: []target{{server: "parley-es256", kind: figureLeast, bound: 5000}}},
	{name: "auth-memory", title: "15,000 idle connections, each in a room: without users, and each of a user with a token", plan: load.Plan{Scenario: "idle", Conns: 15_000, Rooms: 150, Measure: 2 * time.Second},
		figure: memoryFigure, only: "parley,parley-hs256", base: "parley", targets: []target{{server: "parley-hs256", kind: addedMost, bound: 200}}},
	{name: "auth-revoke", title: "The tokens of 5,000 connections of a user on four workers are revoked", plan: load.Plan{Scenario: "revoke", Conns: 5000, Backends: 1, OneUser: true, Key: benchKey, Warmup: 2 * time.Second},
		figure: endFigure, only: "parley-hs256", base: "parley-hs256", args: []string{"--processes", "4"}, targets: []target{{server: "parley-hs256", kind: figureMost, bound: 1000}}},
}

func init() { cells = append(cells, authCells...) }

func dialsPlan(rate float64) load.Plan {
	return load.Plan{Scenario: "dials", Conns: 20, Rooms: 10, Window: 1, Size: 128, Rate: 2000, Dials: rate, Source: "127.0.0.2",
		Warmup: warmup, Measure: measure}
}

// Files with the keys of tokens, in the directory of the results.
const (
	secretFile  = "hs256.secret"
	privateFile = "es256.private.pem"
	publicFile  = "es256.public.pem"
)

// algorithms are those of the tokens that clients of a server bring, with the file that signs them.
var algorithms = map[string]struct{ name, file string }{
	"parley-hs256": {"HS256", secretFile},
	"parley-es256": {"ES256", privateFile},
}

// makeTokenKeys writes new keys for the tokens of this run.
func (b *bench) makeTokenKeys() error {
	secret := make([]byte, 32)
	rand.Read(secret)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		secretFile:  fmt.Appendf(nil, "%x", secret),
		privateFile: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
		publicFile:  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
	} {
		if err := os.WriteFile(filepath.Join(b.out, name), text, 0o600); err != nil {
			return fmt.Errorf("write the keys of tokens: %w", err)
		}
	}
	return nil
}

// runMicro runs a benchmark of the package access on the server's core.
func (b *bench) runMicro(c cell, r *load.Result) error {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^"+c.micro+"$", "-benchmem", "-count", "5", "./engine/access")
	cmd.Dir = b.root
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := startOn(0, cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, said.String())
	}
	var times []float64
	for line := range strings.Lines(said.String()) {
		f := strings.Fields(line) // name, count, ns, "ns/op", bytes, "B/op", allocations, "allocs/op"
		if len(f) != 8 || !strings.HasPrefix(f[0], c.micro) {
			continue
		}
		ns, err := strconv.ParseFloat(f[2], 64)
		allocs, wrong := strconv.ParseFloat(f[6], 64)
		if err != nil || wrong != nil {
			return fmt.Errorf("read the benchmark's line %q", line)
		}
		times, r.Allocs = append(times, ns), max(r.Allocs, allocs)
	}
	if len(times) == 0 {
		return fmt.Errorf("no figures in %q", said.String())
	}
	r.Nanos = median(times)
	return nil
}
