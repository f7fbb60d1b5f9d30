package bus

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Confirm says when the bus has what was appended: from then on the end of the publisher's process does not take it from
// the receivers.
//
// Problem: NATS acknowledges no message. Its server answers a PING behind all earlier messages of the connection, but one
// PING for each caller would cost as much as the messages.
//
// Steps: callers that come while a round is under way wait for the next one together. A round waits until the sender has
// handed over every batch up to the newest, then for the answer to one PING.

// ErrAway is the error of Confirm where the bus has not answered: the batches stay in the ring, and are sent when the bus is
// back.
var ErrAway = errors.New("the bus is away")

// confirmWait bounds a round.
const confirmWait = time.Second

// confirms are the callers of Confirm.
//
// Owner: shared (mutex: mu).
type confirms struct {
	mu      sync.Mutex
	next    *confirmRound // callers that wait for the round after the present one; nil: none
	running bool
}

// confirmRound is a group of callers that share one answer. err is valid once done is closed.
type confirmRound struct {
	done chan struct{}
	err  error
}

// handedOver is a caller that waits until the sender has handed over a batch.
type handedOver struct {
	seq  uint64
	done chan struct{}
}

// Confirm waits until the bus has all entries that were appended before the call, and flushes them. Errors: ErrAway, and
// that of ctx. Any goroutine but a loop's and the receiver's: it waits for the bus, a second at most.
func (l *Link) Confirm(ctx context.Context) error {
	if !l.Up() {
		l.Flush()
		return ErrAway
	}
	c := &l.confirms
	c.mu.Lock()
	if c.next == nil {
		c.next = &confirmRound{done: make(chan struct{})}
	}
	r := c.next
	if !c.running {
		c.running = true
		go l.confirmAll()
	}
	c.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// confirmAll runs rounds until no caller waits.
func (l *Link) confirmAll() {
	c := &l.confirms
	for {
		c.mu.Lock()
		r := c.next
		c.next = nil
		c.running = r != nil
		c.mu.Unlock()
		if r == nil {
			return
		}
		r.err = l.confirmRound()
		close(r.done)
	}
}

func (l *Link) confirmRound() error {
	bounded, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	seq, overrun := l.out.flushAll()
	h := handedOver{seq, make(chan struct{})}
	l.sender.want(func(r *requests) { r.handed = append(r.handed, h) })
	select {
	case <-h.done:
	case <-bounded.Done():
		return ErrAway
	}
	if l.nc.FlushWithContext(bounded) != nil {
		return ErrAway
	}
	if _, now := l.out.flushAll(); now != overrun {
		return ErrAway // the ring has dropped batches that the bus was too slow for
	}
	return nil
}

// tellHandedOver wakes the callers whose batches are handed over.
func (s *sender) tellHandedOver() {
	top := s.out.top()
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	left := s.requests.handed[:0]
	for _, h := range s.requests.handed {
		if h.seq <= top {
			close(h.done)
			continue
		}
		left = append(left, h)
	}
	clear(s.requests.handed[len(left):])
	s.requests.handed = left
}
