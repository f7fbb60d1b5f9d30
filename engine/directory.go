package engine

import (
	"slices"

	"github.com/parleyd/parley/protocol/ident"
)

// The meaning of a connection's id on this worker is decided here, once for all callers.

// place is a connection's place on its worker.
type place = ident.Place

// nowhere is the place of no connection.
var nowhere place

// idSize is the length of an id as clients know it.
const idSize = ident.TextBytes

// bearing says which worker has the connection that an id names.
type bearing uint8

const (
	nobodys   bearing = iota // it names no connection, or one of a worker that has ended
	ours                     // it names a connection of this worker, which may have ended
	elsewhere                // it names a connection of another live worker; only that worker knows whether it is open
)

// locate parses an id and says which worker has its connection. Any goroutine.
func (s *Server) locate(text string) (ident.ID, bearing) {
	id, ok := ident.Parse(text)
	switch {
	case !ok || int(id.Place.Loop) >= len(s.loops) || id.Place.Gen == 0: // all workers have the same number of loops
		return id, nobodys
	case id.Worker == s.instance:
		return id, ours
	case s.lives(id.Worker):
		return id, elsewhere
	}
	return id, nobodys
}

// Connection finds a connection by its id: the seed's getConnection. It returns nil for an unknown id; the methods of a nil
// Conn can be called. [Everywhere.Connection] finds one on any worker. Any goroutine.
//
// Scope: this worker.
func (s *Server) Connection(id string) *Conn {
	if id, whose := s.locate(id); whose == ours {
		return s.connAt(id.Place)
	}
	return nil
}

// connAt finds an open connection of this worker.
func (s *Server) connAt(p place) *Conn {
	if int(p.Loop) >= len(s.loops) {
		return nil
	}
	if c := s.loops[p.Loop].connAt(p); c != nil && c.isOpen() {
		return c
	}
	return nil
}

// idOf is the id of a connection of this worker.
func (s *Server) idOf(p place) ident.ID { return ident.ID{Worker: s.instance, Place: p} }

// idsOf parses ids of any worker's connections and skips invalid ones.
func idsOf(texts []string) (list []ident.ID) {
	for _, text := range texts {
		if id, ok := ident.Parse(text); ok {
			list = append(list, id)
		}
	}
	return list
}

// own returns the places of those ids that name connections of this worker.
func (s *Server) own(list []ident.ID) (places []place) {
	for _, id := range list {
		if id.Worker == s.instance {
			places = append(places, id.Place)
		}
	}
	return places
}

// lives reports whether a worker of this server is believed to live.
func (s *Server) lives(w ident.Worker) bool {
	return s.peers != nil && slices.Contains(*s.peers.alive.Load(), w)
}
