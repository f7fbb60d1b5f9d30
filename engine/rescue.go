package engine

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/parleyd/parley/rooms"
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

// survive counts and logs a caught panic of ours. where names the work that panicked; c may be nil.
func (s *Server) survive(where string, c *Conn, v any) {
	if !s.rescues {
		panic(v)
	}
	id := ""
	if c != nil && c.wire.Gen != 0 {
		id = c.ID()
	}
	s.count[countPanics].Add(1)
	s.log.Error("the server's own code panicked; please report this", "where", where, "conn", id, "panic", v, "stack", string(debug.Stack()))
	if s.unproven.Add(1) == 1 {
		go s.proveUnlocked(v)
	}
}

// lockWait is how long the walk waits for a lock before it counts as held for ever, in lockWaits parts: time in which the
// process is stopped costs one part at most.
var lockWait = 5 * time.Second

const lockWaits = 100

// proveUnlocked takes every lock once, and ends the process if one is held for ever.
func (s *Server) proveUnlocked(v any) {
	proven := make(chan struct{})
	go func() {
		for n := s.unproven.Load(); n != 0; n = s.unproven.Add(-n) {
			s.walkLocks()
		}
		close(proven)
	}()
	tick := time.NewTicker(lockWait / lockWaits)
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

// walkLocks takes and frees every lock that code on a loop takes.
func (s *Server) walkLocks() {
	for _, l := range s.loops {
		l.each(func(c *Conn) bool {
			c.mu.Lock()
			c.mu.Unlock()
			return true
		})
		l.Mail.Mu.Lock()
		l.Mail.Mu.Unlock()
	}
	s.sessions.parkedLen()
	s.index.Range(func(r *rooms.Room) bool {
		r.Limit()
		return true
	})
	s.mu.Lock()
	s.mu.Unlock()
	if s.peers != nil {
		s.peers.mu.Lock()
		s.peers.mu.Unlock()
	}
	for _, p := range s.pools.all() {
		p.mu.Lock()
		p.mu.Unlock()
	}
}
