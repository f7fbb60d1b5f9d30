package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
)

// flood is one chunk of n messages, made by f of their numbers.
func flood(n int, f func(i int) []byte) []byte {
	var chunk []byte
	for i := range n {
		chunk = append(chunk, f(i)...)
	}
	return chunk
}

// Whatever one chunk asks for, no turn gives its connection more than the bound and one answer, and the answers come in
// order, once each.
func TestAnswersOfOneTurnAreBounded(t *testing.T) {
	const n = 300
	text := func(format string) func(int) []byte {
		return func(i int) []byte { return masked(ws.OpText, fmt.Sprintf(format, i)) }
	}
	for _, row := range []struct {
		name   string
		frame  func(int) []byte
		kind   string
		answer int // bytes, at least
	}{
		{"pages of members", text(`{"type":"members","room":"r","ref":%d}`), "members", 15 << 10},
		{"an application's echo", text(`{"type":"echo","ref":%d}`), "echoed", 20 << 10},
		{"what a handler sends", text(`{"type":"push","ref":%d}`), "pushed", 20 << 10},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newScript(t, func(c *Config) { c.AnnounceMembersMax = -1 })
			pad := strings.Repeat("x", 20<<10)
			w.server.Server.On("echo", func(c *Conn, m *Message, s *Server) (any, error) {
				return M{"type": "echoed", "pad": pad}, nil
			})
			w.server.Server.On("push", func(c *Conn, m *Message, s *Server) (any, error) {
				return nil, c.Send(M{"type": "pushed", "pad": pad, "ref": string(m.ref)})
			})
			var c *Conn
			for i := range 600 {
				c = w.open(i % 2)
				w.say(c, `{"type":"join","room":"r"}`)
			}
			w.drain()
			w.read(c)
			l := c.loop()
			most := w.server.Server.ground.Limits.Answers + 40<<10
			before := w.out[int(c.wire.Fd)].Len()
			w.server.Serve(c, flood(n, row.frame))
			if got := w.out[int(c.wire.Fd)].Len() - before; got > most {
				t.Errorf("the first turn gives %d bytes, %d at most are in order", got, most)
			}
			if letters := l.Mail.Waiting.Load(); letters > 2*turn.AnswersLettersMax {
				t.Errorf("%d letters wait", letters)
			}
			bystander := w.open(int(l.Index)) // takes its turns in between
			w.expect(bystander, "connected reconnect_token")
			w.drain()
			texts := w.read(c)
			if len(texts) != n {
				t.Fatalf("%d answers to %d messages", len(texts), n)
			}
			for i, text := range texts {
				if len(text) < row.answer || !strings.Contains(text, fmt.Sprintf(`"ref":%d`, i)) &&
					!strings.Contains(text, fmt.Sprintf(`"ref":"%d"`, i)) {
					t.Fatalf("answer %d is %.80q", i, text)
				}
			}
		})
	}
}

// A peer that reads nothing costs no more than the bounds, in answers and in input that waits for them; what it reads
// later is in order.
func TestInputWaitsForWhoReadsNothing(t *testing.T) {
	for _, kind := range []ws.OpCode{ws.OpText, ws.OpPing} {
		w := newScript(t, nil)
		c := w.open(0)
		w.read(c)
		w.takes[int(c.wire.Fd)] = 10_000
		payload := func(i int) string { return fmt.Sprintf("%0125d", i) }
		if kind == ws.OpText {
			payload = func(i int) string { return fmt.Sprintf(`{"type":"ping","ref":%d}`, i) }
		}
		n := 0
		for !c.wire.Behindhand() && n < 100_000 {
			w.server.Serve(c, flood(100, func(int) []byte { n++; return masked(kind, payload(n-1)) }))
			w.drain()
		}
		if got, most := w.server.Backlog(c), w.server.Server.ground.Limits.Answers+1<<10; got > most {
			t.Errorf("the backlog is %d, %d at most are in order", got, most)
		}
		delete(w.takes, int(c.wire.Fd))
		w.server.Writable(c)
		w.drain()
		out := w.out[int(c.wire.Fd)]
		for i := range n {
			f, err := ws.ReadFrame(out)
			if err != nil || kind == ws.OpPing && string(f.Payload) != payload(i) ||
				kind == ws.OpText && !bytes.HasSuffix(f.Payload, fmt.Appendf(nil, `"ref":%d}`, i)) {
				t.Fatalf("answer %d of %d: %q %v", i, n, f.Payload, err)
			}
		}

		w.takes[int(c.wire.Fd)] = 0
		for range 100_000 {
			if c.Cause() != CauseNone {
				break
			}
			w.server.Serve(c, flood(100, func(int) []byte { return masked(kind, payload(0)) }))
			w.drain()
		}
		if c.Cause() != CauseSlow {
			t.Errorf("who sends for ever and reads nothing is ended by %q", c.Cause())
		}
	}
}

// Messages that waited for an answer of the application are carried out in slices, too.
func TestHeldMessagesAreTakenInSlices(t *testing.T) {
	w := newScript(t, func(c *Config) { c.AnnounceMembersMax = -1 })
	w.server.Server.On("slow", func(*Conn, *Message, *Server) (any, error) { return M{"type": "done"}, nil }, Offload())
	var c *Conn
	for range 600 {
		c = w.open(0)
		w.say(c, `{"type":"join","room":"r"}`)
	}
	w.read(c)
	const n = 100
	w.say(c, `{"type":"slow"}`)
	w.server.Serve(c, flood(n, func(i int) []byte { return masked(ws.OpText, fmt.Sprintf(`{"type":"members","room":"r","ref":%d}`, i)) }))
	w.server.Serve(c, masked(ws.OpText, `{"type":"leave","room":"r"}`))
	w.server.Offloaded()
	w.rung[0] = false
	w.server.Drain(0)
	if got := w.out[int(c.wire.Fd)].Len(); got > 100<<10 {
		t.Errorf("one turn answers with %d bytes", got)
	}
	w.drain()
	texts := w.read(c)
	if got := kinds(texts); got != "done"+strings.Repeat(" members", n)+" left" {
		t.Errorf("the client reads %s", got)
	}
}

// Messages that a peer sent before it hung up count, also those that were left to a later turn.
func TestKeptInputOutlivesItsPeer(t *testing.T) {
	w := newScript(t, nil)
	c, other := w.open(0), w.open(1)
	for _, x := range []*Conn{c, other} {
		w.say(x, `{"type":"join","room":"r"}`)
	}
	w.drain()
	w.read(other)
	chunk := masked(ws.OpText, `{"type":"members","room":"r"}`)
	chunk = append(chunk, masked(ws.OpText, `{"type":"members","room":"r"}`)...)
	w.server.Serve(c, append(chunk, masked(ws.OpText, `{"type":"broadcast","room":"r","data":1}`)...))
	w.server.Gone(c)
	w.drain()
	w.expect(other, "broadcast member_left")
}

// A connection that has claimed a session waits for the input that is kept for the session's connection, then takes over.
func TestTakeOverWaitsForKeptInput(t *testing.T) {
	w := newScript(t, nil)
	c, heir := w.open(0), w.open(1)
	w.say(c, `{"type":"join","room":"r"}`)
	shown := w.token(c)
	w.read(c)
	w.read(heir)
	chunk := masked(ws.OpText, `{"type":"members","room":"r"}`)
	chunk = append(chunk, masked(ws.OpText, `{"type":"members","room":"r"}`)...)
	w.server.Serve(c, append(chunk, masked(ws.OpText, `{"type":"join","room":"s"}`)...))
	w.say(heir, `{"type":"reconnect","token":"`+shown+`"}`)
	w.drain()
	w.expect(c, "members members joined close 4004")
	texts := w.expect(heir, "reconnected reconnect_token")
	if !strings.Contains(texts[0], `"rooms":["r","s"]`) {
		t.Error(texts[0])
	}
}

// Where a close frame stands behind what is kept, it is found there.
func TestCloseFrameBehindKeptInput(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	w.say(c, `{"type":"join","room":"r"}`)
	w.read(c)
	chunk := flood(5, func(int) []byte { return masked(ws.OpText, `{"type":"members","room":"r"}`) })
	w.server.Serve(c, append(chunk, masked(ws.OpClose, "\x03\xe8")...))
	w.drain()
	w.expect(c, "members members members members members close 1000")
	if c.Cause() != CausePeerClosed {
		t.Error(c.Cause())
	}
}

// Of answers that left in part, dropping the queue keeps the frame that has begun and no other.
func TestDroppedAnswersEndAtAFrame(t *testing.T) {
	for _, size := range []int{10, 200, 1 << 16} {
		for cut := range 3 {
			w := newScript(t, func(c *Config) { c.Bare = true })
			w.server.Server.OnRaw(func(_ *Conn, payload []byte, _ bool) []byte { return payload })
			c := w.open(0)
			w.read(c)
			chunk := masked(ws.OpText, strings.Repeat("a", size))
			one := len(chunk) - 4 // unmasked
			w.takes[int(c.wire.Fd)] = one + cut
			w.server.Serve(c, bytes.Repeat(chunk, 3))
			c.wire.DropQueue()
			want := 0
			if cut > 0 {
				want = one - cut
			}
			if w.server.Backlog(c) != want {
				t.Errorf("frames of %d bytes, %d of the second written: %d bytes stay, want %d", one, cut, w.server.Backlog(c), want)
			}
		}
	}
}

// A connection that is ended for reading too slowly, in the middle of a turn of its own, loses its latest answers: no answer
// behind a lost one leaves.
func TestSlowEndLosesWhatIsLatest(t *testing.T) {
	w := newScript(t, func(c *Config) {
		c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = 1<<10, 16<<10, 16<<10
	})
	c := w.open(0)
	w.read(c)
	w.takes[int(c.wire.Fd)] = 3000
	ping := func(i int) []byte { return masked(ws.OpText, fmt.Sprintf(`{"type":"ping","ref":%d}`, i)) }
	w.server.Serve(c, flood(100, ping))
	if !c.wire.Blocked {
		t.Fatal("the peer takes everything")
	}
	w.server.Serve(c, flood(2000, func(i int) []byte { return ping(100 + i) }))
	if c.Cause() != CauseSlow {
		t.Fatalf("ended by %v", c.Cause())
	}
	delete(w.takes, int(c.wire.Fd))
	w.server.Writable(c)
	w.drain()
	for i, text := range w.read(c) {
		if !strings.Contains(text, fmt.Sprintf(`"ref":%d}`, i)) && text != "close 4003" {
			t.Fatalf("answer %d is %s", i, text)
		}
	}
}
