package engine

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// The wheel fires every timer at the first tick that is not before its time, none twice, whatever is set,
// moved and cleared in between, and however long it stood still.
func TestWheelAgainstModel(t *testing.T) {
	const tick = time.Millisecond
	w := turn.NewWheel(tick)
	r := rand.New(rand.NewPCG(1, 2))
	due := map[uint32]int64{}
	now := int64(0)
	for range 20000 {
		slot := uint32(r.IntN(200))
		switch r.IntN(4) {
		case 0, 1:
			at := now + r.Int64N(int64(3000*tick))
			w.Set(slot, at)
			ticks := max((at+int64(tick)-1)/int64(tick), now/int64(tick)+1)
			due[slot] = ticks * int64(tick)
		case 2:
			w.Clear(slot)
			delete(due, slot)
		default:
			now += r.Int64N(int64(5 * tick))
			if r.IntN(200) == 0 {
				now += int64(5000 * tick)
			}
			fired := map[uint32]bool{}
			for _, s := range w.Due(now, nil) {
				if fired[s] {
					t.Fatalf("slot %d fired twice", s)
				}
				fired[s] = true
			}
			for s, at := range due {
				if at <= now != fired[s] && at <= now-now%int64(tick) {
					t.Fatalf("at %d: slot %d is due at %d, fired: %v", now, s, at, fired[s])
				}
				if fired[s] {
					if at > now {
						t.Fatalf("at %d: slot %d fired before %d", now, s, at)
					}
					delete(due, s)
					delete(fired, s)
				}
			}
			if len(fired) > 0 {
				t.Fatalf("fired without being set: %v", fired)
			}
		}
	}
}

// A mailbox keeps order, asks for one wake-up at a time, and refuses beyond its bounds.
func TestMailbox(t *testing.T) {
	var m turn.Mailbox
	if !m.Post(turn.Letter{Seq: 1}) || m.Post(turn.Letter{Seq: 2}) {
		t.Error("one wake-up for both letters")
	}
	if got := m.Take(nil); len(got) != 2 || got[0].Seq != 1 || got[1].Seq != 2 {
		t.Error(got)
	}
	if !m.Post(turn.Letter{Seq: 3}) {
		t.Error("after a take a wake-up is due again")
	}
	for range turn.MailboxLettersMax {
		if !m.Reserve(10) {
			t.Fatal("refused too early")
		}
	}
	if m.Reserve(10) {
		t.Error("no bound on letters")
	}
	m.Cancel(turn.MailboxLettersMax, 10*turn.MailboxLettersMax)
	if m.Waiting.Load() != 0 || m.Bytes.Load() != 0 {
		t.Error("the account does not close:", m.Waiting.Load(), m.Bytes.Load())
	}
	if m.Reserve(turn.MailboxBytesMax+1) || m.Bytes.Load() != 0 {
		t.Error("no bound on bytes")
	}
}

// A full mailbox refuses a broadcast as a whole, and the publisher is told.
func TestOverloaded(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	l := s.Connection(c.id).loop()
	l.Mail.Waiting.Add(turn.MailboxLettersMax)
	if _, err := s.Broadcast("r", M{"type": "x"}); err != ErrOverloaded {
		t.Error(err)
	}
	c.send(`{"type":"broadcast","room":"r","data":1,"ref":1}`)
	if m := c.expect("error"); m["code"] != "overloaded" || m["ref"] != 1.0 {
		t.Error(m)
	}
	l.Mail.Waiting.Add(-turn.MailboxLettersMax)
	c.send(`{"type":"broadcast","room":"r","data":1}`)
	c.expect("broadcast_sent")
}

// A call to a server that has stopped writes to no descriptor.
func TestCallsAfterShutdown(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	conn := s.Connection(c.id)
	c.conn.Close()
	eventually(t, "the client has gone", func() bool { return s.reactor.Held() == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	var ends []int // they get the numbers that the server had
	for range 32 {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range pair {
			unix.SetNonblock(fd, true)
			ends = append(ends, fd)
		}
	}
	s.BroadcastAll(M{"type": "x"})
	s.Broadcast("r", M{"type": "x"})
	conn.Send(M{"type": "x"})
	conn.Close()
	for _, l := range s.loops {
		l.Mail.Rung.Store(false)
		l.Wake()
	}
	for _, fd := range ends {
		var buf [1]byte
		if n, _ := unix.Read(fd, buf[:]); n > 0 {
			t.Error("a byte was written to a descriptor that is somebody else's")
		}
		unix.Close(fd)
	}
}

// A visit looks at a timer whose time has come and sets it again, as an idle connection's heartbeat does, with a
// million of them spread over an interval.
func BenchmarkWheelOfAMillion(b *testing.B) {
	const timers, tick, interval = 1_000_000, int64(100 * time.Millisecond), int64(30 * time.Second)
	w := turn.NewWheel(time.Duration(tick))
	for slot := range uint32(timers) {
		w.Set(uint32(uint64(slot)*7919%timers), int64(slot)*interval/timers+tick)
	}
	var slots []uint32
	visits, now := 0, int64(0)
	b.ReportAllocs()
	b.ResetTimer()
	for visits < b.N {
		now += tick
		slots = w.Due(now, slots[:0])
		for _, slot := range slots {
			w.Set(slot, now+interval)
		}
		visits += len(slots)
	}
}
