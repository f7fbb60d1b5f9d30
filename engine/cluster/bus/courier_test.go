package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// mail is what arrived, in its order.
type mail struct {
	mu   sync.Mutex
	list []string
}

func (m *mail) add(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, text)
}

func (m *mail) is(want ...string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Equal(m.list, want)
}

// outbound is a source of batches.
type outbound struct {
	mu   sync.Mutex
	list []string
}

func (o *outbound) put(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, text)
}

func (o *outbound) next(dst []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		return dst
	}
	dst = append(dst, o.list[0]...)
	o.list = o.list[1:]
	return dst
}

func dialSequencer(t *testing.T, s *Server, instance ident.Worker, take func(from ident.Worker, batch []byte)) (*Link, *Answers) {
	t.Helper()
	l := dial(t, LinkOptions{Local: s, Instance: instance, Sequencer: true, Password: SequencerPassword(secret, instance)}, newWitness())
	answers, err := l.Sequence(take)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(answers.Close)
	return l, answers
}

// What two followers submit reaches the sequencer, in the order of each; each gets the sequencer's answers to itself, and both
// its stream. What they submitted last arrives although the link closes.
func TestSequencerMail(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	const instance = 9
	var got [3]mail
	sequencer, answers := dialSequencer(t, s, instance, func(from ident.Worker, batch []byte) { got[from].add(string(batch)) })
	var heard [3]mail
	var out [3]outbound
	var streams [3]*witness
	var couriers [3]*Courier
	var links [3]*Link
	for i := 1; i <= 2; i++ {
		streams[i] = newWitness()
		var err error
		if links[i], err = Dial(context.Background(), options(s.URL(), ident.Worker(i), instance), streams[i].receiver()); err != nil {
			t.Fatal(err)
		}
		couriers[i], err = links[i].Follow(out[i].next, func(answer []byte) { heard[i].add(string(answer)) })
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			out[i].put(fmt.Sprintf("%d of %d", n, i))
		}
		couriers[i].Wake()
	}
	for i := 1; i <= 2; i++ {
		eventually(t, "the sequencer has all batches, in order", func() bool {
			return got[i].is(fmt.Sprintf("0 of %d", i), fmt.Sprintf("1 of %d", i), fmt.Sprintf("2 of %d", i))
		})
	}
	answers.Tell(1, []byte("to 1"))
	answers.Tell(2, []byte("to 2"))
	answers.Tell(1, []byte("to 1 again"))
	appendEntry(t, sequencer, 0, 100)
	sequencer.Flush()
	eventually(t, "each has its answers, and both the stream", func() bool {
		return heard[1].is("to 1", "to 1 again") && heard[2].is("to 2") && streams[1].has(instance, 1) && streams[2].has(instance, 1)
	})
	for i := 1; i <= 2; i++ {
		out[i].put("last")
		couriers[i].Close()
		links[i].Close()
	}
	for i := 1; i <= 2; i++ {
		eventually(t, "the last batches arrive", func() bool {
			return got[i].is(fmt.Sprintf("0 of %d", i), fmt.Sprintf("1 of %d", i), fmt.Sprintf("2 of %d", i), "last")
		})
		streams[i].check(t)
	}
}

// A bus that does not read blocks the courier's goroutine alone: neither Wake nor Tell waits, and answers beyond the bound are
// dropped. While the connection is known to be broken, nothing is taken from the source.
func TestCourierNeverBlocks(t *testing.T) {
	blocked, open := make(chan struct{}, 1), make(chan struct{})
	a := &Answers{from: 9}
	a.Courier = &Courier{next: a.next, wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}), wire: wire{
		publish: func(string, []byte) error {
			blocked <- struct{}{}
			<-open
			return errors.New("the connection has ended")
		},
		connected: func() bool { return true }}}
	go a.run()
	a.Tell(1, []byte("first"))
	<-blocked
	big := make([]byte, answersBytesMax/4)
	told := 0
	for range 8 {
		if a.Tell(1, big) {
			told++
		}
	}
	if told != 4 {
		t.Errorf("%d answers of a quarter of the bound wait, want 4", told)
	}
	a.wire.connected = func() bool { return false }
	close(open)
	close(a.stop)
	<-a.stopped
	a.waiting.Lock()
	defer a.waiting.Unlock()
	if len(a.list) != 4 || a.bytes != 4*len(big) {
		t.Errorf("%d answers of %d bytes are left; nothing may be taken while the bus is away", len(a.list), a.bytes)
	}
}

// A follower that dials while the sequencer lives gets its stream from there on, without a loss.
func TestSequencerIsAPeer(t *testing.T) {
	s := startServer(t)
	const instance = 9
	sequencer, _ := dialSequencer(t, s, instance, func(ident.Worker, []byte) {})
	for n := range uint64(50) {
		appendEntry(t, sequencer, n, 100)
		sequencer.Flush()
	}
	if err := sequencer.Confirm(t.Context()); err != nil { // else what is on its way reaches the follower, too
		t.Fatal(err)
	}
	began := time.Now()
	g := newWitness()
	l := dial(t, options(s.URL(), 1, instance), g)
	if took := time.Since(began); took > peersWaitDefault {
		t.Errorf("the sequencer was not heard of: Dial took %v", took)
	}
	g.mu.Lock()
	g.next[instance] = 50
	g.mu.Unlock()
	appendEntry(t, sequencer, 50, 100)
	sequencer.Flush()
	eventually(t, "the next entry arrives", func() bool { return g.has(instance, 51) })
	g.check(t)
	if st := l.Stats(); st.BatchesLost > 0 || st.EntriesIn != 1 {
		t.Errorf("%+v", st)
	}
}
