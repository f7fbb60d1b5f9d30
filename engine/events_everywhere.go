package engine

import (
	"encoding/json"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Events of all workers. A worker that wants some kinds of events from the others sends them its wish, and they send such
// events; without a wish no worker sends any.

// RemoteEvent is an event of any worker. It describes its connection and has no *Conn, because the connection may live on
// another worker.
//
// Owner: the listener.
type RemoteEvent struct {
	Kind    EventKind `json:"kind"`
	Worker  uint16    `json:"-"`    // the instance of the worker of the event
	Conn    Facts     `json:"conn"` // at the time of the event
	Room    string    `json:"room,omitempty"`
	Cause   string    `json:"cause,omitempty"`   // of a disconnect
	Session *Session  `json:"session,omitempty"` // of a reconnect
}

// wishable are the kinds that other workers send, by the bit that stands for them.
var wishable = []EventKind{EventConnect, EventDisconnect, EventRoomJoin, EventRoomLeave, EventReconnect}

func wishBit(kind EventKind) uint32 {
	if i := slices.Index(wishable, kind); i >= 0 {
		return 1 << i
	}
	return 0
}

// OnEvent calls call for events of every worker, this one included. kinds are [EventConnect], [EventDisconnect],
// [EventRoomJoin], [EventRoomLeave] and [EventReconnect]; for other kinds, which stay on their worker, it panics. off
// removes the listener. call runs on the loop of the event's connection, or on the goroutine that receives from other
// workers: it must not block, and runs on several goroutines at once. The events of one connection come in order. Events on
// other workers before they have received the wish, within milliseconds, are missing, as are the last events of a worker
// that died.
//
// Cost: each event of those kinds is encoded (about 1 us) on its worker, goes over the bus, and is decoded (some 2 us) by
// each worker that listens; 10,000 joins a second are a hundredth of a core on their worker, and a few hundredths on each
// that listens. Any goroutine.
//
// Scope: all workers.
func (x *Everywhere) OnEvent(kinds []EventKind, call func(RemoteEvent)) (off func()) {
	wanted := uint32(0)
	for _, kind := range kinds {
		bit := wishBit(kind)
		if bit == 0 {
			panic("engine: OnEvent: " + string(kind) + " is told only where it happens; use the Emitter")
		}
		wanted |= bit
	}
	return x.srv.remote.Add(x.srv.link, wanted, call)
}

// tellEverywhere passes an event to the listeners of this worker and to the workers that wish it. It runs on the loop of the
// event's connection.
func (s *Server) tellEverywhere(ev *Event) {
	remote := RemoteEvent{Kind: ev.Kind, Worker: s.link.Self.Instance(), Conn: ev.Conn.Facts(), Room: ev.Room, Session: ev.Session}
	if ev.Kind == EventDisconnect {
		remote.Cause = ev.Cause.String()
	}
	s.tellRemote(remote)
	target, wanted := s.link.Wishing(wishBit(ev.Kind))
	if !wanted {
		return
	}
	raw, err := json.Marshal(remote)
	if err != nil {
		s.log.Error("an event for the other workers cannot be encoded; please report this", "err", err)
		return
	}
	ev.Conn.loop().Owes.Flush = true
	s.link.Say(false, &fleet.Entry{Kind: fleet.Event, Target: target, Body: fleet.Body{Payload: raw}})
}

// tellRemote calls the listeners of this worker.
func (s *Server) tellRemote(ev RemoteEvent) {
	for _, call := range s.remote.Of(wishBit(ev.Kind)) {
		err := s.guard.Run("listener of all workers' "+string(ev.Kind), nil, func() error {
			call(ev)
			return nil
		})
		if err != nil {
			s.emit(Event{Kind: EventError, Err: err})
		}
	}
}

// hearEvent calls the listeners for an event of another worker.
func (s above) hearEvent(from ident.Worker, payload []byte) error {
	var ev RemoteEvent
	if json.Unmarshal(payload, &ev) != nil {
		return fleet.ErrEntry
	}
	ev.Worker = from.Instance()
	s.tellRemote(ev)
	return nil
}
