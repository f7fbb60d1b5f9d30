package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// paced is a script whose connections may send ten messages a second, three at once.
func paced(t testing.TB, strikes int) *script {
	return newScript(t, func(c *Config) { c.MessageRate, c.MessageBurst, c.MessageStrikes = 10, 3, strikes })
}

// A message over the rate is answered with its ref and not carried out, whatever it is, and later ones are.
func TestMessageRate(t *testing.T) {
	w := paced(t, 0)
	c := w.open(0)
	for range 3 {
		w.say(c, `{"type":"ping"}`)
	}
	w.expect(c, "connected reconnect_token pong pong pong")
	w.say(c, `{"type":"join","room":"r","ref":"j1"}`)
	w.say(c, `no JSON`)
	w.server.Serve(c, masked(ws.OpBinary, "\x00"))
	w.server.Serve(c, masked(ws.OpPing, "")) // it is no message
	for i, text := range w.expect(c, "error error error") {
		if !strings.Contains(text, `"code":"rate_limited"`) || strings.Contains(text, `"ref":"j1"`) != (i == 0) {
			t.Error(text)
		}
	}
	if n := len(c.Rooms()); n != 0 || c.Cause() != CauseNone {
		t.Errorf("it is in %d rooms, and has ended because of %v", n, c.Cause())
	}
	w.pass(time.Second)
	w.say(c, `{"type":"join","room":"r"}`)
	w.expect(c, "joined")
	if s := w.server.Server.Stats(); s.RateExceeded != 3 || s.Errors != 3 {
		t.Errorf("%d messages are counted as over the rate, %d as errors", s.RateExceeded, s.Errors)
	}
}

// A message in frames is one, and is counted when it is whole.
func TestFragmentsAreOneMessage(t *testing.T) {
	w := paced(t, 1)
	c := w.open(0)
	for range 3 {
		for i, part := range []string{`{"ty`, `pe":"p`, `ing"}`} {
			op := ws.OpContinuation
			if i == 0 {
				op = ws.OpText
			}
			f := ws.MaskFrame(ws.NewFrame(op, i == 2, []byte(part)))
			raw, err := ws.CompileFrame(f)
			if err != nil {
				t.Fatal(err)
			}
			w.server.Serve(c, raw)
		}
	}
	w.expect(c, "connected reconnect_token pong pong pong")
}

// Refusals come in the order of the messages, also where an earlier answer is awaited.
func TestRefusalsKeepTheOrder(t *testing.T) {
	w := paced(t, 0)
	w.server.Server.On("slow", func(*Conn, *Message, *Server) (any, error) { return M{"type": "slow"}, nil }, Offload())
	c := w.open(0)
	w.expect(c, "connected reconnect_token")
	w.say(c, `{"type":"slow"}`)
	w.say(c, `{"type":"ping"}`)
	w.say(c, `{"type":"ping"}`)
	w.say(c, `{"type":"ping","ref":4}`)
	w.pass(100 * time.Millisecond)
	w.say(c, `{"type":"ping","ref":5}`)
	w.expect(c, "")
	for w.server.Offloaded() {
		w.drain()
	}
	got := w.expect(c, "slow pong pong error pong")
	if !strings.Contains(got[3], `"ref":4`) || !strings.Contains(got[4], `"ref":5`) {
		t.Error(got)
	}
}

// Before the authentication the rate holds, too, and the strikes end the connection with 4005.
func TestRateBeforeAuthentication(t *testing.T) {
	w := paced(t, 2)
	w.server.Server.OnAuth(func(*Conn, string) error { return nil })
	c := w.open(0)
	for range 5 {
		w.say(c, `{"type":"join","room":"r"}`)
	}
	if c.Cause() != CauseRateLimited {
		t.Error("it has ended because of", c.Cause())
	}
	if n := w.server.Server.Stats().Ended["rate_limited"]; n != 1 {
		t.Errorf("%d such ends are counted", n)
	}
}

// Messages that came while the server was stopped are carried out: as many as could come in that time.
func TestStallIsNoFlood(t *testing.T) {
	for _, tickFirst := range []bool{true, false} {
		w := paced(t, 1)
		c := w.open(0)
		w.pass(time.Second)
		w.now += 5 * time.Second
		if tickFirst {
			w.server.Tick()
			w.drain()
		}
		for range 50 {
			w.say(c, `{"type":"ping"}`)
		}
		if c.Cause() != CauseNone {
			t.Errorf("tick first: %v: it has ended because of %v", tickFirst, c.Cause())
		}
		for range 10 {
			w.say(c, `{"type":"ping"}`)
		}
		if c.Cause() != CauseRateLimited {
			t.Error("a flood passes after a stall")
		}
	}
}

// Without a rate no connection has a record of it; with one, a turn allocates nothing, and a silent connection loses its record.
func TestRecordsOfTheRate(t *testing.T) {
	off := newScript(t, nil)
	c := off.open(0)
	off.say(c, `{"type":"ping"}`)
	if c.wire.Wire().Rare != nil {
		t.Errorf("without a rate it has %+v", c.wire.Wire().Rare)
	}
	on := newScript(t, func(c *Config) { c.MessageRate, c.HeartbeatInterval = 1_000_000, time.Second })
	c = on.open(0)
	on.say(c, `{"type":"ping"}`)
	if c.wire.Wire().Rare == nil {
		t.Error("with a rate it has no record")
	}
	on.mute = true
	if got := turnAllocations(on, c, masked(ws.OpText, `{"type":"ping"}`)); got > 0 && !raceEnabled {
		t.Errorf("%v allocations for a message", got)
	}
	over := newScript(t, func(c *Config) { c.MessageRate = 1 })
	flooder := over.open(0)
	over.mute = true
	if got := turnAllocations(over, flooder, masked(ws.OpText, `{"type":"ping","ref":1}`)); got > 0 && !raceEnabled {
		t.Errorf("%v allocations for a message over the rate", got)
	}
	on.pass(1500 * time.Millisecond)
	if c.wire.Wire().Rare != nil {
		t.Errorf("in silence it has %+v", c.wire.Wire().Rare)
	}
}

// Without the envelope a message over the rate is discarded, and the strikes end the connection all the same.
func TestBareRate(t *testing.T) {
	w := newScript(t, func(c *Config) { c.Bare, c.MessageRate, c.MessageBurst, c.MessageStrikes = true, 10, 2, 3 })
	heard := 0
	w.server.Server.OnRaw(func(*Conn, []byte, bool) []byte { heard++; return nil })
	c := w.open(0)
	for i, want := range []Cause{CauseNone, CauseNone, CauseNone, CauseNone, CauseRateLimited} {
		w.say(c, "x")
		if c.Cause() != want {
			t.Errorf("after message %d: %v", i+1, c.Cause())
		}
	}
	if heard != 2 {
		t.Errorf("the handler has heard %d messages", heard)
	}
}

// A reload changes the rate of connections that are there.
func TestRateIsReloaded(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	reload := func(change func(*Config)) {
		cfg := w.server.Server.Config()
		change(&cfg)
		if fixed, err := w.server.Server.Reload(cfg); err != nil || len(fixed) > 0 {
			t.Fatal(fixed, err)
		}
	}
	reload(func(c *Config) { c.MessageRate, c.MessageBurst = 1, 1 })
	w.say(c, `{"type":"ping"}`)
	w.say(c, `{"type":"ping"}`)
	w.expect(c, "connected reconnect_token pong error")
	reload(func(c *Config) { c.MessageRate, c.MessageBurst = 0, 0 })
	w.say(c, `{"type":"ping"}`)
	w.expect(c, "pong")
}

// Over a socket: so many refusals, then 4005, and the session waits.
func TestRateOverLoopback(t *testing.T) {
	s := startServer(t, func(c *Config) { c.MessageRate, c.MessageBurst, c.MessageStrikes = 1, 2, 3 }, nil)
	c := dial(t, s)
	for range 5 {
		if err := wsutil.WriteClientText(c.conn, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"pong", "pong", "error", "error", "error"} {
		c.expect(want)
	}
	if code := c.expectClose(); code != StatusRateLimited {
		t.Errorf("closed with %d", code)
	}
	again := dial(t, s)
	again.send(`{"type":"reconnect","token":"` + c.token + `"}`)
	again.expect("reconnected")
}

// BenchmarkRate measures a message of a turn, with and without a rate.
func BenchmarkRate(b *testing.B) {
	for name, rate := range map[string]int{"off": 0, "on": 1_000_000} {
		w := newScript(b, func(c *Config) { c.Bare, c.MessageRate = true, rate })
		w.server.Server.OnRaw(func(_ *Conn, payload []byte, _ bool) []byte { return payload })
		c := w.open(0)
		w.mute = true
		frames := []byte(strings.Repeat(string(masked(ws.OpText, strings.Repeat("x", 64))), 16))
		chunk := make([]byte, len(frames))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.now += 16 * time.Microsecond
				copy(chunk, frames)
				w.server.Serve(c, chunk)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*16), "ns/message")
		})
	}
}
