package figures

import (
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
)

// Counts of package engine. To add one, here or on a floor, add a name, a field of [Stats], a row of [Server], and the
// increments; a test fails if one of them is missing.
const (
	CountPanics = session.CountersOfOwner + iota
	CountSkipped
	CountOriginsRefused
	CountsEnd
)

// All of them fit into turn.Counters.
const _ = uint(turn.CountersMax - CountsEnd)
