//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/bench/load"
)

// options are the choices of the command line.
//
// Owner: immutable once parsed.
type options struct {
	full      bool
	rounds    int
	scenarios []string
	servers   []string
	out       string
	before    string // the revision to compare with, in place of peers
}

// record is one run, one line of results/runs.jsonl.
//
// Owner: immutable once the run is over.
type record struct {
	Time     string      `json:"time"`
	Commit   string      `json:"commit"`
	Before   string      `json:"before,omitempty"` // the commit of the server before
	Machine  string      `json:"machine"`
	Scenario string      `json:"scenario"`
	Server   string      `json:"server"`
	Round    int         `json:"round"`
	Plan     load.Plan   `json:"plan"`
	Result   load.Result `json:"result"`
}

// bench is one benchmark under way.
//
// Owner: run.
type bench struct {
	options
	root    string // of the repository
	self    string // this program
	parley  string // the server's binary
	js      string // directory of the peers from npm
	servers []string
	missing map[string]string // by server: the reason for which it is missing
	records []record
	commit  string
	machine string
	earlier earlier
}

// shortPeers are the peers of the short benchmark, besides the floor.
var shortPeers = []string{"gws", "gobwas", "bun"}

var allPeers = []string{"gws", "gobwas", "bun", "gorilla", "nbio", "coder", "melody", "centrifuge", "ws"}

// run plays every chosen cell, every server, in rounds.
func run(o options) error {
	b := &bench{options: o, missing: map[string]string{}}
	if err := b.prepare(); err != nil {
		return err
	}
	list := chosen(o)
	if o.before != "" {
		list = b.comparable(list)
	}
	if len(list) == 0 {
		return fmt.Errorf("no scenario to play is named like %v", o.scenarios)
	}
	total, done, begun := 0, 0, time.Now()
	for _, c := range list {
		for _, name := range b.servers {
			if c.serves(name) {
				total += o.rounds
			}
		}
	}
	for round := range o.rounds {
		for _, c := range list {
			order := slices.Clone(b.servers)
			rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
			for _, name := range order {
				if !c.serves(name) {
					continue
				}
				r := b.play(c, name, round+1)
				done++
				left := time.Duration(float64(time.Since(begun)) / float64(done) * float64(total-done)).Round(time.Second)
				fmt.Printf("[%d/%d, %v left] %-16s %-8s %s\n", done, total, left, c.name, name, brief(c, r))
			}
		}
	}
	if o.before != "" {
		return b.reportBefore(list)
	}
	return b.report(list)
}

func brief(c cell, r load.Result) string {
	if r.Void != "" {
		return "VOID: " + r.Void
	}
	return fmt.Sprintf("%s %.2f, %.0f/s, client %.0f %% busy", c.figure.label(), c.figure.of(r), r.Rate, r.Busy*100)
}

// prepare builds parley and installs the peers.
func (b *bench) prepare() (err error) {
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.root, err = filepath.Abs(".."); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	if err := b.makeTokenKeys(); err != nil {
		return err
	}
	if o := b.options; o.before != "" {
		if err := b.buildEarlier(o.before); err != nil {
			return err
		}
	}
	b.parley = filepath.Join(b.root, "bin", "parley")
	fmt.Println("building parley")
	if err := b.shell(b.root, "make", "-s", "build"); err != nil {
		return fmt.Errorf("build parley: %w", err)
	}
	b.js = filepath.Join(b.root, "bench", "peers", "js")
	b.commit = b.line("git", "describe", "--always", "--dirty")
	b.machine = fmt.Sprintf("%s, %d cores, Linux %s, %s", cpuName(), runtime.NumCPU(), b.line("uname", "-r"), runtime.Version())
	if b.options.before != "" {
		b.servers = []string{before, "parley"}
		return nil
	}
	peers := shortPeers
	if b.full {
		peers = allPeers
	}
	if len(b.options.servers) > 0 {
		peers = b.options.servers
	}
	if len(b.options.servers) == 0 {
		for _, c := range chosen(b.options) {
			peers = append(peers[:len(peers):len(peers)], split(c.only)...)
		}
	}
	b.servers = []string{"floor", "floor-ring", "parley"}
	for _, name := range peers {
		if slices.Contains(b.servers, name) || b.missing[name] != "" {
			continue
		}
		if !slices.ContainsFunc(chosen(b.options), func(c cell) bool { return c.serves(name) }) {
			continue
		}
		if why := b.install(name); why != "" {
			b.missing[name] = why
			fmt.Printf("%s is missing: %s\n", name, why)
			continue
		}
		b.servers = append(b.servers, name)
	}
	return nil
}

// packages are the names of the peers from npm there.
var packages = map[string]string{"bun": "bun", "ws": "ws", "socketio": "socket.io"}

// install fetches a peer that is not a part of this program. It returns the reason for a failure, "" for none.
func (b *bench) install(name string) string {
	if name == "centrifugo" {
		if err := b.buildCentrifugo(); err != nil {
			return "go build: " + err.Error()
		}
		return ""
	}
	name = strings.TrimSuffix(name, historySuffix)
	if packages[name] == "" {
		return ""
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "npm is not installed"
	}
	if _, err := os.Stat(filepath.Join(b.js, "node_modules", packages[name])); err == nil {
		return ""
	}
	fmt.Println("installing the peers from npm")
	if err := b.shell(b.js, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error"); err != nil {
		return "npm install: " + err.Error()
	}
	return ""
}

func (b *bench) shell(dir string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (b *bench) line(args ...string) string {
	out, _ := exec.Command(args[0], args[1:]...).Output()
	return strings.TrimSpace(string(out))
}

func cpuName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// play is one run: a fresh server on one core, the load on another.
func (b *bench) play(c cell, name string, round int) load.Result {
	r := record{Time: time.Now().UTC().Format(time.RFC3339), Commit: b.commit, Before: b.earlier.commit, Machine: b.machine,
		Scenario: c.name, Server: name, Round: round, Plan: c.plan}
	c.forServer(name, &r.Plan)
	if alg := algorithms[name]; alg.name != "" {
		r.Plan.Tokens, r.Plan.TokenKey = alg.name, filepath.Join(b.out, alg.file)
	}
	err := b.atHalf(c, name, &r)
	if err == nil {
		err = b.measure(c, name, &r)
	}
	if err != nil {
		r.Result.Void = err.Error()
	}
	b.records = append(b.records, r)
	if line, err := json.Marshal(r); err == nil {
		if f, err := os.OpenFile(filepath.Join(b.out, "runs.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			f.Write(append(line, '\n'))
			f.Close()
		}
	}
	return r.Result
}

// atHalf measures a server's maximum rate if a plan is for half of that: its rate in a closed loop, divided by the share
// of its core that it used, since the load generator may be the limit.
func (b *bench) atHalf(c cell, name string, r *record) error {
	if c.plan.Rate != half {
		return nil
	}
	all := *r
	all.Plan.Rate = 0
	if err := b.measure(c, name, &all); err != nil {
		return err
	}
	if all.Result.Rate == 0 {
		return errors.New("its rate cannot be found out: " + all.Result.Void)
	}
	r.Plan.Rate = all.Result.Rate / min(1, all.Result.CPU*all.Result.Rate/1e6) / 2
	return nil
}

// runFor is the time after which a run is given up.
const runFor = 5 * time.Minute

func (b *bench) measure(c cell, name string, r *record) error {
	if c.micro != "" {
		return b.runMicro(c, &r.Result)
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	if r.Plan.API = addr; name != "centrifugo" {
		if r.Plan.API, err = freeAddr(); err != nil {
			return err
		}
	}
	if c.watched {
		if r.Plan.Stats, err = freeAddr(); err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(r.Plan.Stats)
		c.args = append(slices.Clone(c.args), "--admin-port", port)
	}
	server := b.server(c, name, addr, r.Plan.API)
	said := &output{ready: make(chan struct{})}
	server.Stdout, server.Stderr = said, said
	if err := launch(server, 0, c.shared); err != nil {
		return err
	}
	defer func() {
		if len(c.arguments(name)) > 0 {
			stop(server) // with its workers
			return
		}
		server.Process.Kill()
		server.Wait()
	}()
	if err := awaitPort(addr); err != nil {
		return fmt.Errorf("%w: %s", err, said.text())
	}
	if len(c.arguments(name)) > 0 {
		if err := said.await(); err != nil {
			return err
		}
	}
	r.Plan.Addr, r.Plan.PID, r.Plan.Sleepy = addr, server.Process.Pid, c.shared
	if r.Plan.Scenario == spreadScenario {
		r.Result, err = b.playFleet(c, r.Plan)
		return err
	}
	plan, err := json.Marshal(r.Plan)
	if err != nil {
		return err
	}
	client := exec.Command(b.self, "load")
	client.Stdin, client.Stderr = bytes.NewReader(plan), os.Stderr
	out, err := client.StdoutPipe()
	if err != nil {
		return err
	}
	if err := launch(client, lastCore, c.shared); err != nil {
		return err
	}
	watchdog := time.AfterFunc(runFor, func() { client.Process.Kill() })
	defer watchdog.Stop()
	text, _ := io.ReadAll(out)
	if err := client.Wait(); err != nil {
		return fmt.Errorf("load generator: %w", err)
	}
	return json.Unmarshal(text, &r.Result)
}

// server is the command that serves a cell.
func (b *bench) server(c cell, name, addr, api string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(addr)
	echo := []string{}
	if c.echoes() {
		echo = []string{"echo"}
	}
	switch name {
	case "parley", before:
		if c.echoes() {
			return exec.Command(b.program(name), "echo", "--host", host, "--port", port)
		}
		return b.serveParley(c, name, addr, api)
	case "centrifugo":
		return b.serveCentrifugo(host, port)
	case "bun":
		return exec.Command(filepath.Join(b.js, "node_modules", ".bin", "bun"), append([]string{filepath.Join(b.js, "bun.js"), addr}, echo...)...)
	case "ws":
		return exec.Command("node", append([]string{filepath.Join(b.js, "ws.mjs"), addr}, echo...)...)
	case "socketio", "socketio-history":
		return exec.Command("node", filepath.Join(b.js, "socketio.mjs"), addr, strings.TrimPrefix(name, "socketio"))
	}
	if variants[name] != nil {
		return b.serveParley(c, name, addr, api)
	}
	return exec.Command(b.self, append([]string{"peer", name, addr}, echo...)...)
}

// lastCore is the core of the load generator.
var lastCore = runtime.NumCPU() - 1

// launch starts a command on a core of its own, or on all cores if they are shared.
func launch(cmd *exec.Cmd, core int, shared bool) error {
	if !shared {
		return startOn(core, cmd)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Start()
}

// startOn starts a command on one core. Go's runtime in the new process counts only that one.
func startOn(core int, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &all)
	return cmd.Start()
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func awaitPort(addr string) error {
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
		<-time.After(10 * time.Millisecond)
	}
	return errors.New("the server does not listen")
}
