//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// processCells are about several workers that are one server. They have no peers: those would need another program to
// connect their processes.
var processCells = []cell{
	{name: "processes-loops", group: "processes", x: 1, only: "parley", title: "Ten rooms of 1,000, 128 B, one publish at a time in each: one process with four loops",
		plan: roomCell(10_000, 10, 1, 128), figure: cpuFigure, args: []string{"--loops", "4"}},
	{name: "processes-workers", group: "processes", x: 4, only: "parley", title: "Ten rooms of 1,000, 128 B, one publish at a time in each: four workers with a loop each",
		plan: roomCell(10_000, 10, 1, 128), figure: cpuFigure, args: []string{"--processes", "4", "--loops", "1"}},
	{name: "processes-latency-10", only: "parley", title: "Four workers, 100 rooms of 10, 10,000 publishes a second as planned",
		plan: across(1000, 100, 10_000), figure: addedFigure, args: []string{"--processes", "4"}},
	{name: "processes-latency-100", only: "parley", title: "Four workers, 10 rooms of 100, 1,000 publishes a second as planned",
		plan: across(1000, 10, 1000), figure: addedFigure, args: []string{"--processes", "4"}},
	{name: "processes-latency-1000", only: "parley", title: "Four workers, a room of 1,000, 100 publishes a second as planned",
		plan: across(1000, 1, 100), figure: addedFigure, args: []string{"--processes", "4"}},
	{name: "processes-latency-10-cores", only: "parley", title: "Four workers on all cores, 100 rooms of 10, 10,000 publishes a second as planned",
		plan: across(1000, 100, 10_000), figure: addedFigure, shared: true, args: []string{"--processes", "4"}},
	{name: "processes-parts", only: "parley", title: "Four workers, 20 rooms of 200, whose members are clients of four processes and all publish: 1,000 a second",
		plan: wide(4000, 20, 4, 1000), figure: addedFigure, shared: true, args: []string{"--processes", "4"}},
	{name: "processes-100000", only: "parley", title: "100,000 connections on six workers, from six processes, in one room; one broadcast to all every three seconds",
		plan: hundredThousand(1, 1./3), figure: reachFigure, shared: true, args: []string{"--processes", "6", "--announce-members-max", "0"}},
	{name: "processes-100000-rooms", only: "parley", title: "100,000 connections on six workers, from six processes, in 100 rooms; a broadcast in each of them every three seconds",
		plan: hundredThousand(100, 100./3), figure: reachFigure, shared: true, args: []string{"--processes", "6", "--announce-members-max", "0"}},
}

func init() { cells = append(cells, processCells...) }

// across is a plan in which members of rooms publish, from one process.
func across(conns, rooms int, rate float64) load.Plan {
	return load.Plan{Scenario: spreadScenario, Parts: 1, Conns: conns, Rooms: rooms, Publishers: 10, Window: 1, Size: 128,
		Rate: rate, Warmup: time.Second, Measure: 5 * time.Second}
}

// wide is across from several processes.
func wide(conns, rooms, parts int, rate float64) load.Plan {
	p := across(conns, rooms, rate)
	p.Parts = parts
	return p
}

// hundredThousand is a plan for 100,000 connections, with one message in each room at a time.
func hundredThousand(rooms int, rate float64) load.Plan {
	return load.Plan{Scenario: spreadScenario, Parts: 6, Conns: 100_000, Rooms: rooms, Publishers: 1, Window: 1, Size: 128,
		Rate: rate, Together: true, Warmup: 3 * time.Second, Measure: 15 * time.Second}
}

const spreadScenario = "spread"

// note is a run's results besides its figure.
func (c cell) note(r load.Result) string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if c.plan.Scenario == "dials" && r.Void == "" {
		return fmt.Sprintf("%.0f clients a second, %.1f us of the server's CPU for each with its share of the others' messages, whose p99 was %.0f us", r.Rate, r.CPU, r.P99)
	}
	if r.Void == "" && c.plan.Scenario == "recovery" {
		return fmt.Sprintf("all back after %.0f ms, %d messages lost, %d doubled", r.Reach, r.Lost, r.Doubled)
	}
	if r.Void == "" && c.plan.Scenario == "store" {
		return fmt.Sprintf("a frame has %.0f bytes, and a message %.0f beyond that", r.Frame, r.Memory-r.Frame)
	}
	if r.Void == "" && c.plan.Scenario == "outage" {
		return fmt.Sprintf("connections on the workers: %s; a publish waited %.0f ms at most, %d were sent again; %d messages lost, %d doubled, %d members told of a new epoch",
			strings.Trim(fmt.Sprint(r.Workers), "[]"), r.ReachMost, r.Again, r.Lost, r.Doubled, r.Resets)
	}
	if r.Void == "" && c.watched {
		return fmt.Sprintf("none was closed, and the server counted %.0f %% of its budget of memory", r.Counted)
	}
	if c.plan.Scenario != spreadScenario || r.Void != "" {
		return ""
	}
	say("connections on the workers: %s", strings.Trim(fmt.Sprint(r.Workers), "[]"))
	say("all connected and in their rooms after %.1f s", r.Connect)
	if c.plan.Together {
		say("%.0f bytes of resident memory a connection, in all of the server's processes", r.Memory)
		say("all members reached in %.0f ms at the median of the rounds, %.0f ms at most", r.Reach, r.ReachMost)
	} else {
		say("median of deliveries on the publisher's worker %.0f us, on others %.0f us", r.Local, r.Away)
		say("server %.0f %% of a core, everything else on the machine %.0f %%", r.CPU*r.Rate/1e4, r.Others)
	}
	if c.shared {
		say("server and load generator shared all cores, and the load generator slept when it had no events")
	}
	return strings.Join(list, "; ")
}
