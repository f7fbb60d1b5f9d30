package sim

import "github.com/parleyd/parley/engine"

// socket is one simulated connection: two byte streams and the kernel's knowledge of them.
//
// Owner: the simulation.
type socket struct {
	wire   int
	conn   *engine.Conn
	client *client

	up   []byte // on its way to the server
	down []byte // taken from the server, not yet read by the client
	room int    // bytes that down may hold

	watched  bool // the server waits for down to take bytes again
	cut      bool // reset: writes fail, nothing arrives any more
	upEnd    bool // the client's half is ended, behind up
	downEnd  bool // the server's half is ended, behind down
	dropped  bool // the server closed it
	departed bool // and was told so
	torn     bool // some bytes never arrive
}

// Write is the kernel's side of a write: it takes as many bytes as fit, or fewer.
func (w *World) Write(wire int, p []byte) (n int, alive bool) {
	s := w.sockets[wire]
	switch {
	case s.dropped || s.departed:
		w.complain("stream", "%d bytes are written to wire %d after it was closed", len(p), wire)
		return 0, false
	case s.downEnd:
		w.complain("stream", "%d bytes are written to wire %d after its half was shut", len(p), wire)
		return 0, false
	case s.cut:
		return 0, false
	}
	n = min(len(p), s.room-len(s.down))
	if n > 0 && w.chance(w.plan.shortWrites) {
		n = w.rand.IntN(n + 1)
	}
	s.down = append(s.down, p[:n]...)
	w.meanwhile()
	return n, true
}

// Shutdown ends the server's half.
func (w *World) Shutdown(wire int) { w.sockets[wire].downEnd = true }

// Drop closes the wire: at once, or in a later step.
func (w *World) Drop(wire int) {
	s := w.sockets[wire]
	s.dropped = true
	if w.chance(0.5) {
		w.depart(s)
	}
}

// Watch makes the world tell the server, in a step of its own, when down takes bytes again.
func (w *World) Watch(wire int) { w.sockets[wire].watched = true }

// depart tells the server that a wire is closed.
func (w *World) depart(s *socket) {
	if !s.departed {
		s.departed = true
		s.client.goneAt = w.now
		s.up, s.watched = nil, false
		w.tracef("wire %d is closed", s.wire)
		w.server.Gone(s.conn)
	}
}

// takes reports whether a watched wire would take bytes, or fail at once.
func (s *socket) takes() bool {
	return s.watched && !s.departed && !s.dropped && (s.cut || len(s.down) < s.room)
}
