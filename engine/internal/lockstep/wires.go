// Package lockstep has the wires of a server whose loops take their turns when a test or a simulation tells them to.
//
// What it refuses to do: it takes no turn itself, and it knows no kernel.
//
// Start reading at World.
package lockstep

import (
	"errors"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
)

// World replaces the kernel and the reactor for the loops of a server in lockstep. A wire is the number under which
// engine.Lockstep.Open was given a connection. The methods are called in the middle of a turn; they may take turns of other
// loops, never of the calling one.
type World interface {
	// Now is the time since the server's start.
	Now() time.Duration
	// Entropy fills b with random bytes.
	Entropy(b []byte)
	// Write takes some of p, all or nothing. alive is false if the transport has failed. p is borrowed.
	Write(wire int, p []byte) (n int, alive bool)
	// Shutdown ends our half of the stream.
	Shutdown(wire int)
	// Drop closes the transport. engine.Lockstep.Gone follows, perhaps before Drop returns.
	Drop(wire int)
	// Watch asks for engine.Lockstep.Writable once Write would take bytes again.
	Watch(wire int)
	// Ring asks for engine.Lockstep.Drain.
	Ring(loop int)
}

// Wires passes a loop's calls on to the world.
type Wires struct {
	World World
	Loop  *turn.Loop
}

// Connect gives a loop its wires. sends is the setting of that name; only with ring the loop writes as it does where the kernel takes
// writes to several connections together.
func Connect(w World, l *turn.Loop, sends string) {
	l.Wires = &Wires{World: w, Loop: l}
	if sends == "ring" {
		l.GroupMax = turn.FlushGroupTogether
	}
}

var (
	errWireFull   = errors.New("the wire is full")
	errWireFailed = errors.New("the wire is cut")
)

// Write passes a write on.
func (w *Wires) Write(fd int, p []byte) (int, error) {
	n, alive := w.World.Write(fd, p)
	switch {
	case !alive:
		return -1, errWireFailed
	case n == 0 && len(p) > 0:
		return -1, errWireFull
	}
	return n, nil
}

// Writev passes writes on, until the wire is full.
func (w *Wires) Writev(fd int, ps [][]byte) (int, error) {
	total := 0
	for _, p := range ps {
		n, err := w.Write(fd, p)
		if err != nil && total == 0 {
			return -1, err
		}
		total += max(n, 0)
		if n < len(p) {
			break
		}
	}
	return total, nil
}

// Send passes writes on, one by one.
func (w *Wires) Send(list []turn.Send) {
	for i := range list {
		list[i].N, list[i].Err = w.Write(list[i].Fd, list[i].Bytes)
		list[i].N = max(list[i].N, 0)
	}
}

// Again reports whether the wire was full.
func (w *Wires) Again(err error) bool { return err == errWireFull }

// Shutdown ends our half of the stream.
func (w *Wires) Shutdown(fd int) { w.World.Shutdown(fd) }

// Drop is as the reactor's: a connection that is being served is dropped when its turn is over.
func (w *Wires) Drop(c *turn.Conn) {
	if c != w.Loop.Served {
		w.World.Drop(int(c.Fd))
	}
}

// Watch asks for a call once the wire takes bytes again.
func (w *Wires) Watch(c *turn.Conn) { w.World.Watch(int(c.Fd)) }

// RingIn does nothing: the world asks engine.Lockstep.Alarm.
func (w *Wires) RingIn(time.Duration) {}

// Ring asks for a drain.
func (w *Wires) Ring() { w.World.Ring(int(w.Loop.Index)) }
