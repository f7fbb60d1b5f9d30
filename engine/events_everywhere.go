package engine

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Events of all workers. A worker that wants some kinds of events of the others tells them so (its wish), and they send
// what happens; where nobody wishes anything, nothing is sent.

// RemoteEvent is an event of any worker. Its connection is described and not given: it may live elsewhere.
//
// Owner: the listener.
type RemoteEvent struct {
	Kind    EventKind `json:"kind"`
	Worker  uint16    `json:"-"`    // the instance on which it happened
	Conn    Facts     `json:"conn"` // as it was then
	Room    string    `json:"room,omitempty"`
	Cause   string    `json:"cause,omitempty"`   // of a disconnect
	Session *Session  `json:"session,omitempty"` // of a reconnect
}

// wishable are the kinds that can be had of other workers, by the bit that stands for them.
var wishable = []EventKind{EventConnect, EventDisconnect, EventRoomJoin, EventRoomLeave, EventReconnect}

func wishBit(kind EventKind) uint32 {
	if i := slices.Index(wishable, kind); i >= 0 {
		return 1 << i
	}
	return 0
}

// wishes are who wants which events.
//
// Owner: shared (mutex: mu).
type wishes struct {
	mu        sync.Mutex
	own       uint32
	others    map[ident.Worker]uint32
	listeners []*remoteListener
	wanted    atomic.Uint32 // by anybody, here or elsewhere
}

type remoteListener struct {
	kinds uint32
	call  func(RemoteEvent)
}

// OnEvent has call told what happens on every worker, this one included: kinds are [EventConnect], [EventDisconnect],
// [EventRoomJoin], [EventRoomLeave] and [EventReconnect]; others panic, as they stay where they happen. off ends it. call
// runs on the loop of the event's connection, or on the goroutine that receives from other workers: it must not block,
// and runs on several goroutines at once. The events of one connection come in order. What other workers did before
// they heard the wish, within milliseconds, is not told, nor is what a dead worker could not say.
//
// Cost: each event of those kinds is encoded (about 1 us) where it happens, goes over the bus, and is
// decoded (some 2 us) by those who wish it; 10,000 joins a second are a hundredth of a core on the worker where they
// happen, and a few hundredths on each that listens. Any goroutine.
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

// wish changes who listens here, and tells the others what is wished now.
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

// settle finds out what anybody wants. Under mu.
func (w *wishes) settle() {
	all := w.own
	for _, kinds := range w.others {
		all |= kinds
	}
	w.wanted.Store(all)
}

// sayWish tells the others what is wished here, and may ask what they wish.
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

// forgetWish forgets what a worker wished that is gone.
func (s *Server) forgetWish(gone ident.Worker) {
	w := &s.wishes
	w.mu.Lock()
	delete(w.others, gone)
	w.settle()
	w.mu.Unlock()
}

// tellEverywhere tells of an event those who wish it, here and elsewhere. It is on the loop of the event's connection.
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

// tellRemote tells the listeners of this worker.
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
