package engine_test

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// world is a kernel of the example's making: wires that take everything, and a clock that is moved by hand.
//
// Owner: the example.
type world struct {
	now  time.Duration
	out  map[int]*bytes.Buffer
	rung map[int]bool
	seed byte
}

func (w *world) Now() time.Duration { return w.now }

func (w *world) Entropy(b []byte) {
	for i := range b {
		w.seed++
		b[i] = w.seed
	}
}

func (w *world) Write(wire int, p []byte) (int, bool) {
	w.out[wire].Write(p)
	return len(p), true
}

func (w *world) Shutdown(int) {}

func (w *world) Drop(wire int) {}

func (w *world) Watch(int) {}

func (w *world) Ring(loop int) { w.rung[loop] = true }

// drain gives loops the turns that they ask for.
func (w *world) drain(x *engine.Lockstep) {
	for len(w.rung) > 0 {
		for loop := range w.rung {
			delete(w.rung, loop)
			x.Drain(loop)
		}
	}
}

// pass lets time pass, tick by tick.
func (w *world) pass(x *engine.Lockstep, d time.Duration) {
	for until := w.now + d; w.now < until; w.now += x.TickEvery() {
		x.Tick()
		w.drain(x)
	}
}

// sent are the texts that a wire was given since the last time.
func (w *world) sent(wire int) (list []string) {
	raw := w.out[wire]
	for raw.Len() > 0 {
		f, err := ws.ReadFrame(raw)
		if err != nil {
			log.Fatal(err)
		}
		list = append(list, string(f.Payload))
	}
	return list
}

// An application is tested without sockets and without waiting: a minute takes no time, and every run is the same.
func ExampleLockstep() {
	w := &world{out: map[int]*bytes.Buffer{0: {}}, rung: map[int]bool{}}
	x, err := engine.NewLockstep(engine.Config{Loops: 1}, w, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		log.Fatal(err)
	}
	x.Server.On("time", func(_ *engine.Conn, _ *engine.Message, _ *engine.Server) (any, error) {
		return engine.M{"type": "time", "seconds": w.now.Seconds()}, nil
	})

	c := x.Open(0, 0) // a client on loop 0, whose wire is number 0
	x.Serve(c, []byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	w.drain(x)
	w.out[0].Reset() // the answer to the handshake, and the greeting

	say := func(text string) {
		var frame bytes.Buffer
		ws.WriteFrame(&frame, ws.MaskFrame(ws.NewTextFrame([]byte(text))))
		x.Serve(c, frame.Bytes())
		w.drain(x)
	}
	say(`{"type":"time"}`)
	w.pass(x, 10*time.Second)
	say(`{"type":"time"}`)
	fmt.Println(w.sent(0))

	for c.Cause() == engine.CauseNone { // the client says nothing more, and answers no ping
		w.pass(x, x.TickEvery())
	}
	fmt.Println(c.Cause(), "after", w.now.Round(time.Second))
	// Output:
	// [{"seconds":0,"type":"time"} {"seconds":10,"type":"time"}]
	// heartbeat after 1m10s
}
