package engine

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

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

// wishes are the kinds of events that each worker wants.
//
// Owner: shared (mutex: mu).
type wishes struct {
	mu        sync.Mutex
	own       uint32
	others    map[ident.Worker]uint32
	listeners []*remoteListener
	wanted    atomic.Uint32 // the union of all wishes, of this worker and the others
}

type remoteListener struct {
	kinds uint32
	call  func(RemoteEvent)
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
	listener := &remoteListener{call: call}
	for _, kind := range kinds {
		bit := wishBit(kind)
		if bit == 0 {
			panic("engine: OnEvent: " + string(kind) + " is told only where it happens; use the Emitter")
		}
		listener.kinds |= bit
	}
	s := x.srv
	s.wish(func(w *wishes) { w.listeners = append(slices.Clip(w.listeners), listener) })
	return func() {
		s.wish(func(w *wishes) {
			w.listeners = slices.DeleteFunc(slices.Clone(w.listeners), func(y *remoteListener) bool { return y == listener })
		})
	}
}

// wish changes the listeners of this worker, and tells the other workers the new wish.
func (s *Server) wish(change func(*wishes)) {
	w := &s.wishes
	w.mu.Lock()
	change(w)
	before := w.own
	w.own = 0
	for _, x := range w.listeners {
		w.own |= x.kinds
	}
	w.settle()
	changed := w.own != before
	w.mu.Unlock()
	if changed {
		s.sayWish(false)
	}
}

// settle computes the union of all wishes. Under mu.
func (w *wishes) settle() {
	all := w.own
	for _, kinds := range w.others {
		all |= kinds
	}
	w.wanted.Store(all)
}

// sayWish tells the other workers this worker's wish; asks requests theirs.
func (s *Server) sayWish(asks bool) {
	if s.peers == nil {
		return
	}
	e := fleet.Entry{Kind: fleet.Wish}
	if asks {
		e.Asks = fleet.AsksMembers
	}
	p := s.peers
	p.mu.Lock()
	s.wishes.mu.Lock()
	e.Events = s.wishes.own
	s.wishes.mu.Unlock()
	err := p.append(&e)
	p.mu.Unlock()
	p.said(true, err)
}

func (s *Server) receiveWish(from ident.Worker, h *fleet.Heard) {
	w := &s.wishes
	w.mu.Lock()
	if w.others == nil {
		w.others = map[ident.Worker]uint32{}
	}
	w.others[from] = h.Events
	if h.Events == 0 {
		delete(w.others, from)
	}
	w.settle()
	answers := h.Asks != fleet.AsksNothing && w.own != 0
	w.mu.Unlock()
	if answers {
		s.sayWish(false)
	}
}

// forgetWish drops the wish of a worker that is gone.
func (s *Server) forgetWish(gone ident.Worker) {
	w := &s.wishes
	w.mu.Lock()
	delete(w.others, gone)
	w.settle()
	w.mu.Unlock()
}

// tellEverywhere passes an event to the listeners of this worker and to the workers that wish it. It runs on the loop of the
// event's connection.
func (s *Server) tellEverywhere(ev *Event) {
	told := RemoteEvent{Kind: ev.Kind, Worker: s.instance.Instance(), Conn: ev.Conn.Facts(), Room: ev.Room, Session: ev.Session}
	if ev.Kind == EventDisconnect {
		told.Cause = ev.Cause.String()
	}
	s.tellRemote(told)
	w := &s.wishes
	w.mu.Lock()
	target, wanted := ident.Worker(0), 0
	for worker, kinds := range w.others {
		if kinds&wishBit(ev.Kind) != 0 {
			target = worker
			wanted++
		}
	}
	w.mu.Unlock()
	if wanted == 0 {
		return
	}
	if wanted > 1 {
		target = 0
	}
	raw, err := json.Marshal(told)
	if err != nil {
		s.log.Error("encode event", "err", err)
		return
	}
	ev.Conn.loop().Owes.Flush = true
	s.peers.say(false, &fleet.Entry{Kind: fleet.Event, Target: target, Body: fleet.Body{Payload: raw}})
}

// tellRemote calls the listeners of this worker.
func (s *Server) tellRemote(ev RemoteEvent) {
	w := &s.wishes
	w.mu.Lock()
	list := w.listeners
	w.mu.Unlock()
	for _, x := range list {
		if x.kinds&wishBit(ev.Kind) == 0 {
			continue
		}
		err := s.guard("listener of all workers' "+string(ev.Kind), nil, func() error {
			x.call(ev)
			return nil
		})
		if err != nil {
			s.emit(Event{Kind: EventError, Err: err})
		}
	}
}

func (s *Server) receiveEvent(from ident.Worker, h *fleet.Heard) error {
	var ev RemoteEvent
	if json.Unmarshal(h.Payload, &ev) != nil {
		return fleet.ErrEntry
	}
	ev.Worker = from.Instance()
	s.tellRemote(ev)
	return nil
}
