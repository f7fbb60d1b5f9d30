package fanout

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/rooms"
)

// Receipts: what a client has received, without code of the client.
//
// Problem: a client that comes back without its positions must get what it missed, and not all that the room keeps. That the
// kernel took the bytes proves nothing.
//
// Invariant: a PONG with the bytes of the newest PING proves what was queued for the connection in front of that PING, because
// the stream keeps its order and every client library answers by itself. A PING takes note of the numbers that it covers, in
// the stands of the members. Whatever changes a stand in another way first forgets the PING, whose PONG then proves nothing.
//
// Steps: each tick, a loop looks at the next few of its connections, so that each is looked at once in an interval: publishing
// does nothing for it, and no connection takes memory for it but while its PING is unanswered.
//
// What lost: a deadline for each connection (more memory for all), and a list of those that were given something (work for
// each delivery).

// Receipts are the PINGs of a loop that prove what has arrived.
//
// Owner: loop.
type Receipts struct {
	asked   map[uint32]receipt // unanswered, by slot
	next    uint32             // the slot to look at next
	counter uint16
	carry   int64 // of looks, in slots times nanoseconds
	at      int64 // of the latest look
	every   int64 // the interval
}

// receipt is a PING that was not answered yet.
type receipt struct {
	gen   uint64
	at    int64
	bytes [8]byte
}

// Look asks some connections for a receipt: of all connections, as many as the time since the last call is of an
// interval. Loop only; once a tick.
func (x *Receipts) Look(l *Loop, interval int64) {
	if !l.Rooms.Index.AnyHistory() {
		return
	}
	size := int64(l.Slab.Size)
	x.carry += size * min(l.Now-x.at, interval)
	x.at, x.every = l.Now, interval
	n := uint32(min(x.carry/interval, size))
	x.carry -= int64(n) * interval
	for range n {
		if x.next >= uint32(size) {
			x.next = 0
		}
		if c := ConnOf(l.Slab.At(x.next)); c != nil && c.Phase == turn.PhaseOpen && len(c.Rooms) > 0 {
			x.ask(l, c, interval)
		}
		x.next++
	}
}

// ask sends c a PING that covers what it was given, if it was given something that is not proven.
func (x *Receipts) ask(l *Loop, c *Conn, interval int64) {
	if old, asked := x.asked[c.Slot]; asked && old.gen == c.Gen && l.Now-old.at < 2*interval {
		return
	}
	unproven := false
	for _, r := range c.Rooms {
		h := r.History()
		if h == nil {
			continue
		}
		next := uint64(0)
		if g := l.lagIn(c, r); g != nil {
			next, g.asked = g.next, g.next-1
		}
		unproven = h.Cover(c.Place(), next) || unproven
	}
	if !unproven {
		return
	}
	ping := receipt{gen: c.Gen, at: l.Now}
	l.Rooms.Above.Entropy(ping.bytes[:6])
	x.counter++
	binary.BigEndian.PutUint16(ping.bytes[6:], x.counter)
	if x.asked == nil {
		x.asked = map[uint32]receipt{}
	}
	x.asked[c.Slot] = ping
	l.Count[CountReceiptsSent].Add(1)
	turn.Control(c.Wire(), turn.NewFrame(ws.OpPing, ping.bytes[:]))
}

// Pong takes a PONG of c. payload is borrowed.
func (x *Receipts) Pong(l *Loop, c *Conn, payload []byte) {
	ping, asked := x.asked[c.Slot]
	switch {
	case len(payload) != len(ping.bytes): // of a heartbeat, or of the client's own
		return
	case !asked || ping.gen != c.Gen || [8]byte(payload) != ping.bytes:
		l.Count[CountReceiptsOther].Add(1)
		return
	}
	delete(x.asked, c.Slot)
	if l.Rooms.Liars.has(c.Remote) {
		return
	}
	l.Count[CountReceiptsProven].Add(1)
	for _, r := range c.Rooms {
		if h := r.History(); h != nil {
			covered := uint64(0)
			if g := l.lagIn(c, r); g != nil {
				covered = g.asked
			}
			h.Prove(c.Place(), covered)
		}
	}
	if x.saves(c, l.Now) {
		l.Rooms.Above.Proved(c)
	}
}

// provenFor is about how old the proof may be that is left of a session when its worker is killed.
const provenFor = int64(30 * time.Second)

// saves reports whether the session of c is to be saved with its proof. A connection proves something once in an interval at most,
// and has it saved with each n-th interval, so that no time needs to be kept for it.
func (x *Receipts) saves(c *Conn, now int64) bool {
	n := max(provenFor/max(x.every, 1), 1)
	return now/max(x.every, 1)%n == int64(c.Slot)%n
}

// Forget makes the PONG to an unanswered PING of c prove nothing.
func (x *Receipts) Forget(c *Conn) { delete(x.asked, c.Slot) }

// Liars are the addresses from which PONGs came that proved what had not arrived: an intermediary answers there in place of
// the clients.
//
// Owner: shared (mutex: mu), except said, which is atomic.
type Liars struct {
	mu   sync.Mutex
	list map[netip.Addr]bool
	said atomic.Int64
}

// liarsMax bounds the addresses; then none is trusted.
const liarsMax = 100_000

func (x *Liars) has(a netip.Addr) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.list[a] || len(x.list) >= liarsMax
}

func (x *Liars) add(a netip.Addr) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.list == nil {
		x.list = map[netip.Addr]bool{}
	}
	if len(x.list) < liarsMax {
		x.list[a] = true
	}
}

// falseProofEvery is the time between two lines of the log about false proofs.
const falseProofEvery = int64(time.Minute)

// Note notes that the client of c lacks what a receipt had proven.
func (x *Liars) Note(l *Loop, c *Conn, r *rooms.Room) {
	l.Count[CountReceiptsFalse].Add(1)
	x.add(c.Remote)
	if last := x.said.Load(); last == 0 || l.Now-last >= falseProofEvery {
		x.said.Store(max(l.Now, 1))
		l.Ground.Log.Warn("a client lacks messages that its PONGs had confirmed: a proxy at its address answers PINGs in its place, and PONGs from there prove nothing any more",
			"conn", c.ID().String(), "address", c.Remote.String(), "room", r.Name())
	}
}
