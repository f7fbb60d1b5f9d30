// Package sim runs a server's shipped loops in a world that is made up: wires that take half of a write,
// clients that cut, freeze, resume and misbehave, a clock that is moved by hand, and loops that take their
// turns in an order drawn from a seed, even in the middle of each other's. What a run does depends on its
// seed alone, so that whatever goes wrong can be looked at again.
//
// While it runs, checkers compare what every client reads with what must be: each room one order without
// gaps, answers in the order of requests, tokens that work once, limits, silence that is noticed in time;
// and, at the end, nothing left behind.
//
// It refuses to look inside the loops: what it knows of them comes through events, answers and bytes. It knows
// nothing of sockets, of real time, and of races within a turn: those are for the tests on loopback.
//
// Worlds of several workers are [RunFleet]'s: the same servers over a bus and stores that are made up, and workers that are
// killed and replaced.
//
// Start reading at [Run], then World.step; truth.go says what must be. Of several workers: fleet.go, fleet_worker.go,
// fleet_bus.go, then fleet_truth.go.
package sim
