package engine

import (
	"encoding/base64"
	"log/slog"
	"time"

	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/figures"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/internal/users"
	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The floors below are assembled here: each gets its settings, and its functions from above.

// roomOptions are the options of all rooms of a server.
func roomOptions(s *Server) rooms.Options {
	of, _ := settings.ParseHistory(s.cfg.History) // it was checked
	return rooms.Options{MaxMembers: s.cfg.MaxConnectionsPerRoom, History: of, Linger: s.cfg.ReconnectionTTL, Epoch: func() string {
		var b [8]byte
		s.entropy(b[:])
		return base64.RawURLEncoding.EncodeToString(b[:])
	}}
}

// layFloors makes the floors between the transport and the application, and gives each its functions from above.
func (s *Server) layFloors(self ident.Worker) {
	up := above{s}
	s.rooms = &fanout.Rooms{Ground: &s.ground, Index: rooms.NewIndex(s.cfg.Loops, roomOptions(s)),
		Users: new(users.Index), Seats: fanout.OwnSeats{}, Count: &s.count, RoomsMax: s.cfg.MaxRoomsPerConnection}
	s.rooms.Created = fanout.OwnRooms{Rooms: s.rooms}
	s.link = fleet.NewLink(self, s.cfg.Loops, fleet.Above{Clock: s.time.Now, Answer: up.answer, Untold: s.rooms.Untold})
	s.waits = pending.Above{NewRare: session.NewRare, Next: session.Next}
	s.rooms.Link = s.link
	s.rooms.Above = fanout.Above{
		AnnounceMax: func() int { return s.tuned.Load().announceMax },
		ShowUsers:   func() bool { return !s.tuned.Load().cfg.HideUsers },
		User:        func(x *fanout.Conn) string { return session.ConnOf(x.Wire()).User() },
		Stopped:     func() bool { return s.state.Load() == stateStopped },
		Missed: func(from ident.Worker) {
			s.emit(Event{Kind: EventError, Err: &MissedError{from.Instance()}})
		},
		Entered:      up.moved(EventRoomJoin),
		Left:         up.moved(EventRoomLeave),
		Proved:       func(c *fanout.Conn) { session.LoopOf(c.Loop).Changed(session.ConnOf(c.Wire())) },
		Figures:      func() fleet.FigureSet { return s.figures.Told() },
		Answer:       up.answerJoin,
		Entropy:      func(b []byte) { s.entropy(b) },
		HasAttribute: session.HasAttribute,
	}
	s.sessions = session.New(s.rooms, session.Options{
		TTL: s.cfg.ReconnectionTTL, AttemptsMax: s.cfg.ReconnectionMaxAttempts, AttributesBytesMax: s.cfg.AttributesBytesMax,
		Entropy: func(b []byte) { s.entropy(b) },
		Wall:    s.time.Wall,
	}, session.Above{Resumed: up.resumed, Ended: up.ended, Dispatch: up.dispatchHeld, MayReturn: up.mayReturn})
	s.budget = &budget.Budget{Limit: int64(s.cfg.MemoryBytesMax), Rooms: s.rooms, Sessions: s.sessions}
	if s.budget.Limit == 0 {
		s.budget.Limit = budget.Usable() / 2 / int64(s.cfg.Processes)
	}
	s.figures = figures.Source{Rooms: s.rooms, Budget: s.budget, Sessions: s.sessions, Uptime: func() time.Duration { return time.Duration(s.time.Now()) }, ConnectionsMax: func() uint64 {
		if s.state.Load() < stateRunning || s.worker.Clientless {
			return 0
		}
		return uint64(s.connectionsMax)
	}, Auth: func() uint64 { return figures.Demand(s.authHandler.Load() != nil, s.authOptional.Load()) }}
	s.worker = &membership.Worker{Link: s.link, Rooms: s.rooms, Sessions: s.sessions, Above: membership.Above{
		Chooser: func(kind fleet.Kind, key string, value []byte) func(*fanout.Conn) bool {
			return s.chooser(asked{kind, key, value})
		},
		Event:      up.hearEvent,
		Survive:    func(where string, v any) { s.guard.Survive(where, nil, v) },
		MustReturn: s.guard.MustReturn,
		Skipped:    func() { s.count[figures.CountSkipped].Add(1) },
		Later:      func(f func()) bool { return s.pools.Answering.Submit(f) },
		Stats:      func() any { return s.StatsHere() },
		Facts:      func(c *fanout.Conn) any { return connOf(c.Wire()).Facts() },
	}}
}

// Worker is the server as one of several workers: package cluster joins workers by it.
func (s *Server) Worker() *membership.Worker { return s.worker }

// above is the application's floor, as the floors below call it.
type above struct{ *Server }

// answer answers a worker's question: [fleet.Above] says how.
func (s above) answer(v fleet.Verb, question []byte, answer func([]byte)) (known bool) {
	return s.worker.Answer(v, question, answer)
}

// moved does what follows the entry of a connection into a room, or its exit.
func (s above) moved(kind EventKind) func(x *fanout.Conn, r *rooms.Room) {
	return func(x *fanout.Conn, r *rooms.Room) {
		c := connOf(x.Wire())
		c.loop().Changed(&c.wire)
		s.emit(Event{Kind: kind, Conn: c, Room: r.Name()})
	}
}

// answerJoin tells the caller of [Rooms.JoinThen] the outcome. A panic there costs the connection.
func (s above) answerJoin(x *fanout.Conn, done func(error), err error) {
	c := connOf(x.Wire())
	if s.guard.Run("JoinThen", c.pending(), func() error { done(err); return nil }) != nil {
		c.wire.EndBy(CausePanic)
	}
}

// resumed does what follows a resume.
func (s above) resumed(x *session.Conn, answer *message.Reconnected, attempts int) {
	s.emit(Event{Kind: EventReconnect, Conn: connOf(x.Wire()), Session: &Session{
		PreviousConnectionID: string(answer.Previous), Rooms: answer.Rooms, Attempts: attempts}})
}

// ended does what follows the end of a connection that is out of all its rooms.
func (s above) ended(x *session.Conn, cause Cause, token string) {
	s.emit(Event{Kind: EventDisconnect, Conn: connOf(x.Wire()), Cause: cause, Token: token})
}

// dispatchHeld takes a message that has waited to its handler.
func (s above) dispatchHeld(x *session.Conn, binary bool, payload []byte) {
	c := connOf(x.Wire())
	c.loop().dispatch(c, binary, payload)
}

// layGround sets the transport's settings and callbacks.
func (s *Server) layGround() {
	cfg, g := &s.cfg, &s.ground
	g.Clock, g.Log = s.time.Now, s.log
	g.Tick = turn.TickFor(cfg.HeartbeatInterval, cfg.HeartbeatTimeout-cfg.HeartbeatInterval,
		cfg.HandshakeTimeout, cfg.AuthTimeout, cfg.OffloadTimeout, cfg.BacklogGrace)
	g.NewConn, g.Departed, g.Seconds = newConn, func(c *turn.Conn) { c.Loop.Load.Add(-1); g.LeaveCrowd(c) }, s.time.Seconds
	g.Survive = s.guard.Survive
	g.Heartbeat = turn.RoomsHeartbeat
	if cfg.Bare {
		g.Heartbeat = turn.BareHeartbeat
	}
	g.Beats.Store(turn.NewBeats(cfg.HeartbeatInterval, cfg.HeartbeatTimeout))
	s.admit(cfg)
	g.Limits = turn.Limits{
		Frame:     frame.Limits{MessageBytes: int64(cfg.MessageBytesMax), Fragments: cfg.MessageFragmentsMax},
		Head:      handshake.Limits{Bytes: cfg.HandshakeBytesMax, Headers: cfg.HandshakeFieldsMax},
		Handshake: cfg.HandshakeTimeout,
		Owner:     cfg.OffloadTimeout,
		Early:     s.pendingBytesMax,
		Answers:   min(cfg.BacklogSoftBytes, cfg.BacklogHardBytes/2, answersBytesMost),
		Soft:      cfg.BacklogSoftBytes,
		Hard:      cfg.BacklogHardBytes,
		Grace:     cfg.BacklogGrace,

		Preface:      cfg.ProxyProtocol,
		ProxyHeader:  cfg.ProxyHeader,
		Subprotocols: cfg.Subprotocols,
		Compression:  cfg.Compression,
		Deflate:      deflate.Options{ContextTakeover: cfg.CompressionContextTakeover},
	}
}

// walkLocks takes and frees every lock that code on a loop takes.
func (s *Server) walkLocks() {
	s.rooms.WalkLocks()
	s.ground.Crowds.Addresses()
	s.sessions.Memory.Parked()
	s.mu.Lock()
	s.mu.Unlock()
	for _, p := range s.pools.All() {
		p.Waits()
	}
}

// GuardLog returns a logger like l. A panic in its handler loses the record, and is counted by the server. Any goroutine.
func (s *Server) GuardLog(l *slog.Logger) *slog.Logger { return s.guard.Log(l) }
