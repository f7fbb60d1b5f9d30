package order

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A new sequencer takes up the work of the one that has died.
//
// Problem: the numbers that clients have seen must not be given again. The old sequencer knew them, and is gone; each follower
// knows those that it has heard, and followers may have heard different parts of the end of its stream.
//
// Steps: ask all followers how far they have heard. The longest log counts: what others lack of it is said again, so that all
// are at one place. Then ask for the rooms, with their newest numbers, and go on behind these.
//
// Invariant: an epoch is kept only if no client can have seen a number that is not in the longest log. A living follower has told
// how far it has heard. A dead one has heard nothing behind its burial, and so nothing that the longest log lacks, if that has the
// burial; else it must have told before it died. Where that is not certain, all rooms begin new epochs.
//
// What lost: files (a publish would wait for a disk), a second sequencer that follows the first one (twice the work, and the
// same question when it takes over), and to take the highest number of each room alone: a room that only a dead follower was in
// would have its numbers given twice.

// rebuild is what a new sequencer knows so far.
//
// Owner: Sequencer.
type rebuild struct {
	until   int64                   // when it is given up
	waits   map[ident.Worker]bool   // followers that have to answer
	answers map[ident.Worker]*greet // that have, and those of others
	died    []ident.Worker          // before the sequencer began
	longest logPlace
	source  ident.Worker // the follower that sends the log; 0: none
	from    uint64       // the first entry that some follower lacks
	log     [][]byte     // entries from there on
	asked   int64        // when the log was asked for
	states  bool         // all are asked for their rooms
}

// greet is a follower's answer.
//
// Owner: Sequencer.
type greet struct {
	next   uint64
	at     logPlace
	keeps  uint64 // the first entry that it can send
	buried []ident.Worker
	dead   bool // it has died since
	parts  map[uint64][]roomState
	total  uint64
	kept   []rooms.KeyedNumber
}

// rebuildFor is how long followers have to answer, in each step.
const rebuildFor = int64(GiveUpAfter)

// restart begins the term: with a rebuild, if there are followers that may have been welcome in an earlier one.
func (s *Sequencer) restart() {
	if len(s.Living) == 0 {
		s.begin(entryReady)
		s.say()
		return
	}
	b := &rebuild{until: s.now + rebuildFor, waits: map[ident.Worker]bool{}, answers: map[ident.Worker]*greet{}, died: s.Dead}
	for _, w := range s.Living {
		b.waits[w] = true
	}
	s.rebuild = b
	s.begin(entryRebuild)
	s.say()
}

func readGreet(r *fleet.Reader) greet {
	return greet{next: r.Number(), at: readPlace(r), keeps: r.Number(), buried: readWorkers(r)}
}

// greeted takes a follower's greeting while the rebuild goes on.
func (s *Sequencer) greeted(from ident.Worker, g greet) {
	b := s.rebuild
	if old := b.answers[from]; old != nil {
		old.next = g.next
		if b.states {
			s.askState()
		}
		return
	}
	b.answers[from] = &g
	delete(b.waits, from)
	if at := b.longest; at != (logPlace{}) && (g.at.term > at.term || g.at.term == at.term && g.at.n > at.n) {
		s.reopen(false) // it was not waited for, and its clients may have seen more
		return
	}
	s.goOn()
}

// buriedMeanwhile notes the death of a follower while the rebuild goes on.
func (s *Sequencer) buriedMeanwhile(w ident.Worker) {
	b := s.rebuild
	delete(b.waits, w)
	if g := b.answers[w]; g != nil {
		g.dead = true
	} else {
		b.died = append(b.died, w) // nobody can have its burial: see proven
	}
	s.goOn()
}

// goOn takes the next step, if what it needs is there.
func (s *Sequencer) goOn() {
	b := s.rebuild
	switch {
	case b == nil || len(b.waits) > 0:
	case b.longest == (logPlace{}):
		s.compare()
	case b.states && b.complete():
		s.reopen(true)
	}
}

// compare compares the logs, once all followers have answered.
func (s *Sequencer) compare() {
	b := s.rebuild
	for _, g := range b.answers {
		if g.at.term > b.longest.term || g.at.term == b.longest.term && g.at.n > b.longest.n {
			b.longest = g.at
		}
	}
	if b.longest == (logPlace{}) || !b.proven() { // no follower was ever welcome, or too many are gone
		s.reopen(false)
		return
	}
	b.from = b.longest.n + 1
	for _, w := range sortedWorkers(b.answers) {
		g := b.answers[w]
		switch {
		case g.dead || g.at.term != b.longest.term:
		case g.at.n < b.longest.n:
			b.from = min(b.from, g.at.n+1)
		case b.source == 0 || g.keeps < b.answers[b.source].keeps:
			b.source = w
		}
	}
	switch {
	case b.from > b.longest.n:
		s.askState()
	case b.source == 0: // the follower with the longest log has died
		s.reopen(false)
	default:
		b.from = max(b.from, b.answers[b.source].keeps)
		s.askLog()
	}
}

// proven reports whether the longest log has the burials of all followers that had died before they could answer.
func (b *rebuild) proven() bool {
	for _, dead := range b.died {
		buried := false
		for _, g := range b.answers {
			buried = buried || g.at == b.longest && slices.Contains(g.buried, dead)
		}
		if !buried {
			return false
		}
	}
	return true
}

// askLog asks for the entries that some followers lack.
func (s *Sequencer) askLog() {
	b := s.rebuild
	b.asked, b.until = s.now, s.now+rebuildFor
	s.about(entryLog, b.source).Number(b.longest.term).Number(b.from + uint64(len(b.log)))
	s.say()
}

// takeLog takes entries of the log, and says them again when all are there.
func (s *Sequencer) takeLog(from ident.Worker, first uint64, list [][]byte) {
	b := s.rebuild
	if b == nil || from != b.source || b.states || b.longest == (logPlace{}) {
		return
	}
	for i, raw := range list {
		if number := first + uint64(i); number == b.from+uint64(len(b.log)) && number <= b.longest.n {
			b.log = append(b.log, slices.Clone(raw))
		}
	}
	if b.from+uint64(len(b.log)) <= b.longest.n {
		return
	}
	for i, raw := range b.log {
		s.begin(entryLate).Number(b.from + uint64(i)).Bytes(raw)
		s.say()
	}
	b.log = nil
	s.askState()
}

// askState asks all followers for their rooms. One that did not hear it greets again.
func (s *Sequencer) askState() {
	b := s.rebuild
	if !b.states {
		b.states, b.until = true, s.now+rebuildFor
	}
	s.longest(entryState)
	s.say()
}

func (s *Sequencer) longest(kind byte) {
	s.rebuild.longest.append(s.begin(kind))
}

// takeState takes a part of what a follower has.
func (s *Sequencer) takeState(from ident.Worker, x *state) {
	b := s.rebuild
	if b == nil || !b.states || b.answers[from] == nil || x.at != b.longest || x.parts == 0 || x.part >= x.parts {
		return
	}
	g := b.answers[from]
	if g.parts == nil || g.total != x.parts {
		g.parts, g.total = map[uint64][]roomState{}, x.parts
	}
	g.next, g.parts[x.part] = x.next, x.rooms
	s.goOn()
}

// complete reports whether all living followers have told what they have. One that was not welcome in the term of the longest log
// has nothing of it: what it had before, those that were welcome have too.
func (b *rebuild) complete() bool {
	for _, g := range b.answers {
		if !g.dead && g.at.term == b.longest.term && (g.total == 0 || uint64(len(g.parts)) < g.total) {
			return false
		}
	}
	return true
}

// reopen ends the rebuild: messages are numbered from now on.
func (s *Sequencer) reopen(kept bool) {
	b := s.rebuild
	s.rebuild = nil
	if kept {
		s.restoreRooms(b)
		s.Kept++
	} else {
		s.Anew++
	}
	s.begin(entryReady)
	s.say()
	for _, w := range sortedWorkers(b.answers) {
		if g := b.answers[w]; !g.dead {
			s.welcome(w, g.next)
		}
	}
}

// restoreRooms makes the rooms as the followers have them. A room about which two of them disagree is left out, and so begins a new
// epoch.
func (s *Sequencer) restoreRooms(b *rebuild) {
	all, wrong := map[string]*roomState{}, map[string]bool{}
	for _, w := range sortedWorkers(b.answers) {
		g := b.answers[w]
		for part := range uint64(len(g.parts)) { // of a dead one there may be holes, and then it counts as far as the first
			for _, x := range g.parts[part] {
				known := all[x.room]
				switch {
				case known == nil:
					all[x.room] = &x
				case known.at != x.at:
					wrong[x.room] = true
				default:
					known.low = min(known.low, x.low)
					known.keys = unite(known.keys, x.keys)
				}
				if !g.dead {
					s.keepers[x.room] = append(s.keepers[x.room], keeper{w, x.low})
				}
			}
		}
	}
	for room, x := range all {
		if wrong[room] || !s.Histories.Restore(room, &rooms.RestoreOptions{Bounds: x.options, At: x.at, Keys: x.keys}, s.now) {
			delete(s.keepers, room)
		}
	}
}

// unite adds the keys that only the second list has.
func unite(a, b []rooms.KeyedNumber) []rooms.KeyedNumber {
	for _, k := range b {
		if !slices.ContainsFunc(a, func(x rooms.KeyedNumber) bool { return x.Key == k.Key }) {
			a = append(a, k)
		}
	}
	slices.SortStableFunc(a, func(x, y rooms.KeyedNumber) int { return int(y.Age/time.Microsecond - x.Age/time.Microsecond) })
	return a
}

// tickRebuild repeats what was not answered, and gives up what takes too long: then all rooms begin new epochs.
func (s *Sequencer) tickRebuild() {
	b := s.rebuild
	switch {
	case b == nil:
	case s.now >= b.until:
		s.reopen(false)
	case b.source != 0 && !b.states && s.now-b.asked >= repeatAfter:
		until := b.until
		s.askLog()
		b.until = until
	}
}

// waitingRead is a question that waits for messages from a follower.
type waitingRead struct {
	from ident.Worker
	q    question
}

// keeper is a follower that has messages of a room which the sequencer lacks.
type keeper struct {
	worker ident.Worker
	low    uint64
}

// fetch asks a follower for messages that the sequencer lacks, for a question of another one. It reports false if there is no such
// follower.
func (s *Sequencer) fetch(from ident.Worker, q *question, h *rooms.History) bool {
	list := s.keepers[q.room]
	list = slices.DeleteFunc(list, func(k keeper) bool { return s.followers[k.worker] == nil })
	low, older := h.Low(), false
	for _, k := range list {
		older = older || k.low < low
		if first := max(q.first, k.low); first < low {
			s.reads[q.room] = append(slices.DeleteFunc(s.reads[q.room], func(x waitingRead) bool { return x.from == from }), waitingRead{from, *q})
			(&question{id: q.id, room: q.room, epoch: q.epoch, first: first, last: low - 1}).append(s.about(entryKept, k.worker))
			s.say()
			return true
		}
	}
	if s.keepers[q.room] = list; !older {
		delete(s.keepers, q.room)
	}
	return false
}

// takeKept takes messages that the sequencer had asked for. Where the follower has none any more, it is asked no more.
func (s *Sequencer) takeKept(from ident.Worker, room, epoch string, list []Kept) {
	r := s.Histories.FindString(room)
	if r == nil || r.History() == nil {
		return
	}
	h := r.History()
	before := h.Low()
	if len(list) > 0 {
		for i := range list {
			list[i].Frame = slices.Clone(list[i].Frame)
		}
		FillHistory(h, epoch, list, s.now)
	}
	if h.Low() == before {
		s.keepers[room] = slices.DeleteFunc(s.keepers[room], func(k keeper) bool { return k.worker == from })
	}
	waiting := s.reads[room]
	delete(s.reads, room)
	for i := range waiting {
		s.read(waiting[i].from, &waiting[i].q)
	}
}

func sortedWorkers[V any](of map[ident.Worker]V) (list []ident.Worker) {
	for w := range of {
		list = append(list, w)
	}
	slices.Sort(list)
	return list
}
