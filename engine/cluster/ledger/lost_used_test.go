package ledger

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// used is a session of worker 1 that worker 2 has claimed and spent, so that its token is good for nothing.
func used(t *testing.T, k Key, a, c *Ledger) {
	t.Helper()
	is(t, a.Sessions.save(t, k, "live"), nil)
	_, err := c.Sessions.claim(t, Claim{k, nonceOf(1)})
	is(t, err, nil)
	must(t, func(done func(error)) error { return c.Sessions.Spend(Claim{k, nonceOf(1)}, done) })
}

// neverAgain waits until the session's end is known, and fails if the session can be claimed.
func neverAgain(t *testing.T, k Key, c *Ledger) {
	t.Helper()
	n := 10
	eventually(t, "the session is over", func() bool {
		n++
		_, err := c.Sessions.claim(t, Claim{k, nonceOf(n)})
		if err == nil {
			t.Fatal("a used session can be claimed again")
		}
		return err == ErrUnknown
	})
}

// A version of a used session that is on its way when all is lost is not written into the new stream: the engine forgets the
// session as soon as it learns of the loss.
func TestUsedSessionIsNotWrittenAnew(t *testing.T) {
	type call = func(s *Sessions, k Key, done func(error)) error
	save := func(s *Sessions, k Key, done func(error)) error { return s.Save(k, []byte("changed"), done) }
	park := func(s *Sessions, k Key, done func(error)) error {
		return s.Park(k, []byte("parked"), time.Minute, done)
	}
	for name, c := range map[string]struct {
		coalesce time.Duration
		write    []call
	}{
		"it is parked":             {write: []call{park}},
		"it is saved":              {write: []call{save}},
		"it is saved and parked":   {write: []call{save, park}},
		"it is soon to be saved":   {time.Hour, []call{save}},
		"it is parked over a save": {time.Hour, []call{save, park}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBus(t)
			k := keyOf(1, 1)
			var a *Ledger
			a = b.open(t, 1, func(o *Options) {
				o.Peers, o.Coalesce = []ident.Worker{2}, c.coalesce
				o.Lost = func(done func()) {
					a.Sessions.Forget(k)
					done()
				}
			})
			other := b.open(t, 2, func(o *Options) { o.Peers = []ident.Worker{1} })
			used(t, k, a, other)
			b.process.kill()
			if err := os.RemoveAll(b.dir); err != nil {
				t.Fatal(err)
			}
			told := make(chan error, len(c.write))
			for _, write := range c.write {
				if err := write(a.Sessions, k, func(err error) { told <- err }); err != nil {
					t.Fatal(err)
				}
			}
			b.start()
			for range c.write {
				is(t, <-told, ErrUnknown)
			}
			neverAgain(t, k, other)
			eventually(t, "all is well", func() bool { return a.Why() == "" && other.Why() == "" })
		})
	}
}

// The engine may decide to write a used session just before it learns of the loss: the write comes behind Forget.
func TestWriteBehindForgetIsRefused(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	k := keyOf(1, 1)
	told := make(chan error, 1)
	var a *Ledger
	a = b.open(t, 1, func(o *Options) {
		o.Peers = []ident.Worker{2}
		o.Lost = func(done func()) {
			a.Sessions.Forget(k)
			if err := a.Sessions.Park(k, []byte("parked"), time.Minute, func(err error) { told <- err }); err != nil {
				t.Error(err)
			}
			done()
		}
	})
	c := b.open(t, 2, func(o *Options) { o.Peers = []ident.Worker{1} })
	used(t, k, a, c)
	remove(t, b.jetstream(t), sessionBucket)
	is(t, <-told, ErrUnknown)
	neverAgain(t, k, c)
	kept := make(chan bool)
	eventually(t, "the ledger keeps nothing of it", func() bool {
		a.post(func() { kept <- a.Sessions.owned[k] != nil })
		return !<-kept
	})
}

// A claim that was won before all was lost is spent only when the session's owner has rewritten it, or does not: else the owner
// would bring a used session back.
func TestSpendWaitsForTheOwner(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	k := keyOf(1, 1)
	begin := make(chan struct{})
	var a *Ledger
	a = b.open(t, 1, func(o *Options) {
		o.Peers = []ident.Worker{2}
		o.Lost = func(done func()) {
			go func() {
				<-begin
				if err := a.Sessions.Save(k, []byte("live"), func(error) {}); err != nil {
					t.Error(err)
				}
				done()
			}()
		}
	})
	lost := make(chan struct{})
	c := b.open(t, 2, func(o *Options) {
		o.Peers = []ident.Worker{1}
		o.Lost = func(done func()) {
			close(lost)
			done()
		}
	})
	is(t, a.Sessions.save(t, k, "live"), nil)
	won := Claim{k, nonceOf(1)}
	_, err := c.Sessions.claim(t, won)
	is(t, err, nil)
	remove(t, b.jetstream(t), sessionBucket)
	<-lost
	spent := make(chan error, 1)
	if err := c.Sessions.Spend(won, func(err error) { spent <- err }); err != nil {
		t.Fatal(err)
	}
	_, err = c.Sessions.claim(t, Claim{k, nonceOf(2)}) // takes as many round trips
	is(t, err, ErrAway)
	close(begin)
	is(t, <-spent, nil)
	neverAgain(t, k, c)
}

// A session that was parked too late for its caller is not parked a second time once another worker has used it.
func TestParkedAgainAfterItsUse(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	k := keyOf(1, 1)
	a := b.open(t, 1, func(o *Options) { o.AwayAfter = 200 * time.Millisecond })
	c := b.open(t, 2)
	eventually(t, "it is saved", func() bool { return a.Sessions.save(t, k, "live") == nil })
	b.process.kill()
	is(t, a.Sessions.park(t, k, "parked", time.Minute), ErrAway)
	b.start()
	eventually(t, "it is parked all the same", func() bool {
		var rec session
		must(t, func(done func(error)) error {
			return c.accept(func() {
				c.get(sessionBucket, k.subject(), func(f found) {
					c.pending.Add(-1)
					var err error
					rec, err = decodeSession(f.payload)
					done(err)
				})
			})
		})
		return rec.state == Parked
	})
	_, err := c.Sessions.claim(t, Claim{k, nonceOf(1)})
	is(t, err, nil)
	must(t, func(done func(error)) error { return c.Sessions.Spend(Claim{k, nonceOf(1)}, done) })
	eventually(t, "its owner learns of that", func() bool {
		err := a.Sessions.park(t, k, "parked", time.Minute)
		if err == nil {
			t.Fatal("a used session is parked again")
		}
		return errors.Is(err, ErrUnknown)
	})
	neverAgain(t, k, c)
}

// Of two claims of one session, one won before all was lost and one won since, the first to be spent counts.
func TestOneOfTwoClaimsAroundALossIsSpent(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	k := keyOf(1, 1)
	var a *Ledger
	a = b.open(t, 1, func(o *Options) {
		o.Peers = []ident.Worker{2}
		o.Lost = func(done func()) {
			go func() {
				if err := a.Sessions.Save(k, []byte("live"), func(error) {}); err != nil {
					t.Error(err)
				}
				done()
			}()
		}
	})
	c := b.open(t, 2, func(o *Options) { o.Peers = []ident.Worker{1} })
	is(t, a.Sessions.save(t, k, "live"), nil)
	before, since := Claim{k, nonceOf(1)}, Claim{k, nonceOf(2)}
	_, err := c.Sessions.claim(t, before)
	is(t, err, nil)
	remove(t, b.jetstream(t), sessionBucket)
	eventually(t, "it is claimed again", func() bool {
		_, err := c.Sessions.claim(t, since)
		return err == nil
	})
	spend := func(at Claim) error {
		spent := make(chan error, 1)
		if err := c.Sessions.Spend(at, func(err error) { spent <- err }); err != nil {
			t.Fatal(err)
		}
		return <-spent
	}
	is(t, spend(since), nil)
	is(t, spend(before), ErrClaimed)
}
