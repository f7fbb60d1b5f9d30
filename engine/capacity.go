package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Workers accept from one socket, and whoever waits longest gets the next connection. One that has all the connections
// it may have would refuse its share of them while others have room: so it takes none, and leaves them to those who
// have. Only when all are full do they refuse. A worker that is full says so, again and again, because one that has just
// started knows nothing; one that has room again says that, too.

const (
	sayFullEvery  = time.Second
	lookFullEvery = 100 * time.Millisecond
)

// fullPeers are the other workers that have said that they are full.
//
// Owner: shared (mutex: mu).
type fullPeers struct {
	mu   sync.Mutex
	list []ident.Worker
}

func (f *fullPeers) note(worker ident.Worker, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch i := slices.Index(f.list, worker); {
	case full && i < 0:
		f.list = append(f.list, worker)
	case !full && i >= 0:
		f.list = slices.Delete(f.list, i, i+1)
	}
}

func (f *fullPeers) has(worker ident.Worker) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.list, worker)
}

// othersHaveRoom reports whether another worker may take what this one leaves in the socket that they share.
func (s *Server) othersHaveRoom() bool {
	return s.listener != nil && s.peers != nil && slices.ContainsFunc(*s.peers.alive.Load(), func(w ident.Worker) bool { return !s.peers.full.has(w) })
}

// sayFull tells the others whether this worker is full.
func (s *Server) sayFull(full bool) {
	s.peers.say(true, &fleet.Entry{Kind: fleet.Full, Body: fleet.Body{On: full}})
}

func (s *Server) receiveFull(from ident.Worker, h *fleet.Heard) { s.peers.full.note(from, h.On) }

// tellFull tells the others whether this worker is full: of a change, and that it is full every now and then.
func (a *acceptor) tellFull(full bool) {
	switch told := a.toldFull.Load(); {
	case a.srv.peers == nil:
	case !full:
		a.tellRoom()
	case told == 0 || a.srv.clock()-told >= int64(sayFullEvery):
		a.toldFull.Store(a.srv.clock())
		a.srv.sayFull(true)
	}
}

// tellRoom tells the others that there is room again, if they were told otherwise. Any goroutine.
func (a *acceptor) tellRoom() {
	if a.toldFull.Load() != 0 && a.toldFull.Swap(0) != 0 {
		a.srv.sayFull(false)
	}
}
