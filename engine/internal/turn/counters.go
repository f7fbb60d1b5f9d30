package turn

import "sync/atomic"

// CountKind names one count: of the transport, or from CountersOfOwner on, of its owner.
type CountKind uint8

// Counts of the transport.
const (
	// Loops count these in their turn's tally.
	CountReceived CountKind = iota
	CountSent
	CountBytesIn
	CountBytesOut
	CountWrites
	CountBlocked
	CountPings
	countersOfTurns

	// These are rare.
	CountAccepted CountKind = iota - 1
	CountAcceptErrors
	CountFull
	CountRefused
	CountSlowHandlers
	CountStalls
	CountPrefacesRefused
	CountForwardedIgnored
	CountRateExceeded
	CountCrowded
	CountersOfOwner // the kinds from here on are the owner's

	CountersMax = 48
)

// tally counts the events of a turn, without atomics. It is published at the turn's end.
//
// Owner: loop.
type tally [countersOfTurns]uint64

// Counters are the counts of a loop so far, or the server's counts that belong to no loop. Any goroutine may read them. Only
// the loop writes the counts of turns.
type Counters [CountersMax]atomic.Uint64

// publish adds a turn's tally and clears it.
func (n *Counters) publish(t *tally) {
	for i := range t {
		if t[i] != 0 {
			n[i].Store(n[i].Load() + t[i]) // one writer: cheaper than Add
		}
	}
	*t = tally{}
}
