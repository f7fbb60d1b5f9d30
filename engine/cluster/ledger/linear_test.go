package ledger

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/parleyd/parley/protocol/ident"
)

// The workers' operations on one session, for the checker.
type sessionCall struct {
	kind  string // save, park, claim, unclaim, spend
	nonce Nonce
	value uint64
}

type sessionAnswer struct {
	err   error
	value uint64
}

// sessionState is the content of a single, correct store. In this model no worker dies, and no record expires.
type sessionState struct {
	there  bool
	taken  bool
	taker  Nonce
	owners bool // the owner has not learned that it lost the session
	value  uint64
}

// sessionModel says which answers a single store could give. A call that got ErrAway may have happened or not, any
// time later; for a claim the ledger then takes it back, so such a call has no lasting effect, but others may see
// the session taken in between.
var sessionModel = porcupine.Model{
	Init: func() any { return sessionState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(sessionState), input.(sessionCall), output.(sessionAnswer)
		switch in.kind {
		case "save", "park":
			if s.taken || !s.there && s.owners {
				return out.err != nil, s
			}
			if out.err != nil {
				return false, s
			}
			return true, sessionState{there: true, owners: true, value: in.value}
		case "claim":
			switch {
			case !s.there:
				return out.err == ErrUnknown, s
			case s.taken && s.taker != in.nonce:
				return out.err == ErrClaimed, s
			}
			s.taken, s.taker = true, in.nonce
			return out.err == nil && out.value == s.value, s
		case "unclaim":
			if !s.taken || s.taker != in.nonce {
				return out.err != nil, s
			}
			s.taken = false
			return out.err == nil, s
		case "spend":
			if !s.taken || s.taker != in.nonce {
				return out.err != nil, s
			}
			s.there, s.taken = false, false
			return out.err == nil, s
		}
		return false, s
	},
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[Key][]porcupine.Operation{}
		for _, op := range history {
			k := op.Metadata.(Key)
			byKey[k] = append(byKey[k], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range byKey {
			parts = append(parts, ops)
		}
		return parts
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// recorder keeps the history.
type recorder struct {
	mu      sync.Mutex
	start   time.Time
	history []porcupine.Operation
	aways   atomic.Int32 // claims that were told ErrAway
}

// record gives every call a client of its own: the checker wants one call at a time from each.
func (r *recorder) record(key Key, in sessionCall, call func() sessionAnswer) sessionAnswer {
	begin := time.Since(r.start).Nanoseconds()
	out := call()
	end := time.Since(r.start).Nanoseconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, porcupine.Operation{
		ClientId: len(r.history), Input: in, Call: begin, Output: out, Return: end, Metadata: key,
	})
	return out
}

func number(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// claimOf repeats a claim whose outcome is open: one call, for the checker.
func (r *recorder) claimOf(t testing.TB, l *Ledger, at Claim) sessionAnswer {
	for {
		got, err := l.Sessions.claim(t, at)
		if err == ErrAway {
			r.aways.Add(1)
			continue
		}
		if err != nil {
			return sessionAnswer{err: err}
		}
		return sessionAnswer{value: binary.BigEndian.Uint64(got.Value)}
	}
}

// Concurrent claims of many workers, while the bus is killed: their outcomes could have come from one correct store that
// serves one call after the other, and for every session one claim succeeded.
func TestClaimsAreLinearizable(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	brief := func(o *Options) { o.AwayAfter = 150 * time.Millisecond }
	const workers = 4
	kills := some(8, 3)
	var ledgers []*Ledger
	for i := range workers {
		ledgers = append(ledgers, b.open(t, ident.Worker(i+1), brief))
	}
	rec := &recorder{start: time.Now()}
	winners := map[int]int{}
	var mu sync.Mutex
	one := func(n int, rng *rand.Rand) {
		owner := ledgers[n%workers]
		k := keyOf(owner.opts.Instance, n)
		first := rec.record(k, sessionCall{kind: "save", value: uint64(n)}, func() sessionAnswer {
			for {
				if err := owner.Sessions.save(t, k, string(number(uint64(n)))); err != ErrAway {
					return sessionAnswer{err: err}
				}
			}
		})
		if first.err != nil {
			t.Errorf("first save: %v", first.err)
			return
		}
		unclaims := rng.IntN(2) == 0
		var all sync.WaitGroup
		for i, l := range ledgers {
			all.Go(func() {
				at := Claim{k, nonceOf(n*workers + i)}
				out := rec.record(k, sessionCall{kind: "claim", nonce: at.Nonce}, func() sessionAnswer { return rec.claimOf(t, l, at) })
				if out.err != nil {
					return
				}
				kind := "spend"
				if unclaims && i%2 == 0 {
					kind = "unclaim"
				} else {
					mu.Lock()
					winners[n]++
					mu.Unlock()
				}
				rec.record(k, sessionCall{kind: kind, nonce: at.Nonce}, func() sessionAnswer { return finish(t, l, kind, at) })
			})
		}
		all.Wait()
	}
	killed := make(chan struct{})
	go b.killRepeatedly(kills, killed)
	var all sync.WaitGroup
	next := make(chan int)
	for c := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for n := range next {
				one(n, rng)
			}
		})
	}
	sessions := 0
	for alive := true; alive; sessions++ {
		select {
		case <-killed:
			alive = false
		case next <- sessions:
		}
	}
	close(next)
	all.Wait()
	for n, won := range winners {
		if won > 1 {
			t.Errorf("session %d was claimed by %d", n, won)
		}
	}
	t.Logf("%d sessions, %d calls, %d claims repeated, %d kills of the bus", sessions, len(rec.history), rec.aways.Load(), kills)
	if rec.aways.Load() == 0 {
		t.Error("no claim was in doubt: the bus was not away for long enough")
	}
	for _, calls := range sessionModel.Partition(rec.history) {
		if result := porcupine.CheckOperationsTimeout(sessionModel, calls, 20*time.Second); result != porcupine.Ok {
			for _, c := range calls {
				t.Logf("%9d to %9d us: %s", c.Call/1000, c.Return/1000, sessionModel.DescribeOperation(c.Input, c.Output))
			}
			t.Errorf("these calls: %s", result)
		}
	}
}

// finish ends a claim; after ErrAway it does so again, and the outcome of the first attempt counts.
func finish(t testing.TB, l *Ledger, kind string, at Claim) sessionAnswer {
	f := l.Sessions.Spend
	if kind == "unclaim" {
		f = l.Sessions.Unclaim
	}
	away := false
	for {
		err := await(t, func(done func(error)) error { return f(at, done) })
		switch {
		case err == ErrAway:
			away = true
		case away: // done by the attempt that was not answered
			return sessionAnswer{}
		default:
			return sessionAnswer{err: err}
		}
	}
}

// killRepeatedly kills the bus again and again; every other time it stays away for longer than calls wait.
func (b *bus) killRepeatedly(times int, over chan<- struct{}) {
	defer close(over)
	pause := time.NewTicker(250 * time.Millisecond)
	defer pause.Stop()
	for i := range times {
		<-pause.C
		b.process.kill()
		if i%2 == 0 {
			<-pause.C
		}
		b.start()
	}
}
