package reactor

import (
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/engine/internal/turn"
)

// patient bounds the wait for what must come.
const patient = 10 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !canary.Wait(patient, ok) {
		t.Fatalf("never: %s", what)
	}
}

// A bell that cannot be rung does not leave its loop taken for rung: the next poster rings again.
func TestBellThatFails(t *testing.T) {
	l := new(turn.Loop)
	h := &host{loop: l}
	for _, row := range []struct {
		errs []error
		rung bool
	}{
		{[]error{nil}, true},
		{[]error{syscall.EAGAIN}, true},
		{[]error{syscall.EINTR, nil}, true},
		{[]error{syscall.ENOBUFS}, false},
		{[]error{syscall.EINTR, syscall.ENOMEM}, false},
	} {
		l.Mail.Rung.Store(true)
		h.rang(func() error {
			err := row.errs[0]
			row.errs = row.errs[1:]
			return err
		})
		if l.Mail.Rung.Load() != row.rung || len(row.errs) > 0 {
			t.Errorf("rung: %v, want %v; %d writes are left", l.Mail.Rung.Load(), row.rung, len(row.errs))
		}
	}
}

// An enrolment that fails gives its place back, and so does one whose connection never begins.
func TestFailedEnrolmentGivesItsPlaceBack(t *testing.T) {
	g := &turn.Ground{Clock: func() int64 { return 0 }, Log: slog.New(slog.DiscardHandler)}
	l := new(turn.Loop)
	l.Init(g, 0, [32]byte{})
	count := new(turn.Counters)
	r := &Reactor{cfg: Config{Ground: g, Loops: []*turn.Loop{l}, Count: count, Plan: Plan{ConnectionsMax: 2}}, stopped: make(chan struct{})}
	a := &acceptor{reactor: r, cfg: &r.cfg, left: make(chan struct{}, 1), landed: make(chan struct{}, 1)}
	x := &lane{loop: l, flying: make(chan flight, 1)}
	a.lanes, r.acceptor = []*lane{x}, a
	go x.land(a)
	defer close(x.flying)
	for _, result := range []enrolment{{Err: net.ErrClosed}, {}} {
		c, landed := &turn.Conn{Loop: l}, make(chan enrolment, 1)
		a.held.Add(1)
		l.Load.Add(1)
		landed <- result
		x.flying <- flight{conn: c, result: landed}
		eventually(t, "the place is free again", func() bool { return r.Held() == 0 && l.Load.Load() == 0 })
	}
	eventually(t, "both are counted", func() bool { return count[turn.CountAcceptErrors].Load() == 2 })
}
