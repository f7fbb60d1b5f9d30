package order

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// world is a sequencer and its followers over a made-up carrier, which loses, doubles and delays submissions and answers, and
// declares parts of the stream lost. Sequencers and followers die.
type world struct {
	t         testing.TB
	rng       *rand.Rand
	now       int64
	term      uint64
	sequencer *Sequencer
	up        []letter // to the sequencer
	members   []*member
	instances uint16
	calm      bool // nothing is lost any more
	sturdy    bool // followers do not die, and what they hear is whole but for the end of a sequencer's stream
	dead      []ident.Worker
	kept      uint64 // epochs that a restart kept

	texts  map[string]string // of the message under room, epoch and number
	onces  map[string]string // the place of the message of an idempotency key, by epoch
	asked  int
	story  []string
	rounds int
}

type letter struct {
	from ident.Worker
	due  int64
	raw  []byte
}

// member is a follower and its rooms.
type member struct {
	w       *world
	self    ident.Worker
	f       *Follower
	stream  []letter // nil raw: a part is lost
	pieces  []letter
	rooms   map[string]*copyOf
	settled map[*Submission]int
	open    int // publishes without an outcome
	prepare int // calls of Prepare without one
}

// copyOf is a room as a floor has it.
type copyOf struct {
	at   rooms.Position
	low  uint64
	kept []Kept // the newest ones, up to at
	keys []rooms.KeyedNumber
	last map[string]uint64 // the number of the newest message of each publisher
}

const someRooms = 3

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: 1, texts: map[string]string{}, onces: map[string]string{}}
	w.newSequencer()
	for range 3 {
		w.newMember()
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.story[max(0, len(w.story)-60):] {
		w.t.Log(line)
	}
	w.t.Fatalf(format, args...)
}

func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf("%8.3f ms ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
}

func (w *world) newSequencer() {
	w.term++
	w.up = nil
	w.tell("sequencer %d", w.term)
	var living []ident.Worker
	late := make([][]letter, len(w.members))
	for i, m := range w.members {
		living = append(living, m.self)
		if n := len(m.stream); n > 0 { // nobody hears any more what was on its way, or only when it is too late
			cut := w.rng.IntN(n + 1)
			if m.stream, late[i] = m.stream[:cut:cut], m.stream[cut:]; w.rng.IntN(3) > 0 {
				late[i] = nil
			}
		}
		m.pieces = nil
	}
	defer func() {
		for i, m := range w.members {
			m.stream = append(m.stream, late[i]...)
		}
	}()
	if w.sequencer != nil {
		w.kept += w.sequencer.Kept
	}
	epochs := 0
	w.sequencer = NewSequencer(SequencerOptions{Term: w.term, Linger: time.Hour, Now: w.now, Living: living, Dead: w.dead, Secret: []byte("secret"),
		History: func(string) *rooms.HistoryOptions {
			return &rooms.HistoryOptions{Messages: 8, Bytes: 1 << 20, Age: time.Hour}
		},
		Epoch: func() string { epochs++; return fmt.Sprintf("t%d-%d", w.term, epochs) },
		Say: func(entry []byte) {
			for _, m := range w.members {
				m.stream = append(m.stream, letter{due: w.soon(), raw: slices.Clone(entry)})
			}
		},
		Tell: func(to ident.Worker, piece []byte) {
			for _, m := range w.members {
				if m.self == to && !w.loses(5) {
					m.pieces = append(m.pieces, letter{due: w.soon(), raw: piece})
				}
			}
		},
	})
	for _, m := range w.members {
		if !w.sturdy && w.loses(2) { // it never hears that there is a new one, but by what it says later
			m.stream = append(m.stream, letter{due: w.soon()})
		}
	}
}

func (w *world) loses(percentOf int) bool { return !w.calm && w.rng.IntN(100) < percentOf }

func (w *world) soon() int64 { return w.now + w.rng.Int64N(int64(3*time.Millisecond)) }

func (w *world) newMember() {
	w.instances++
	m := &member{w: w, self: ident.On(0, w.instances), rooms: map[string]*copyOf{}, settled: map[*Submission]int{}}
	m.f = NewFollower(FollowerOptions{Self: m.self, Floor: m, Ring: func() {}, Clock: func() int64 { return w.now }})
	w.members = append(w.members, m)
	w.tell("follower %d", m.self)
}

func (m *member) Begin(room string, at rooms.Position) {
	if old := m.rooms[room]; old != nil && old.at == at {
		return
	}
	m.rooms[room] = &copyOf{at: at, low: at.Seq + 1, last: map[string]uint64{}}
}

func (m *member) Keys(room string) []rooms.KeyedNumber { return m.rooms[room].keys }

func (m *member) TakeKeys(room, epoch string, keys []rooms.KeyedNumber) {
	if c := m.rooms[room]; c != nil && c.at.Epoch == epoch {
		c.keys = unite(keys, c.keys)
	}
}

func (m *member) Kept(room, epoch string, first, last uint64) (list []Kept) {
	if c := m.rooms[room]; c != nil && c.at.Epoch == epoch {
		for _, x := range c.kept {
			if x.Seq >= first && x.Seq <= last {
				list = append(list, x)
			}
		}
	}
	return list
}

// keep keeps a message, and forgets the oldest.
func (c *copyOf) keep(x Kept) {
	x.Frame = slices.Clone(x.Frame)
	if c.kept = append(c.kept, x); len(c.kept) > 8 {
		c.kept = c.kept[1:]
	}
	c.low = c.kept[0].Seq
}

func (m *member) Reset(room string, at rooms.Position) {
	if old := m.rooms[room]; old == nil || old.at.Epoch == at.Epoch {
		m.w.fail("follower %d: %s is reset to the epoch that it has", m.self, room)
	}
	m.Begin(room, at)
}

func (m *member) take(room string, seq uint64, frame []byte) {
	c := m.rooms[room]
	defer func() { c.keep(Kept{Seq: seq, Frame: frame}) }()
	if c == nil || seq != c.at.Seq+1 {
		m.w.fail("follower %d: %s takes %d behind %+v", m.self, room, seq, c)
	}
	c.at.Seq = seq
	header, _ := fleet.FrameSize(frame)
	text := string(frame[header:])
	key := fmt.Sprintf("%s %s %d", room, c.at.Epoch, seq)
	if was, ok := m.w.texts[key]; ok && was != text {
		m.w.fail("two messages are %s:\n%s\n%s", key, was, text)
	}
	m.w.texts[key] = text
	var by string
	var n uint64
	if _, err := fmt.Sscanf(text, `{"by":%q,"n":%d`, &by, &n); err != nil {
		m.w.fail("message %s: %v", text, err)
	}
	if c.last[by] >= n {
		m.w.fail("follower %d: %s has message %d of %s behind %d", m.self, room, n, by, c.last[by])
	}
	c.last[by] = n
}

func (m *member) Take(x *Ordered) {
	m.take(x.Room, x.Seq, x.Frame)
	if x.Once != (rooms.Key{}) {
		c := m.rooms[x.Room]
		c.keys = append(c.keys, rooms.KeyedNumber{Key: x.Once, Number: x.Seq})
	}
	if x.Own != nil {
		m.settle(x.Own)
	}
}

func (m *member) TakeKept(room string, x *Kept) { m.take(room, x.Seq, x.Frame) }

func (m *member) Skip(room string, to uint64) {
	c := m.rooms[room]
	if to <= c.at.Seq {
		m.w.fail("follower %d: %s skips from %d to %d", m.self, room, c.at.Seq, to)
	}
	c.at.Seq, c.low, c.kept = to, to+1, nil
}

func (m *member) Fill(room, epoch string, list []Kept) {
	c := m.rooms[room]
	if c == nil || c.at.Epoch != epoch {
		m.w.fail("follower %d: %s is filled from %d to %d, and has %+v", m.self, room, list[0].Seq, list[len(list)-1].Seq, c)
	}
	if list[len(list)-1].Seq+1 != c.low {
		return // it has forgotten some meanwhile
	}
	for i := range list {
		header, _ := fleet.FrameSize(list[i].Frame)
		key, text := fmt.Sprintf("%s %s %d", room, epoch, list[i].Seq), string(list[i].Frame[header:])
		if was, ok := m.w.texts[key]; ok && was != text {
			m.w.fail("two messages are %s:\n%s\n%s", key, was, text)
		}
		m.w.texts[key] = text
	}
	own := c.kept
	c.kept = nil
	for _, x := range append(list, own...) {
		c.keep(x)
	}
}

func (m *member) At(room string) (rooms.Position, uint64, bool) {
	c := m.rooms[room]
	if c == nil {
		return rooms.Position{}, 0, false
	}
	return c.at, c.low, true
}

func (m *member) settle(s *Submission) {
	m.open--
	if m.settled[s]++; m.settled[s] > 1 {
		m.w.fail("follower %d: a publish has two outcomes: %v", m.self, s.Of)
	}
}

func (m *member) Settle(s *Submission, o Outcome) {
	m.settle(s)
	once, _ := s.Of.(string)
	if o.Duplicate && once != "" {
		m.w.once(once, o.Position)
	}
}

// once holds the place of an idempotency key against that of an earlier message.
func (w *world) once(key string, at rooms.Position) {
	place := fmt.Sprintf("%s %d", at.Epoch, at.Seq)
	key += " " + at.Epoch
	if was, ok := w.onces[key]; ok && was != place {
		w.fail("the key %s has two numbers: %s and %s", key, was, place)
	}
	w.onces[key] = place
}

// act does one thing at random.
func (w *world) act() {
	m := w.members[w.rng.IntN(len(w.members))]
	room := fmt.Sprintf("room-%d", w.rng.IntN(someRooms))
	switch n := w.rng.IntN(1000); {
	case n < 500:
		w.asked++
		x := &Message{Room: room, Body: fmt.Appendf(nil, `{"by":"w%d","n":%d`, m.self, w.asked), Scope: "s"}
		if w.rng.IntN(4) == 0 {
			x.Once = fmt.Sprintf("%s-%d", room, w.rng.IntN(20))
		}
		m.open++
		if m.f.Submit(&Submission{Of: x.Once}, x) != nil {
			m.open--
		}
	case n < 800:
		w.prepare(m, room)
	case n < 830:
		if m.f.Leave(room) {
			delete(m.rooms, room)
		}
	case n < 836 && !w.calm && !w.sturdy:
		w.tell("follower %d misses a part of the stream", m.self)
		if n := len(m.stream); n > 0 {
			from := w.rng.IntN(n)
			m.stream = slices.Replace(m.stream, from, from+1+w.rng.IntN(n-from), letter{due: w.now})
		}
	case n < 840 && !w.calm:
		w.newSequencer()
	case n < 843 && !w.calm && !w.sturdy:
		w.tell("follower %d dies", m.self)
		w.dead = append(w.dead, m.self)
		w.members = slices.DeleteFunc(w.members, func(x *member) bool { return x == m })
		if w.rng.IntN(3) == 0 { // and the sequencer at the same moment
			w.newSequencer()
		}
		w.sequencer.Bury(m.self)
		w.newMember()
	}
}

// prepare asks a follower for a room from a position that some follower has reached.
func (w *world) prepare(m *member, room string) {
	var since rooms.Since
	other := w.members[w.rng.IntN(len(w.members))]
	if at, _, ok := other.At(room); ok && w.rng.IntN(2) == 0 {
		since = rooms.Since{Named: true, Position: rooms.Position{Epoch: at.Epoch, Seq: at.Seq - min(at.Seq, w.rng.Uint64N(10))}}
	} else if w.rng.IntN(2) == 0 {
		since = rooms.Since{Last: 1 + w.rng.Uint64N(10)}
	}
	m.prepare++
	calls := 0
	m.f.Prepare(room, nil, since, func(err error) {
		m.prepare--
		if calls++; calls > 1 {
			w.fail("follower %d: Prepare answers twice", m.self)
		}
		at, low, ok := m.At(room)
		switch {
		case err == message.ErrUnavailable:
		case err != nil || !ok:
			w.fail("follower %d: Prepare of %s: %v, %v", m.self, room, err, ok)
		case since.Named && at.Epoch == since.Position.Epoch && at.Seq < since.Position.Seq:
			w.fail("follower %d: a position ahead of %+v is judged: %+v", m.self, at, since.Position)
		case low > at.Seq+1:
			w.fail("follower %d: %s has %+v and begins at %d", m.self, room, at, low)
		}
	})
}

// step carries what is due, and passes some time.
func (w *world) step() {
	w.now += w.rng.Int64N(int64(time.Millisecond))
	if w.rounds++; w.rounds%20 == 0 {
		w.sequencer.Tick(w.now)
		for _, m := range w.members {
			m.f.Tick()
		}
	}
	for _, m := range w.members {
		if raw := m.f.Outgoing(nil); len(raw) > 0 && !w.loses(5) {
			w.up = append(w.up, letter{m.self, w.soon(), raw})
			if w.loses(5) {
				w.up = append(w.up, letter{m.self, w.soon(), raw})
			}
		}
	}
	for i := 0; i < len(w.up); i++ {
		if x := w.up[i]; x.due <= w.now {
			w.up = slices.Delete(w.up, i, i+1)
			i--
			if err := w.sequencer.Take(x.from, x.raw, w.now); err != nil {
				w.fail("sequencer: %v", err)
			}
		}
	}
	for _, m := range slices.Clone(w.members) {
		m.carry()
	}
}

func (m *member) carry() {
	for len(m.stream) > 0 && m.stream[0].due <= m.w.now {
		x := m.stream[0]
		m.stream = m.stream[1:]
		if x.raw == nil {
			m.f.Lost()
		} else if err := m.f.Hear(x.raw); err != nil {
			m.w.fail("follower %d: %v", m.self, err)
		}
	}
	for i := 0; i < len(m.pieces); i++ {
		if x := m.pieces[i]; x.due <= m.w.now {
			m.pieces = slices.Delete(m.pieces, i, i+1)
			i--
			if err := m.f.Piece(x.raw); err != nil {
				m.w.fail("follower %d: %v", m.self, err)
			}
		}
	}
}

// rest lets everything arrive, and checks that all agree.
func (w *world) rest() {
	w.calm = true
	for end := w.now + int64(5*time.Second); w.now < end; {
		w.step()
	}
	for _, m := range w.members {
		if m.open != 0 || m.prepare != 0 {
			w.fail("follower %d: %d publishes and %d calls of Prepare have no outcome", m.self, m.open, m.prepare)
		}
		if c := m.f.Counts(); c.Outstanding != 0 || c.OutstandingBytes != 0 {
			w.fail("follower %d keeps %+v", m.self, c)
		}
		for _, name := range []string{"room-0", "room-1", "room-2"} {
			if _, attached := w.sequencer.followers[m.self].rooms[name]; attached != (m.f.rooms[name] != nil) {
				w.fail("follower %d needs %s: %v, and the sequencer believes %v", m.self, name, !attached, attached)
			}
		}
		for name, c := range m.rooms {
			if r := w.sequencer.Histories.FindString(name); r == nil || r.History().Top() != c.at {
				w.fail("follower %d: %s is at %+v at rest, and the sequencer elsewhere", m.self, name, c.at)
			}
		}
	}
}

// TestOrder has some worlds go on for a while. A failure names its seed.
func TestOrder(t *testing.T) {
	for seed := range worlds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newWorld(t, uint64(seed)).play() })
	}
}

var seedsFlag = flag.Int("seeds", 0, "number of worlds")

// worlds is how many are played. The race detector, which runs with -short, needs ten times as long for each.
func worlds() int {
	switch {
	case *seedsFlag > 0:
		return *seedsFlag
	case testing.Short():
		return 60
	}
	return 300
}

func (w *world) play() {
	for range 1500 {
		if w.rng.IntN(2) == 0 {
			w.act()
		}
		w.step()
	}
	w.rest()
}

// The epochs of rooms outlive any number of sequencers, as long as their followers live.
func TestEpochsAreKept(t *testing.T) {
	restarts := uint64(0)
	for seed := range worlds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, uint64(seed))
			w.sturdy = true
			w.play()
			restarts += w.term - 1
			for name, c := range w.members[0].rooms {
				for _, m := range w.members {
					if x := m.rooms[name]; x != nil && x.at.Epoch != c.at.Epoch {
						w.fail("%s has two epochs at rest", name)
					}
				}
			}
			if n := w.sequencer.Anew; n > 0 {
				w.fail("a rebuild began new epochs")
			}
		})
	}
	if restarts == 0 {
		t.Error("no sequencer was restarted")
	}
}
