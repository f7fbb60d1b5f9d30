package engine

import (
	"bytes"
	"testing"
	"time"
)

// stall lets time pass in which no loop looks, and then has the tick come first.
func (w *script) stall(d time.Duration) {
	w.now += d
	w.server.Tick()
	w.drain()
}

// A stall of the server counts against no client: one that answered lives, and one that did not has the rest of its time.
func TestStallIsNobodysSilence(t *testing.T) {
	w := newScript(t, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Second, 3*time.Second })
	answers, silent := w.open(0), w.open(1)
	w.pass(2500 * time.Millisecond)
	w.stall(10 * time.Second)
	if answers.Cause() != CauseNone || silent.Cause() != CauseNone {
		t.Fatal("the stall is held against", answers.Cause(), silent.Cause())
	}
	if !answers.Alive() {
		t.Error("it is not alive")
	}
	w.say(answers, "pong") // it lay unread
	w.pass(1000 * time.Millisecond)
	if answers.Cause() != CauseNone || silent.Cause() != CauseHeartbeat {
		t.Error("who answers:", answers.Cause(), "who does not:", silent.Cause())
	}
	if n := w.server.Server.Stats().Stalls; n != 2 {
		t.Errorf("%d stalls of 2 loops are counted", n)
	}
}

// Nor does one before the loop's first tick.
func TestStallBeforeTheFirstTick(t *testing.T) {
	w := newScript(t, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Second, 3*time.Second })
	w.out[0] = new(bytes.Buffer)
	c := w.server.Open(0, 0)
	w.server.Serve(c, []byte(wholeHead))
	w.stall(10 * time.Second)
	if c.Cause() != CauseNone {
		t.Fatal("the stall is held against it:", c.Cause())
	}
}

// Nor does it count toward any other time that a peer has.
func TestStallMovesDeadlines(t *testing.T) {
	const d = 20 * time.Second
	for _, way := range []struct {
		name  string
		begin func(w *script) *Conn
		end   Cause
		wait  time.Duration
	}{
		{"handshake", func(w *script) *Conn {
			c, _ := w.arrive(proxyAddress, halfRequest, 0)
			return c
		}, CauseHandshake, 5 * time.Second},
		{"authentication", func(w *script) *Conn {
			w.server.Server.OnAuth(func(*Conn, string) error { return nil })
			return w.open(0)
		}, CauseUnauthorized, 5 * time.Second},
		{"verdict", func(w *script) *Conn {
			w.server.Server.OnConnect(admit)
			c, _ := w.arrive(proxyAddress, wholeRequest, 0)
			return c
		}, CauseHandshake, 10 * time.Second},
		{"backlog", func(w *script) *Conn {
			w.pass(time.Second)
			c := w.open(0)
			w.takes[int(c.wire.Fd)] = 0
			for range 2 { // the first is being written, the second waits
				c.Send(M{"pad": string(make([]byte, 40<<10))})
			}
			w.drain()
			return c
		}, CauseSlow, 8 * time.Second},
	} {
		t.Run(way.name, func(t *testing.T) {
			w := newScript(t, func(c *Config) {
				c.HandshakeTimeout, c.AuthTimeout, c.OffloadTimeout, c.BacklogGrace = 5*time.Second, 5*time.Second, 10*time.Second, 8*time.Second
				c.BacklogSoftBytes = 1 << 10
			})
			c := way.begin(w)
			w.pass(way.wait - time.Second)
			w.stall(d)
			w.pass(500 * time.Millisecond)
			if c.Cause() != CauseNone {
				t.Fatal("the stall counts:", c.Cause())
			}
			w.pass(time.Second)
			if c.Cause() != way.end {
				t.Error("the rest of the time does not end:", c.Cause())
			}
		})
	}
}

// The time of a stall does not count toward the time that a session waits.
func TestStallEndsNoSession(t *testing.T) {
	w := newScript(t, func(c *Config) { c.ReconnectionTTL = 5 * time.Second })
	first, second := w.open(0), w.open(0)
	heir, late := w.open(1), w.open(1)
	tokens := []string{w.token(first), w.token(second)}
	w.server.Gone(first)
	w.server.Gone(second)
	w.pass(4 * time.Second)
	w.read(heir)
	w.read(late)
	w.now += time.Minute
	w.say(heir, `{"type":"reconnect","token":"`+tokens[0]+`"}`) // before the tick
	w.expect(heir, "reconnected reconnect_token")
	w.server.Tick()
	w.drain()
	w.pass(500 * time.Millisecond)
	if n := w.server.Server.Stats().Sessions; n != 1 {
		t.Fatalf("%d sessions wait, want 1", n)
	}
	w.pass(time.Second)
	if n := w.server.Server.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions wait after their time", n)
	}
	w.read(late)
	w.say(late, `{"type":"reconnect","token":"`+tokens[1]+`"}`)
	w.expect(late, "error")
}
