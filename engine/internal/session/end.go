package session

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync/atomic"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// What a backend does to connections at an address, and to sessions that wait for a connection.
//
// Problem: when a session has been ended, no token of it may be good, wherever the session is: with a connection, in the
// memory of the worker that parked it, in the store, or on its way to an heir.
//
// Steps: each worker ends the sessions of its connections, then those that wait in its memory. An ended session is remembered:
// a claimant that puts it back does so in vain, and a worker that asks for it learns that it is over. The worker that asked
// goes through the store last ([Voider]): by then no connection at the address can park a session.

// EachAt calls step on the loop of each open connection of this worker at an address, some in each turn, and end on the last
// loop when all have had it. Any goroutine.
func (s *Sessions) EachAt(a *fleet.Address, step func(*Conn), end func()) {
	left := new(atomic.Int32)
	left.Store(1)
	done := func() {
		if left.Add(-1) == 0 {
			end()
		}
	}
	for i, list := range s.Rooms.ConnsAt(a) {
		if len(list) == 0 {
			continue
		}
		l := LoopOf(s.Rooms.Loops[i].Base())
		left.Add(1)
		l.PostCall(func() {
			l.InParts(len(list), func(i int) {
				if c := ConnOf(list[i]); c.IsOpen() {
					step(c)
				}
			}, done)
		})
	}
	done()
}

// Closing says how connections end.
type Closing struct {
	Cause  turn.Cause
	Code   ws.StatusCode
	Reason string
}

// CloseAt ends the connections of this worker at an address, and, where the question says so, their sessions and those that
// wait for a connection. answer gets the number of connections. later runs a function on a goroutine that may take its time.
// Any goroutine.
func (s *Sessions) CloseAt(q *fleet.CloseQuestion, how Closing, later func(func()) bool, answer func(closed int)) {
	closed := new(atomic.Int64)
	s.EachAt(&q.At, func(c *Conn) {
		closed.Add(1)
		if q.Session {
			c.loop().voidSession(c)
		}
		c.End(how.Cause, how.Code, how.Reason)
	}, func() {
		if !q.Session {
			answer(int(closed.Load()))
			return
		}
		later(func() {
			s.endWaiting(&q.At)
			answer(int(closed.Load()))
		})
	})
}

// voidSession ends the session of c, also if a connection has claimed it: then the claim may succeed, and cannot be undone.
func (l *Loop) voidSession(c *Conn) {
	if t := c.token; t != noToken && !l.endSession(c, nil) {
		l.Sessions.Memory.remember(l.Sessions.hashOf(t), l.Now)
	}
}

// endWaiting ends the sessions of this worker that wait for a connection, if they would be at the address with one.
func (s *Sessions) endWaiting(a *fleet.Address) {
	for _, key := range s.Memory.takeWaiting(func(p *parked) bool { return p.at(a) }) {
		s.Memory.remember(key, s.Rooms.Ground.Clock())
		s.dropStored(Key{s.Rooms.Link.Self, key}, nil)
	}
}

// takeWaiting takes parked sessions out, and returns their keys and those of matching sessions that are claimed. A session
// that another worker was told is that worker's.
func (s *Memory) takeWaiting(match func(*parked) bool) (keys []tokenHash) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		for key, p := range h.parked {
			if !p.lent && match(p) {
				keys = append(keys, key)
				h.drop(key)
			}
		}
		for key, x := range h.claims {
			if x.state != nil && match(x.state) {
				keys = append(keys, key)
			}
		}
		h.mu.Unlock()
	}
	return keys
}

// at reports whether the session's latest connection would be at an address, as the session keeps it.
func (p *parked) at(a *fleet.Address) bool {
	id := ident.ID{Worker: p.instance, Place: p.previous}
	switch {
	case slices.Contains(a.Except, id), slices.Contains(a.ExceptUsers, p.principal):
		return false
	case a.Everybody:
		return true
	case len(a.Rooms) > 0:
		return slices.ContainsFunc(a.Rooms, func(name string) bool { return slices.Contains(p.rooms, name) })
	case a.Key != "":
		i := p.attrs.find(a.Key)
		return i >= 0 && bytes.Equal(p.attrs.list[i].value, a.Value)
	case slices.Contains(a.Conns, id):
		return true
	}
	return p.principal != "" && slices.Contains(a.Users, p.principal)
}

// A Voider is a store apart that can delete sessions by their values.
type Voider interface {
	// Void deletes the sessions without a connection whose values match, those that are claimed when their claims have ended.
	// done gets nil when all are deleted, or [ErrAway], after which the store goes on.
	Void(match func(value []byte) bool, done func(error)) error
}

// VoidStored deletes the sessions in the store that wait for a connection and would be at an address with one. done gets what
// [Voider] says, at once where all sessions are in the memory of this worker. Any goroutine.
func (s *Sessions) VoidStored(a *fleet.Address, done func(error)) {
	v, ok := s.Store.(Voider)
	if !ok {
		done(nil)
		return
	}
	err := v.Void(func(value []byte) bool {
		p, err := decodeParked(value)
		return err == nil && p.at(a)
	}, done)
	if err != nil {
		done(err)
	}
}

// ChangeAttributes makes all changes or, if they exceed the bound, none. It returns the JSON of all attributes. The values are
// kept. Any goroutine. Errors: [ErrAttributesFull].
func (c *Conn) ChangeAttributes(change fleet.AttributesChange) ([]byte, error) {
	c.Mu.Lock()
	next := c.attrs.Load()
	early := !c.Admitted.Load()
	for _, key := range change.Remove {
		next = next.with(attribute{key: key})
	}
	for i, key := range change.Keys {
		next = next.with(attribute{key, change.Values[i], early, change.Granted})
	}
	full := next != nil && next.bytes > c.loop().Sessions.AttributesBytesMax
	if !full {
		c.attrs.Store(next)
	}
	c.Mu.Unlock()
	if full {
		return nil, ErrAttributesFull
	}
	c.PostChanged()
	all := map[string]json.RawMessage{}
	for _, x := range next.all() {
		all[x.key] = x.value
	}
	return message.Encode(nil, all)
}
