package cluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/figures"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/protocol/ident"
)

const (
	// tickEvery is the time between two ticks of the sequencer, and of a follower.
	tickEvery = 100 * time.Millisecond
	// stuckAfter is the time without a turn after which the sequencer's process gives no sign of life.
	stuckAfter = time.Second
	// batchesBytesMax bounds the batches that wait for the sequencer, beside those that it is about to take; followers repeat what
	// is dropped.
	batchesBytesMax = 32 << 20
	// unsentBytesMax is a part of the link's ring that leaves space for one more batch: as long as that much of the stream has not
	// left, nothing more is numbered. What the ring drops would be lost for all followers at once, and each would read it.
	unsentBytesMax = 4 << 20
	// unsentAgain is when the stream is looked at again.
	unsentAgain = 5 * time.Millisecond
)

// sequencer has the messages of rooms with history numbered, on one goroutine: it takes the followers' batches and the deaths
// of followers in the order in which they come, and publishes what the rules say, once for all that has waited.
//
// Owner: the goroutine of run, except in, and what is atomic.
type sequencer struct {
	log   *slog.Logger
	in    arrivals
	todo  []arrival // taken out of in
	rules *order.Sequencer
	link  *bus.Link
	mail  *bus.Answers
	entry []byte
	wall  time.Time // the clock's zero
	limit int64     // bytes of histories; 0: none
	begun chan struct{}

	own     order.SequencerOptions
	count   figures.SequencerStats
	shown   atomic.Pointer[figures.SequencerStats]
	turned  atomic.Int64 // when the latest turn was, on the clock; 0 before the first
	relieve time.Time    // when the log last spoke of it
	told    bool         // what became of the rooms of an earlier sequencer
}

func newSequencer(cfg engine.Config, welcome supervise.Welcome, o Options) *sequencer {
	of, _ := settings.ParseHistory(cfg.History) // it was checked
	s := &sequencer{log: o.Log, wall: time.Now(), limit: int64(cfg.MemoryBytesMax), begun: make(chan struct{})}
	s.in.wake = make(chan struct{}, 1)
	if s.limit == 0 {
		s.limit = budget.Usable() / 2 / int64(cfg.Processes)
	}
	s.own = order.SequencerOptions{Term: welcome.Term, History: of, Epoch: newEpoch, Linger: cfg.ReconnectionTTL, Say: s.say, Tell: s.tell,
		Secret: welcome.Bus.Secret, Living: onBus(welcome.Peers), Dead: welcome.Ended}
	s.count = figures.SequencerStats{Term: welcome.Term, MemoryLimit: s.limit, Relieved: map[string]uint64{}}
	return s
}

func newEpoch() string {
	var b [8]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// bury notes that a process is gone, once the kernel has reaped it. Any goroutine.
func (s *sequencer) bury(instance ident.Worker) { s.in.add(arrival{from: instance, dead: true}) }

func (s *sequencer) now() int64 { return int64(time.Since(s.wall)) + 1 }

// stuck reports whether the sequencer has taken no turn for too long. Any goroutine.
func (s *sequencer) stuck() bool {
	last := s.turned.Load()
	return last != 0 && s.now()-last > int64(stuckAfter)
}

// stats are the latest figures; nil before the sequencer has begun. Any goroutine.
func (s *sequencer) stats() *figures.SequencerStats { return s.shown.Load() }

// run numbers messages until ctx is done. It waits for a bus that is away. begun is closed when it takes batches.
func (s *sequencer) run(ctx context.Context, to bus.LinkOptions) error {
	if err := s.open(ctx, to); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer s.link.Close()
	defer s.mail.Close()
	close(s.begun)
	s.log.Info("the sequencer has begun", "term", s.own.Term, "memory_limit_bytes", s.limit)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		s.turned.Store(s.now())
		select {
		case <-ctx.Done():
			return nil
		case <-s.in.wake:
			s.takeAll()
		case <-tick.C:
			s.rules.Tick(s.now())
			s.link.Flush()
			s.sayRebuilt()
			s.relieveMemory()
			s.show()
		}
	}
}

// sayRebuilt tells the log, once, what became of the rooms of an earlier sequencer.
func (s *sequencer) sayRebuilt() {
	switch {
	case s.told || s.rules.Kept+s.rules.Anew == 0:
		return
	case s.rules.Kept > 0:
		s.log.Info("the sequencer goes on where the one before it ended: rooms with history keep their numbers", "rooms", s.rules.Histories.Len())
	default:
		s.log.Warn("not all workers could say in time what they had heard of the sequencer before: rooms with history begin new epochs, and their members are told")
	}
	s.told = true
}

// open connects to the bus, and begins the term.
func (s *sequencer) open(ctx context.Context, to bus.LinkOptions) (err error) {
	to.Log = s.log
	if s.link, err = bus.Dial(ctx, to, bus.Receiver{}); err != nil {
		return err
	}
	s.mail, err = s.link.Sequence(func(from ident.Worker, batch []byte) { s.in.add(arrival{from: from, batch: batch}) })
	if err != nil {
		s.link.Close()
		return err
	}
	s.own.Now = s.now()
	s.rules = order.NewSequencer(s.own)
	s.link.Flush()
	s.show()
	return nil
}

// takeAll takes what has arrived as far as its result can leave, and publishes that. What arrives meanwhile is for the next turn.
func (s *sequencer) takeAll() {
	rest := len(s.todo) > 0
	if !rest {
		s.todo = s.in.take()
	}
	for len(s.todo) > 0 && s.link.Unsent() <= unsentBytesMax {
		x := s.todo[0]
		s.todo[0] = arrival{}
		s.todo = s.todo[1:]
		s.take(x)
	}
	s.link.Flush()
	switch {
	case len(s.todo) > 0:
		time.AfterFunc(unsentAgain, s.in.ring)
	case rest:
		s.in.ring() // more may have come meanwhile
	}
}

// take carries out one batch or death.
func (s *sequencer) take(x arrival) {
	now := s.now()
	s.turned.Store(now)
	if x.dead {
		s.rules.Bury(x.from)
		return
	}
	s.count.Batches++
	if err := s.rules.Take(x.from, x.batch, now); err != nil {
		s.log.Error("a worker's batch of messages for rooms with history cannot be read", "worker", x.from, "err", err)
	}
}

// say is of [order.SequencerOptions].
func (s *sequencer) say(entry []byte) {
	s.entry = fleet.Append(s.entry[:0], &fleet.Entry{Kind: fleet.Order, Body: fleet.Body{Payload: entry}})
	if err := s.link.Append(s.entry); err != nil {
		s.log.Error("a message has its number, and does not fit on the bus: its members are told a gap", "err", err)
	}
	if cap(s.entry) > keptEntryBytes {
		s.entry = nil
	}
}

// keptEntryBytes is the largest buffer that is kept for the next entry.
const keptEntryBytes = 1 << 20

// tell is of [order.SequencerOptions].
func (s *sequencer) tell(to ident.Worker, piece []byte) {
	if !s.mail.Tell(to, piece) {
		s.count.AnswersDropped++
	}
}

// relieveMemory forgets histories where they take more than the limit, until a tenth of it is free: first those of rooms that
// nobody is in, the longest unused first, then the older half of the largest.
func (s *sequencer) relieveMemory() {
	held := s.rules.Histories.HistoryBytes()
	if s.limit == 0 || held <= s.limit {
		return
	}
	need, freed := held-(s.limit-s.limit/10), int64(0)
	for _, step := range [...]struct {
		name string
		free func(int64) int64
	}{{"unused_histories", s.rules.Histories.DropUnused}, {"histories", s.rules.Histories.DropHalves}} {
		if freed >= need {
			break
		}
		if n := step.free(need - freed); n > 0 {
			freed += n
			s.count.Relieved[step.name]++
		}
	}
	if now := time.Now(); now.Sub(s.relieve) >= relieveLogEvery {
		s.relieve = now
		s.log.Warn("the bus process has used up its memory for histories; raise memory_bytes_max if the machine has more, or lower the bounds of history",
			"held_bytes", held, "limit_bytes", s.limit, "freed_bytes", freed)
	}
}

const relieveLogEvery = 10 * time.Second

// show publishes the figures.
func (s *sequencer) show() {
	now := s.count
	kept := s.rules.Histories.HistoryCounts()
	now.Followers, now.Rooms, now.Messages, now.Bytes = len(s.rules.Followers()), kept.Rooms, kept.Messages, kept.Bytes
	now.Memory, now.Numbered, now.BatchesDropped = s.rules.Histories.HistoryBytes(), s.rules.Numbered, s.in.dropped.Load()
	now.Rebuilds = map[string]uint64{"kept": s.rules.Kept, "new": s.rules.Anew}
	now.Relieved = make(map[string]uint64, len(s.count.Relieved))
	for step, n := range s.count.Relieved {
		now.Relieved[step] = n
	}
	s.shown.Store(&now)
}

// arrivals are the batches and the deaths that wait for the sequencer, in the order in which they came. Deaths are never dropped.
//
// Owner: shared (mutex: mu), except wake and dropped.
type arrivals struct {
	mu      sync.Mutex
	list    []arrival
	bytes   int
	wake    chan struct{} // the list is not empty
	dropped atomic.Uint64
}

// arrival is a batch of a follower, or its death.
type arrival struct {
	from  ident.Worker
	batch []byte
	dead  bool
}

// add appends. A batch that does not fit is dropped, and counted. Any goroutine; never blocks.
func (a *arrivals) add(x arrival) {
	a.mu.Lock()
	fits := x.dead || a.bytes+len(x.batch) <= batchesBytesMax
	if fits {
		a.list = append(a.list, x)
		a.bytes += len(x.batch)
	}
	a.mu.Unlock()
	if !fits {
		a.dropped.Add(1)
		return
	}
	a.ring()
}

func (a *arrivals) ring() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take takes the whole list.
func (a *arrivals) take() (list []arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list, a.list, a.bytes = a.list, nil, 0
	return list
}
