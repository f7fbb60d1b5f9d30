package engine

import "github.com/parleyd/parley/engine/internal/turn"

// Counts of a room server. To add one: a name here, a field of [Stats], a row of serverFigures, and the increments; a test
// tells if one of them is forgotten.
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

// There is room for all of them.
const _ = uint(turn.CountersMax - countsEnd)
