package engine

import (
	"slices"
	"sync"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Workers accept from one socket, and whoever waits longest gets the next connection. One that has all the connections
// it may have would refuse its share of them while others have room: so it takes none, and leaves them to those who
// have. Only when all are full do they refuse. A worker that is full says so, again and again, because one that has just
// started knows nothing; one that has room again says that, too.

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
