package access

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/parleyd/parley/protocol/pattern"
)

// Bounds of revocations.
const (
	RevocationsMax = 100_000
	// UserKept is for how long the revocation of a user's tokens is kept. A token that outlives it is good again, so an
	// issuer gives tokens shorter lives.
	UserKept  = 400 * 24 * time.Hour
	stampMost = secondsMax * 1000 // milliseconds
)

var (
	// ErrRevocationsFull: there is no place for another revocation until one expires.
	ErrRevocationsFull = errors.New("revocations are full: wait until some expire, or change the key that signs")
	// ErrRevocation: a name or a time of a revocation is not possible; the text says which.
	ErrRevocation = errors.New("the revocation is not possible")

	errTime = fmt.Errorf("%w: give a time between 1970 and 9999", ErrRevocation)
	errOver = fmt.Errorf("%w: the time until which it is kept is over", ErrRevocation)
)

// subject is the user or the token that a revocation is about.
type subject struct {
	kind subjectKind
	name string
}

type subjectKind uint8

const (
	ofUser subjectKind = iota // all tokens of a user that were issued before a time
	ofID                      // the token with a jti
	subjectKinds
)

// revocation is the newest that is known of a subject. Each change has a stamp. Of two, the later one holds, on all workers
// and in any order in which they hear of them: the order is total, and the merge of two states takes the later of each.
//
// Owner: the map that it is in.
type revocation struct {
	before int64 // seconds: tokens issued before are revoked; of a jti, 0
	until  int64 // seconds: kept until then
	stamp  int64 // milliseconds: when the change was made
	lifted bool  // the revocation was taken back
}

// later reports whether a holds over b.
func (a revocation) later(b revocation) bool {
	switch {
	case a.stamp != b.stamp:
		return a.stamp > b.stamp
	case a.lifted != b.lifted:
		return b.lifted
	case a.before != b.before:
		return a.before > b.before
	}
	return a.until > b.until
}

// Revocations are the tokens that are good no more although they have not expired. The zero value is empty and ready. Owner:
// shared (mutex: mu).
type Revocations struct {
	mu   sync.RWMutex
	list map[subject]revocation
}

// RevokeUser revokes a user's tokens that were issued before a time; tokens that do not say when count as issued before all
// times. A revocation never takes back a stronger one. It returns the change, for the Merge of other
// workers. Any goroutine.
func (r *Revocations) RevokeUser(user string, before, now time.Time) (change []byte, err error) {
	switch err := pattern.CheckName(user, UserBytesMax); {
	case err != nil:
		return nil, fmt.Errorf("%w: the user %w", ErrRevocation, err)
	case !possible(before):
		return nil, errTime
	}
	return r.change(subject{ofUser, user}, revocation{before: before.Unix(), until: now.Add(UserKept).Unix()}, now)
}

// RevokeID revokes the token with a jti until a time, that at which it expires or later. Any goroutine.
func (r *Revocations) RevokeID(jti string, until, now time.Time) (change []byte, err error) {
	switch err := pattern.CheckName(jti, jtiBytesMax); {
	case err != nil:
		return nil, fmt.Errorf("%w: the jti %w", ErrRevocation, err)
	case !possible(until):
		return nil, errTime
	case !until.After(now):
		return nil, errOver
	}
	return r.change(subject{ofID, jti}, revocation{until: until.Unix() + 1}, now)
}

// LiftUser takes the revocation of a user's tokens back. Without one it has no effect, and its change is nil. Any goroutine.
func (r *Revocations) LiftUser(user string, now time.Time) (change []byte, err error) {
	return r.change(subject{ofUser, user}, revocation{lifted: true}, now)
}

// LiftID takes the revocation of a jti back. Without one it has no effect, and its change is nil. Any goroutine.
func (r *Revocations) LiftID(jti string, now time.Time) (change []byte, err error) {
	return r.change(subject{ofID, jti}, revocation{lifted: true}, now)
}

func possible(t time.Time) bool { return t.Unix() >= 0 && t.Unix() < secondsMax }

// change makes one change, and encodes it.
func (r *Revocations) change(s subject, next revocation, now time.Time) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.list[s]
	switch {
	case !possible(now) || known && old.stamp >= stampMost:
		return nil, errTime
	case next.lifted && (!known || old.lifted):
		return nil, nil
	case !known && !r.place(now):
		return nil, ErrRevocationsFull
	}
	next.stamp = max(now.UnixMilli(), old.stamp+1)
	if next.lifted {
		next.until = old.until // so that it outlives the change that it lifts
	} else {
		next.until = max(next.until, old.until)
		if known && !old.lifted {
			next.before = max(next.before, old.before)
		}
	}
	r.put(s, next)
	return encode([]record{{s, next}}), nil
}

// place reports whether there is a place for one more, after the expired ones have gone.
func (r *Revocations) place(now time.Time) bool {
	if len(r.list) >= RevocationsMax {
		r.expire(now)
	}
	return len(r.list) < RevocationsMax
}

func (r *Revocations) put(s subject, next revocation) {
	if r.list == nil {
		r.list = map[subject]revocation{}
	}
	r.list[s] = next
}

// Expire forgets the revocations whose time is over. Any goroutine.
func (r *Revocations) Expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire(now)
}

func (r *Revocations) expire(now time.Time) {
	maps.DeleteFunc(r.list, func(_ subject, v revocation) bool { return v.until <= now.Unix() })
}

// Revoked reports whether a token is revoked. Any goroutine; it allocates nothing.
func (r *Revocations) Revoked(c *Claims, now time.Time) bool {
	return r.revoked(c.User, c.ID, c.issued(), now)
}

// issued is when the token was issued, in seconds since 1970; math.MinInt64 if it does not say so.
func (c *Claims) issued() int64 {
	if c.Issued.IsZero() {
		return math.MinInt64
	}
	return c.Issued.Unix()
}

func (r *Revocations) revoked(user, jti string, issued int64, now time.Time) bool {
	seconds := now.Unix()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if v, known := r.list[subject{ofUser, user}]; known && !v.lifted && seconds < v.until && issued < v.before {
		return true
	}
	if jti == "" {
		return false
	}
	v, known := r.list[subject{ofID, jti}]
	return known && !v.lifted && seconds < v.until
}

// Len is the number of revocations, those that were taken back included. Any goroutine.
func (r *Revocations) Len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.list)
}

// Revocation is one entry of a list: of a user and a time of issue, or of a jti. Times are seconds.
//
// Owner: the caller.
type Revocation struct {
	User         string
	ID           string
	IssuedBefore int64 // of a user
	Until        int64 // when it is forgotten
}

// List returns the revocations in force, sorted: users first. Any goroutine.
func (r *Revocations) List(now time.Time) (list []Revocation) {
	for _, v := range r.sorted() {
		if v.lifted || v.until <= now.Unix() {
			continue
		}
		entry := Revocation{IssuedBefore: v.before, Until: v.until}
		if v.kind == ofUser {
			entry.User = v.name
		} else {
			entry.ID = v.name
		}
		list = append(list, entry)
	}
	return list
}

// Merge takes in the state of another worker, as Encode or a change wrote it, and reports whether anything was new. Workers
// that have heard of the same changes have the same state, in whichever order the changes came. An error is
// ErrRevocationsFull, after everything has been taken in for which there was a place, or ErrDamaged, after nothing was. Any
// goroutine; chunk is borrowed.
func (r *Revocations) Merge(chunk []byte, now time.Time) (changed bool, err error) {
	records, err := decode(chunk)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list)+len(records) > RevocationsMax {
		r.expire(now) // once, and not for each record: a full state is large
	}
	for _, v := range records {
		old, known := r.list[v.subject]
		switch {
		case v.until <= now.Unix(), known && !v.later(old):
		case !known && len(r.list) >= RevocationsMax:
			err = ErrRevocationsFull
		default:
			r.put(v.subject, v.revocation)
			changed = true
		}
	}
	return changed, err
}
