// Package rate counts how often a connection sends messages.
//
// What it refuses to do: it never waits, and it needs no timer: a bucket is one time.
//
// Start reading at Bucket.Take.
package rate

import (
	"math"
	"slices"
	"time"
)

// Limit is how often a connection may send the messages that a limit guards.
type Limit struct {
	PerSecond float64
	Burst     int // messages at once; at least 1
	Strikes   int // refusals in a row after which the connection ends with 4005; 0 means never
}

// Pace is a limit on the server's clock, in nanoseconds.
type Pace struct {
	each  int64 // between two messages
	burst int64 // by which a message may come too early
}

// Pace makes a pace of a limit. Rates and bursts beyond what a clock can count do not overflow.
func (l *Limit) Pace() Pace {
	const longest = math.MaxInt64 / 2 // some 146 years; with half as much again, and now, it does not overflow
	each := int64(min(float64(time.Second)/l.PerSecond, longest/2))
	return Pace{each, int64(min(float64(each)*float64(l.Burst-1), longest))}
}

// Bucket is one connection's share of a limit: one time, that at which it is full again (the generic cell rate algorithm).
// The zero value is full.
type Bucket struct{ at int64 }

// Take takes a message out, and reports whether it may pass. since is the earliest time at which the message may have come,
// usually now: a message that waited while the server was busy is not taken for one of a burst.
func (b *Bucket) Take(p Pace, since, now int64) bool {
	at := max(b.at, since)
	if at-now > p.burst {
		return false
	}
	b.at = at + p.each
	return true
}

// Full reports whether no message is missing.
func (b *Bucket) Full(now int64) bool { return b.at <= now }

// Buckets are one connection's shares of several limits. The zero value is a connection that has sent nothing.
//
// Owner: the caller, under a lock.
type Buckets struct{ list []share }

// share is one connection's share of one limit.
type share struct {
	limiter *Limit
	bucket  Bucket
	strikes int
}

// Take takes a message out of the bucket for a limit. strikes are the refusals in a row.
func (x *Buckets) Take(limiter *Limit, now int64) (ok bool, strikes int) {
	i := slices.IndexFunc(x.list, func(s share) bool { return s.limiter == limiter })
	if i < 0 {
		i = len(x.list)
		x.list = append(x.list, share{limiter: limiter})
	}
	s := &x.list[i]
	if s.bucket.Take(limiter.Pace(), now, now) {
		s.strikes = 0
		return true, 0
	}
	s.strikes++
	return false, s.strikes
}
