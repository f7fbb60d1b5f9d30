package engine

import (
	"slices"
	"sync"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Workers accept from one socket: the worker that has waited longest gets the next connection. A full worker would refuse
// its share of the connections while other workers have free capacity. So a full worker accepts none and leaves them to the
// others. Workers refuse connections only when all of them are full. A full worker repeats that it is full, because a worker
// that has just started does not know; a worker that is no longer full says so once.

// fullPeers are the other workers that have reported that they are full.
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

// othersHaveRoom reports whether another worker may take the connections that this worker leaves in the shared socket.
func (s *Server) othersHaveRoom() bool {
	return s.listener != nil && s.peers != nil && slices.ContainsFunc(*s.peers.alive.Load(), func(w ident.Worker) bool { return !s.peers.full.has(w) })
}

// sayFull tells the others whether this worker is full.
func (s *Server) sayFull(full bool) {
	s.peers.say(true, &fleet.Entry{Kind: fleet.Full, Body: fleet.Body{On: full}})
}

func (s *Server) receiveFull(from ident.Worker, h *fleet.Heard) { s.peers.full.note(from, h.On) }
