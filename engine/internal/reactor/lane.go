package reactor

import (
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
)

// lane is the way of new connections onto one loop. Each is awaited on its own: a loop that a handler holds takes no more
// of them than its lane has places, and after a moment none at all, while the others are served as ever.
//
// Owner: the acceptor, except what is atomic.
type lane struct {
	loop   *turn.Loop
	flying chan flight
	since  atomic.Int64 // when the enrolment began that is awaited now, on the server's clock; 0: none is
}

// flight is an enrolment under way.
type flight struct {
	conn   *turn.Conn
	result <-chan enrolment
	begun  int64
}

// stuckAfter is how long a loop may take to enrol a connection before others are preferred.
const stuckAfter = 20 * time.Millisecond

// stuck reports whether the loop has not enrolled a connection for a while that it should have.
func (x *lane) stuck(clock func() int64) bool {
	since := x.since.Load()
	return since != 0 && clock()-since > int64(stuckAfter)
}

// land waits for enrolments to end. One that failed is known by its result, or by a connection that has never begun: no
// other word of it comes.
func (x *lane) land(a *acceptor) {
	for f := range x.flying {
		x.await(a, f)
	}
}

// await waits for one.
func (x *lane) await(a *acceptor, f flight) {
	defer func() {
		if v := recover(); v != nil {
			a.cfg.Ground.Survive("enrolling a connection", f.conn, v)
		}
	}()
	x.since.Store(f.begun)
	var r enrolment
	select {
	case r = <-f.result:
	case <-a.reactor.stopped:
		return // the loops are no more, and so is what they would tell
	}
	x.since.Store(0)
	if a.waits.Load() {
		select {
		case a.landed <- struct{}{}:
		default:
		}
	}
	if r.Err != nil || f.conn.Gen == 0 {
		a.reactor.Departed(f.conn)
		a.cfg.Count[turn.CountAcceptErrors].Add(1)
		a.cfg.Ground.Log.Warn("a new connection could not be given to an event loop, and is closed", "err", r.Err)
	}
}

// stuck reports whether all loops are.
func (a *acceptor) stuck() bool {
	for _, x := range a.lanes {
		if !x.stuck(a.cfg.Ground.Clock) {
			return false
		}
	}
	return true
}

// lane waits for a loop that takes connections, and returns that with the fewest; nil once the acceptor is closed.
func (a *acceptor) lane() *lane {
	best := a.freest()
	for best == nil {
		a.waits.Store(true)
		if best = a.freest(); best == nil && !a.wait(stuckAfter) { // asked again: one may have landed in between
			return nil
		}
		a.waits.Store(false)
	}
	return best
}

// freest is the lane with a place whose loop has the fewest connections; nil where there is none.
func (a *acceptor) freest() (best *lane) {
	for _, x := range a.lanes {
		if len(x.flying) < cap(x.flying) && (best == nil || x.loop.Load.Load() < best.loop.Load.Load()) && !x.stuck(a.cfg.Ground.Clock) {
			best = x
		}
	}
	return best
}
