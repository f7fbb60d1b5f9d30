package order

import (
	"maps"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A follower's part in a rebuild: it says how far it has heard, sends others what they lack, hears what it lacks itself, and
// tells its rooms.

// past is what a follower knows of the last term in which it was welcome.
//
// Owner: Follower (mutex: mu).
type past struct {
	at     logPlace // the newest entry that it has heard
	tail   tail
	buried map[ident.Worker]bool
	asked  bool // the sequencer asks for the rooms
	toldAt int64
}

const (
	tailBytesMax = 4 << 20
	chunkBytes   = 64 << 10
	stateBytes   = 128 << 10 // of one part
)

// tail has the newest entries of the stream, in chunks of memory, so that an entry costs a copy.
//
// Owner: Follower (mutex: mu).
type tail struct {
	first   uint64 // the number of entries[0]
	entries [][]byte
	bytes   int
	chunk   []byte
}

// add takes the next entry. After a hole it begins anew.
func (t *tail) add(number uint64, raw []byte) {
	if number != t.first+uint64(len(t.entries)) {
		*t = tail{first: number}
	}
	if cap(t.chunk)-len(t.chunk) < len(raw) {
		t.chunk = make([]byte, 0, max(chunkBytes, len(raw)))
	}
	from := len(t.chunk)
	t.chunk = append(t.chunk, raw...)
	t.entries = append(t.entries, t.chunk[from:len(t.chunk):len(t.chunk)])
	for t.bytes += len(raw); t.bytes > tailBytesMax && len(t.entries) > 1; t.first++ {
		t.bytes -= len(t.entries[0])
		t.entries[0] = nil
		t.entries = t.entries[1:]
	}
}

// greeting is what a follower says until it is welcome.
func greeting(f *Follower, w *fleet.Writer) {
	w.Number(uint64(itemHello)).Number(f.next - uint64(len(f.outstanding)))
	f.past.at.append(w)
	w.Number(f.past.tail.first)
	appendWorkers(w, sortedWorkers(f.past.buried))
}

// heard notes an entry of the term in which the follower is welcome, or of the one before, if it is said again.
func (f *Follower) heard(at logPlace, raw []byte) {
	if at.n != f.past.at.n+1 || at.term != f.past.at.term {
		f.past.tail = tail{}
	}
	f.past.at = at
	f.past.tail.add(at.n, raw)
}

func (f *Follower) bury(w ident.Worker) {
	if f.past.buried == nil {
		f.past.buried = map[ident.Worker]bool{}
	}
	f.past.buried[w] = true
}

// late takes an entry of the earlier term that the follower may lack.
func (f *Follower) late(r *fleet.Reader) (m Ordered, taken, ok bool) {
	number, raw := r.Number(), r.Bytes()
	old := fleet.Reader{Rest: raw}
	if r.Bad || !head(&old) {
		return m, false, false
	}
	at, kind := readPlace(&old), old.Byte()
	if old.Bad || at.n != number {
		return m, false, false
	}
	if at.term != f.past.at.term || number != f.past.at.n+1 {
		return m, false, true
	}
	f.heard(at, raw)
	m, taken, ok = f.entry(kind, &old)
	return m, taken, ok && !old.Bad
}

// sendLog sends the entries from a number on.
func (f *Follower) sendLog(term, from uint64) {
	t := &f.past.tail
	if term != f.past.at.term || from < t.first {
		return
	}
	for i := from - t.first; i < uint64(len(t.entries)); {
		w, first, bytes := new(fleet.Writer), i, 0
		for ; i < uint64(len(t.entries)) && (i == first || bytes+len(t.entries[i]) < batchBytesMax/2); i++ {
			bytes += len(t.entries[i])
		}
		w.Number(uint64(itemLog)).Number(t.first + first).Number(i - first)
		for _, raw := range t.entries[first:i] {
			w.Bytes(raw)
		}
		f.control = append(f.control, w.B)
	}
}

// state answers the sequencer's question for the rooms. Whoever has heard more than the place that it names was not waited for,
// and says nothing; whoever has heard less has holes, and offers nothing.
func (f *Follower) state(at logPlace) {
	switch {
	case at.term != f.past.at.term:
		f.loseRooms()
		f.past.at = logPlace{}
		return
	case at.n < f.past.at.n:
		return
	case at.n > f.past.at.n:
		f.loseRooms()
		f.unsure = f.next
		f.past.at = at
		f.past.tail = tail{first: at.n + 1}
	}
	f.past.asked = true
	f.later(f.tellState)
}

func (f *Follower) loseRooms() {
	for _, p := range f.rooms {
		f.lose(p)
	}
}

// tellState tells the rooms, in parts. It runs as an effect, so that the floor has done everything that was in front.
func (f *Follower) tellState() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.welcomed || !f.past.asked {
		return
	}
	f.past.toldAt = f.Clock()
	var parts [][]byte
	var counts []uint64
	w, n := new(fleet.Writer), uint64(0)
	end := func() {
		parts, counts = append(parts, w.B), append(counts, n)
		w, n = new(fleet.Writer), 0
	}
	for _, name := range slices.Sorted(maps.Keys(f.rooms)) {
		p := f.rooms[name]
		at, low, ok := f.Floor.At(name)
		if !p.live || p.keys != 0 || !ok || at != (rooms.Position{Seq: p.top, Epoch: p.epoch}) {
			continue
		}
		(&roomState{room: name, at: at, low: low, options: p.options, keys: f.Floor.Keys(name)}).append(w)
		if n++; len(w.B) > stateBytes {
			end()
		}
	}
	if end(); len(parts) > 1 && counts[len(counts)-1] == 0 {
		parts = parts[:len(parts)-1]
	}
	for i, raw := range parts {
		item := new(fleet.Writer).Number(uint64(itemState))
		f.past.at.append(item)
		item.Number(f.next - uint64(len(f.outstanding))).Number(uint64(i)).Number(uint64(len(parts))).Number(counts[i])
		f.control = append(f.control, append(item.B, raw...))
	}
}

// sendKept sends messages that the sequencer lacks, the newest ones that fit.
func (f *Follower) sendKept(q *question) {
	f.later(func() {
		list := f.Floor.Kept(q.room, q.epoch, q.first, q.last)
		w := new(fleet.Writer).Number(uint64(itemKept)).Text(q.room).Text(q.epoch)
		appendKept(w, list)
		f.mu.Lock()
		f.send(w)
		f.mu.Unlock()
		f.Ring()
	})
}
