package reactor

import (
	"fmt"

	"github.com/parleyd/parley/engine/internal/turn"
)

// The ways of writes to several connections to the kernel.
const (
	SendsAuto  = "auto"  // in a ring where the kernel permits one
	SendsRing  = "ring"  // in a ring, or the reactor does not start
	SendsPlain = "plain" // each in a system call of its own
)

// Sends are all ways.
var Sends = []string{SendsAuto, SendsRing, SendsPlain}

// togetherLeast is the number of writes from which on a ring is faster.
const togetherLeast = 2

// openUrings gives each loop a ring. Where the kernel refuses one, the loops have none. Errors: that, of [SendsRing].
func (r *Reactor) openUrings() error {
	if r.cfg.Sends == SendsPlain {
		return nil
	}
	for _, h := range r.hosts {
		var err error
		if h.uring, err = openUring(); err == nil {
			h.loop.Together.Store(true)
			h.loop.GroupMax = turn.FlushGroupTogether
			continue
		}
		r.closeUrings()
		if r.cfg.Sends == SendsRing {
			return fmt.Errorf("the setting sends is ring, and the kernel refuses one (%w): allow the system calls io_uring_setup and io_uring_enter, or set it to auto", err)
		}
		r.cfg.Ground.Log.Info("the kernel refuses io_uring, so each write is a system call of its own, as with the setting sends: plain", "err", err)
		return nil
	}
	return nil
}

func (r *Reactor) closeUrings() {
	for _, h := range r.hosts {
		if h.uring != nil {
			h.dropUring()
		}
	}
}

func (h *host) dropUring() {
	h.uring.close()
	h.uring = nil
	h.loop.Together.Store(false)
	h.loop.GroupMax = turn.FlushGroup
}

// Send is of the loop's wires.
func (h *host) Send(list []turn.Send) {
	for h.uring != nil && len(list) >= togetherLeast {
		taken, err := h.uring.send(list)
		list = list[taken:]
		if err != nil {
			h.reactor.cfg.Ground.Log.Warn("io_uring has failed; from now on each write of this event loop is a system call of its own", "loop", h.loop.Index, "err", err)
			h.dropUring()
		}
	}
	for i := range list {
		s := &list[i]
		s.N, s.Err = writeNow(s.Fd, s.Bytes)
		s.N = max(s.N, 0)
	}
}
