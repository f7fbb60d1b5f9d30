package ledger

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A frozen bus, with more requests on their way than the sockets take, delays no callback beyond AwayAfter.
func TestFrozenBus(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	l := b.open(t, 1, func(o *Options) { o.AwayAfter = 500 * time.Millisecond })
	b.process.signal(t, syscall.SIGSTOP)
	const calls = 3000
	told := make(chan error, calls)
	large := make([]byte, 10<<10)
	for i := range calls {
		if err := l.Sessions.Save(keyOf(1, i), large, func(err error) { told <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range calls { // would wait here until it goes on
		is(t, <-told, ErrAway)
	}
	b.process.signal(t, syscall.SIGCONT)
	eventually(t, "all is stored once it goes on", func() bool { return b.records(t, sessionBucket) == calls })
	eventually(t, "nothing is left to do", func() bool { return l.backlog.Load() == 0 && l.Pending() == 0 })
}

// A claim that got ErrAway and is not repeated is undone: the token stays valid.
func TestAbandonedClaim(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner := b.open(t, 1)
	taker := b.open(t, 2, func(o *Options) { o.AwayAfter = 100 * time.Millisecond })
	const sessions = 300
	for i := range sessions {
		is(t, owner.Sessions.save(t, keyOf(1, i), fmt.Sprint(i)), nil)
	}
	// Some claims are sent before the bus freezes, some after; it handles them when it goes on, too late.
	outcomes := make(chan error, sessions)
	for i := range sessions {
		if i == sessions/2 {
			b.process.signal(t, syscall.SIGSTOP)
		}
		err := taker.Sessions.Claim(Claim{keyOf(1, i), nonceOf(i)}, func(_ Claimed, err error) { outcomes <- err })
		if err != nil {
			t.Fatal(err)
		}
	}
	won := 0
	for range sessions {
		switch err := <-outcomes; err {
		case nil:
			won++
		case ErrAway:
		default:
			t.Fatal(err)
		}
	}
	b.process.signal(t, syscall.SIGCONT)
	if won == sessions {
		t.Fatal("no claim came too late")
	}
	third := b.open(t, 3)
	eventually(t, "what was not told as claimed can be claimed", func() bool {
		free := 0
		for i := range sessions {
			if _, err := third.Sessions.claim(t, Claim{keyOf(1, i), nonceOf(sessions + i)}); err == nil {
				free++
			}
		}
		return free == sessions-won
	})
}

// Seats whose release could not be written while the bus was away are free when it is back.
func TestSeatsOverARestart(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	grant(t, a, "r", 4, 4)
	b.process.kill()
	a.Seats.Release("r", 3)
	b.start()
	eventually(t, "the seats are free", func() bool {
		granted, _ := take(t, c, "r", 4, 3)
		c.Seats.Release("r", granted)
		return granted == 3
	})
}

// behind stands between a worker and the bus. Messages of the bus arrive after delay.
func (b *bus) behind(t testing.TB, delay *atomic.Int64) (url string) {
	t.Helper()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = door.Close() })
	go func() {
		for {
			worker, err := door.Accept()
			if err != nil {
				return
			}
			bus, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", b.port))
			if err != nil {
				_ = worker.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(bus, worker)
				_ = bus.Close()
			}()
			go late(worker, bus, delay)
		}
	}()
	return "nats://" + door.Addr().String()
}

// late copies its input, each piece after delay and all in order.
func late(to, from net.Conn, delay *atomic.Int64) {
	type piece struct {
		due  time.Time
		text []byte
	}
	pieces := make(chan piece, 1<<16)
	go func() {
		defer close(pieces)
		for {
			text := make([]byte, 32<<10)
			n, err := from.Read(text)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(time.Duration(delay.Load())), text[:n]}
		}
	}()
	for p := range pieces {
		<-time.After(time.Until(p.due))
		_, _ = to.Write(p.text) // fails when the worker is gone; then from ends soon
	}
	_ = to.Close()
}

// A bus that takes longer to answer than lostTime still decides all requests, and gets each only once or twice. When late
// answers did not count, such a bus was busy with repeated requests for ever.
func TestLateAnswersCount(t *testing.T) {
	t.Parallel()
	const sessions = 2000
	b := startBus(t)
	var delay atomic.Int64
	l := openAt(t, b.behind(t, &delay), 1, func(o *Options) { o.AwayAfter = 15 * time.Second })
	delay.Store(int64(attemptTime * 3 / 2))
	stored := make(chan error, sessions)
	for i := range sessions {
		if err := l.Sessions.Save(keyOf(1, i), []byte("x"), func(err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range sessions {
		is(t, <-stored, nil)
	}
	if n := b.state(t, sessionBucket).LastSeq; n != sessions {
		t.Errorf("%d sessions were written %d times", sessions, n)
	}
	at := Claim{keyOf(1, 7), nonceOf(1)}
	if _, err := l.Sessions.claim(t, at); err != nil {
		t.Error(err)
	}
}

// A Save that got ErrAway and is repeated gets the outcome of the first. When each attempt was another write, a bus that
// takes longer than a caller waits had ever more to write.
func TestSavedAgainIsWrittenOnce(t *testing.T) {
	t.Parallel()
	const sessions = 100
	b := startBus(t)
	var delay atomic.Int64
	l := openAt(t, b.behind(t, &delay), 1, func(o *Options) { o.AwayAfter = 50 * time.Millisecond })
	delay.Store(int64(200 * time.Millisecond))
	var away, stored atomic.Int64
	var save func(i int, value string)
	save = func(i int, value string) {
		err := l.Sessions.Save(keyOf(1, i), []byte(value), func(err error) {
			if err == ErrAway {
				away.Add(1)
				save(i, value)
				return
			}
			if err != nil {
				t.Error(err)
			}
			stored.Add(1)
		})
		if err != nil {
			t.Error(err)
		}
	}
	for i := range sessions {
		save(i, "first")
	}
	eventually(t, "all are stored", func() bool { return stored.Load() == sessions })
	if away.Load() < sessions {
		t.Errorf("only %d were told that the bus is away: the test shows nothing", away.Load())
	}
	for i := range sessions {
		save(i, "second")
	}
	eventually(t, "all are stored once more", func() bool { return stored.Load() == 2*sessions })
	if n := b.state(t, sessionBucket).LastSeq; n != 2*sessions {
		t.Errorf("%d versions of %d sessions were written, want two of each", n, sessions)
	}
}

// A late write counts also for a Save that comes after it.
func TestSavedAgainAfterItWasWritten(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	var delay atomic.Int64
	l := openAt(t, b.behind(t, &delay), 1, func(o *Options) { o.AwayAfter = 50 * time.Millisecond })
	delay.Store(int64(100 * time.Millisecond))
	is(t, l.Sessions.save(t, keyOf(1, 1), "x"), ErrAway)
	eventually(t, "it is written", func() bool { return b.state(t, sessionBucket).LastSeq == 1 && l.backlog.Load() == 0 })
	is(t, l.Sessions.save(t, keyOf(1, 1), "x"), nil)
	is(t, l.Sessions.save(t, keyOf(1, 1), "x"), ErrAway) // a third time: it is looked at once more
	eventually(t, "nothing is under way", func() bool { return l.backlog.Load() == 0 })
	is(t, l.Sessions.save(t, keyOf(1, 1), "y"), ErrAway)
	eventually(t, "another value is written", func() bool { return b.state(t, sessionBucket).LastSeq == 3 && l.backlog.Load() == 0 })
	delay.Store(0)
	taker := b.open(t, 2)
	got, err := taker.Sessions.claim(t, Claim{keyOf(1, 1), nonceOf(1)})
	is(t, err, nil)
	if string(got.Value) != "y" {
		t.Errorf("the session is %q", got.Value)
	}
	is(t, l.Sessions.save(t, keyOf(1, 1), "z"), ErrClaimed)
	is(t, l.Sessions.save(t, keyOf(1, 1), "z"), ErrClaimed)
}

// On a late bus, awaited requests do not queue behind changed sessions, and further changes of these need no further write.
func TestChangesCanWait(t *testing.T) {
	t.Parallel()
	const sessions = 20 * inFlightMax
	b := startBus(t)
	var delay atomic.Int64
	l := openAt(t, b.behind(t, &delay), 1)
	parked := keyOf(1, sessions)
	is(t, l.Sessions.park(t, parked, "parked", time.Minute), nil)
	var stored atomic.Int64
	saveAll := func(value string) {
		for i := range sessions {
			if err := l.Sessions.Save(keyOf(1, i), []byte(value), func(error) { stored.Add(1) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	written := func() int { return int(b.state(t, sessionBucket).LastSeq) }
	saveAll("first")
	eventually(t, "all are stored", func() bool { return stored.Load() == sessions && l.backlog.Load() == 0 })
	before := written()
	delay.Store(int64(100 * time.Millisecond))
	saveAll("second")
	eventually(t, "the way to the bus is full", func() bool { return written() >= before+inFlightMax })
	saveAll("third")
	if _, err := l.Sessions.claim(t, Claim{parked, nonceOf(1)}); err != nil {
		t.Fatal(err)
	}
	if n := written() - before; n > sessions/2 {
		t.Errorf("%d changes of %d were written before a claim", n, sessions)
	}
	eventually(t, "all are stored once more", func() bool { return stored.Load() == 3*sessions && l.backlog.Load() == 0 })
	if n := written() - before; n > sessions+sessions/2 {
		t.Errorf("%d sessions were written %d times: they do not gather while they wait", sessions, n)
	}
}
