package fleet

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A worker's knowledge of the others: which are full, whose messages were missed, which events they want, and their figures.

// Workers accept from one socket: the worker that has waited longest gets the next connection. A full worker would refuse
// its share of the connections while other workers have free capacity. So a full worker accepts none and leaves them to the
// others. Workers refuse connections only when all of them are full. A full worker repeats that it is full, because a worker
// that has just started does not know; a worker that is no longer full says so once.

// NoteFull notes whether another worker is full.
func (l *Link) NoteFull(worker ident.Worker, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch i := slices.Index(l.full, worker); {
	case full && i < 0:
		l.full = append(l.full, worker)
	case !full && i >= 0:
		l.full = slices.Delete(l.full, i, i+1)
	}
}

// OthersAccept reports whether another worker accepts connections.
func (l *Link) OthersAccept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(*l.alive.Load(), func(w ident.Worker) bool { return !slices.Contains(l.full, w) })
}

// SayFull tells the others whether this worker is full.
func (l *Link) SayFull(full bool) { l.Say(true, &Entry{Kind: Full, Body: Body{On: full}}) }

// MissedSeldom reports true at most once a second for each worker, so that missed messages do not fill the log.
func (l *Link) MissedSeldom(from ident.Worker) bool {
	now := l.above.Clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, was := l.missedSaid[from]; was && now-last < int64(time.Second) {
		return false
	}
	if l.missedSaid == nil {
		l.missedSaid = map[ident.Worker]int64{}
	}
	l.missedSaid[from] = now
	return true
}

// wishes are the kinds of events that each worker wants from all others, a bit for each kind.
//
// Owner: shared (mutex of the link).
type wishes struct {
	own    uint32
	others map[ident.Worker]uint32
}

// Wanted is the union of all wishes, of this worker and the others.
func (l *Link) Wanted() uint32 { return l.wanted.Load() }

// SetWish sets this worker's wish, and reports whether it has changed: then the caller tells the others by SayWish.
func (l *Link) SetWish(kinds uint32) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.wishes.own != kinds
	l.wishes.own = kinds
	l.unite()
	return changed
}

// unite computes the union of all wishes. Under mu.
func (l *Link) unite() {
	all := l.wishes.own
	for _, kinds := range l.wishes.others {
		all |= kinds
	}
	l.wanted.Store(all)
}

// SayWish tells the other workers this worker's wish; asks requests theirs.
func (l *Link) SayWish(asks bool) {
	e := Entry{Kind: Wish}
	if asks {
		e.Asks = AsksMembers
	}
	l.Lock()
	e.Events = l.wishes.own
	err := l.Append(&e)
	l.Unlock()
	l.Said(true, err)
}

// HearWish notes another worker's wish.
func (l *Link) HearWish(from ident.Worker, h *Heard) {
	l.setWish(from, h.Events)
	l.mu.Lock()
	answers := h.Asks != AsksNothing && l.wishes.own != 0
	l.mu.Unlock()
	if answers {
		l.SayWish(false)
	}
}

func (l *Link) setWish(worker ident.Worker, kinds uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wishes.others == nil {
		l.wishes.others = map[ident.Worker]uint32{}
	}
	l.wishes.others[worker] = kinds
	if kinds == 0 {
		delete(l.wishes.others, worker)
	}
	l.unite()
}

// Wishing is the worker that wants events of a kind, 0 if several do; any is false if none does.
func (l *Link) Wishing(bit uint32) (target ident.Worker, any bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := 0
	for worker, kinds := range l.wishes.others {
		if kinds&bit != 0 {
			target = worker
			wanted++
		}
	}
	if wanted > 1 {
		target = 0
	}
	return target, wanted > 0
}

// Figures that workers tell each other: those of the seed's getStats. Loop 0 tells the connections and rooms of its worker
// with the tick after a change, and all figures once a second. A worker that has started, or has missed messages, gets them
// with the counts of rooms. So a caller does not wait, and the figures are right one tick after the last change.

const sayFiguresEvery = time.Second

// figuresAway are the figures of the other workers.
//
// Owner: shared (mutex of the link), except said and saidAt: loop 0.
type figuresAway struct {
	by          map[ident.Worker]FigureSet
	connections atomic.Int64 // of all of them
	said        FigureSet
	saidAt      int64
}

// FiguresDue reports whether this worker's figures are to be told. Loop 0 calls it.
func (l *Link) FiguresDue(connections, rooms uint64, now int64) bool {
	f := &l.figures
	return f.said.Connections != connections || f.said.Rooms != rooms || now-f.saidAt >= int64(sayFiguresEvery)
}

// ReportFigures tells all workers this worker's figures, at the end of the turn. Loop 0 calls it.
func (l *Link) ReportFigures(f FigureSet, now int64) {
	l.figures.said, l.figures.saidAt = f, now
	l.SayFigures(0, f)
}

// SayFigures tells figures to a worker, or to all, at the end of the turn.
func (l *Link) SayFigures(target ident.Worker, f FigureSet) {
	l.Say(false, &Entry{Kind: Figures, Target: target, Body: Body{Figures: f}})
}

// HearFigures notes another worker's figures.
func (l *Link) HearFigures(from ident.Worker, h *Heard) {
	const most = 1 << 40 // so that sums do not overflow, whatever another worker sends
	f := h.Figures
	for _, n := range []*uint64{&f.Connections, &f.Rooms, &f.Memory, &f.Uptime} {
		*n = min(*n, most)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.figures.by == nil {
		l.figures.by = map[ident.Worker]FigureSet{}
	}
	l.figures.connections.Add(int64(f.Connections) - int64(l.figures.by[from].Connections))
	l.figures.by[from] = f
}

// Gone drops the wish and the figures of a worker that has died.
func (l *Link) Gone(worker ident.Worker) {
	l.setWish(worker, 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.figures.connections.Add(-int64(l.figures.by[worker].Connections))
	delete(l.figures.by, worker)
}

// ConnectionsAway is the number of connections of the other workers.
func (l *Link) ConnectionsAway() int64 { return l.figures.connections.Load() }

// FiguresAway are the figures of the other workers, in no order.
func (l *Link) FiguresAway() (list []FigureSet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.figures.by {
		list = append(list, f)
	}
	return list
}
