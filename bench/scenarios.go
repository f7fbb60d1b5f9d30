//go:build linux

package main

import (
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// cell is one scenario: its plan, its figure, and its place in the benchmark.
//
// Owner: immutable.
type cell struct {
	name    string
	title   string
	plan    load.Plan
	short   bool
	figure  figure
	only    string            // the servers that are measured, separated by commas; "" for all
	apart   map[string]string // by server that cannot do it: the reason
	group   string            // cells of one group are one curve
	x       float64           // the cell's place on the curve
	args    []string          // for parley's command line
	watched bool              // parley's own figures are read at the end
	shared  bool              // server and load generator may run on all cores

	micro   string // a benchmark of the package access, in place of a plan
	base    string // the server to which ratios are; "" for the floor
	paired  bool   // ratios of servers with history are to the same server without
	targets []target
}

// figure is the quantity that a scenario compares.
type figure int

const (
	cpuFigure figure = iota // server CPU per message
	rateFigure
	latencyFigure
	memoryFigure
	shareFigure
	addedFigure // the median latency that the bus adds
	reachFigure // time until a message has reached all members
	medianFigure
	checkFigure // one operation of a micro-benchmark
	endFigure   // time until all connections are closed
	coreFigure  // the rate, if the server had its core for itself
	returnFigure
	storeFigure
	outageFigure // time until publishes are answered again
)

func (f figure) label() string {
	return [...]string{"server CPU per message, us (seconds a million)", "messages a second", "p99 latency, us", "resident bytes a connection", "share of a core, %",
		"median latency over the bus less that within a worker, us", "time to reach all members, ms", "median latency, us", "a check, ns", "time until all are closed, ms", "messages for a second of server CPU",
		"server CPU for a client that comes back, us", "resident bytes a message that was published", "time until publishes are answered again, ms"}[f]
}

// of takes the figure out of a result.
func (f figure) of(r load.Result) float64 {
	return [...]float64{r.CPU, r.Rate, r.P99, r.Memory, r.Share, r.Away - r.Local, r.Reach, r.P50, r.Nanos, r.Reach, 1e6 / max(r.CPU, 1e-9), r.CPU, r.Memory, r.Reach}[f]
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
	{name: "echo-64-w16", title: "Echo, 64 B, 100 connections, 500,000 messages a second in bursts of 16", plan: openEcho(64, 16, 500_000), short: true, figure: cpuFigure},
	{name: "echo-64-w16-calm", title: "Echo, 64 B, 100 connections, 120,000 messages a second in bursts of 16", plan: openEcho(64, 16, 120_000), figure: cpuFigure},
	{name: "room-10000", title: "One room of 10,000, 128 B, one publish at a time", plan: roomCell(10_000, 1, 1, 128), short: true, figure: cpuFigure},
	{name: "room-10000-w8", title: "One room of 10,000, 128 B, eight publishes under way", plan: roomCell(10_000, 1, 8, 128), short: true, figure: cpuFigure},
	{name: "room-10000-b8", title: "One room of 10,000, 128 B, eight publishes at once", plan: together(roomCell(10_000, 1, 8, 128)), figure: cpuFigure},
	{name: "rooms-100x100", title: "100 rooms of 100, 128 B, one publish at a time in each", plan: roomCell(10_000, 100, 1, 128), short: true, figure: cpuFigure},
	{name: "connect", title: "5,000 connections as fast as they come, with a greeting where the server has one", plan: load.Plan{Scenario: "connect", Conns: 5000}, short: true, figure: cpuFigure},
	{name: "idle", title: "15,000 idle connections, each in a room", plan: load.Plan{Scenario: "idle", Conns: 15_000, Rooms: 150, Measure: 2 * time.Second}, short: true, figure: memoryFigure},
	{name: "echo-64-w1", title: "Echo, 64 B, 100 connections, 40,000 messages a second, one by one", plan: openEcho(64, 1, 40_000), figure: cpuFigure},
	{name: "echo-1k-w16", title: "Echo, 1 KB, 100 connections, 80,000 messages a second in bursts of 16", plan: openEcho(1024, 16, 80_000), figure: cpuFigure},
	{name: "echo-1k-w1", title: "Echo, 1 KB, 100 connections, 40,000 messages a second, one by one", plan: openEcho(1024, 1, 40_000), figure: cpuFigure},
	{name: "echo-64-w1-10000", title: "Echo, 64 B, 10,000 connections, 40,000 messages a second, one by one", plan: manyEchoes(), figure: cpuFigure},
	{name: "echo-64-open", title: "Echo, 64 B, 100 connections, 40,000 messages a second as planned", plan: openEcho(64, 1, 40_000), figure: latencyFigure},
	{name: "rooms-1000x10", title: "1,000 rooms of 10, 128 B, one publish at a time in each", plan: roomCell(10_000, 1000, 1, 128), figure: cpuFigure},
	{name: "room-10000-1k", title: "One room of 10,000, 1 KB, one publish at a time", plan: roomCell(10_000, 1, 1, 1024), figure: cpuFigure},
	{name: "rooms-100x100-unfair", title: "100 rooms of 100, as far ahead of each other as the server lets them", plan: unfair(roomCell(10_000, 100, 1, 128)), figure: cpuFigure},
	{name: "idle-echo", title: "15,000 idle connections to an echo server", plan: load.Plan{Scenario: "idle", Conns: 15_000, Measure: 2 * time.Second}, figure: memoryFigure},

	{name: "echo-64-w16-half", title: "Echo, 64 B, 100 connections, in bursts of 16 at half of what each server can do", plan: openEcho(64, 16, half), figure: latencyFigure},
	{name: "echo-64-w1-half", title: "Echo, 64 B, 100 connections, one by one at half of what each server can do", plan: openEcho(64, 1, half), figure: latencyFigure},
	{name: "room-1000-steady", title: "One room of 1,000, 128 B, 50 publishes a second as planned", plan: steady(1000, 1, 50), figure: latencyFigure},
	{name: "room-1000-burst", title: "One room of 1,000, 128 B, 400 publishes a second in bursts of 50", plan: steady(1000, 50, 400), figure: latencyFigure},
	{name: "publishers", title: "One room of 1,000, 128 B, 100 of its members publish, one at a time each", plan: publishers(), figure: cpuFigure},
	{name: "slow-readers", title: "One room of 5,000, 1 KB, four publishes under way; 500 members never read", plan: slowReaders(), figure: cpuFigure,
		apart: map[string]string{"gobwas": "a write to one that does not read blocks its room", "floor": "it knows no backlog", "floor-ring": "it knows no backlog"}},
	{name: "churn", title: "4,000 connections a second come into a room of 1,000 and go, while it gets 5 messages a second", plan: churnPlan(), figure: cpuFigure,
		apart: map[string]string{"nbio": "now and then it closes a connection that it has just accepted"}},
	{name: "idle-after", title: "15,000 idle connections, after a million messages", plan: idleAfter(), figure: memoryFigure},
	{name: "heartbeats", title: "15,000 idle connections for a minute, heartbeats as the server has them", plan: load.Plan{Scenario: "quiet", Conns: 15_000, Rooms: 150, Warmup: 5 * time.Second, Measure: time.Minute}, figure: shareFigure},
	{name: "members-1000", group: "members", x: 1000, title: "Growth: a room of 1,000", plan: roomCell(1000, 1, 1, 128), figure: cpuFigure},
	{name: "members-4000", group: "members", x: 4000, title: "Growth: a room of 4,000", plan: roomCell(4000, 1, 1, 128), figure: cpuFigure},
	{name: "members-15000", group: "members", x: 15_000, title: "Growth: a room of 15,000", plan: roomCell(15_000, 1, 1, 128), figure: cpuFigure},
	{name: "members-18000", group: "members", x: 18_000, title: "Growth: a room of 18,000", plan: roomCell(18_000, 1, 1, 128), figure: cpuFigure},
	{name: "visits-10", group: "visits", x: 10, only: "parley", title: "Growth: join, publish, leave, where there are 10 rooms", plan: visits(10), figure: cpuFigure, args: manyRooms},
	{name: "visits-1000", group: "visits", x: 1000, only: "parley", title: "Growth: join, publish, leave, where there are 1,000 rooms", plan: visits(1000), figure: cpuFigure, args: manyRooms},
	{name: "visits-100000", group: "visits", x: 100_000, only: "parley", title: "Growth: join, publish, leave, where there are 100,000 rooms", plan: visits(100_000), figure: cpuFigure, args: manyRooms},
}

// manyRooms lets a client be in any number of rooms: a sitter is in 10,000.
var manyRooms = []string{"--max-rooms-per-connection", "0"}

// half stands for half of the rate that a server can do, which atHalf measures first.
const half = -1

func steady(conns, window int, rate float64) load.Plan {
	p := roomCell(conns, 1, window, 128)
	p.Rate = rate
	return p
}

func publishers() load.Plan {
	p := roomCell(1000, 1, 1, 128)
	p.Publishers = 100
	return p
}

func slowReaders() load.Plan {
	p := roomCell(5000, 1, 4, 1024)
	p.Stalled = 500
	return p
}

func churnPlan() load.Plan {
	p := steady(1000, 1, 5)
	p.Scenario = "churn"
	return p
}

func idleAfter() load.Plan {
	return load.Plan{Scenario: "idle", Conns: 15_000, Rooms: 150, Window: 1, Size: 128, First: 1_000_000, Measure: 5 * time.Second}
}

func visits(rooms int) load.Plan {
	return load.Plan{Scenario: "many", Conns: 20, Visited: rooms, Window: 1, Warmup: warmup, Measure: measure}
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

func together(p load.Plan) load.Plan {
	p.Together = true
	return p
}

func unfair(p load.Plan) load.Plan {
	p.Unfair = true
	return p
}

// serves reports whether a server is measured in this cell: the earlier revision where parley is.
func (c cell) serves(server string) bool {
	if server == before {
		server = "parley"
	}
	return (c.only == "" && variants[server] == nil && !slices.Contains(named, server) || slices.Contains(split(c.only), server)) && c.apart[server] == ""
}

// named are the servers, besides variants of parley, that play only in cells that name them.
var named = []string{"centrifugo", "centrifuge-history", "socketio", "socketio-history"}

// closed reports whether clients send as fast as the server answers, so that the rate is the server's maximum.
func (c cell) closed() bool {
	return c.plan.Rate == 0 && (c.plan.Scenario == "rooms" || c.plan.Scenario == "echo" || c.plan.Scenario == "publishes")
}

// timed reports whether the cell has latencies: its messages are sent as planned.
func (c cell) timed() bool { return c.plan.Rate != 0 && c.plan.Scenario != "churn" }

// chosen are the cells of the options.
func chosen(o options) (list []cell) {
	for _, c := range cells {
		named := false
		for _, part := range o.scenarios {
			exact := slices.ContainsFunc(cells, func(x cell) bool { return x.name == part })
			named = named || c.name == part || !exact && strings.Contains(c.name, part)
		}
		if named || len(o.scenarios) == 0 && (o.full || o.before == "" && c.short || o.before != "" && c.promised()) {
			list = append(list, c)
		}
	}
	return list
}

// echoes reports whether the server must echo.
func (c cell) echoes() bool { return c.plan.Scenario == "echo" || c.name == "idle-echo" }
