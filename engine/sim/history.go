package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
)

// The truth of rooms with history: all messages that took a number, and which of them are still kept. What a client reads
// is judged when it reads it, and that may be later than the server's decision. Since what is kept only shrinks at its old
// end, a gap that names a message that is kept even now was never true.

// chronicle is all messages of one epoch of a room.
//
// Owner: the simulation.
type chronicle struct {
	scene    scene
	room     string
	epoch    string
	options  engine.HistoryOptions
	policies [3]bool // that it has had
	log      []record
	low      uint64            // the oldest kept message, when that was last asked for
	keys     map[string]uint64 // the numbers of messages by idempotency key and its scope
	usedAt   time.Duration     // when it last had a member or a new message
	created  bool
	deleted  bool

	// Where several workers are one server.
	began time.Duration
	term  uint64 // of the sequencer
	turn  int    // among all epochs
	over  bool   // a later epoch of the room has begun, and what this one keeps is gone
}

// record is a message with a number.
//
// Owner: the simulation.
type record struct {
	telling
	at  time.Duration
	by  *speaker   // nil: the application
	out []*speaker // connections that it is not for
	// was are those of them that had not ended then. A message that excludes a connection that has ended may be for its heir.
	was []*speaker
}

// telling is a message that is published, with its options.
//
// Owner: the simulation.
type telling struct {
	m              int
	pad, text      string // the text without its last brace
	idempotencyKey string
	key            string // for conflation
	ephemeral      bool
	malformed      string // an option that the server must refuse
	number         uint64 // that it takes, or that its key has taken
	duplicate      bool
	epoch          string
	refused        bool // it must be
}

// extent is which messages a history keeps at a time, and its epoch.
type extent struct {
	low, top uint64
	epoch    string
}

func encode(v any) string {
	text, _ := json.Marshal(v) // maps of strings and numbers
	return strings.TrimSuffix(string(text), "}")
}

// mayNumber reports whether the messages to a room take numbers.
func (w *World) mayNumber(room string) bool {
	_, is := w.plan.histories[room]
	return is
}

// chronicle is the present epoch of a room; nil if the room does not exist, or has no history.
func (t *truth) chronicle(room string) *chronicle {
	top, ok := t.w.server.Top(room)
	if !ok {
		return nil
	}
	h := t.epochs[top.Epoch]
	if h == nil {
		h = t.newEpoch(room, top.Epoch)
	}
	if h.deleted {
		t.w.complain("epochs", "%s is deleted, and its epoch %s goes on", room, h.epoch)
	}
	if uint64(len(h.log)) != top.Seq || h.room != room || h != t.chronicles[room] {
		t.w.complain("numbers", "%s is at %+v; its epoch belongs to %s and has had %d messages", room, top, h.room, len(h.log))
	}
	return h
}

func (t *truth) newEpoch(room, epoch string) *chronicle {
	before := t.chronicles[room]
	if before != nil && !before.deleted && (before.created || t.w.now-before.usedAt < max(before.options.Age, t.w.plan.config.ReconnectionTTL)) {
		t.w.complain("epochs", "%s begins epoch %s while %s goes on", room, epoch, before.epoch)
	}
	h := &chronicle{scene: t.w, room: room, epoch: epoch, low: 1, keys: map[string]uint64{}, usedAt: t.w.now}
	h.take(t.w.plan.histories[room])
	t.epochs[epoch], t.chronicles[room] = h, h
	t.w.tracef("%s begins epoch %s", room, epoch)
	h.scene.tracef("its bounds are %+v", h.options)
	return h
}

func (h *chronicle) take(o engine.HistoryOptions) {
	h.options = o
	h.policies[o.Slow] = true
}

// oldest is the number of the oldest message that is kept now.
func (h *chronicle) oldest() uint64 {
	top, bytes := uint64(len(h.log)), 0
	low := top + 1
	for ; low > h.low && !h.deleted; low-- {
		r := &h.log[low-2]
		bytes += h.frameBytes(low - 1)
		if top-low+2 > uint64(h.options.Messages) || bytes > h.options.Bytes || h.scene.Now()-r.at.Truncate(time.Millisecond) >= h.options.Age { // a time of publishing is kept in whole milliseconds
			break
		}
	}
	h.low = low
	return low
}

func (h *chronicle) extent() extent { return extent{h.oldest(), uint64(len(h.log)), h.epoch} }

// text is a message as everybody must read it.
func (h *chronicle) text(number uint64) string {
	return fmt.Sprintf(`%s,"seq":%d,"epoch":%q}`, h.log[number-1].text, number, h.epoch)
}

func (h *chronicle) frameBytes(number uint64) int {
	switch n := len(h.text(number)); {
	case n < 126:
		return n + 2
	default:
		return n + 4 // all are shorter than 64 KiB
	}
}

// add gives a message its number, or finds the number of its key.
func (h *chronicle) add(scope string, r record) (number uint64, duplicate bool) {
	h.usedAt = h.scene.Now()
	if r.idempotencyKey != "" {
		key := scope + " " + r.idempotencyKey
		if number := h.keys[key]; number > 0 {
			return number, true
		}
		h.keys[key] = uint64(len(h.log)) + 1
	}
	r.at = h.scene.Now()
	for _, c := range r.out {
		if !c.ended {
			r.was = append(r.was, c)
		}
	}
	h.oldest()
	h.log = append(h.log, r)
	h.oldest()
	h.scene.tracef("message %d takes number %d of %s", r.m, len(h.log), h.room)
	return uint64(len(h.log)), false
}

// conflatable reports whether a later message has the same key.
func (h *chronicle) conflatable(number uint64) bool {
	key := h.log[number-1].key
	return key != "" && slices.ContainsFunc(h.log[number:], func(r record) bool { return r.key == key })
}

// broadcasts notes a broadcast of a member, which is carried out in this moment.
func (t *truth) broadcasts(c *conn, q *request, r *room, m int) {
	h, p := t.chronicle(r.name), q.published
	switch {
	case h == nil && p.idempotencyKey != "", h != nil && p.malformed != "":
		p.refused = true
		return
	case h == nil || p.ephemeral:
		q.members = len(r.members) - 1
		q.most = q.members + t.w.seatsUnderWay()
		t.publish(m, c.client.name, c, r)
		return
	}
	q.members = len(r.members) - 1
	q.most = q.members + t.w.seatsUnderWay()
	data := dataOf(m, p.pad)
	p.text = fmt.Sprintf(`{"type":"broadcast","room":%q,"from":%q,"data":%s,"timestamp":%d`, r.name, c.id, data, worldBegan+int64(t.w.now/time.Second))
	p.number, p.duplicate = h.add("session "+c.began.id, record{telling: *p, by: &c.speaker})
	p.epoch = h.epoch
}

// worldBegan is the clock on the wall at the start, in seconds since the epoch.
const worldBegan = 1_000_000_000

func dataOf(m int, pad string) string { return fmt.Sprintf(`{"m":%d,"pad":%q}`, m, pad) }

// took notes a message of the application that a room with history has taken, and checks what the application was told.
func (t *truth) took(room string, p telling, out []*speaker, told *engine.Published) {
	top, ok := t.w.server.Top(room)
	if !ok {
		t.w.complain("numbers", "a message to %s made no room", room)
		return
	}
	t.room(room)
	h := t.epochs[top.Epoch]
	if h == nil {
		h = t.newEpoch(room, top.Epoch)
	}
	number, duplicate := h.add("application", record{telling: p, out: out})
	if want := (engine.Position{Seq: number, Epoch: h.epoch}); told != nil && (told.Position != want || told.Duplicate != duplicate) {
		t.w.complain("keys", "the application publishes %d with key %q and is told %+v, not %+v, %v", p.m, p.idempotencyKey, *told, want, duplicate)
	}
	t.chronicle(room)
}

// foresee notes what the histories are like when a request is carried out.
func (t *truth) foresee(q *request) {
	if q.typ != "join" && q.typ != "reconnect" && q.typ != "history" {
		return
	}
	q.then = map[string]extent{}
	for i := range t.w.plan.rooms {
		room := fmt.Sprint("room ", i)
		if h := t.chronicle(room); h != nil {
			q.then[room] = h.extent()
		}
	}
}

// histories compares each history with its truth.
func (t *truth) histories() {
	for i := range t.w.plan.rooms {
		room := fmt.Sprint("room ", i)
		h := t.chronicle(room)
		if h == nil {
			continue
		}
		page, err := t.w.server.Server.History(context.Background(), room, engine.HistoryQuery{Limit: 100})
		want := h.extent()
		if err != nil || page.Low != want.low || page.Top != want.top || page.Epoch != want.epoch || uint64(len(page.Messages)) != want.top-want.low+1 && !page.More { // an answer is bounded by its bytes, too
			t.w.complain("bounds", "the history of %s has %d to %d (%d messages, %v), and should have %+v", room, page.Low, page.Top, len(page.Messages), err, want)
			return
		}
		for i, m := range page.Messages {
			if n := want.top - uint64(len(page.Messages)-1-i); m.Seq != n || string(m.Message) != h.text(n) {
				t.w.complain("bytes", "the history of %s has %.200s as %d, and published was %.200s", room, m.Message, n, h.text(n))
			}
		}
	}
}
