// Package sim runs a server's shipped loops in a simulated world: wires that take half of a write, clients that cut, freeze,
// resume and misbehave, a clock that the simulation sets, and loops that take their turns in an order drawn from a seed,
// even in the middle of each other's. A run depends on its seed alone, so that each fault can be repeated.
//
// While it runs, checkers compare each client's input with the truth: each room one order without gaps, answers in the order
// of requests, tokens that work once, limits, silence that is noticed in time; and, at the end, an empty server.
//
// It refuses to look inside the loops: it observes them through events, answers and bytes. It knows nothing of sockets, of
// real time, and of races within a turn: those are for the tests on loopback.
//
// Worlds of several workers are [RunFleet]'s: the same servers over a simulated bus and simulated stores, and workers that
// are killed and replaced.
//
// Start reading at [Run], then World.step; truth.go has the checks, history.go and history_client.go those of rooms with
// history. Of several workers: fleet.go, fleet_worker.go, fleet_bus.go, then fleet_truth.go.
package sim
