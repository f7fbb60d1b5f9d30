package engine

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// A question to several workers at once. The answers are gathered, and passed on when all workers have answered or time is
// up.

// gatherWait is how long gather waits for a worker.
const gatherWait = time.Second

// joinWait is the wait for a join, which may itself wait for a seat of a limited room.
const joinWait = 2500 * time.Millisecond

// gatherGrace is the longest delay after that until the caller learns of it.
const gatherGrace = 300 * time.Millisecond

// parcel is a question for one worker, or its answer.
type parcel struct {
	worker ident.Worker
	bytes  []byte
}

// harvest has the answers so far.
//
// Owner: shared (mutex: mu).
type harvest struct {
	mu      sync.Mutex
	open    map[ident.Worker]bool // workers whose answer is awaited; nil once the harvest is closed
	answers []parcel
	missing []ident.Worker
	done    func(answers []parcel, missing []ident.Worker)
}

// gather asks workers, each its own question. It calls done with the answers and with the workers that gave none, both in
// the order of workers. A worker that has ended is in neither list. done runs once, on any goroutine, perhaps before gather
// returns, and must not block. Any goroutine.
func (s *Server) gather(v fleet.Verb, questions []parcel, wait time.Duration, done func(answers []parcel, missing []ident.Worker)) *harvest {
	h := &harvest{open: map[ident.Worker]bool{}, done: done}
	for _, q := range questions {
		h.open[q.worker] = true
	}
	if len(questions) == 0 {
		h.giveUp()
		return h
	}
	for _, q := range questions {
		s.ask(q.worker, asking{v, q.bytes, wait}, func(answer []byte, err error) { h.add(q.worker, answer, err) })
	}
	return h
}

func (h *harvest) add(worker ident.Worker, answer []byte, err error) {
	h.mu.Lock()
	if !h.open[worker] {
		h.mu.Unlock()
		return // too late
	}
	delete(h.open, worker)
	switch err {
	case nil:
		h.answers = append(h.answers, parcel{worker, slices.Clone(answer)})
	case ErrWorkerGone:
	default:
		h.missing = append(h.missing, worker)
	}
	last := len(h.open) == 0
	if last {
		h.end()
	}
	h.mu.Unlock()
	if last {
		h.done(h.answers, h.missing)
	}
}

// giveUp ends the wait for the open workers.
func (h *harvest) giveUp() {
	h.mu.Lock()
	last := h.open != nil
	if last {
		h.missing = slices.AppendSeq(h.missing, maps.Keys(h.open))
		h.end()
	}
	h.mu.Unlock()
	if last {
		h.done(h.answers, h.missing)
	}
}

// end closes the harvest: nothing changes it from here on, so that done can be called without mu. Under mu.
func (h *harvest) end() {
	h.open = nil
	slices.SortFunc(h.answers, func(a, b parcel) int { return cmp.Compare(a.worker, b.worker) })
	slices.Sort(h.missing)
}

// Serving sets the other workers that take connections and can be asked; starting and ending workers have no answers. Any
// goroutine.
func (s *Server) Serving(ready []ident.Worker) {
	list := slices.DeleteFunc(slices.Clone(ready), func(x ident.Worker) bool { return x == s.instance })
	slices.Sort(list)
	s.peers.serving.Store(&list)
}

// others are the workers that serve besides this one, in order. The caller must not change the list.
func (s *Server) others() []ident.Worker {
	if s.peers == nil {
		return nil
	}
	return *s.peers.serving.Load()
}

// lowest reports whether this worker has the lowest number.
func (s *Server) lowest() bool {
	list := s.others()
	return len(list) == 0 || list[0] > s.instance
}

// cutOff reports whether the bus is known to be away while other workers exist.
func (s *Server) cutOff() bool {
	return s.peers != nil && len(s.others()) > 0 && !s.peers.Bus.Up()
}
