package engine

import (
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// Figures that workers tell each other: those of the seed's getStats. Loop 0 tells the connections and rooms of its worker
// with the tick after a change, and all figures once a second. A worker that has started, or has missed messages, gets them
// with the counts of rooms. So a caller does not wait, and the figures are right one tick after the last change.

const sayFiguresEvery = time.Second

// figures are the figures of one worker.
//
// Owner: immutable.
type figures struct {
	connections, rooms     int64 // rooms: those that this worker counts, so that the sum has each room once
	sent, received, memory uint64
	uptime                 int64 // seconds
}

// figuresAway are the figures of the other workers.
//
// Owner: shared (mutex: peers.mu), except told and toldAt: loop 0.
type figuresAway struct {
	by          map[ident.Worker]figures
	connections atomic.Int64 // of all of them
	told        figures
	toldAt      int64
}

// figuresHere returns this worker's figures.
func (s *Server) figuresHere() figures {
	f := figures{connections: s.live.Load(), rooms: int64(s.index.Counted(s.lowest())), memory: memoryUsage(), uptime: int64(s.uptime().Seconds())}
	f.sent, f.received = total(s, turn.CountSent), total(s, turn.CountReceived)
	return f
}

// reportFigures tells the other workers changed figures. It runs on loop 0.
func (l *loop) reportFigures() {
	s := l.srv
	known := &s.peers.figures
	changed := known.told.connections != s.live.Load() || known.told.rooms != int64(s.index.Counted(s.lowest()))
	if changed || l.Now-known.toldAt >= int64(sayFiguresEvery) {
		known.told, known.toldAt = s.figuresHere(), l.Now
		l.sayFigures(0, known.told)
	}
}

// sayFigures tells figures to a worker, or to all, at the end of the turn.
func (l *loop) sayFigures(target ident.Worker, f figures) {
	l.Owes.Flush = true
	l.srv.peers.say(false, &fleet.Entry{Kind: fleet.Figures, Target: target, Body: fleet.Body{Figures: fleet.FigureSet{
		Connections: uint64(f.connections), Rooms: uint64(f.rooms), Sent: f.sent, Received: f.received, Memory: f.memory, Uptime: uint64(f.uptime)}}})
}

func (s *Server) receiveFigures(from ident.Worker, h *fleet.Heard) {
	const most = 1 << 40 // so that sums do not overflow, whatever another worker sends
	x := &h.Figures
	s.noteFigures(from, &figures{connections: int64(min(x.Connections, most)), rooms: int64(min(x.Rooms, most)),
		sent: x.Sent, received: x.Received, memory: min(x.Memory, most), uptime: int64(min(x.Uptime, most))})
}

// noteFigures keeps the figures of another worker; f is nil if the worker is gone.
func (s *Server) noteFigures(from ident.Worker, f *figures) {
	p := s.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	known := &p.figures
	before := known.by[from].connections
	if f == nil {
		delete(known.by, from)
		known.connections.Add(-before)
		return
	}
	if known.by == nil {
		known.by = map[ident.Worker]figures{}
	}
	known.by[from] = *f
	known.connections.Add(f.connections - before)
}

// addFigures adds the figures of the other workers.
func (s *Server) addFigures(to *Stats) {
	p := s.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	to.Rooms = to.RoomsCounted
	for _, f := range p.figures.by {
		to.Connections += int(f.connections)
		to.Rooms += int(f.rooms)
		to.MessagesSent += f.sent
		to.MessagesReceived += f.received
		to.MemoryUsage += f.memory
		to.Uptime = max(to.Uptime, f.uptime)
	}
}
