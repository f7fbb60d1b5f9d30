package engine

import (
	"errors"
	"maps"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// BroadcastMatching sends v to the open connections whose attribute has a value, compared as JSON. Cost: each
// worker looks through all of its connections. Any goroutine. Errors: as of [Server.Broadcast].
//
// Scope: all workers.
func (s *Server) BroadcastMatching(key string, value, v any, except ...string) error {
	raw, err := message.Encode(nil, value)
	if err != nil {
		return err
	}
	return s.broadcastAsked(asked{fleet.Matching, key, raw}, v, except)
}

// A Filter reports whether a connection is chosen, by a value that the caller of the broadcast gives. It runs on any
// goroutine.
type Filter func(c *Conn, asked []byte) bool

// RegisterFilter names a filter, so that other workers can use it. Every worker must register it before its start.
func (s *Server) RegisterFilter(name string, f Filter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]Filter{}
	if old := s.filters.Load(); old != nil {
		next = maps.Clone(*old)
	}
	next[name] = f
	s.filters.Store(&next)
}

func (s *Server) filter(name string) Filter {
	if all := s.filters.Load(); all != nil {
		return (*all)[name]
	}
	return nil
}

// BroadcastFiltered sends v to the open connections that a registered filter accepts for value. Cost: each worker looks
// through all of its connections. Any goroutine. Errors: as of [Server.Broadcast]; [ErrFilterUnknown].
//
// Scope: all workers.
func (s *Server) BroadcastFiltered(name string, value []byte, v any, except ...string) error {
	if s.filter(name) == nil {
		return ErrFilterUnknown
	}
	return s.broadcastAsked(asked{fleet.Filtered, name, value}, v, except)
}

// ErrFilterUnknown is the error for a name without a registered filter.
var ErrFilterUnknown = errors.New("no filter is registered under this name")

// asked is a choice of connections in an entry: an attribute's value, or a filter by its name.
type asked struct {
	kind  fleet.Kind
	key   string
	value []byte
}

func (s *Server) broadcastAsked(a asked, v any, except []string) error {
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return err
	}
	out := fleet.ParseIDs(except)
	if _, err := s.rooms.PublishChosen(s.chooser(a), f, s.link.Own(out)); err != nil {
		return err
	}
	s.link.Say(true, &fleet.Entry{Kind: a.kind, Key: a.key, Conns: out, Frame: f.Plain, Body: fleet.Body{Payload: a.value}})
	return nil
}

// chooser is the choice as a function; nil if the filter is not registered here.
func (s *Server) chooser(a asked) func(*fanout.Conn) bool {
	if a.kind == fleet.Matching {
		return session.HasAttribute(a.key, a.value)
	}
	if filter := s.filter(a.key); filter != nil {
		safe := guarded(s, filter, a)
		return func(c *fanout.Conn) bool { return safe(connOf(c.Wire())) }
	}
	return nil
}

// guarded is a filter that chooses no connection from its first panic on: it may run where a panic would cost the process.
func guarded(s *Server, filter Filter, a asked) func(*Conn) bool {
	name, broken := "filter "+a.key, false
	return func(c *Conn) (chosen bool) {
		if broken {
			return false
		}
		err := s.guard.Run(name, c.pending(), func() error {
			chosen = filter(c, a.value)
			return nil
		})
		if err != nil {
			broken = true
			s.emit(Event{Kind: EventError, Conn: c, Err: err})
		}
		return chosen
	}
}

// SendTo sends v to one connection and reports whether there is one with that id. For a connection of another worker it
// reports whether that worker lives; [Everywhere.SendTo] asks that worker. Any goroutine.
//
// Scope: all workers.
func (s *Server) SendTo(id string, v any) bool {
	to, whose := s.link.Locate(id)
	switch whose {
	case fleet.Nobodys:
		return false
	case fleet.Ours:
		c := s.connAt(to.Place)
		return c != nil && c.Send(v) == nil
	}
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return false
	}
	s.link.Say(true, &fleet.Entry{Kind: fleet.Direct, Target: to.Worker, Conns: []ident.ID{to}, Frame: f.Plain})
	return true
}

// Connection finds a connection by its id: the seed's getConnection. It returns nil for an unknown id; the methods of a nil
// Conn can be called. [Everywhere.Connection] finds one on any worker. Any goroutine.
//
// Scope: this worker.
func (s *Server) Connection(id string) *Conn {
	if id, whose := s.link.Locate(id); whose == fleet.Ours {
		return s.connAt(id.Place)
	}
	return nil
}

// connAt finds an open connection of this worker.
func (s *Server) connAt(p ident.Place) *Conn {
	if c := s.rooms.ConnAt(p); c != nil {
		return connOf(c.Wire())
	}
	return nil
}

// SaveSecondsBounds are the upper bounds of Stats.SessionSaves in seconds; its last element counts longer times.
var SaveSecondsBounds = session.SaveSecondsBounds

// Degraded says in a sentence that the server serves but cannot keep sessions. It is empty if it can. Any goroutine.
//
// Scope: this worker.
func (s *Server) Degraded() string { return s.sessions.Degraded() }
