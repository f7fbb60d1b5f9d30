package fleet

import "github.com/parleyd/parley/protocol/ident"

// The meaning of a connection's id on this worker is decided here, once for all callers.

// Bearing says which worker has the connection that an id names.
type Bearing uint8

// The bearings.
const (
	Nobodys   Bearing = iota // it names no connection, or one of a worker that has ended
	Ours                     // it names a connection of this worker, which may have ended
	Elsewhere                // it names a connection of another live worker; only that worker knows whether it is open
)

// Locate parses an id and says which worker has its connection.
func (l *Link) Locate(text string) (ident.ID, Bearing) {
	id, ok := ident.Parse(text)
	switch {
	case !ok || id.Place.Loop >= l.Loops || id.Place.Gen == 0: // all workers have the same number of loops
		return id, Nobodys
	case id.Worker == l.Self:
		return id, Ours
	case l.Lives(id.Worker):
		return id, Elsewhere
	}
	return id, Nobodys
}

// IDOf is the id of a connection of this worker.
func (l *Link) IDOf(p ident.Place) ident.ID { return ident.ID{Worker: l.Self, Place: p} }

// Own returns the places of those ids that name connections of this worker.
func (l *Link) Own(list []ident.ID) (places []ident.Place) {
	for _, id := range list {
		if id.Worker == l.Self {
			places = append(places, id.Place)
		}
	}
	return places
}

// ParseIDs parses ids of any worker's connections and skips invalid ones.
func ParseIDs(texts []string) (list []ident.ID) {
	for _, text := range texts {
		if id, ok := ident.Parse(text); ok {
			list = append(list, id)
		}
	}
	return list
}
