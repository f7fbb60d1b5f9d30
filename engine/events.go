package engine

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// EventKind names an event, as the seed does.
type EventKind string

// Events, and the fields of Event that are set besides Kind and Server.
const (
	EventStarted    EventKind = "websocket.started"
	EventStopped    EventKind = "websocket.stopped"
	EventConnect    EventKind = "websocket.connect"    // Conn: greeted, and authenticated if an auth handler is set
	EventDisconnect EventKind = "websocket.disconnect" // Conn, Cause, Token
	EventMessage    EventKind = "websocket.message"    // Conn, Message: well-formed, before its handler
	EventRoomJoin   EventKind = "websocket.room.join"  // Conn, Room
	EventRoomLeave  EventKind = "websocket.room.leave" // Conn, Room
	EventReconnect  EventKind = "websocket.reconnect"  // Conn, Session
	EventError      EventKind = "websocket.error"      // Err, and Conn if the error concerns one
)

// Event is the argument of a listener. Message is borrowed until the listener returns; the rest may be kept.
//
// Owner: the listener, for the time of the call.
type Event struct {
	Kind    EventKind
	Server  *Server
	Conn    *Conn
	Room    string
	Cause   Cause
	Token   string // restores the session until reconnection_ttl is over; "" if there is none
	Message *Message
	Session *Session
	Err     error
}

// Session is the state that a resumed connection inherits, as the reconnect event shows it.
type Session struct {
	PreviousConnectionID string
	Rooms                []string
	Attempts             int // resumes in a row, this one included
}

// MissedError is the error event of a worker that has missed messages of another one for good: the bus was away for longer
// than that worker's ring lasts, or that worker died. Connections of this worker may lack broadcasts and direct messages.
type MissedError struct {
	Worker uint16 // the instance of the worker whose messages were missed
}

func (e *MissedError) Error() string {
	return fmt.Sprintf("messages of worker %d are lost for the connections of this one", e.Worker)
}

// Emitter calls listeners for events. Several servers may share one. The events of one connection come in order, on its
// loop: a listener must not block. A listener's panic is counted and logged, and the other listeners are still called.
//
// Owner: shared (mutex: mu).
type Emitter struct {
	mu        sync.Mutex
	listeners atomic.Pointer[map[EventKind][]*listener]
}

type listener struct{ call func(Event) }

// NewEmitter returns an emitter without listeners.
func NewEmitter() *Emitter { return new(Emitter) }

// On adds a listener for one kind of event, behind the earlier ones. off removes it again. Any goroutine.
func (e *Emitter) On(kind EventKind, call func(Event)) (off func()) {
	x := &listener{call}
	e.change(kind, func(list []*listener) []*listener { return append(slices.Clip(list), x) })
	return func() {
		e.change(kind, func(list []*listener) []*listener {
			return slices.DeleteFunc(slices.Clone(list), func(y *listener) bool { return y == x })
		})
	}
}

func (e *Emitter) change(kind EventKind, f func([]*listener) []*listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := make(map[EventKind][]*listener)
	if old := e.listeners.Load(); old != nil {
		maps.Copy(next, *old)
	}
	next[kind] = f(next[kind])
	e.listeners.Store(&next)
}

// hears reports whether a kind of event has a listener. Any goroutine.
func (e *Emitter) hears(kind EventKind) bool {
	all := e.listeners.Load()
	return all != nil && len((*all)[kind]) > 0
}

// emit calls the listeners.
func (s *Server) emit(ev Event) {
	if wanted := s.link.Wanted(); wanted != 0 && wanted&wishBit(ev.Kind) != 0 {
		s.tellEverywhere(&ev)
	}
	all := s.emitter.listeners.Load()
	if all == nil {
		return
	}
	ev.Server = s
	for _, x := range (*all)[ev.Kind] {
		tell(s, x, ev)
	}
}

func tell(s *Server, x *listener, ev Event) {
	err := s.guard.Run("listener of "+string(ev.Kind), ev.Conn.pending(), func() error {
		x.call(ev)
		return nil
	})
	if err != nil && ev.Kind != EventError {
		s.emit(Event{Kind: EventError, Conn: ev.Conn, Err: err})
	}
}
