package bus

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// world is a bus made of the shipped senders and inboxes, over a wire that loses, doubles and swaps, with a
// clock and dice of its own.
type world struct {
	t     *testing.T
	dice  *rand.Rand
	now   time.Time
	nodes []*node
	loss  float64
	heard int // messages delivered
}

type node struct {
	instance ident.Worker
	sender   *sender
	inbox    *inbox
	seen     *witness
	mail     []letter
	said     uint64
	dead     bool
	tickAt   time.Time
}

type letter struct {
	subject string
	payload []byte
}

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{t: t, dice: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1, 0), loss: 0.3}
	for i := range nodes {
		w.add(ident.Worker(i+1), 4<<10<<w.dice.IntN(6))
	}
	return w
}

func (w *world) add(instance ident.Worker, ringBytes int) {
	n := &node{instance: instance, seen: newWitness()}
	n.seen.exact = true
	n.inbox = newInbox(n.seen.receiver(), nil)
	n.inbox.ask = func(to ident.Worker, first, last uint64) {
		n.sender.want(func(r *requests) { r.questions[to] = seqRange{first, last} })
	}
	n.inbox.arm = func(d time.Duration) {
		if at := w.now.Add(d); n.tickAt.IsZero() || at.Before(n.tickAt) {
			n.tickAt = at
		}
	}
	n.sender = newSender(wire{
		publish:   func(subject string, payload []byte) error { return w.publish(n, subject, payload) },
		connected: func() bool { return w.dice.Float64() >= w.loss/10 },
	}, newOutbox(ringBytes), instance)
	w.nodes = append(w.nodes, n)
}

// publish puts a message into the mail of its receivers, unless the wire loses it.
func (w *world) publish(from *node, subject string, payload []byte) error {
	if w.dice.Float64() < w.loss/10 {
		return errAddressInUse // any error: the bus is away
	}
	to := subject[strings.LastIndexByte(subject, '.')+1:]
	for _, n := range w.nodes {
		if n == from || n.dead || subject[0] != 'p' && to != "0" && to != strconv.Itoa(int(n.instance)) {
			continue
		}
		for copies := 1; copies > 0 && w.dice.Float64() >= w.loss; copies-- {
			at := len(n.mail)
			if w.dice.Float64() < w.loss/3 {
				at = w.dice.IntN(at + 1)
			}
			n.mail = slices.Insert(n.mail, at, letter{subject, bytes.Clone(payload)})
			if w.dice.Float64() < w.loss/3 {
				copies++
			}
		}
	}
	return nil
}

// read delivers some of a node's mail, as link_recv.go does.
func (w *world) read(n *node, count int) {
	for ; count > 0 && len(n.mail) > 0; count-- {
		m := n.mail[0]
		n.mail = n.mail[1:]
		w.heard++
		from, _ := publisher(m.subject)
		x, _ := parseNote(m.payload)
		switch kind := m.payload[0]; {
		case kind == kindBatch:
			n.inbox.batch(from, m.payload, m.subject[0] == 'a', w.now)
		case kind == kindTop:
			n.inbox.top(from, x.last, w.now)
		case kind == kindHello:
			n.sender.requests.top = true
		case kind == kindQuestion:
			n.sender.requests.answers[from] = seqRange{x.first, x.last}
		case kind == kindGone:
			n.inbox.gone(from, x.first, x.last, w.now)
		case kind == kindDone:
			n.inbox.done(from, w.now)
		}
	}
}

func (n *node) say(size int) {
	_, _ = n.sender.out.append(entryOf(n.said, size))
	n.said++
	n.sender.out.mu.Lock()
	n.sender.out.seal() // a batch an entry: then a loss can be checked to the number
	n.sender.out.mu.Unlock()
}

func (w *world) step(n *node) {
	w.now = w.now.Add(time.Duration(w.dice.IntN(5)) * time.Millisecond)
	switch w.dice.IntN(8) {
	case 0, 1:
		for range w.dice.IntN(4) {
			n.say(8 + w.dice.IntN(500))
		}
	case 2, 3:
		n.sender.round()
	case 4:
		n.sender.announceOnTime()
	default:
		w.read(n, w.dice.IntN(8))
	}
	if !n.tickAt.IsZero() && !w.now.Before(n.tickAt) {
		n.tickAt = time.Time{}
		n.inbox.tick(w.now)
	}
}

// settle makes the wire faultless, and lets time pass until no message is left.
func (w *world) settle() {
	w.loss = 0
	for range 400 {
		w.now = w.now.Add(20 * time.Millisecond)
		for _, n := range w.nodes {
			if n.dead {
				continue
			}
			n.sender.announceOnTime()
			for n.sender.round() {
			}
			w.read(n, len(n.mail))
			n.tickAt = time.Time{}
			n.inbox.tick(w.now)
		}
	}
}

// Over a wire that loses, doubles and swaps, each publisher's batches are delivered in order, once, or declared lost to
// the number; a batch in the ring is not lost.
func TestLossyWire(t *testing.T) {
	var lost, repaired, gaps uint64
	for seed := range uint64(150) {
		w := newWorld(t, seed, 3)
		for range 1500 {
			w.step(w.nodes[w.dice.IntN(len(w.nodes))])
		}
		w.settle()
		for _, n := range w.nodes {
			n.seen.check(t)
			for _, p := range w.nodes {
				if p != n && n.seen.next[p.instance] != p.said {
					t.Errorf("seed %d: %d has accounted for %d of %d entries of %d", seed, n.instance, n.seen.next[p.instance], p.said, p.instance)
				}
			}
			if n.inbox.held != 0 {
				t.Errorf("seed %d: %d bytes are still held", seed, n.inbox.held)
			}
			if n.inbox.count.lost != n.seen.lostBatches() {
				t.Errorf("seed %d: %d batches counted lost, %d declared", seed, n.inbox.count.lost, n.seen.lostBatches())
			}
			lost, repaired, gaps = lost+n.inbox.count.lost, repaired+n.inbox.count.repaired, gaps+n.inbox.count.gaps
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	if lost == 0 || repaired < 1000 || gaps < 1000 {
		t.Errorf("%d lost, %d repaired, %d gaps: the wire is too good for this test", lost, repaired, gaps)
	}
}

// After a publisher's death its batches that came are delivered, the missing ones declared lost, and later ones ignored.
func TestForgetOnALossyWire(t *testing.T) {
	for seed := range uint64(60) {
		w := newWorld(t, seed, 3)
		for range 600 {
			w.step(w.nodes[w.dice.IntN(len(w.nodes))])
		}
		victim := w.nodes[0]
		victim.dead = true
		for _, n := range w.nodes[1:] {
			n.inbox.forget(victim.instance, w.now)
		}
		for range 300 {
			w.step(w.nodes[1+w.dice.IntN(2)])
		}
		w.settle()
		for _, n := range w.nodes[1:] {
			n.seen.check(t)
			if !slices.Equal(n.seen.gone, []ident.Worker{victim.instance}) {
				t.Errorf("seed %d: gone are %v", seed, n.seen.gone)
			}
			had := n.seen.total
			n.inbox.batch(victim.instance, lateBatch(1<<20), false, w.now)
			n.inbox.top(victim.instance, 1<<21, w.now)
			if n.seen.total != had || n.inbox.streams[victim.instance] != nil {
				t.Errorf("seed %d: a late batch of the dead is delivered", seed)
			}
		}
	}
}

func lateBatch(seq uint64) []byte {
	raw := append(make([]byte, batchHeaderBytes), 8, 0, 0, 0, 0, 0, 0, 0, 0)
	sealBatch(raw, seq, 1)
	return raw
}

// A newcomer starts at the current batch of an older peer, and at the first batch of a younger one.
func TestNewcomerStartsAtTheTop(t *testing.T) {
	seen := newWitness()
	in := newInbox(seen.receiver(), []ident.Worker{7, 8})
	var asked []string
	in.ask = func(from ident.Worker, first, last uint64) {
		asked = append(asked, fmt.Sprint(from, " ", first, " ", last))
	}
	in.arm = func(time.Duration) {}
	now := time.Unix(1, 0)
	in.top(7, 40, now)
	select {
	case <-in.settled:
		t.Fatal("settled without a word of 8")
	default:
	}
	in.top(8, 0, now)
	<-in.settled
	in.top(9, 3, now)
	if want := []string{"9 1 3"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q: only the younger one's first batches are missing", asked, want)
	}
	in.batch(7, lateBatch(41), false, now)
	if seen.total != 1 || len(seen.lost) != 0 {
		t.Errorf("%d entries, lost %v", seen.total, seen.lost)
	}
}

// The earlier batches of a peer that is heard only after Dial stopped waiting are declared lost.
func TestPeerMetLate(t *testing.T) {
	seen := newWitness()
	in := newInbox(seen.receiver(), []ident.Worker{7})
	in.arm = func(time.Duration) {}
	if silent := in.stopWaiting(); !slices.Equal(silent, []ident.Worker{7}) {
		t.Errorf("silent are %v", silent)
	}
	in.top(7, 12, time.Unix(1, 0))
	if got := seen.lost[7]; !slices.Equal(got, []seqRange{{1, 12}}) {
		t.Errorf("lost %v, want 1 to 12", got)
	}
}

// Batches that wait for older ones are bounded; those beyond the bound are asked for later, and come.
func TestHeldIsBounded(t *testing.T) {
	out := newOutbox(64 << 20)
	seen := newWitness()
	in := newInbox(seen.receiver(), nil)
	in.ask = func(ident.Worker, uint64, uint64) {}
	in.arm = func(time.Duration) {}
	now := time.Unix(1, 0)
	const batches = 600
	var raws [][]byte
	for n := range uint64(batches) {
		_, _ = out.append(entryOf(n, 60<<10))
		out.flush()
		raw, seq := out.next(nil)
		out.commit(seq)
		raws = append(raws, raw)
	}
	for _, raw := range raws[1:] {
		in.batch(1, bytes.Clone(raw), false, now)
		if in.held > heldBytesMax {
			t.Fatalf("%d bytes are held", in.held)
		}
	}
	if in.count.refused == 0 {
		t.Fatal("nothing was refused: the bound is not tested")
	}
	for _, raw := range raws {
		in.batch(1, bytes.Clone(raw), true, now)
	}
	seen.check(t)
	if seen.total != batches || in.held != 0 {
		t.Errorf("%d of %d entries, %d bytes held", seen.total, batches, in.held)
	}
}

// A malformed batch is not delivered, and not asked for again.
func TestMalformedBatch(t *testing.T) {
	seen := newWitness()
	in := newInbox(seen.receiver(), nil)
	in.ask = func(ident.Worker, uint64, uint64) {}
	in.arm = func(time.Duration) {}
	now := time.Unix(1, 0)
	whole := lateBatch(1)
	for cut := range whole {
		if _, _, ok := parseBatch(whole[:cut]); ok && cut > 0 {
			t.Errorf("%d bytes of a batch pass for one", cut)
		}
	}
	torn := whole[:len(whole)-1]
	in.batch(3, torn, false, now)
	in.batch(3, lateBatch(2), false, now)
	if seen.total != 1 || !slices.Equal(seen.lost[3], []seqRange{{1, 1}}) || in.count.malformed != 1 {
		t.Errorf("%d entries, lost %v, %d malformed", seen.total, seen.lost, in.count.malformed)
	}
}
