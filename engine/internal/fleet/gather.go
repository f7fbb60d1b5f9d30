package fleet

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A question to several workers at once. The answers are gathered, and passed on when all workers have answered or time is
// up.

// Times of a gathering.
const (
	// GatherWait is how long a gathering waits for a worker.
	GatherWait = time.Second
	// JoinWait is the wait for a join, which may itself wait for a seat of a limited room.
	JoinWait = 2500 * time.Millisecond
	// GatherGrace is the longest delay after that until the caller learns of it.
	GatherGrace = 300 * time.Millisecond
)

// Part is a question for one worker, or its answer.
type Part struct {
	Worker ident.Worker
	Bytes  []byte
}

// Gathering is a question to several workers, with the answers so far.
//
// Owner: shared (mutex: mu).
type Gathering struct {
	mu      sync.Mutex
	open    map[ident.Worker]bool // workers whose answer is awaited; nil once the gathering is over
	answers []Part
	missing []ident.Worker
	done    func(answers []Part, missing []ident.Worker)
}

// Gather asks workers, each its own question. It calls done with the answers and with the workers that gave none, both in
// the order of workers. A worker that has ended is in neither list. done runs once, on any goroutine, perhaps before Gather
// returns, and must not block.
func (l *Link) Gather(v Verb, questions []Part, wait time.Duration, done func(answers []Part, missing []ident.Worker)) *Gathering {
	g := &Gathering{open: map[ident.Worker]bool{}, done: done}
	for _, q := range questions {
		g.open[q.Worker] = true
	}
	if len(questions) == 0 {
		g.GiveUp()
		return g
	}
	for _, q := range questions {
		l.Ask(q.Worker, Question{v, q.Bytes, wait}, func(answer []byte, err error) { g.add(q.Worker, answer, err) })
	}
	return g
}

func (g *Gathering) add(worker ident.Worker, answer []byte, err error) {
	g.mu.Lock()
	if !g.open[worker] {
		g.mu.Unlock()
		return // too late
	}
	delete(g.open, worker)
	switch err {
	case nil:
		g.answers = append(g.answers, Part{worker, append([]byte{}, answer...)})
	case ErrWorkerGone:
	default:
		g.missing = append(g.missing, worker)
	}
	last := len(g.open) == 0
	if last {
		g.end()
	}
	g.mu.Unlock()
	if last {
		g.done(g.answers, g.missing)
	}
}

// GiveUp ends the wait for the open workers.
func (g *Gathering) GiveUp() {
	g.mu.Lock()
	last := g.open != nil
	if last {
		g.missing = slices.AppendSeq(g.missing, maps.Keys(g.open))
		g.end()
	}
	g.mu.Unlock()
	if last {
		g.done(g.answers, g.missing)
	}
}

// end ends the gathering: nothing changes it from here on, so that done can be called without mu. Under mu.
func (g *Gathering) end() {
	g.open = nil
	slices.SortFunc(g.answers, func(a, b Part) int { return cmp.Compare(a.Worker, b.Worker) })
	slices.Sort(g.missing)
}
