package ledger

import (
	"fmt"
	"testing"
	"time"
)

// A deleted or expired session stays so when the bus is killed after its last marker has expired: the files still hold
// earlier versions, which a recovery must not take for the latest ones.
func TestNothingComesBackWithTheBus(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	live, spent, dropped, expired := keyOf(1, 1), keyOf(1, 2), keyOf(1, 3), keyOf(1, 4)
	const versions = pileMax + 4
	for i := range versions {
		for _, k := range []Key{live, spent, dropped, expired} {
			is(t, owner.Sessions.save(t, k, fmt.Sprint(i)), nil)
		}
	}
	if n := b.state(t, sessionBucket).Msgs; n > 4*(pileMax+1) {
		t.Errorf("the bus keeps %d versions of four sessions", n)
	}
	at := Claim{spent, nonceOf(1)}
	_, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	must(t, func(done func(error)) error { return taker.Sessions.Spend(at, done) })
	owner.Sessions.Drop(dropped, nil)
	is(t, owner.Sessions.park(t, expired, "parked", time.Second), nil)
	eventually(t, "the markers and the parked session are over", func() bool { return b.records(t, sessionBucket) == 1 })

	for restart := range 3 {
		b.restart()
		if n := b.records(t, sessionBucket); n != 1 {
			t.Errorf("restart %d: the bus has %d records, want the live one", restart, n)
		}
		for i, k := range []Key{spent, dropped, expired} {
			if _, err := taker.Sessions.claim(t, Claim{k, nonceOf(10*restart + i)}); err != ErrUnknown {
				t.Errorf("restart %d: claiming %s gives %v, want ErrUnknown", restart, k.subject(), err)
			}
		}
	}
	got, err := taker.Sessions.claim(t, Claim{live, nonceOf(100)})
	is(t, err, nil)
	if string(got.Value) != fmt.Sprint(versions-1) {
		t.Errorf("the live session is %q", got.Value)
	}
	if n := b.state(t, sessionBucket).Msgs; n != 1 {
		t.Errorf("the bus keeps %d versions of a session that is claimed", n)
	}
}

// Seats that were given back are free after that, too.
func TestSeatsGivenBackStayFree(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	grant(t, a, "kept", 1, 1)
	grant(t, a, "r", 4, 4)
	a.Seats.Release("r", 4)
	eventually(t, "the marker has expired", func() bool { return b.records(t, seatBucket) == 1 })
	b.restart()
	grant(t, c, "r", 4, 4)
}
