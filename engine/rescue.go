package engine

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/parleyd/parley/rooms"
)

// The recover of last resort. Code of ours that meets what a stranger sends may panic on an input that nobody thought of.
// Such a panic costs the one connection whose input it was: the connection ends with 1011 (500 before the upgrade), the
// panic is counted and logged with its stack.
//
// What a turn keeps between two connections is whole when one of them is given up: lists are appended to in one step,
// and the cork holds whole frames. A lock that the panic left held is not: whoever wants it next would wait for ever. So
// each rescue is followed by a walk through all locks, and where one stays held the process ends after all: its clients
// resume elsewhere. A panic while letters are opened or several connections are written to is nobody's in particular, and
// is not caught. docs/decisions/reactor.md has what else was considered.
//
// A build with the tag invariants catches nothing: a test must see each fault of ours.

// survive counts and logs a panic of ours that is caught. where says what was being done; c may be nil.
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

// lockWait is how long a lock is waited for before it counts as held for ever, in lockWaits parts: time in which the
// process is stopped makes no part.
var lockWait = 5 * time.Second

const lockWaits = 100

// proveUnlocked takes every lock once, and ends the process where one is held for ever.
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

// walkLocks takes and gives back every lock that code on a loop takes.
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
