package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// sequencerStats are the figures that the bus process reports; zero before it has.
func (s *serverProcess) sequencerStats() (of struct {
	Term, Numbered uint64
	Followers      int
	Memory         int64
	Relieved       map[string]uint64
}) {
	s.t.Helper()
	var report struct{ Order any }
	report.Order = &of
	if raw := s.ward("bus").Stats; len(raw) > 0 {
		if err := json.Unmarshal(raw, &report); err != nil {
			s.t.Fatal(err)
		}
	}
	return of
}

// Each worker and the api process follow the sequencer of the bus process. A dead one is buried. When the bus process is killed
// the next one has a higher term, and all follow that.
func TestSequencerOfTheBusProcess(t *testing.T) {
	t.Setenv(apiVariable, "1")
	s := startProcesses(t, engine.Config{Processes: 2})
	followers := func(why string) uint64 {
		t.Helper()
		poll(t, why, func() bool { return s.sequencerStats().Followers == 3 })
		return s.sequencerStats().Term
	}
	first := followers("two workers and the api process follow the sequencer")
	for _, name := range []string{"worker 0", "api"} {
		pid := s.signal(name, syscall.SIGKILL)
		poll(t, name+" is back", func() bool { return s.isReady(name, pid) })
		followers("the sequencer has buried the dead process, and welcomed the next " + name)
	}
	if now := s.sequencerStats().Term; now != first {
		t.Errorf("the term was %d, and is %d with the same bus process", first, now)
	}
	pid := s.signal("bus", syscall.SIGKILL)
	poll(t, "the bus is back", func() bool { return s.isReady("bus", pid) })
	if second := followers("all follow the new sequencer"); second <= first {
		t.Errorf("the new term is %d, the old one was %d", second, first)
	}
}

// orderedRoom is a follower of the sequencer beside the server's own, with one room.
type orderedRoom struct {
	t    *testing.T
	f    *order.Follower
	mail *bus.Courier

	calls sync.Mutex // Hear, Piece, Lost and Tick one at a time

	mu     sync.Mutex
	at     rooms.Position
	has    bool
	told   map[rooms.Position]string // every message under its number
	lost   int
	fates  map[string]int // of publishes: ordered, failed
	failed []error
}

const theRoom = "room"

// follow makes a member of the bus that follows its sequencer.
func follow(t *testing.T, n *natsServer, self, sequencer ident.Worker) *orderedRoom {
	t.Helper()
	x := &orderedRoom{t: t, told: map[rooms.Position]string{}, fates: map[string]int{}}
	began := time.Now()
	x.f = order.NewFollower(order.FollowerOptions{Self: self, Floor: x, Clock: func() int64 { return int64(time.Since(began)) + 1 }, Ring: func() {
		if x.mail != nil {
			x.mail.Wake()
		}
	}})
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	link, err := bus.Dial(ctx, bus.LinkOptions{URL: n.url("one"), External: true, Instance: self, Peers: []ident.Worker{sequencer}}, bus.Receiver{
		Batch: func(_ ident.Worker, entries iter.Seq[[]byte]) {
			for entry := range entries {
				if h, err := fleet.Decode(entry, self); err != nil {
					t.Error(err)
				} else if h.Kind == fleet.Order {
					x.call(func() error { return x.f.Hear(h.Payload) })
				}
			}
		},
		Lost: func(ident.Worker, uint64, uint64) { x.call(func() error { x.f.Lost(); return nil }) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	if x.mail, err = link.Follow(x.f.Outgoing, func(answer []byte) { x.call(func() error { return x.f.Piece(answer) }) }); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				x.call(func() error { x.f.Tick(); return nil })
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		ticking.Wait()
		x.mail.Close()
	})
	return x
}

func (x *orderedRoom) call(f func() error) {
	x.calls.Lock()
	defer x.calls.Unlock()
	if err := f(); err != nil {
		x.t.Error(err)
	}
}

func (x *orderedRoom) options() *rooms.HistoryOptions {
	return &rooms.HistoryOptions{Messages: 1000, Bytes: 1 << 20, Age: time.Hour}
}

// join attaches the follower to the room.
func (x *orderedRoom) join() {
	x.t.Helper()
	done := make(chan error, 1)
	x.f.Prepare(theRoom, x.options(), rooms.Since{}, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			x.t.Fatal(err)
		}
	case <-time.After(patient):
		x.t.Fatal("Prepare does not answer")
	}
}

func (x *orderedRoom) publish(room, text string) {
	if err := x.f.Submit(&order.Submission{}, &order.Message{Room: room, Body: fmt.Appendf(nil, `{"text":%q`, text), Scope: "s", Options: x.options()}); err != nil {
		x.t.Error(err)
	}
}

func (x *orderedRoom) begin(at rooms.Position) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at, x.has = at, true
}

func (x *orderedRoom) Begin(_ string, at rooms.Position) { x.begin(at) }
func (x *orderedRoom) Reset(_ string, at rooms.Position) { x.begin(at) }

func (x *orderedRoom) take(seq uint64, frame []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if seq != x.at.Seq+1 {
		x.t.Errorf("message %d comes behind %d", seq, x.at.Seq)
	}
	x.at.Seq = seq
	x.told[x.at] = string(frame)
}

func (x *orderedRoom) Take(m *order.Ordered) {
	x.take(m.Seq, m.Frame)
	if m.Own != nil {
		x.fate("ordered")
	}
}

func (x *orderedRoom) TakeKept(_ string, m *order.Kept) { x.take(m.Seq, m.Frame) }

func (x *orderedRoom) Skip(_ string, to uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at.Seq, x.lost = to, x.lost+1
}

func (x *orderedRoom) Fill(string, string, []order.Kept) {}

func (x *orderedRoom) At(string) (at rooms.Position, low uint64, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.at, 1, x.has
}

func (x *orderedRoom) Keys(string) []rooms.KeyedNumber { return nil }

func (x *orderedRoom) TakeKeys(string, string, []rooms.KeyedNumber) {}

func (x *orderedRoom) Kept(string, string, uint64, uint64) []order.Kept { return nil }

func (x *orderedRoom) Count(ident.Worker, uint64, int) {}

func (x *orderedRoom) Settle(_ *order.Submission, o order.Outcome) {
	if o.Err != nil {
		x.fate(o.Err.Error())
		return
	}
	x.fate("ordered")
}

func (x *orderedRoom) fate(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fates[what]++
}

func (x *orderedRoom) state() (at rooms.Position, fates map[string]int, told map[rooms.Position]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	fates, told = map[string]int{}, map[rooms.Position]string{}
	for k, n := range x.fates {
		fates[k] = n
	}
	for k, text := range x.told {
		told[k] = text
	}
	return x.at, fates, told
}

// Over an external bus, a bus process has nothing but the sequencer. What two followers publish arrives at both in one order,
// each message under one number. When the process is killed, the next one begins a new epoch with a higher term, and the
// publishes that waited have their numbers in it.
func TestSequencerOrders(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("one")})
	sequencer := s.ward("bus").Instance
	other := func(i uint16) ident.Worker { return ident.On(0, sequencer.Instance()/2+i) } // far from those that count up from it
	a, b := follow(t, n, other(1), sequencer), follow(t, n, other(2), sequencer)
	a.join()
	b.join()
	const each = 300
	publish := func(round string) {
		var both sync.WaitGroup
		for _, x := range []*orderedRoom{a, b} {
			both.Go(func() {
				for i := range each {
					x.publish(theRoom, fmt.Sprintf("%s %d of %d", round, i, x.f.Self))
				}
			})
		}
		both.Wait()
	}
	agree := func(total, both int) rooms.Position {
		t.Helper()
		poll(t, "all publishes have their numbers, and both are at the same place", func() bool {
			atA, fatesA, _ := a.state()
			atB, fatesB, _ := b.state()
			return fatesA["ordered"] == total && fatesB["ordered"] == total && atA == atB
		})
		at, fates, told := a.state()
		if len(fates) != 1 || a.lost+b.lost > 0 {
			t.Errorf("fates %v, %d and %d gaps", fates, a.lost, b.lost)
		}
		_, _, other := b.state()
		shared := 0
		for place, text := range told {
			if twin, ok := other[place]; ok && twin != text {
				t.Errorf("under %v one has %q and the other %q", place, text, twin)
			} else if ok {
				shared++
			}
		}
		if shared < both {
			t.Errorf("%d messages are at both, of %d and %d; want %d", shared, len(told), len(other), both)
		}
		return at
	}
	publish("first")
	before := agree(each, 2*each)
	if before.Seq != 2*each {
		t.Errorf("the room is at %d after %d publishes", before.Seq, 2*each)
	}
	term := s.sequencerStats().Term
	poll(t, "two workers and we follow", func() bool { return s.sequencerStats().Followers == 4 && s.sequencerStats().Numbered == 2*each })

	pid := s.signal("bus", syscall.SIGKILL)
	publish("second")
	agree(2*each, 2*each) // in the same epoch or not: the new sequencer need not wait for followers that no supervisor has started
	poll(t, "the figures are those of the new one", func() bool { return s.isReady("bus", pid) && s.sequencerStats().Term > term })
}

// The histories of the sequencer stay within memory_bytes_max: those of rooms that nobody is in go first, then the older half of
// the others. The room's numbers go on.
func TestSequencerKeepsItsBudget(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	const limit = 200_000
	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("one"), MemoryBytesMax: limit})
	sequencer := s.ward("bus").Instance
	a := follow(t, n, ident.On(0, sequencer.Instance()/2+1), sequencer)
	a.join()
	const messages = 600
	text := strings.Repeat("x", 1000)
	for i := range messages {
		a.publish(theRoom, text)
		if i < 100 {
			a.publish("nobody is here", text)
		}
	}
	poll(t, "all have their numbers, and the histories are within the limit", func() bool {
		at, _, _ := a.state()
		now := s.sequencerStats()
		return at.Seq == messages && now.Numbered == messages+100 && now.Memory <= limit && now.Relieved["unused_histories"] > 0 && now.Relieved["histories"] > 0
	})
}
