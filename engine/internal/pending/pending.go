package pending

import (
	"bytes"
	"time"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// Kind says what is waited for.
type Kind uint8

// The kinds.
const (
	Verdict Kind = iota // connect handlers
	Auth                // the auth handler
	Handler             // an offloaded handler
	Claim               // the store or the owner of a session that is claimed
	Letters             // the letters that are posted for the connection
	Members             // other workers, for a room's members
	Seat                // seats that all workers share
	Rooms               // the rooms of a session that is resumed
	Save                // the store, for a join or leave that is stored before it happens
	Turn                // a later turn, because this one has taken enough
	Numbers             // the sequencer, for the numbers of the connection's publishes
)

// Pending is an awaited answer.
//
// Owner: loop.
type Pending struct {
	Kind     Kind
	Name     string // of the handler, for the log
	Ref      []byte
	Of       any // what a floor above keeps with it
	Deadline int64
	held     []Item
	bytes    int
}

// Item is a message that waits, or the ending of the peer's frames.
//
// Owner: loop.
type Item struct {
	Payload []byte
	Binary  bool
	Refused bool // it came over the rate: it is answered, and Payload is its ref
	Closing bool
	Ending  turn.Ending // if it is an ending
}

// itemBytes is the cost of an item besides its payload.
const itemBytes = 64

// Await makes c wait for an answer. ref is borrowed.
func (c *Conn) Await(kind Kind, name string, ref []byte) *Pending {
	l := c.Loop
	p := &Pending{Kind: kind, Name: name, Deadline: l.Now + int64(l.Ground.Limits.Owner)}
	if len(ref) > 0 {
		p.Ref = append([]byte(nil), ref...)
	}
	c.WithRare().Pending = p
	c.ResetAlarm()
	return p
}

// Awaits reports whether an answer is awaited.
func (c *Conn) Awaits() bool { return c.Rare != nil && c.Rare.Pending != nil }

// Hold keeps a message until the answer is there. Its payload is kept, not copied. Input behind a close frame, or behind a
// frame that is wrong, is discarded [RFC 6455 §5.5.1].
func (c *Conn) Hold(item Item) {
	p := c.Rare.Pending
	if n := len(p.held); n > 0 && p.held[n-1].Closing {
		return // the connection ends there
	}
	p.bytes += len(item.Payload) + itemBytes
	if p.bytes > c.Loop.Ground.Limits.Early && !item.Closing {
		c.EndBy(turn.CauseOverloaded)
		return
	}
	p.held = append(p.held, item)
}

// RefuseMessage answers a message over the rate, in the order of the messages; struck ends the connection with it. payload is
// borrowed.
func (c *Conn) RefuseMessage(binary bool, payload []byte, struck bool) {
	var e message.Envelope
	if !binary {
		message.Route(payload, &e)
	}
	if c.Awaits() && !struck {
		c.Hold(Item{Refused: true, Payload: bytes.Clone(e.Ref)})
		return
	}
	c.Complain(message.ErrorOf(message.RateLimited), e.Ref)
	if struck {
		c.EndBy(turn.CauseRateLimited)
	}
}

// Behind runs f once the letters that are posted for c have been opened. Until then its later messages wait. ref is
// borrowed.
func (c *Conn) Behind(name string, ref []byte, f func(ref []byte)) {
	p := c.Await(Letters, name, ref)
	c.Loop.PostCall(func() {
		if c.Settled(p) {
			f(p.Ref)
			c.GoOnAfter(p)
		}
	})
}

// AwaitDecision makes the later messages of c wait for a decision about a message. decide is called once, on any goroutine:
// without an error the message, a clone of e, goes on with then, on the loop; else the client is told. e is borrowed.
func (c *Conn) AwaitDecision(e *message.Envelope, then func(e *message.Envelope)) (decide func(error)) {
	p := c.Await(Handler, string(e.Type), e.Ref)
	later := e.Clone()
	return func(err error) {
		c.Loop.PostCall(func() { c.decided(p, err, func() { then(later) }) })
	}
}

// decided goes on with a decision, behind the letters that were posted for the connection meanwhile.
func (c *Conn) decided(p *Pending, err error, then func()) {
	if turn.Expects(&c.Conn) {
		c.Loop.PostCall(func() { c.decided(p, err, then) })
		return
	}
	if !c.Settled(p) {
		return
	}
	if err != nil {
		c.Complain(message.Refused(err), p.Ref)
	} else {
		then()
	}
	c.GoOnAfter(p)
}

// Settled takes p off c, and reports false if c no longer waits for it.
func (c *Conn) Settled(p *Pending) bool {
	if c.Rare == nil || c.Rare.Pending != p {
		return false
	}
	c.Rare.Pending = nil
	return true
}

// GoOnAfter carries out the messages that waited for p, until one of them has to wait again.
func (c *Conn) GoOnAfter(p *Pending) {
	l := c.loop()
	defer l.Rescue(&c.Conn)
	for i, item := range p.held {
		if c.Phase != turn.PhaseOpen {
			return
		}
		if c.Awaits() {
			for _, later := range p.held[i:] {
				c.Hold(later)
			}
			return
		}
		if i > 0 && c.Sated() {
			c.WithRare().Pending = &Pending{Kind: Turn, held: p.held[i:], bytes: p.bytes}
			c.PutOffMessages()
			break
		}
		if item.Closing {
			c.EndAs(item.Ending)
			return
		}
		p.bytes -= len(item.Payload) + itemBytes
		p.held[i] = Item{}
		if item.Refused {
			c.Complain(message.ErrorOf(message.RateLimited), item.Payload)
			continue
		}
		l.Above.Next(c, p, item, p.held[i+1:])
	}
	c.ResetAlarm()
	c.Conclude()
}

// GoOn goes on with the messages that an earlier turn has put off.
func (c *Conn) GoOn() {
	p := c.Rare.Pending
	c.Rare.Pending = nil
	c.GoOnAfter(p)
}

// Outlives reports whether messages wait that c sent before its stream ended: they are carried out, as they would have been
// with a quicker answer.
func (c *Conn) Outlives() bool {
	switch {
	case c.Behindhand():
		return true
	case !c.Awaits():
		return false
	case c.Phase == turn.PhaseVerdict:
		return len(c.Buf) > 0
	default:
		held := c.Rare.Pending.held
		return len(held) > 0 && !held[0].Closing
	}
}

// Conclude calls the claimants that waited until nothing is pending for c.
func (c *Conn) Conclude() {
	if c.Phase >= turn.PhaseClosing || c.Awaits() || c.Behindhand() {
		return
	}
	for _, f := range c.TakeHeirs() {
		f()
	}
	if c.Fd < 0 {
		c.EndBy(turn.CausePeerGone)
	}
}

// TakeHeirs returns the claimants of the session of c; the caller must call them.
func (c *Conn) TakeHeirs() []func() {
	if c.Rare == nil {
		return nil
	}
	heirs := c.Rare.heirs
	c.Rare.heirs = nil
	return heirs
}

// AfterAnswer runs f once nothing is pending for c; never if nothing is now.
func (c *Conn) AfterAnswer(f func()) {
	if c.Awaits() {
		c.Rare.heirs = append(c.Rare.heirs, f)
	}
}

// AfterHeld runs f for a claimant of the session of c: at once, or when the held messages have been carried out, or when wait
// is over. Two connections that claim each other's session do not wait.
func (c *Conn) AfterHeld(wait time.Duration, f func()) {
	if c.Phase != turn.PhaseOpen || !c.Outlives() {
		f()
		return
	}
	r := c.WithRare()
	if r.Pending != nil && r.Pending.Kind == Claim {
		f()
		return
	}
	r.heirs = append(r.heirs, f)
	r.AnswerBy = turn.Earlier(r.AnswerBy, c.Loop.Now+int64(wait))
	c.ResetAlarm()
}

// DropPending discards the pending answer of c and the held messages.
func (c *Conn) DropPending() {
	if c.Rare != nil {
		c.Rare.Pending = nil
	}
	c.Flags &^= turn.FlagMore
}

// ResetAlarm sets the timer to the earliest deadline of c.
func (c *Conn) ResetAlarm() {
	at := int64(0)
	if r := c.Rare; r != nil {
		at = turn.Earlier(r.AnswerBy, turn.Earlier(r.Token.WarnAt, r.Token.CloseAt))
		if r.Pending != nil {
			at = turn.Earlier(at, r.Pending.Deadline)
		}
	}
	c.SetAlarm(at)
}

// Expire ends the waits of c whose time is over: it calls waitedEnough for AnswerBy, and warn before the identity ends. When
// that has ended it closes c.
func (c *Conn) Expire(waitedEnough, warn func()) {
	r := c.Rare
	if r == nil {
		return
	}
	now := c.Loop.Now
	if at := r.Token.WarnAt; at != 0 && at <= now {
		r.Token.WarnAt = 0
		warn()
	}
	if at := r.Token.CloseAt; at != 0 && at <= now {
		r.Token.CloseAt = 0
		c.EndBy(turn.CauseExpired)
	}
	if r.AnswerBy != 0 && r.AnswerBy <= now {
		r.AnswerBy = 0
		waitedEnough()
	}
	if p := r.Pending; p != nil && p.Deadline != 0 && p.Deadline <= now {
		c.overdue(p)
	}
	if c.Phase != turn.PhaseGone {
		c.ResetAlarm()
	}
}

// Excuse shifts the deadlines of c by a stall.
func (c *Conn) Excuse(stall int64) {
	r := c.Rare
	if r == nil {
		return
	}
	if r.AnswerBy != 0 {
		r.AnswerBy += stall
	}
	if p := r.Pending; p != nil && p.Deadline != 0 {
		p.Deadline += stall
	}
	c.ResetAlarm()
}

var refusalSlow = handshake.Refusal{Status: 503, Reason: "the authentication took too long; try again later", RetryAfter: 2}

// overdue answers in place of an application that took too long.
func (c *Conn) overdue(p *Pending) {
	l := c.Loop
	l.Count[CountOverdue].Add(1)
	l.Ground.Log.Warn("a handler did not answer in time, and its client was told so; make the handler faster, or raise offload_timeout", "handler", p.Name, "conn", c.ID().String(), "timeout", l.Ground.Limits.Owner)
	switch p.Kind {
	case Verdict:
		c.Rare.Pending = nil
		c.Refuse(refusalSlow)
	case Auth:
		c.EndBy(turn.CauseOverloaded)
	default:
		if c.Settled(p) {
			c.Complain(message.ErrUnavailable, p.Ref)
			c.GoOnAfter(p)
		}
	}
}

// Check panics where the bytes that a pending counts differ from the messages that it holds.
func (c *Conn) Check() {
	if !c.Awaits() {
		return
	}
	bytes := 0
	for _, item := range c.Rare.Pending.held {
		bytes += len(item.Payload) + itemBytes
	}
	if p := c.Rare.Pending; bytes != p.bytes {
		invariant.Broken("connection %d holds %d bytes of messages and counts %d", c.Slot, bytes, p.bytes)
	}
}

// Held is the number of messages that wait for the answer.
func (p *Pending) Held() int { return len(p.held) }
