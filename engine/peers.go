package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Several workers that are one server. Each keeps its own connections and its part of every room; what concerns others
// goes into one stream of entries, which all of them read: what one goroutine says arrives everywhere in its order.
//
// Every message to a room goes to all workers, also where no other is known to have members of it: such knowledge is
// older than the join that has just been answered elsewhere, and would lose what comes after it.

// Bus carries entries to the other workers. Its methods are for any goroutine and never wait.
type Bus interface {
	// Append copies an entry into the batch that is being filled.
	Append(entry []byte) error
	// Flush has the batch leave.
	Flush()
	// Up reports whether the bus is reached, as far as is known.
	Up() bool
}

// Membership makes a server one of several that are one. It is what package cluster gives it.
//
// Owner: immutable after New.
type Membership struct {
	Instance ident.Worker // names this worker in connection ids; never 0, never another's
	Bus      Bus
	BytesMax int      // of a message that the bus carries, 0 for what the embedded one does
	Listener Listener // a socket that the workers share; nil: the server opens its own
	Seats    Seats    // of limited rooms; nil: limits hold for each worker by itself
	Rooms    Created  // rooms that were created on purpose; nil: each worker has its own
}

// Attach makes the server one of several. It is called once, before Start, by what knows the others.
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

// peers is what a server knows of the others.
//
// Owner: shared (mutex: mu).
type peers struct {
	Membership
	mu         sync.Mutex
	alive      atomic.Pointer[[]ident.Worker]
	serving    atomic.Pointer[[]ident.Worker] // those of them that can be asked, in order
	changed    []*rooms.Room                  // whose count must be told
	entry      entryWriter                    // under mu
	answering  *pool                          // answers others' questions that take a while
	asks       asks
	full       fullPeers
	figures    figuresAway
	missedSaid map[ident.Worker]int64 // under mu: when it was said last that a worker's messages find no place here
	untold     func(error)            // hears of an entry that cannot be said
}

func newPeers(m Membership) *peers {
	or(&m.BytesMax, sharedBytesMax)
	m.BytesMax = min(m.BytesMax, sharedBytesMax)
	p := &peers{Membership: m, answering: newPool(answerers)}
	p.alive.Store(new([]ident.Worker))
	p.serving.Store(new([]ident.Worker))
	return p
}

// say appends an entry; flush has it leave now, and not at the turn's end.
func (p *peers) say(flush bool, build func(w *entryWriter)) {
	p.mu.Lock()
	build(&p.entry)
	err := p.Bus.Append(p.entry.buf)
	if cap(p.entry.buf) > corkBytesKept {
		p.entry.buf = nil
	}
	p.mu.Unlock()
	switch {
	case err != nil:
		p.untold(err)
	case flush:
		p.Bus.Flush()
	}
}

// untold says that the others do not hear of something, at most once a second. Messages are bounded before they come
// here: it is what an application says of very many rooms or connections at once, or an event of its own.
func (s *Server) untold(err error) {
	s.count[countUntold].Add(1)
	if s.seldom(&s.untoldSaid) {
		s.log.Error("other workers are not told; say less at once", "err", err)
	}
}

// forward tells the others of a message to a room, now.
func (s *Server) forward(flush bool, f *outFrame, room string, except []ident.ID) {
	s.peers.say(flush, func(w *entryWriter) {
		w.begin(entryPublish, 0).text(room).places(except).frame(f)
	})
}

// forward tells the others of a message that one of the loop's connections has to do with, at the end of the turn.
func (l *loop) forward(f *outFrame, room string, except place) {
	if l.srv.peers == nil {
		return
	}
	l.owes.flush = true
	l.srv.forward(false, f, room, []ident.ID{l.srv.idOf(except)})
}

// forwardSpread tells the others of a message to several rooms, or to everybody where names is empty.
func (s *Server) forwardSpread(f *outFrame, names []string, except []ident.ID) {
	s.peers.say(true, func(w *entryWriter) {
		w.begin(entrySpread, 0).number(uint64(len(names)))
		for _, name := range names {
			w.text(name)
		}
		w.places(except).frame(f)
	})
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
	return s.broadcastAsked(asked{entryMatching, key, raw}, v, except)
}

// A Filter chooses connections by what it is asked for. It runs on any goroutine.
type Filter func(c *Conn, asked []byte) bool

// RegisterFilter names a filter, so that workers can ask each other for it. Every worker must register it, before it
// starts.
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

// BroadcastFiltered sends v to the open connections that a registered filter accepts, asked for with value. Cost: each
// worker looks through all of its connections. Any goroutine. Errors: as of [Server.Broadcast]; [ErrFilterUnknown].
//
// Scope: all workers.
func (s *Server) BroadcastFiltered(name string, value []byte, v any, except ...string) error {
	if s.filter(name) == nil {
		return ErrFilterUnknown
	}
	return s.broadcastAsked(asked{entryFiltered, name, value}, v, except)
}

// ErrFilterUnknown says that no filter is registered under a name.
var ErrFilterUnknown = errors.New("no filter is registered under this name")

// asked is what a worker can ask others for: an attribute's value, or a filter by its name.
type asked struct {
	kind  entryKind
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
	s.peers.say(true, func(w *entryWriter) { w.begin(a.kind, 0).text(a.key).bytes(a.value).places(out).frame(f) })
	return nil
}

// chooser is what an entry asks for; nil where that is not registered here.
func (s *Server) chooser(a asked) func(*Conn) bool {
	if a.kind == entryMatching {
		return func(c *Conn) bool { return c.hasAttribute(a.key, a.value) }
	}
	if filter := s.filter(a.key); filter != nil {
		return s.guarded(filter, a)
	}
	return nil
}

// guarded is a filter that chooses nobody from its first panic on: it may run where a panic would cost the process.
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

// SendTo sends v to one connection and reports whether there is one with that id; where it is another worker's,
// whether that worker lives; [Everywhere.SendTo] asks it for the connection. Any goroutine.
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
	s.peers.say(true, func(w *entryWriter) { w.begin(entryDirect, to.Worker).places([]ident.ID{to}).frame(f) })
	return true
}

// Receive takes an entry of another worker. It is called by one goroutine, in the order in which that worker said it.
// entry is borrowed. The error says that it makes no sense, or that a panic has cost it: then it counts as missed.
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
		return nil // nobody is here yet
	}
	if len(entry) < entryHead {
		return errEntry
	}
	if target := ident.On(0, binary.BigEndian.Uint16(entry[1:])); target != 0 && target != s.instance {
		return nil
	}
	r := &entryReader{rest: entry[entryHead:]}
	switch kind := entryKind(entry[0]); kind {
	case entryPublish, entryNotice, entryRoster, entryQuiet:
		if room := s.index.Find(r.bytes()); room != nil {
			s.receiveInRoom(heard{kind, from, room}, r)
		}
	case entrySpread:
		s.receiveSpread(from, r)
	case entryMatching, entryFiltered:
		s.receiveChosen(heard{kind: kind, from: from}, r)
	case entryDirect:
		s.receiveDirect(from, r)
	case entryCount:
		s.receiveCount(from, r)
	case entryCensus:
		s.loops[0].postCall(func(l *loop) { l.tellCounts(from, 0) })
	case entryWish:
		s.receiveWish(from, r)
	case entryEvent:
		s.receiveEvent(from, r)
	case entryRequest:
		s.receiveRequest(from, r)
	case entryAnswer:
		s.receiveAnswer(from, r)
	case entryVacate:
		s.receiveVacate(r)
	case entryFull:
		s.receiveFull(from, r)
	case entryFigures:
		s.receiveFigures(from, r)
	default:
		r.bad = true
	}
	if r.bad {
		return errEntry
	}
	return nil
}

// heard is an entry, and the room that its beginning names where that is here too.
type heard struct {
	kind entryKind
	from ident.Worker
	room *rooms.Room
}

func (s *Server) receiveInRoom(x heard, r *entryReader) {
	switch x.kind {
	case entryPublish:
		if except, f := r.message(s.instance); f != nil {
			s.publishHere(x, f, except)
		}
	case entryNotice:
		s.receiveNotice(x, r)
	case entryRoster:
		if loop, all := r.number(), r.places(x.from); !r.bad {
			x.room.RemoteRoster(x.from, uint8(loop), all)
		}
	case entryQuiet:
		x.room.RemoteUnknown(x.from)
	}
}

// publishHere publishes to the members on this worker.
func (s *Server) publishHere(x heard, f *outFrame, except []place) {
	p := &publication{srv: s, frame: f, room: x.room, except: nowhere, from: x.from}
	switch len(except) {
	case 0:
	case 1:
		p.except = except[0]
	default:
		p.spread = &spread{except: except}
	}
	p.publish()
}

func (s *Server) receiveSpread(from ident.Worker, r *entryReader) {
	n := r.number()
	var list []*rooms.Room
	for range min(n, uint64(len(r.rest))) {
		if room := s.index.Find(r.bytes()); room != nil && !slices.Contains(list, room) {
			list = append(list, room)
		}
	}
	except, f := r.message(s.instance)
	if f == nil || n > 0 && len(list) == 0 {
		return
	}
	p := &publication{srv: s, frame: f, spread: &spread{except: except}, from: from}
	if n == 0 {
		p.postEverywhere()
		return
	}
	p.spread.rooms, p.spread.seqs = list, make([]uint64, len(list))
	p.publishAll()
}

func (s *Server) receiveChosen(x heard, r *entryReader) {
	a := asked{x.kind, string(r.bytes()), slices.Clone(r.bytes())}
	except, f := r.message(s.instance)
	if f == nil {
		return
	}
	chosen := s.chooser(a)
	if chosen == nil {
		s.log.Warn("another worker asks for a filter that is not registered here", "filter", a.key)
		return
	}
	lists, _ := s.chosen(chosen, except)
	p := &publication{srv: s, frame: f, from: x.from}
	for i, conns := range lists {
		if len(conns) > 0 {
			p.spread = &spread{conns: conns}
			p.Reserve(uint8(i))
			p.Post(uint8(i), 0)
		}
	}
	p.wake()
}

func (s *Server) receiveDirect(from ident.Worker, r *entryReader) {
	to, f := r.message(s.instance)
	if f == nil || len(to) != 1 {
		return
	}
	c := s.connAt(to[0])
	switch {
	case c == nil:
	case c.loop.mail.reserveForeign(len(f.plain)):
		c.posted.Add(1)
		c.loop.post(letter{kind: letterDirect, conn: c, frame: f})
	default:
		s.missedHere(from)
	}
}

// missedHere says that a loop of ours, which a handler holds or which is behind, has no place for what another worker
// said: the connections on that loop do not get it. Every message is counted; a line of the log and an event tell of one
// worker's once a second.
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
	if said || s.state.Load() == stateStopped { // everybody is being sent away
		return
	}
	s.log.Error("a loop takes no letters: messages of another worker are lost for its connections", "worker", from)
	s.emit(Event{Kind: EventError, Err: &MissedError{from.Instance()}})
}

// Peers tells which other workers live. Any goroutine.
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
