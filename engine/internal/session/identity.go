package session

import (
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// Identity is who a connection belongs to.
//
// Owner: immutable once it is a connection's.
type Identity struct {
	User    string
	Grant   any           // for the policy
	Expires time.Time     // zero: never
	Grace   time.Duration // after which the connection is closed
}

// known is an identity, with its user as JSON: every broadcast of the connection tells it.
//
// Owner: immutable.
type known struct {
	Identity
	quoted string // "" for none
}

// Identity is the identity of the connection; nil if no handler has set one. Any goroutine.
func (c *Conn) Identity() *Identity {
	if k := c.identity.Load(); k != nil {
		return &k.Identity
	}
	return nil
}

// QuotedUser is the user of the connection as JSON; "" for none. Any goroutine.
func (c *Conn) QuotedUser() string {
	if k := c.identity.Load(); k != nil {
		return k.quoted
	}
	return ""
}

// Users: a connection's user is its principal. The worker's index has the open connections of each user.

// Enlist notes that the connection is open, under its user.
func (c *Conn) Enlist() {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	c.Admitted.Store(true)
	c.loop().Rooms.Open.Add(1)
	c.loop().Rooms.Users.Add(c.User(), c.Place())
}

// Delist notes that the connection has ended, and reports whether it was open.
func (c *Conn) Delist() bool {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if !c.Admitted.Swap(false) {
		return false
	}
	c.loop().Rooms.Open.Add(-1)
	c.loop().Rooms.Users.Remove(c.User(), c.Place())
	return true
}

// SetIdentity sets the identity of the connection; id is copied. The index has an open connection under its present user at any time. Any
// goroutine.
func (c *Conn) SetIdentity(id *Identity) {
	next := &known{Identity: *id}
	if user := id.User; user != "" {
		next.quoted = string(message.AppendString(nil, user))
		if next.quoted[1:len(next.quoted)-1] == user {
			next.User = next.quoted[1 : len(next.quoted)-1] // most names: they are in memory once
		}
	}
	c.Mu.Lock()
	before := c.User()
	c.identity.Store(next)
	if c.Admitted.Load() && before != id.User {
		index := c.loop().Rooms.Users
		index.Remove(before, c.Place())
		index.Add(next.User, c.Place())
	}
	c.Mu.Unlock()
	c.PostChanged()
}

// A client is warned before its identity ends: by a fifth of the time that is left, at most by this.
const tokenWarning = time.Minute

// An identity that ends later than farOff, when the warning is a minute, waits for its alarm in the wheel of far timers. There it costs
// 12 bytes; the rare parts, which have the alarm, cost 370. It is looked at again after farLook at the latest, since the clock of a wheel
// has no number for the year 9999.
const (
	farOff  = 6 * tokenWarning
	farLook = 24 * time.Hour
)

// WatchToken sets the alarm for the end of the identity of c.
func (l *Loop) WatchToken(c *Conn) {
	id := c.Identity()
	if id == nil || c.Phase >= turn.PhaseClosing {
		return
	}
	l.Far.Clear(c.Slot)
	left := id.Expires.Sub(l.Sessions.Wall(l.Now))
	switch ends := !id.Expires.IsZero(); {
	case ends && left > farOff:
		l.Far.Set(c.Slot, l.Now+int64(min(left-farOff, farLook)))
		fallthrough
	case !ends:
		if c.Rare != nil {
			c.Rare.Token.WarnAt, c.Rare.Token.CloseAt = 0, 0
		}
	default:
		end, warning := l.Now+int64(left), int64(min(tokenWarning, max(left, 0)/5))
		token := &c.WithRare().Token
		token.WarnAt, token.CloseAt = max(end-warning, 1), max(end+int64(id.Grace), 1) // 0 means never
	}
	c.ResetAlarm()
}

// WatchTokens sets the alarms of a loop for identities that do not end so late any more.
func (s *Sessions) WatchTokens(l *Loop) {
	for _, slot := range l.Far.Due(l.Now, nil) {
		if c := l.Slab.At(slot); c != nil {
			l.WatchToken(ConnOf(c))
		}
	}
}

// WarnOfEnd tells a client that its identity ends soon.
func (l *Loop) WarnOfEnd(c *Conn) {
	if _, expiresIn := l.TokenOf(c); expiresIn > 0 && c.IsOpen() && c.Phase == turn.PhaseOpen {
		l.Text = message.AppendAuthExpiring(l.Text[:0], expiresIn)
		c.Answer(l.Text)
	}
}

// TokenOf is the user of an identity that ends, as tokens' do, and for how many seconds it is good, at least 1; else "" and 0.
func (l *Loop) TokenOf(c *Conn) (user string, expiresIn int64) {
	id := c.Identity()
	if id == nil || id.Expires.IsZero() {
		return "", 0
	}
	left := id.Expires.Sub(l.Sessions.Wall(l.Now))
	return id.User, max(int64((left+time.Second-1)/time.Second), 1)
}
