//go:build linux

// Command bench measures Parley beside other servers: `make bench` at the top of the repository.
//
// Its other verbs are its own processes: `load` is the load generator, `part` one of several generators, `peer NAME` one of
// the servers.
//
// It refuses to compare across runs: every round starts every server anew, one after the other, and ratios are taken
// within a round.
//
// Start reading at run.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/parleyd/parley/bench/load"
	"github.com/parleyd/parley/bench/peers"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "load":
			var plan load.Plan
			if err := json.NewDecoder(os.Stdin).Decode(&plan); err != nil {
				return err
			}
			result, err := load.Run(plan)
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(result)
		case "part":
			return playPart(os.Stdin, os.Stdout)
		case "peer":
			serve := peers.Servers[args[1]]
			if serve == nil {
				return fmt.Errorf("there is no peer %q", args[1])
			}
			return serve(args[2], len(args) > 3 && args[3] == "echo")
		}
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var o options
	var scenarios, servers string
	flags.BoolVar(&o.full, "full", false, "all scenarios and all peers")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds of every scenario and server")
	flags.StringVar(&scenarios, "scenario", "", "only scenarios whose name holds one of these, separated by commas")
	flags.StringVar(&servers, "peers", "", "only these servers, separated by commas; the floor and parley are always there")
	flags.StringVar(&o.before, "before", "", "compare with this earlier revision, in place of the floor and the peers")
	flags.StringVar(&o.out, "out", "results", "directory for the results")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.scenarios, o.servers = split(scenarios), split(servers)
	return run(o)
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
