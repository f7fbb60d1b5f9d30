package engine

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// A drain closes the clients evenly over its time, with the code that says come back; until then they are served. Their
// sessions wait.
func TestDrainOverTime(t *testing.T) {
	const clients, over = 200, 10 * time.Second
	w := newScript(t, nil)
	var list []*Conn
	for i := range clients {
		list = append(list, w.open(i%2))
	}
	left := func() (n int) {
		for _, c := range list {
			if c.isOpen() {
				n++
			}
		}
		return n
	}
	token, loops := w.token(list[0]), 0
	w.server.DrainOver(over, func() { loops++ })
	for step := range 10 {
		w.pass(over / 10)
		w.drain()
		if n, want := left(), clients-clients*(step+1)/10; n < want-2 || n > want+4 {
			t.Errorf("after %d s %d clients are left, want about %d", step+1, n, want)
		}
		if step == 4 {
			last := list[clients-1]
			w.read(last)
			w.say(last, `{"type":"ping"}`)
			w.drain()
			w.expect(last, "pong")
		}
	}
	w.pass(time.Second)
	w.drain()
	if left() != 0 || loops != 2 {
		t.Errorf("%d clients are left, %d of 2 loops have told the last", left(), loops)
	}
	if cause, text := list[1].Cause(), strings.Join(w.read(list[1]), " "); cause != CauseDrain || !strings.Contains(text, "1012") {
		t.Errorf("closed for %v: %s", cause, text)
	}
	heir := w.open(0)
	if got := w.resumes(heir, token); !strings.Contains(got, `"reconnected"`) {
		t.Error("the session is lost:", got)
	}
}

// A client in the middle of its opening handshake is told to try again: the drain is no failure.
func TestDrainRefusesHandshakes(t *testing.T) {
	w := newScript(t, nil)
	wire := 0
	w.out[wire] = new(bytes.Buffer)
	c := w.server.Open(0, wire)
	w.server.Serve(c, []byte("GET / HTTP/1.1\r\nHost: x\r\n"))
	w.server.DrainOver(time.Second, func() {})
	w.drain()
	w.pass(2 * time.Second)
	w.drain()
	if got := w.out[wire].String(); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Retry-After") {
		t.Errorf("the client reads %q", got)
	}
}
