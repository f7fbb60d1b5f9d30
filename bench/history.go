//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// historySuffix ends the names of servers that keep the newest messages of each room. In a cell that is paired, their ratios are
// to the same server without.
const historySuffix = "-history"

// historyServers are all that are compared: Parley, Centrifuge with its memory broker, Socket.IO with its connection state
// recovery.
const historyServers = "parley,parley-history,centrifuge,centrifuge-history,socketio,socketio-history"

// keeping is the setting with which parley keeps the newest messages.
var keeping = []string{"--history", "**=messages:100"}

func init() {
	variants["parley-history"] = keeping
	variants["parley-slow"] = keeping
	variants["parley-silent"] = append(slices.Clone(keeping), "--receipts=false")
	cells = append(cells, historyCells...)
}

// historyCells are about rooms that keep their newest messages.
var historyCells = []cell{
	{name: "history-room-10000", title: "One room of 10,000, 128 B, one publish at a time: without history, and with it", plan: roomCell(10_000, 1, 1, 128),
		figure: cpuFigure, only: historyServers, paired: true, targets: []target{{server: "parley-history", kind: ratioMost, bound: 1.05}}},
	{name: "history-rooms-100x100", title: "100 rooms of 100, 128 B, one publish at a time in each: without history, and with it", plan: roomCell(10_000, 100, 1, 128),
		figure: cpuFigure, only: historyServers, paired: true, targets: []target{{server: "parley-history", kind: ratioMost, bound: 1.05}}},
	{name: "history-rooms-1000x10", title: "1,000 rooms of 10, 128 B, one publish at a time in each: without history, and with it", plan: roomCell(10_000, 1000, 1, 128),
		figure: cpuFigure, only: historyServers, paired: true, targets: []target{{server: "parley-history", kind: ratioMost, bound: 1.10}}},
	{name: "history-return", title: "10,000 clients of one room come back after each missed 100 messages of 128 B: to a server without history, and to one with it", plan: returnPlan(),
		figure: returnFigure, only: historyServers, paired: true, targets: []target{{server: "parley-history", kind: addedMost, bound: 40},
			{server: "parley-history", kind: reachMost, bound: 4000}, {server: "parley-history", kind: faultsMost}}},
	{name: "history-slow", title: "One room of 5,000, 1 KB, 10 publishes a second as planned: all members read, and 500 never do", plan: slowPlan(),
		figure: latencyFigure, only: "parley-history,parley-slow", base: "parley-history", watched: true, args: []string{"--memory-bytes-max", fmt.Sprint(slowBudget)},
		targets: []target{{server: "parley-slow", kind: ratioMost, bound: 2}, {server: "parley-slow", kind: countedMost, bound: 100}}},
	{name: "history-store", title: "10,000 rooms with 100 messages of 280 B each", plan: load.Plan{Scenario: "store", Conns: 21, Visited: 10_000, Each: 100, Size: 280, Measure: 5 * time.Second},
		figure: storeFigure, only: historyServers, paired: true, args: manyRooms, targets: []target{{server: "parley-history", kind: beyondMost, bound: 64}}},
	{name: "history-receipts", title: "15,000 connections in 150 rooms with history that get a message every 5 s: without receipts, and with them", plan: receiptsPlan(),
		figure: shareFigure, only: "parley-silent,parley-history", base: "parley-silent", targets: []target{{server: "parley-history", kind: addedMost, bound: 3}}},
	{name: "history-processes", title: "Two workers, 100 rooms of 100, 128 B, one publish at a time in each: without history, and with it", plan: roomCell(10_000, 100, 1, 128),
		figure: cpuFigure, only: "parley,parley-history", paired: true, shared: true, args: twoWorkers, targets: []target{{server: "parley-history", kind: ratioMost, bound: 1.15}}},
	{name: "history-processes-latency", title: "Two workers, 10 rooms of 100, 128 B, 1,000 publishes a second as planned: without history, and with it", plan: across(1000, 10, 1000),
		figure: medianFigure, only: "parley,parley-history", paired: true, shared: true, args: twoWorkers, targets: []target{{server: "parley-history", kind: addedMost, bound: 500}}},
	{name: "history-processes-latency-10", title: "Two workers, 100 rooms of 10, 128 B, 10,000 publishes a second as planned: without history, and with it", plan: across(1000, 100, 10_000),
		figure: medianFigure, only: "parley,parley-history", paired: true, shared: true, args: twoWorkers, targets: []target{{server: "parley-history", kind: addedMost, bound: 500}}},
	{name: "history-bus-killed", title: "Two workers, 10 rooms of 100, 128 B, 1,000 publishes a second as planned, while the bus process is killed", plan: outagePlan(),
		figure: outageFigure, only: "parley-history", base: "parley-history", watched: true, shared: true, args: twoWorkers, targets: []target{{server: "parley-history", kind: figureMost, bound: 1000},
			{server: "parley-history", kind: resetsMost}, {server: "parley-history", kind: faultsMost}}},
}

func returnPlan() load.Plan {
	return load.Plan{Scenario: "recovery", Conns: 10_001, Rooms: 1, Missed: 100, Size: 128}
}

const (
	slowMembers = 500
	slowBudget  = 256 << 20
)

// slowPlan begins with so many messages that the sockets of those that do not read are full, and their histories have moved on.
func slowPlan() load.Plan {
	p := steady(5000, 1, 10)
	p.Size, p.First, p.Warmup, p.Measure = 1024, 5000*300, time.Second, 10*time.Second
	return p
}

// twoWorkers are several processes. They share all cores with the load generator, as their targets say.
var twoWorkers = []string{"--processes", "2"}

// outagePlan kills the bus after its warm-up.
func outagePlan() load.Plan {
	return load.Plan{Scenario: "outage", Conns: 1000, Rooms: 10, Publishers: 2, Window: 1, Size: 128, Rate: 1000, Warmup: 2 * time.Second, Measure: 8 * time.Second}
}

func receiptsPlan() load.Plan {
	p := roomCell(15_000, 150, 1, 128)
	p.Rate, p.Warmup, p.Measure = 30, 12*time.Second, 30*time.Second // receipts come every 10 s
	return p
}

// forServer completes a plan for one of the servers.
func (c cell) forServer(name string, p *load.Plan) {
	switch base, kept := strings.CutSuffix(name, historySuffix); {
	case name == "parley-slow":
		p.Stalled = slowMembers
		fallthrough
	case kept, name == "parley-silent":
		p.Kept = true
		p.Numbered = base != "socketio" && p.Conns > p.Stalled
	}
	switch strings.TrimSuffix(name, historySuffix) {
	case "centrifuge", "centrifugo", "socketio":
		p.Dialect = strings.TrimSuffix(name, historySuffix)
	}
}

// baseOf is the server to which a server's ratio is, in a cell.
func (b *bench) baseOf(c cell, server string) string {
	if c.paired && b.earlier.program == "" {
		return strings.TrimSuffix(server, historySuffix)
	}
	return b.base(c)
}
