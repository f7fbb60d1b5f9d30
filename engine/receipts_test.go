package engine

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/session"
)

// pings takes what a client was sent since the last time, and returns the payloads of PINGs that ask for a receipt.
func (w *script) pings(c *Conn) (list [][]byte, texts []string) {
	w.t.Helper()
	raw := w.out[int(c.wire.Fd)]
	for raw.Len() > 0 {
		f, err := ws.ReadFrame(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		switch {
		case f.Header.OpCode == ws.OpPing && len(f.Payload) == 8:
			list = append(list, bytes.Clone(f.Payload))
		case f.Header.OpCode == ws.OpText:
			texts = append(texts, string(f.Payload))
		}
	}
	return list, texts
}

// A PONG proves what was queued in front of its PING: a resume without positions repeats what came behind it, and no more.
func TestReceipts(t *testing.T) {
	w := newScript(t, func(c *Config) { c.History, c.ReceiptInterval = []string{"h"}, time.Second })
	s := w.server.Server
	c, other := w.open(0), w.open(1)
	for _, x := range []*Conn{c, other} {
		w.say(x, `{"type":"join","room":"h"}`)
	}
	w.drain()
	w.read(c)
	w.pass(3 * time.Second)
	if list, _ := w.pings(c); len(list) > 0 {
		t.Error("a client that was given nothing is asked for a receipt")
	}
	var published Published
	publish := func() {
		if err := s.Publish("h", newsOf("h", 0, ""), BroadcastOptions{Done: func(p Published, _ error) { published = p }}); err != nil {
			t.Fatal(err)
		}
		w.drain()
	}
	publish()
	w.pass(1500 * time.Millisecond)
	list, _ := w.pings(c)
	if len(list) != 1 {
		t.Fatalf("%d PINGs after a message", len(list))
	}
	publish()
	w.pass(400 * time.Millisecond)
	if again, _ := w.pings(c); len(again) > 0 {
		t.Error("another PING while one is unanswered")
	}
	wrong := bytes.Clone(list[0])
	wrong[3] ^= 1
	w.server.Serve(c, masked(ws.OpPong, string(wrong)))
	w.server.Serve(c, masked(ws.OpPong, "x"))
	if have, members, err := s.Everywhere().Delivered(t.Context(), "h", Position{Seq: 1, Epoch: published.Epoch}); have != 0 || members != 2 || err != nil {
		t.Error("a PONG with other bytes proves:", have, members, err)
	}
	w.server.Serve(c, masked(ws.OpPong, string(list[0])))
	for seq, want := range map[uint64]int{1: 1, 2: 0} {
		if have, _, _ := s.Everywhere().Delivered(t.Context(), "h", Position{Seq: seq, Epoch: published.Epoch}); have != want {
			t.Errorf("%d have message %d, want %d", have, seq, want)
		}
	}
	w.server.Serve(c, masked(ws.OpPong, string(list[0]))) // again: it proves nothing more
	publish()
	stats := s.StatsHere()
	if stats.Receipts["proven"] != 1 || stats.Receipts["other"] != 2 || stats.Receipts["false"] != 0 {
		t.Error(stats.Receipts)
	}
	token := w.token(c)
	w.server.Gone(c)
	w.drain()
	publish()
	heir := w.open(0)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	texts := w.read(heir)
	if got := kinds(texts); got != "reconnected news news news reconnect_token" || !strings.Contains(texts[0], `"seq":1,`) || !strings.HasSuffix(texts[0], `"repeats":{"h":3}}`) {
		t.Errorf("%s: %s", got, texts[0])
	}
}

// A client that names less than was proven shows that a proxy answers PINGs in its place: PONGs from its address prove
// nothing any more.
func TestFalseReceipts(t *testing.T) {
	w := newScript(t, func(c *Config) { c.History, c.ReceiptInterval = []string{"h"}, time.Second })
	s := w.server.Server
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.drain()
	w.read(c)
	give := func(c *Conn) {
		s.Broadcast("h", newsOf("h", 0, ""))
		w.drain()
		w.pass(1500 * time.Millisecond)
		list, _ := w.pings(c)
		if len(list) != 1 {
			t.Fatal(len(list), "PINGs")
		}
		w.server.Serve(c, masked(ws.OpPong, string(list[0])))
	}
	give(c)
	epoch := s.rooms.Index.FindString("h").History().Top().Epoch
	for i := range 2 {
		token := w.token(c)
		w.server.Gone(c)
		w.drain()
		c = w.open(0)
		w.read(c)
		w.say(c, `{"type":"reconnect","token":"`+token+`","last":{"h":{"seq":0,"epoch":"`+epoch+`"}}}`)
		w.drain()
		w.read(c)
		if n := s.StatsHere().Receipts["false"]; n != 1 {
			t.Errorf("resume %d: %d false receipts", i, n)
		}
		if i == 0 {
			give(c)
		}
	}
	if n := s.StatsHere().Receipts["proven"]; n != 1 {
		t.Error(n, "receipts count as proofs, although the address has lied")
	}
}

// Whatever gives a member another place makes a PING that is on its way prove nothing; servers without history ask nothing.
func TestReceiptsAreForgotten(t *testing.T) {
	w := newScript(t, func(c *Config) { c.History, c.ReceiptInterval = []string{"h"}, time.Second })
	s := w.server.Server
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.drain()
	w.read(c)
	s.Broadcast("h", newsOf("h", 0, ""))
	w.drain()
	w.pass(1500 * time.Millisecond)
	list, _ := w.pings(c)
	w.say(c, `{"type":"join","room":"h","since":{"last":1}}`)
	w.drain()
	w.server.Serve(c, masked(ws.OpPong, string(list[0])))
	top := s.rooms.Index.FindString("h").History().Top()
	if have, _, _ := s.Everywhere().Delivered(t.Context(), "h", top); have != 0 {
		t.Error("a PING from before the join proves what was replayed behind it")
	}
	w.pass(1500 * time.Millisecond)
	if list, _ = w.pings(c); len(list) != 1 {
		t.Fatal(len(list), "PINGs")
	}
	w.server.Gone(c)
	w.drain()
	for _, l := range s.loops {
		l.Leftovers(func(what string, n int) {
			if what == "receipts" && n > 0 {
				t.Error(n, "receipts are left over")
			}
		})
	}
}

// keptStore stores sessions at once, and counts the saves.
type keptStore struct {
	shelf
	saves int
}

func (x *keptStore) Save(_ session.Key, _ session.Value, done func(error)) error {
	x.saves++
	done(nil)
	return nil
}

// Where a worker that is killed must leave its sessions to others, a proof is stored within about 30 s, and not with every PONG.
func TestReceiptsAreStored(t *testing.T) {
	store := &keptStore{}
	w, _ := newPeer(t, func(c *Config) {
		c.History, c.ReceiptInterval, c.HeartbeatTimeout = []string{"h"}, 10*time.Second, time.Hour
	})
	w.keep(store)
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.drain()
	w.pass(time.Second)
	w.read(c)
	before, proven := store.saves, 0
	for range 30 {
		w.server.Server.Publish("h", newsOf("h", 0, ""), BroadcastOptions{})
		w.pass(10 * time.Second)
		list, _ := w.pings(c)
		for _, ping := range list {
			w.server.Serve(c, masked(ws.OpPong, string(ping)))
			proven++
		}
		w.pass(time.Second)
	}
	if saves := store.saves - before; proven < 20 || saves < 8 || saves > 13 {
		t.Errorf("%d receipts in 330 s, and %d saves, want one in 30 s or so", proven, saves)
	}
}
