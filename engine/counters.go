package engine

import "sync/atomic"

// countKind names one count: of the transport, or from countersOfOwner on, of its owner.
type countKind uint8

const (
	// Loops count these in their turn's tally.
	countReceived countKind = iota
	countSent
	countBytesIn
	countBytesOut
	countWrites
	countBlocked
	countPings
	countersOfTurns

	// These are seldom.
	countAccepted countKind = iota - 1
	countRefused
	countSlowHandlers
	countStalls
	countPrefacesRefused
	countForwardedIgnored
	countersOfOwner // the kinds from here on are the owner's

	countersMax = 32
)

// tally counts what happens in a turn, without atomics. It is published at the turn's end.
//
// Owner: loop.
type tally [countersOfTurns]uint64

// counters are the counts of a loop so far, or those of the server that belong to no loop. Any goroutine reads them. Only the
// loop writes those of turns.
type counters [countersMax]atomic.Uint64

// publish adds a turn's tally and clears it.
func (n *counters) publish(t *tally) {
	for i := range t {
		if t[i] != 0 {
			n[i].Store(n[i].Load() + t[i]) // one writer: cheaper than Add
		}
	}
	*t = tally{}
}
