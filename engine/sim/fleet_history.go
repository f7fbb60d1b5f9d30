package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
)

// annals are the truth of rooms with history over several workers: each message that the sequencers have numbered, as it was
// when it got its number.
//
// Owner: the simulation.
type annals struct {
	f        *Fleet
	tellings map[int]*fleetTelling
	epochs   map[string]*chronicle
	latest   map[string]*chronicle // by room
	newest   map[[2]string]int     // by epoch and publisher: its newest message
}

// fleetTelling is a message that is to take a number.
//
// Owner: the simulation.
type fleetTelling struct {
	telling
	room      string
	publisher string
	scope     string // of the idempotency key
	by        *speaker
	out       []*speaker
	at        time.Duration     // when its worker submitted it; 0: not yet
	member    bool              // its publisher was in the room then
	forbidden bool              // by its publisher's grant
	numbers   map[string]uint64 // by epoch
	refusal   string            // the error that it was refused with
}

func newAnnals(f *Fleet) *annals {
	return &annals{f: f, tellings: map[int]*fleetTelling{}, epochs: map[string]*chronicle{}, latest: map[string]*chronicle{}, newest: map[[2]string]int{}}
}

// reader is the place of a new client in the rooms with history.
func (a *annals) reader(name string) reader {
	return reader{scene: a.f, name: name, epochs: a.epochs, stands: map[string]*stand{}}
}

// keeps reports whether the messages to a room take numbers.
func (a *annals) keeps(room string) bool {
	_, is := a.f.plan.histories[room]
	return is
}

// note notes what the sequencer has just numbered.
func (a *annals) note(q *sequencer) {
	for i := range a.f.plan.rooms {
		room := roomOf(i)
		r := q.rules.Histories.FindString(room)
		if r == nil || r.History() == nil {
			continue
		}
		top := r.History().Top()
		h := a.latest[room]
		if h == nil || h.epoch != top.Epoch {
			h = a.begin(q, room, top.Epoch)
		}
		switch n := uint64(len(h.log)); {
		case top.Seq == n:
		case top.Seq != n+1:
			a.f.complain("numbers", "%s goes from %d to %d", room, n, top.Seq)
		default:
			e := r.History().Entries(top.Seq, top.Seq, 1, int64(a.f.now))
			a.add(h, e.List[0].Frame())
		}
	}
}

// begin begins an epoch of a room.
func (a *annals) begin(q *sequencer, room, epoch string) *chronicle {
	before := a.latest[room]
	if before != nil && before.term == q.term && !a.deleted(room, before) && (len(a.f.truth.members(room)) > 0 || a.f.now-before.usedAt < a.f.plan.config.ReconnectionTTL) {
		a.f.complain("epochs", "%s begins epoch %s while %s goes on", room, epoch, before.epoch)
	}
	h := &chronicle{scene: a.f, room: room, epoch: epoch, low: 1, keys: map[string]uint64{}, usedAt: a.f.now, began: a.f.now, term: q.term, turn: len(a.epochs)}
	h.take(a.f.plan.histories[room])
	if before != nil {
		before.over = true
	}
	a.epochs[epoch], a.latest[room] = h, h
	a.f.tracef("%s begins epoch %s", room, epoch)
	return h
}

// deleted reports whether the application may have deleted a room during an epoch.
func (a *annals) deleted(room string, h *chronicle) bool {
	at, ever := a.f.truth.deleted[room]
	return ever && at >= h.began-5*time.Second
}

// add adds a message to an epoch, and checks it.
func (a *annals) add(h *chronicle, frame []byte) {
	f, number := a.f, uint64(len(h.log))+1
	header, _ := fleet.FrameSize(frame)
	text := string(frame[header:])
	b := decode([]byte(text))
	p := a.tellings[b.number()]
	tail := fmt.Sprintf(`,"seq":%d,"epoch":%q}`, number, h.epoch)
	switch {
	case p == nil || p.room != h.room || p.at == 0:
		f.complain("delivery", "%.200s is numbered in %s, and nobody published that", text, h.room)
		return
	case !strings.HasSuffix(text, tail):
		f.complain("bytes", "number %d of %s, epoch %s, is %.200s", number, h.room, h.epoch, text)
		return
	case p.numbers[h.epoch] != 0:
		f.complain("numbers", "message %d takes the numbers %d and %d of %s, epoch %s", p.m, p.numbers[h.epoch], number, h.room, h.epoch)
	case p.refusal != "":
		f.complain("refusals", "message %d was refused with %s, and takes number %d of %s", p.m, p.refusal, number, h.room)
	case p.forbidden:
		f.complain("rights", "message %d of %s takes a number in %s, which its grant forbids", p.m, p.publisher, h.room)
	case a.newest[[2]string{h.epoch, p.publisher}] > p.m:
		f.complain("order", "message %d of %s takes a number in %s behind %d", p.m, p.publisher, h.room, a.newest[[2]string{h.epoch, p.publisher}])
	}
	a.newest[[2]string{h.epoch, p.publisher}] = p.m
	r := record{telling: p.telling, by: p.by, out: p.out}
	r.text = strings.TrimSuffix(text, tail)
	scope := p.scope
	if _, again := h.add(scope, r); again {
		f.complain("keys", "message %d takes a number in %s, and %d has its key %q", p.m, h.room, h.keys[scope+" "+p.idempotencyKey], p.idempotencyKey)
	}
	p.numbers[h.epoch] = number
}

// foresee notes what the histories are like when a client asks for something.
func (a *annals) foresee(q *fleetRequest) {
	if !a.f.plan.historic || q.typ != "join" && q.typ != "reconnect" {
		return
	}
	q.then = map[string]extent{}
	for room, h := range a.latest {
		q.then[room] = h.extent()
	}
}

// publishes makes a member publish a message with options.
func (a *annals) publishes(k *fleetClient, room string) {
	f := a.f
	p := &fleetTelling{room: room, numbers: map[string]uint64{}}
	p.m, p.pad = f.number(), strings.Repeat("x", f.rand.IntN(pick(f.rand, 10, 300, 1000)))
	p.key = pick(f.rand, "", "", "k1", "k2")
	more := fmt.Sprintf(`,"data":%s`, dataOf(p.m, p.pad))
	if p.key != "" {
		more += fmt.Sprintf(`,"key":%q`, p.key)
	}
	if f.chance(0.3) {
		p.idempotencyKey = pick(f.rand, "i1", "i2", "i3", "i4")
		more += fmt.Sprintf(`,"idempotency_key":%q`, p.idempotencyKey)
	}
	a.tellings[p.m] = p
	k.ask("broadcast", room, more).numbers = p
}

// submitted notes that a worker carries a broadcast out.
func (a *annals) submitted(c *fleetConn, p *fleetTelling) {
	p.publisher, p.by, p.at = c.id, &c.speaker, max(a.f.now, 1)
	p.member = c.stay(p.room) != nil
	p.forbidden = a.f.plan.auth && !grantOf(c.conn).publish[p.room]
	p.scope = "session " + c.speaker.began.id
	if g := grantOf(c.conn); g != nil {
		p.scope = "user " + g.user
	}
}

// overtakes checks that a message that waits for no number comes behind those of its sender that do.
func (a *annals) overtakes(c *fleetConn) {
	for _, q := range c.client.asked {
		p := q.numbers
		if q == c.current {
			return
		}
		if p == nil || !p.member || p.forbidden || p.idempotencyKey != "" || p.refusal != "" {
			continue
		}
		if _, deleted := a.f.truth.deleted[p.room]; len(p.numbers) == 0 && !deleted && a.f.now-p.at < order.GiveUpAfter {
			a.f.complain("order", "%s publishes behind %d in %s, which has no number yet", c.id, p.m, p.room)
		}
	}
}

// told checks the answer to a broadcast, or what the application was told.
func (a *annals) told(whom string, p *fleetTelling, b *body) {
	at, again := engine.Position{Epoch: b.Epoch}, b.Duplicate != nil
	if b.Seq != nil {
		at.Seq = *b.Seq
	}
	if again {
		at = *b.Duplicate
	}
	h := a.epochs[at.Epoch]
	switch {
	case h == nil || h.room != p.room:
		a.f.complain("positions", "%s publishes %d in %s and is told %+v", whom, p.m, p.room, at)
	case !again && p.numbers[at.Epoch] != at.Seq:
		a.f.complain("keys", "%s publishes %d in %s and is told %+v; it has %v", whom, p.m, p.room, at, p.numbers)
	case again && (p.idempotencyKey == "" || h.keys[p.scope+" "+p.idempotencyKey] != at.Seq || p.numbers[at.Epoch] == at.Seq):
		a.f.complain("keys", "%s publishes %d in %s with key %q and is told that it is %+v again; it has %v", whom, p.m, p.room, p.idempotencyKey, at, p.numbers)
	}
}

// refused checks the refusal of a broadcast: unless it is not known what became of the message, it took no number.
func (a *annals) refused(k *fleetClient, q *fleetRequest, code string) {
	p, f := q.numbers, a.f
	switch {
	case code == "unavailable":
		if f.plan.soundOrder() {
			f.complain("answers", "%s publishes %d in %s and is told %s, and nothing is away", k.name, p.m, p.room, code)
		}
		return
	case len(p.numbers) > 0:
		f.complain("refusals", "%s is told %s of message %d, which has taken %v in %s", k.name, code, p.m, p.numbers, p.room)
	case code != "forbidden" && code != "not_in_room" && !f.plan.creates:
		f.complain("answers", "%s publishes %d in %s and is told %s", k.name, p.m, p.room, code)
	}
	p.refusal = code
}

// applicationPublishes makes the application on a worker publish to a room with history.
func (a *annals) applicationPublishes(w *worker, room string) {
	for range pick(a.f.rand, 1, 1, 5, 20) {
		a.applicationPublishesOne(w, room)
	}
}

func (a *annals) applicationPublishesOne(w *worker, room string) {
	f := a.f
	p := &fleetTelling{room: room, publisher: fmt.Sprintf("the application of worker %d", w.instance), scope: "server", numbers: map[string]uint64{}, at: max(f.now, 1)}
	p.m, p.key = f.number(), pick(f.rand, "", "", "k1", "k2")
	if f.chance(0.2) {
		p.idempotencyKey = pick(f.rand, "i1", "i2")
	}
	a.tellings[p.m] = p
	o := engine.BroadcastOptions{IdempotencyKey: p.idempotencyKey, Key: p.key}
	for range f.rand.IntN(3) {
		if list := f.truth.ordered; len(list) > 0 {
			c := list[f.rand.IntN(len(list))]
			p.out, o.Except = append(p.out, &c.speaker), append(o.Except, c.id)
		}
	}
	o.Done = func(got engine.Published, err error) {
		f.tracef("%s has published %d in %s: %+v, %v", p.publisher, p.m, room, got, err)
		switch {
		case err == nil && got.Duplicate:
			a.told(p.publisher, p, &body{placing: placing{Duplicate: &got.Position}})
		case err == nil:
			a.told(p.publisher, p, &body{placing: placing{Seq: &got.Seq, Epoch: got.Epoch}})
		case !errors.Is(err, engine.ErrUnavailable):
			p.refusal = err.Error()
		}
	}
	f.tracef("%s publishes %d in %s", p.publisher, p.m, room)
	w.server.Server.Publish(room, engine.M{"type": "app", "m": p.m}, o) // Done has the error
}

// talkHistory sends something that is about rooms with history.
func (f *Fleet) talkHistory(k *fleetClient) {
	room, in := f.roomName(), false
	for range 3 {
		if _, in = k.stands[room]; in {
			break
		}
		room = f.roomName()
	}
	switch n := f.rand.IntN(40); {
	case n < 4, !in && n < 30:
		f.joinSince(k, room)
	case n < 5:
		k.ask("leave", room, "")
	case n < 36 && f.annals.keeps(room) && (in || n < 32):
		for range pick(f.rand, 1, 1, 3, 8) {
			f.annals.publishes(k, room)
		}
	default:
		f.reconnect(k)
	}
}

// joinSince joins at a place: mostly one that the person has been at.
func (f *Fleet) joinSince(k *fleetClient, room string) {
	if f.chance(0.3) {
		m := 1 + f.rand.Uint64N(12)
		k.ask("join", room, fmt.Sprintf(`,"since":{"last":%d}`, m)).since = &since{last: m}
		return
	}
	for i := len(f.clients) - 1; i >= 0; i-- {
		other := f.clients[i]
		if st := other.stands[room]; st != nil && (other.person == k.person || f.chance(0.2)) {
			at := f.mistake(engine.Position{Seq: st.at, Epoch: st.h.epoch})
			k.ask("join", room, fmt.Sprintf(`,"since":{"seq":%d,"epoch":%q}`, at.Seq, at.Epoch)).since = &since{named: true, at: at}
			return
		}
	}
	k.ask("join", room, "")
}

// mistake is a position, or sometimes another.
func (f *Fleet) mistake(at engine.Position) engine.Position {
	switch f.rand.IntN(12) {
	case 0:
		at.Epoch = "other"
	case 1:
		at.Seq += f.rand.Uint64N(5)
	case 2, 3, 4:
		at.Seq -= min(at.Seq, f.rand.Uint64N(15))
	}
	return at
}

// lastOf is what a client names that resumes the session of a connection: its positions, or nothing.
func (f *Fleet) lastOf(c *fleetConn) (last map[string]engine.Position, text string) {
	if !f.plan.historic || f.chance(0.4) {
		return nil, ""
	}
	last = map[string]engine.Position{}
	var parts []string
	for i := range f.plan.rooms {
		room := roomOf(i)
		if st := c.client.stands[room]; st != nil && f.chance(0.9) {
			at := f.mistake(engine.Position{Seq: st.at, Epoch: st.h.epoch})
			last[room] = at
			parts = append(parts, fmt.Sprintf(`%q:{"seq":%d,"epoch":%q}`, room, at.Seq, at.Epoch))
		}
	}
	return last, `,"last":{` + strings.Join(parts, ",") + "}"
}
