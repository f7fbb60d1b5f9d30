package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// orderedScript is a worker in lockstep whose rooms a sequencer numbers. Nothing is carried but by carry.
type orderedScript struct {
	*script
	sequencer *order.Sequencer
	stream    [][]byte
	pieces    [][]byte
	term      uint64
	entries   string
}

func ordered(t testing.TB, entry string) *orderedScript {
	w := &orderedScript{script: historic(t, entry), entries: entry}
	w.server.Server.worker.Attach(membership.Membership{Instance: 7, Bus: silentBus{}, Order: func() {}})
	w.server.Server.worker.Receiving.Store(true)
	w.restart()
	w.carry()
	return w
}

// restart begins a new term.
func (w *orderedScript) restart() {
	history, hint := settings.ParseHistory([]string{w.entries})
	if hint != "" {
		w.t.Fatal(hint)
	}
	w.term++
	term := w.term
	w.sequencer = order.NewSequencer(order.SequencerOptions{Term: term, Linger: time.Minute, History: history,
		Epoch: func() string { return fmt.Sprintf("t%d", term) },
		Say: func(entry []byte) {
			w.stream = append(w.stream, fleet.Append(nil, &fleet.Entry{Kind: fleet.Order, Body: fleet.Body{Payload: entry}}))
		},
		Tell: func(_ ident.Worker, piece []byte) { w.pieces = append(w.pieces, piece) },
	})
}

// carry carries everything that is on its way, without a turn of a loop.
func (w *orderedScript) carry() {
	w.t.Helper()
	o := w.server.Server.rooms.Order
	for {
		batch := o.Outgoing(nil)
		if len(batch) > 0 {
			if err := w.sequencer.Take(7, batch, int64(w.now)); err != nil {
				w.t.Fatal(err)
			}
		}
		stream, pieces := w.stream, w.pieces
		w.stream, w.pieces = nil, nil
		for _, entry := range stream {
			if err := w.server.Server.worker.Receive(900, entry); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, piece := range pieces {
			if err := o.HearPiece(piece); err != nil {
				w.t.Fatal(err)
			}
		}
		if len(batch)+len(stream)+len(pieces) == 0 {
			return
		}
	}
}

// settle carries and drains until nothing is on its way.
func (w *orderedScript) settle() {
	for range 4 {
		w.carry()
		w.drain()
	}
}

func (w *orderedScript) enter(loop int) *Conn {
	c := w.open(loop)
	w.say(c, `{"type":"join","room":"h"}`)
	w.settle()
	return c
}

// A loop whose mailbox is full drops no message: its members read on from the first that it missed, and its publishers get their
// answers in their places.
func TestOrderedFullMailbox(t *testing.T) {
	w := ordered(t, "h=messages:1000;bytes:67108864")
	check := follow(t)
	ann, bob, cid := w.enter(0), w.enter(1), w.enter(1)
	followers := map[*Conn]*follower{ann: check("ann"), bob: check("bob"), cid: check("cid")}
	for c, f := range followers {
		f.take(w.read(c))
	}
	w.say(bob, `{"type":"broadcast","room":"h","data":0,"ref":"early"}`)
	s := w.server.Server
	mail := &s.rooms.Loops[1].Mail
	for i := range 120 {
		switch i {
		case 20:
			mail.Bytes.Add(turn.MailboxBytesMax * 3 / 2) // from now on it is full
		case 100:
			mail.Bytes.Add(-turn.MailboxBytesMax * 3 / 2)
		}
		if err := s.Publish("h", newsOf("h", i, ""), BroadcastOptions{}); err != nil {
			t.Fatal(err)
		}
		w.carry()
		w.server.Drain(0)
	}
	mail.Bytes.Add(turn.MailboxBytesMax * 3 / 2)
	w.say(cid, `{"type":"broadcast","room":"h","data":0,"ref":"late"}`)
	w.carry()
	mail.Bytes.Add(-turn.MailboxBytesMax * 3 / 2)
	dan := w.open(1)
	followers[dan] = check("dan")
	w.say(dan, `{"type":"join","room":"h"}`)
	s.Publish("h", newsOf("h", 121, ""), BroadcastOptions{})
	w.settle()
	top := s.rooms.Index.FindString("h").History().Top()
	if top.Seq != 123 {
		t.Fatalf("the room is at %d", top.Seq)
	}
	for c, f := range followers {
		texts := w.read(c)
		f.take(texts)
		for round := 0; f.at["h"] != top && round < 300; round++ {
			w.settle()
			f.take(w.read(c))
		}
		if f.at["h"] != top {
			t.Errorf("%s is at %+v, want %+v", f.name, f.at["h"], top)
		}
		if c.Cause() != CauseNone {
			t.Errorf("%s was closed: %v", f.name, c.Cause())
		}
	}
}

// A hole that the sequencer has no messages for is a gap, exactly, and what a client is owed in front of it still comes.
func TestOrderedHole(t *testing.T) {
	w := ordered(t, "h=messages:3")
	check := follow(t)
	ann, bob := w.enter(0), w.enter(1)
	a, b := check("ann"), check("bob")
	a.take(w.read(ann))
	b.take(w.read(bob))
	for i := range 10 {
		w.server.Server.Publish("h", newsOf("h", i, ""), BroadcastOptions{})
	}
	o := w.server.Server.rooms.Order
	if err := w.sequencer.Take(7, o.Outgoing(nil), 0); err != nil {
		t.Fatal(err)
	}
	w.stream = w.stream[8:] // eight entries are lost
	w.server.Server.worker.Missed(900)
	w.settle()
	for c, f := range map[*Conn]*follower{ann: a, bob: b} {
		texts := w.read(c)
		f.take(texts)
		if f.at["h"].Seq != 10 || !strings.HasPrefix(texts[0], `{"type":"gap","room":"h","from":1,"seq":7,`) {
			t.Errorf("%s is at %+v: %v", f.name, f.at["h"], texts)
		}
	}
}

// A new epoch is told to everybody once, to members that are behind too, and members that come in between start in the new one.
func TestOrderedNewEpoch(t *testing.T) {
	w := ordered(t, "h=messages:50")
	check := follow(t)
	ann, bob := w.enter(0), w.enter(1)
	a, b := check("ann"), check("bob")
	a.take(w.read(ann))
	b.take(w.read(bob))
	w.say(ann, `{"type":"broadcast","room":"h","data":1}`)
	w.carry() // its letters wait in the mailboxes
	w.restart()
	w.carry()
	w.server.Server.Publish("h", newsOf("h", 1, ""), BroadcastOptions{})
	w.carry()
	cid := w.open(0)
	c := check("cid")
	w.say(cid, `{"type":"join","room":"h"}`)
	w.say(bob, `{"type":"broadcast","room":"h","data":2,"ref":5}`)
	w.settle()
	for _, x := range []struct {
		c    *Conn
		f    *follower
		want string
	}{
		{ann, a, "broadcast_sent gap news broadcast member_joined"},
		{bob, b, "broadcast gap news broadcast_sent member_joined"},
		{cid, c, "connected reconnect_token joined broadcast"},
	} {
		texts := w.read(x.c)
		if got := kinds(texts); got != x.want {
			t.Errorf("%s: %s, want %s: %v", x.f.name, got, x.want, texts)
		}
		for i, text := range texts {
			if strings.Contains(text, `"reset":true`) {
				x.f.at["h"] = Position{Epoch: "t2"}
				texts = append(texts[:i:i], texts[i+1:]...)
				x.f.take(texts[i:])
				texts = texts[:i]
				break
			}
		}
		if x.f == c {
			x.f.take(texts)
		}
		if x.f.at["h"] != (Position{Seq: 2, Epoch: "t2"}) {
			t.Errorf("%s is at %+v", x.f.name, x.f.at["h"])
		}
	}
}

// deferring is a policy that decides about publishing later.
type deferring struct{ done []func(error) }

func (p *deferring) Allow(_ *Conn, act Act, _ string, _ bool) Decision {
	if act != ActPublish {
		return Decision{}
	}
	return Decision{Ask: func(done func(error)) { p.done = append(p.done, done) }}
}

// A decision about a message of a connection that has ended does not wait for the letters that were posted for it: nobody opens
// them for it any more, and the loop would wait for ever.
func TestDecisionBehindTheEnd(t *testing.T) {
	w, p := ordered(t, "h=messages:5"), &deferring{}
	w.server.Server.SetPolicy(p)
	ann := w.enter(0)
	w.say(ann, `{"type":"broadcast","room":"h","data":1}`)
	p.done[0](nil)
	w.drain()
	w.say(ann, `{"type":"broadcast","room":"h","data":2}`)
	w.carry()
	w.server.Gone(ann)
	p.done[1](nil)
	drained := make(chan struct{})
	go func() { w.server.Drain(0); close(drained) }()
	select {
	case <-drained:
	case <-time.After(canary.Stretch(5 * time.Second)):
		t.Fatal("the loop waits for ever")
	}
}

// A publish whose session resumes before the message has its number is the session's own: its heir gets a skip, one by one and in
// a run, and so does an heir of a connection that a message was not for.
func TestOrderedOwnOfEarlier(t *testing.T) {
	for _, n := range []int{1, 3} {
		w := ordered(t, "h=messages:100")
		bob, cid := w.enter(1), w.enter(1)
		for range n {
			w.say(bob, `{"type":"broadcast","room":"h","data":0}`)
		}
		if err := w.server.Server.Publish("h", newsOf("h", n, ""), BroadcastOptions{Except: []string{cid.ID()}}); err != nil {
			t.Fatal(err)
		}
		heir, excluded := w.open(1), w.open(1)
		w.resumes(heir, w.token(bob))
		w.resumes(excluded, w.token(cid))
		w.settle()
		of := func(c *Conn) (kinds []string) {
			for _, text := range w.read(c) {
				if kind, rest, ok := strings.Cut(strings.TrimPrefix(text, `{"type":"`), `"`); ok && strings.Contains(rest, `"seq"`) {
					_, why, _ := strings.Cut(rest, `"why":"`)
					kinds = append(kinds, kind+" "+strings.TrimSuffix(why, `"}`))
				}
			}
			return kinds
		}
		own, messages := slices.Repeat([]string{"skip own"}, n), slices.Repeat([]string{"broadcast "}, n)
		if got, want := of(heir), append(own, "news "); !slices.Equal(got, want) {
			t.Errorf("%d publishes: their heir gets %q, want %q", n, got, want)
		}
		if got, want := of(excluded), append(messages, "skip excluded"); !slices.Equal(got, want) {
			t.Errorf("%d publishes: the heir of the excepted gets %q, want %q", n, got, want)
		}
	}
}
