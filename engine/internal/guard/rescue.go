package guard

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
)

// The recover of last resort. Our own code may panic on unexpected input of a client. Such a panic costs only the connection
// of that input: the connection ends with 1011 (500 before the upgrade), and the panic is counted and logged with its stack.
//
// A turn's state between two connections is whole when one of them is given up: lists are appended to in one step, and the
// cork holds whole frames. A lock that the panic left held is not: the next goroutine would wait for it for ever. So each
// rescue is followed by a walk through all locks, and if one stays held, the process ends: its clients resume on another
// worker. A panic while letters are opened or several connections are written to belongs to no single connection, and is not
// caught. docs/decisions/reactor.md has the alternatives.
//
// A build with the tag invariants catches no panic of ours: a test must see each fault.

// Survive counts and logs a caught panic of ours. where names the work that panicked; c may be nil.
func (s *Guard) Survive(where string, c *turn.Conn, v any) {
	if !s.Rescues {
		panic(v)
	}
	id := ""
	if c != nil && c.Gen != 0 {
		id = pending.ConnOf(c).ID().String()
	}
	s.Panics.Add(1)
	s.Ground.Log.Error("the server's own code panicked; please report this", "where", where, "conn", id, "panic", v, "stack", string(debug.Stack()))
	if s.unproven.Add(1) == 1 {
		go s.proveUnlocked(v)
	}
}

// lockWaits are the parts of LockWait.
const lockWaits = 100

// proveUnlocked takes every lock once, and ends the process if one is held for ever.
func (s *Guard) proveUnlocked(v any) {
	proven := make(chan struct{})
	go func() {
		for n := s.unproven.Load(); n != 0; n = s.unproven.Add(-n) {
			s.Walk()
		}
		close(proven)
	}()
	tick := time.NewTicker(s.LockWait / lockWaits)
	defer tick.Stop()
	for range lockWaits {
		select {
		case <-proven:
			return
		case <-tick.C:
		}
	}
	panic(fmt.Sprintf("a panic that was caught has left a lock held, and the server cannot go on: %v", v))
}
