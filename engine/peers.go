package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Several workers are one server. Each has its own connections and its part of every room. It publishes one stream of
// entries that all other workers read: entries of one goroutine arrive in order.
//
// Every message to a room goes to all workers, even to workers without known members. A worker's knowledge of the others'
// members is older than a join that was just answered there: such a member would lose the messages behind its join.

// Bus carries entries to the other workers. Its methods are for any goroutine and never wait.
type Bus interface {
	// Append copies an entry into the batch that is being filled.
	Append(entry []byte) error
	// Flush sends the batch.
	Flush()
	// Up reports whether the bus is believed to be reachable.
	Up() bool
}

// Membership makes a server one of several workers. Package cluster provides it.
//
// Owner: immutable after New.
type Membership struct {
	Instance ident.Worker // this worker's number in connection ids; never 0, and no other worker has it
	Bus      Bus
	BytesMax int      // bytes of the longest message on the bus; 0: as for the embedded bus
	Listener Listener // a socket that the workers share; nil: the server opens its own
	Seats    Seats    // seats of limited rooms; nil: limits hold for each worker by itself
	Rooms    Created  // created rooms; nil: each worker has its own
}

// Attach makes the server one of several workers. Package cluster calls it once, before Start.
func (s *Server) Attach(m Membership) {
	s.peers = newPeers(m)
	s.peers.answering.survive = func(v any) { s.survive("answering another worker", nil, v) }
	s.peers.untold = s.untold
	s.instance = m.Instance
	s.index.SetWorker(m.Instance)
	s.listener = m.Listener
	if m.Seats != nil {
		s.index.ShareSeats(m.Seats)
	}
}

// peers is a server's knowledge of the other workers.
//
// Owner: shared (mutex: mu).
type peers struct {
	Membership
	mu         sync.Mutex
	alive      atomic.Pointer[[]ident.Worker]
	serving    atomic.Pointer[[]ident.Worker] // the other workers that can be asked, in order
	changed    []*rooms.Room                  // rooms with a count to tell
	entry      []byte                         // under mu: the entry that is being appended
	answering  *pool                          // runs long answers to other workers' questions
	asks       asks
	full       fullPeers
	figures    figuresAway
	missedSaid map[ident.Worker]int64 // under mu: when the log last named a worker whose messages find no place here
	untold     func(error)            // called for an entry that cannot be sent
}

func newPeers(m Membership) *peers {
	or(&m.BytesMax, sharedBytesMax)
	m.BytesMax = min(m.BytesMax, sharedBytesMax)
	p := &peers{Membership: m, answering: newPool(answerers)}
	p.alive.Store(new([]ident.Worker))
	p.serving.Store(new([]ident.Worker))
	return p
}

// say appends an entry; flush sends it now, and not at the turn's end.
func (p *peers) say(flush bool, e *fleet.Entry) {
	p.mu.Lock()
	err := p.append(e)
	p.mu.Unlock()
	p.said(flush, err)
}

// append is called under mu. A caller that tells a state, which holds until it is told again, reads the state under mu, too:
// so the state that is read last is told last.
func (p *peers) append(e *fleet.Entry) error {
	p.entry = fleet.Append(p.entry[:0], e)
	err := p.Bus.Append(p.entry)
	if cap(p.entry) > turn.CorkBytesKept {
		p.entry = nil
	}
	return err
}

// said finishes append, without mu.
func (p *peers) said(flush bool, err error) {
	switch {
	case err != nil:
		p.untold(err)
	case flush:
		p.Bus.Flush()
	}
}

// untold logs and counts an entry that the other workers do not get, at most once a second in the log. Messages are bounded
// earlier: such an entry is a call of the application about very many rooms or connections, or a large event of its own.
func (s *Server) untold(err error) {
	s.count[countUntold].Add(1)
	if s.seldom(&s.untoldSaid) {
		s.log.Error("a message is too large for the bus, and other workers do not get it; send less in one call", "err", err)
	}
}

// forward sends the other workers a message to a room, now.
func (s *Server) forward(flush bool, f *turn.Frame, room string, except []ident.ID) {
	s.peers.say(flush, &fleet.Entry{Kind: fleet.Publish, Room: room, Conns: except, Frame: f.Plain})
}

// forward sends the other workers a message by or about one of the loop's connections, at the end of the turn.
func (l *loop) forward(f *turn.Frame, room string, except place) {
	if l.srv.peers == nil {
		return
	}
	l.Owes.Flush = true
	l.srv.forward(false, f, room, []ident.ID{l.srv.idOf(except)})
}

// forwardSpread sends the other workers a message to several rooms, or to all connections if names is empty.
func (s *Server) forwardSpread(f *turn.Frame, names []string, except []ident.ID) {
	s.peers.say(true, &fleet.Entry{Kind: fleet.Spread, Rooms: names, Conns: except, Frame: f.Plain})
}

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
	next := map[string]Filter{name: f}
	if old := s.filters.Load(); old != nil {
		for k, v := range *old {
			if k != name {
				next[k] = v
			}
		}
	}
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
	f, err := s.encodeShared(v)
	if err != nil {
		return err
	}
	out := idsOf(except)
	if _, err := s.broadcastChosen(s.chooser(a), f, s.own(out)); err != nil || s.peers == nil {
		return err
	}
	s.peers.say(true, &fleet.Entry{Kind: a.kind, Key: a.key, Conns: out, Frame: f.Plain, Body: fleet.Body{Payload: a.value}})
	return nil
}

// chooser is the choice as a function; nil if the filter is not registered here.
func (s *Server) chooser(a asked) func(*Conn) bool {
	if a.kind == fleet.Matching {
		return func(c *Conn) bool { return c.hasAttribute(a.key, a.value) }
	}
	if filter := s.filter(a.key); filter != nil {
		return s.guarded(filter, a)
	}
	return nil
}

// guarded is a filter that chooses no connection from its first panic on: it may run where a panic would cost the process.
func (s *Server) guarded(filter Filter, a asked) func(*Conn) bool {
	name, broken := "filter "+a.key, false
	return func(c *Conn) (chosen bool) {
		if broken {
			return false
		}
		err := s.guard(name, c, func() error {
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
	to, whose := s.locate(id)
	switch whose {
	case nobodys:
		return false
	case ours:
		c := s.connAt(to.Place)
		return c != nil && c.Send(v) == nil
	}
	f, err := s.encodeShared(v)
	if err != nil {
		return false
	}
	s.peers.say(true, &fleet.Entry{Kind: fleet.Direct, Target: to.Worker, Conns: []ident.ID{to}, Frame: f.Plain})
	return true
}

// Receive takes an entry of another worker. One goroutine calls it, in the order of that worker's stream. entry is borrowed.
// The error says that the entry is damaged, or that a panic has cost it: then it counts as missed.
func (s *Server) Receive(from ident.Worker, entry []byte) (err error) {
	returned := false
	defer s.mustReturn(&returned)
	err = s.receive(from, entry)
	returned = true
	return err
}

func (s *Server) receive(from ident.Worker, entry []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.survive("receiving from another worker", nil, v)
			s.missed(from)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if !s.receiving.Load() {
		return nil // there is no connection yet
	}
	h, err := fleet.Decode(entry, s.instance)
	if err != nil {
		return err
	}
	if h.Newer {
		s.count[countSkipped].Add(1)
	}
	return s.hear(from, &h)
}

// hear carries out an entry. The entry was already read to its end, so that a damaged one has no effect.
func (s *Server) hear(from ident.Worker, h *fleet.Heard) error {
	switch h.Kind {
	case fleet.Publish, fleet.Notice, fleet.Roster, fleet.Quiet:
		if room := s.index.Find(h.Room); room != nil {
			return s.hearInRoom(from, room, h)
		}
	case fleet.Spread:
		s.receiveSpread(from, h)
	case fleet.Matching, fleet.Filtered:
		s.receiveChosen(from, h)
	case fleet.Direct:
		return s.receiveDirect(from, h)
	case fleet.Count:
		s.receiveCount(from, h)
	case fleet.Census:
		s.receiveCensus(from)
	case fleet.Wish:
		s.receiveWish(from, h)
	case fleet.Event:
		return s.receiveEvent(from, h)
	case fleet.Request:
		s.receiveRequest(from, h)
	case fleet.Answer:
		s.receiveAnswer(from, h)
	case fleet.Vacate:
		s.receiveVacate(h)
	case fleet.Full:
		s.receiveFull(from, h)
	case fleet.Figures:
		s.receiveFigures(from, h)
	}
	return nil
}

func (s *Server) hearInRoom(from ident.Worker, room *rooms.Room, h *fleet.Heard) error {
	switch h.Kind {
	case fleet.Publish:
		s.receivePublish(from, room, h)
	case fleet.Notice:
		return s.receiveNotice(from, room, h)
	case fleet.Roster:
		s.receiveRoster(from, room, h)
	case fleet.Quiet:
		s.receiveQuiet(from, room)
	}
	return nil
}

func (s *Server) receivePublish(from ident.Worker, room *rooms.Room, h *fleet.Heard) {
	s.publishHere(from, room, heardFrame(h.Frame), h.Conns.Of(s.instance))
}

// heardFrame copies a whole frame that another worker has encoded.
func heardFrame(raw []byte) *turn.Frame {
	header, _ := fleet.FrameSize(raw)
	return turn.CopyFrame(raw, header)
}

// publishHere publishes to the members on this worker.
func (s *Server) publishHere(from ident.Worker, room *rooms.Room, f *turn.Frame, except []place) {
	p := &publication{srv: s, frame: f, room: room, except: nowhere, from: from}
	switch len(except) {
	case 0:
	case 1:
		p.except = except[0]
	default:
		p.spread = &spread{room: room, except: except}
	}
	p.publish()
}

func (s *Server) receiveSpread(from ident.Worker, h *fleet.Heard) {
	var list []*rooms.Room
	for _, name := range h.Rooms {
		if room := s.index.Find(name); room != nil && !slices.Contains(list, room) {
			list = append(list, room)
		}
	}
	if len(h.Rooms) > 0 && len(list) == 0 {
		return
	}
	p := &publication{srv: s, frame: heardFrame(h.Frame), spread: &spread{except: h.Conns.Of(s.instance)}, from: from}
	if len(h.Rooms) == 0 {
		p.postEverywhere()
		return
	}
	p.spread.rooms, p.spread.seqs = list, make([]uint64, len(list))
	p.publishAll()
}

func (s *Server) receiveChosen(from ident.Worker, h *fleet.Heard) {
	a := asked{h.Kind, string(h.Key), slices.Clone(h.Payload)}
	chosen := s.chooser(a)
	if chosen == nil {
		s.log.Warn("another worker asks for a filter that is not registered here", "filter", a.key)
		return
	}
	lists, _ := s.chosen(chosen, h.Conns.Of(s.instance))
	p := &publication{srv: s, frame: heardFrame(h.Frame), from: from}
	for i, conns := range lists {
		if len(conns) > 0 {
			p.spread = &spread{conns: conns}
			p.Reserve(uint8(i))
			p.Post(uint8(i), 0)
		}
	}
	p.wake()
}

func (s *Server) receiveDirect(from ident.Worker, h *fleet.Heard) error {
	if h.Conns.Len() != 1 {
		return fleet.ErrEntry
	}
	to := h.Conns.At(0)
	if to.Worker != s.instance {
		return nil
	}
	c := s.connAt(to.Place)
	switch {
	case c == nil:
	case c.loop().Mail.ReserveForeign(len(h.Frame)):
		c.wire.Posted.Add(1)
		c.loop().Post(turn.Letter{Kind: turn.LetterDirect, Conn: &c.wire, Frame: heardFrame(h.Frame)})
	default:
		s.missedHere(from)
	}
	return nil
}

// missedHere notes that a loop of this worker, which a handler holds or which is behind, has no place for a message of
// another worker: the connections on that loop do not get it. Every message is counted; the log and an event name each
// worker at most once a second.
func (s *Server) missedHere(from ident.Worker) {
	s.count[countMissed].Add(1)
	p, now := s.peers, s.clock()
	p.mu.Lock()
	if p.missedSaid == nil {
		p.missedSaid = map[ident.Worker]int64{}
	}
	last, was := p.missedSaid[from]
	said := was && now-last < int64(time.Second)
	if !said {
		p.missedSaid[from] = now
	}
	p.mu.Unlock()
	if said || s.state.Load() == stateStopped { // all connections are being ended
		return
	}
	s.log.Error("an event loop is too far behind: messages of another worker are lost for its connections", "worker", from)
	s.emit(Event{Kind: EventError, Err: &MissedError{from.Instance()}})
}

// Peers sets the other workers that live. Any goroutine.
func (s *Server) Peers(alive []ident.Worker) {
	list := slices.DeleteFunc(slices.Clone(alive), func(x ident.Worker) bool { return x == s.instance })
	before := *s.peers.alive.Swap(&list)
	for _, gone := range before {
		if !slices.Contains(list, gone) {
			s.forgetAsks(gone)
			s.peers.full.note(gone, false)
		}
	}
}
