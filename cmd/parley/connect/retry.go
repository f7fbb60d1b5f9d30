package connect

import (
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"
)

// retry says when to come back: after a random part of a bound that doubles with each failure, and never before the time that the
// server named.
//
// Owner: the conversation.
type retry struct {
	min, max, calm time.Duration
	failures       int
	openSince      time.Time // zero if the connection has not opened
	notBefore      time.Time
}

func (r *retry) goodbye(after time.Duration, now time.Time) {
	if after > 0 {
		r.notBefore = now.Add(after)
	}
}

func (r *retry) next(now time.Time) time.Duration {
	if !r.openSince.IsZero() && now.Sub(r.openSince) >= r.calm {
		r.failures = 0
	}
	r.openSince = time.Time{}
	bound := min(r.max, r.min<<min(r.failures, 20))
	r.failures++
	return max(0, r.notBefore.Sub(now)) + rand.N(bound)
}

// farewell says why a client stays away after a close code; "" if it comes back. 4006 is for the caller to judge, who knows whether
// there is another token.
func farewell(code ws.StatusCode) string {
	switch {
	case code == 4001:
		return "the server does not let this client in"
	case code == 4004:
		return "another connection has resumed this session"
	case code == 4007:
		return "a backend has disconnected this client"
	case code >= 4500 && code <= 4999:
		return "the application has disconnected this client"
	}
	return ""
}
