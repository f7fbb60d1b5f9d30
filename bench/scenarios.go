//go:build linux

package main

import (
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// cell is one scenario: what is done, what is compared, and whether the short benchmark has it.
//
// Owner: immutable.
type cell struct {
	name   string
	title  string
	plan   load.Plan
	short  bool
	figure figure
}

// figure is what a scenario is about.
type figure int

const (
	cpuFigure figure = iota // server CPU per message
	rateFigure
	latencyFigure
	memoryFigure
)

func (f figure) label() string {
	return [...]string{"server CPU per message, us", "messages a second", "p99 latency, us", "resident bytes a connection"}[f]
}

// of takes the figure out of a result.
func (f figure) of(r load.Result) float64 {
	return [...]float64{r.CPU, r.Rate, r.P99, r.Memory}[f]
}

const (
	warmup  = 500 * time.Millisecond
	measure = 2 * time.Second
)

func echoCell(size, conns, window int) load.Plan {
	return load.Plan{Scenario: "echo", Conns: conns, Window: window, Size: size, Warmup: warmup, Measure: measure}
}

func roomCell(conns, rooms, window, size int) load.Plan {
	return load.Plan{Scenario: "rooms", Conns: conns, Rooms: rooms, Window: window, Size: size, Warmup: warmup, Measure: measure}
}

var cells = []cell{
	{"echo-64-w16", "Echo, 64 B, 100 connections, 120,000 messages a second in bursts of 16", openEcho(64, 16, 120_000), true, cpuFigure},
	{"room-10000", "One room of 10,000, 128 B, one publish at a time", roomCell(10_000, 1, 1, 128), true, cpuFigure},
	{"room-10000-w8", "One room of 10,000, 128 B, eight publishes under way", roomCell(10_000, 1, 8, 128), true, cpuFigure},
	{"rooms-100x100", "100 rooms of 100, 128 B, one publish at a time in each", roomCell(10_000, 100, 1, 128), true, cpuFigure},
	{"connect", "5,000 connections as fast as they come, with a greeting where the server has one", load.Plan{Scenario: "connect", Conns: 5000}, true, cpuFigure},
	{"idle", "15,000 idle connections, each in a room", load.Plan{Scenario: "idle", Conns: 15_000, Rooms: 150, Measure: 2 * time.Second}, true, memoryFigure},

	{"echo-64-w1", "Echo, 64 B, 100 connections, 40,000 messages a second, one by one", openEcho(64, 1, 40_000), false, cpuFigure},
	{"echo-1k-w16", "Echo, 1 KB, 100 connections, 80,000 messages a second in bursts of 16", openEcho(1024, 16, 80_000), false, cpuFigure},
	{"echo-64-w16-high", "Echo, 64 B, 100 connections, 500,000 messages a second in bursts of 16", openEcho(64, 16, 500_000), false, cpuFigure},
	{"echo-64-w16-rate", "Echo, 64 B, 100 connections, 16 under way each, as fast as it goes", echoCell(64, 100, 16), false, rateFigure},
	{"echo-1k-w1", "Echo, 1 KB, 100 connections, 40,000 messages a second, one by one", openEcho(1024, 1, 40_000), false, cpuFigure},
	{"echo-64-w1-10000", "Echo, 64 B, 10,000 connections, 40,000 messages a second, one by one", manyEchoes(), false, cpuFigure},
	{"echo-64-open", "Echo, 64 B, 100 connections, 40,000 messages a second as planned", openEcho(64, 1, 40_000), false, latencyFigure},
	{"rooms-1000x10", "1,000 rooms of 10, 128 B, one publish at a time in each", roomCell(10_000, 1000, 1, 128), false, cpuFigure},
	{"room-10000-1k", "One room of 10,000, 1 KB, one publish at a time", roomCell(10_000, 1, 1, 1024), false, cpuFigure},
	{"room-1000", "One room of 1,000, 128 B, one publish at a time", roomCell(1000, 1, 1, 128), false, cpuFigure},
	{"room-15000", "One room of 15,000, 128 B, one publish at a time", roomCell(15_000, 1, 1, 128), false, cpuFigure},
	{"rooms-100x100-unfair", "100 rooms of 100, as far ahead of each other as the server lets them", unfair(roomCell(10_000, 100, 1, 128)), false, cpuFigure},
	{"idle-echo", "15,000 idle connections to an echo server", load.Plan{Scenario: "idle", Conns: 15_000, Measure: 2 * time.Second}, false, memoryFigure},
}

func openEcho(size, window int, rate float64) load.Plan {
	p := echoCell(size, 100, window)
	p.Rate = rate
	return p
}

func manyEchoes() load.Plan {
	p := openEcho(64, 1, 40_000)
	p.Conns = 10_000
	return p
}

func unfair(p load.Plan) load.Plan {
	p.Unfair = true
	return p
}

// chosen are the cells that the options ask for.
func chosen(o options) (list []cell) {
	for _, c := range cells {
		named := false
		for _, part := range o.scenarios {
			named = named || strings.Contains(c.name, part)
		}
		if named || len(o.scenarios) == 0 && (o.full || c.short) {
			list = append(list, c)
		}
	}
	return list
}

// echoes reports whether the server is to echo.
func (c cell) echoes() bool { return c.plan.Scenario == "echo" || c.name == "idle-echo" }
