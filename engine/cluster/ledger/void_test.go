package ledger

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

func (s *Sessions) void(t testing.TB, prefix string) error {
	t.Helper()
	return await(t, func(done func(error)) error {
		return s.Void(func(value []byte) bool { return bytes.HasPrefix(value, []byte(prefix)) }, done)
	})
}

// Sessions without a connection are deleted by their values: parked ones and those of dead workers, of any worker. Others stay.
func TestVoid(t *testing.T) {
	b := startBus(t)
	mine, other := b.open(t, 1), b.open(t, 2)
	const each = 150 // more than are deleted at once
	for i := range each {
		if err := mine.Sessions.park(t, keyOf(1, i), fmt.Sprint("ann ", i), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := mine.Sessions.park(t, keyOf(1, 1000+i), fmt.Sprint("bob ", i), time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	must(t, func(done func(error)) error {
		return other.Sessions.Park(keyOf(2, 1), []byte("ann elsewhere"), time.Minute, done)
	})
	must(t, func(done func(error)) error { return other.Sessions.Save(keyOf(2, 2), []byte("ann lives"), done) })
	must(t, func(done func(error)) error { return other.Sessions.Save(keyOf(2, 3), []byte("eve lives"), done) })
	if err := other.Sessions.void(t, "ann "); err != nil {
		t.Fatal(err)
	}
	for i, key := range []Key{keyOf(1, 0), keyOf(1, each-1), keyOf(2, 1)} {
		_, err := mine.Sessions.claim(t, Claim{Key: key, Nonce: nonceOf(i)})
		is(t, err, ErrUnknown)
	}
	for i, key := range []Key{keyOf(1, 1000), keyOf(1, 1000+each-1), keyOf(2, 2)} {
		_, err := mine.Sessions.claim(t, Claim{Key: key, Nonce: nonceOf(100 + i)})
		is(t, err, nil)
	}
	must(t, func(done func(error)) error { return mine.Dead(2, time.Now(), done) })
	if err := mine.Sessions.void(t, "eve "); err != nil {
		t.Fatal(err)
	}
	_, err := mine.Sessions.claim(t, Claim{Key: keyOf(2, 3), Nonce: nonceOf(200)})
	is(t, err, ErrUnknown)
	if err := mine.Sessions.void(t, "nobody"); err != nil {
		t.Error("nothing to delete:", err)
	}
}

// A session that is claimed is deleted when its claimant puts it back, and left to a claimant that spends it.
func TestVoidClaimed(t *testing.T) {
	b := startBus(t)
	l, heir := b.open(t, 1), b.open(t, 2)
	back, spent := Claim{Key: keyOf(1, 1), Nonce: nonceOf(1)}, Claim{Key: keyOf(1, 2), Nonce: nonceOf(2)}
	for _, at := range []Claim{back, spent} {
		if err := l.Sessions.park(t, at.Key, "ann", time.Minute); err != nil {
			t.Fatal(err)
		}
		_, err := heir.Sessions.claim(t, at)
		is(t, err, nil)
	}
	told := make(chan error, 1)
	seen := make(chan struct{}, 1000)
	if err := l.Sessions.Void(func([]byte) bool {
		select {
		case seen <- struct{}{}:
		default:
		}
		return true
	}, func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		<-seen // it has looked at both twice at least: it waits
	}
	must(t, func(done func(error)) error {
		return heir.Sessions.Restore(back, []byte("ann again"), time.Minute, done)
	})
	must(t, func(done func(error)) error { return heir.Sessions.Spend(spent, done) })
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	for i, at := range []Claim{back, spent} {
		_, err := l.Sessions.claim(t, Claim{Key: at.Key, Nonce: nonceOf(10 + i)})
		is(t, err, ErrUnknown)
	}
}

// While the bus is away, the caller learns of it, and the sessions are deleted when it is back.
func TestVoidWhileAway(t *testing.T) {
	b := startBus(t)
	l := b.open(t, 1, func(o *Options) { o.AwayAfter = 200 * time.Millisecond })
	if err := l.Sessions.park(t, keyOf(1, 1), "ann", time.Minute); err != nil {
		t.Fatal(err)
	}
	b.process.kill()
	is(t, l.Sessions.void(t, "ann"), ErrAway)
	b.start()
	eventually(t, "the session is deleted, and the marker of that", func() bool { return b.records(t, sessionBucket) == 0 })
}
