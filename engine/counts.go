package engine

import "github.com/parleyd/parley/engine/internal/turn"

// Counts of a room server. To add one, add a name here, a field of [Stats], a row of serverFigures, and the increments; a
// test fails if one of them is missing.
const (
	countErrors = turn.CountersOfOwner + iota
	countOverloaded
	countPanics
	countMissed
	countUntold
	countSkipped
	countSessionsTooLarge
	countOverdue
	countResumed
	countResumesRefused
	countOriginsRefused
	countsEnd
)

// All of them fit into turn.Counters.
const _ = uint(turn.CountersMax - countsEnd)
