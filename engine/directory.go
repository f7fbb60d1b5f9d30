package engine

import (
	"slices"

	"github.com/parleyd/parley/protocol/ident"
)

// What a connection's id means to this worker is decided here, once for all callers.

// place is where a connection lives on its worker.
type place = ident.Place

// nowhere is the place of no connection.
var nowhere place

// idSize is the length of an id as clients know it.
const idSize = ident.TextBytes

// bearing says whose connection an id names.
type bearing uint8

const (
	nobodys   bearing = iota // it names no connection, or one of a worker that has ended
	ours                     // it names a connection of this worker, which may have ended
	elsewhere                // it names a connection of another worker that lives; only that worker knows whether it is open
)

// locate says what an id means. Any goroutine.
func (s *Server) locate(text string) (ident.ID, bearing) {
	id, ok := ident.Parse(text)
	switch {
	case !ok || int(id.Place.Loop) >= len(s.loops) || id.Place.Gen == 0: // all workers have as many loops
		return id, nobodys
	case id.Worker == s.instance:
		return id, ours
	case s.lives(id.Worker):
		return id, elsewhere
	}
	return id, nobodys
}

// Connection finds a connection by its id, nil where there is none (its methods can be called all the same): the seed's
// getConnection. [Everywhere.Connection] finds one on any worker. Any goroutine.
//
// Scope: this worker.
func (s *Server) Connection(id string) *Conn {
	if id, whose := s.locate(id); whose == ours {
		return s.connAt(id.Place)
	}
	return nil
}

// connAt finds an open connection of ours.
func (s *Server) connAt(p place) *Conn {
	if int(p.Loop) >= len(s.loops) {
		return nil
	}
	if c := s.loops[p.Loop].connAt(p); c != nil && c.isOpen() {
		return c
	}
	return nil
}

// idOf is the id of a connection of ours.
func (s *Server) idOf(p place) ident.ID { return ident.ID{Worker: s.instance, Place: p} }

// idsOf reads ids of any worker's connections; texts that are none are left out.
func idsOf(texts []string) (list []ident.ID) {
	for _, text := range texts {
		if id, ok := ident.Parse(text); ok {
			list = append(list, id)
		}
	}
	return list
}

// own are the places of the ids that name connections of ours.
func (s *Server) own(list []ident.ID) (places []place) {
	for _, id := range list {
		if id.Worker == s.instance {
			places = append(places, id.Place)
		}
	}
	return places
}

// lives reports whether a worker is one of ours, as far as is known.
func (s *Server) lives(w ident.Worker) bool {
	return s.peers != nil && slices.Contains(*s.peers.alive.Load(), w)
}
