package order

import (
	"bytes"

	"github.com/parleyd/parley/engine/internal/fleet"
)

// What a follower reads of the sequencer: the messages of a hole, older ones, and idempotency keys.

// reading is a question for messages that is out: those of a hole, or older ones.
//
// Owner: Follower (mutex: mu).
type reading struct {
	question
	at    int64
	fills bool   // older ones
	from  uint64 // the first of these
	older []Kept // what came so far of these
}

// read sends the question for messages.
func (f *Follower) read(p *followed) {
	f.questions++
	f.count.Reads++
	p.reads.id, p.reads.at = f.questions, f.Clock()
	w := new(fleet.Writer).Number(uint64(itemRead))
	p.reads.append(w)
	f.send(w)
}

// Piece takes the answer to a read. answer is borrowed. Errors: [ErrWire].
func (f *Follower) Piece(answer []byte) error {
	r := fleet.Reader{Rest: answer}
	if !head(&r) {
		return ErrWire
	}
	kind, term, id, name, epoch := r.Byte(), r.Number(), r.Number(), string(r.Bytes()), string(r.Bytes())
	if kind == pieceKeys {
		return f.pieceOfKeys(&r, id, name, epoch)
	}
	low, list := r.Number(), readKept(&r)
	if r.Bad || kind != pieceMessages {
		return ErrWire
	}
	f.mu.Lock()
	if p := f.rooms[name]; p != nil && p.reads != nil && p.reads.id == id && term == f.term && f.welcomed {
		if epoch == p.epoch {
			f.piece(name, p, low, list)
		} else { // a new epoch
			f.lose(p)
			f.ask(name, p)
		}
		f.release(name)
	}
	f.mu.Unlock()
	f.act()
	f.Ring()
	return nil
}

func (f *Follower) pieceOfKeys(r *fleet.Reader, id uint64, name, epoch string) error {
	keys := readKeys(r)
	if r.Bad {
		return ErrWire
	}
	f.mu.Lock()
	if p := f.rooms[name]; p != nil && p.keys == id && p.epoch == epoch {
		p.keys = 0
		f.later(func() { f.Floor.TakeKeys(name, epoch, keys) })
	}
	f.mu.Unlock()
	f.act()
	return nil
}

func (f *Follower) piece(name string, p *followed, low uint64, list []Kept) {
	if p.reads.fills {
		f.fillPiece(name, p, list)
		return
	}
	for i := range list {
		m := list[i]
		if m.Seq > p.top+1 {
			f.skip(name, p, m.Seq-1)
		}
		if m.Seq == p.top+1 && m.Seq <= p.reads.last {
			p.top++
			m.Frame = bytes.Clone(m.Frame)
			f.later(func() { f.Floor.TakeKept(name, &m) })
		}
	}
	switch last := p.reads.last; {
	case p.top < last && (len(list) == 0 || low > last): // nothing more is kept
		f.skip(name, p, last)
		f.catchUp(name, p)
	case p.top < last:
		p.reads = &reading{question: question{room: name, epoch: p.epoch, first: p.top + 1, last: last}}
		f.read(p)
	default:
		f.catchUp(name, p)
	}
}

func (f *Follower) skip(name string, p *followed, to uint64) {
	p.top = to
	f.later(func() { f.Floor.Skip(name, to) })
}

// fillPiece gathers older messages until they reach those that the floor has.
func (f *Follower) fillPiece(name string, p *followed, list []Kept) {
	x := p.reads
	for i := range list {
		list[i].Frame = bytes.Clone(list[i].Frame)
		if n := len(x.older); n > 0 && list[i].Seq != x.older[n-1].Seq+1 {
			x.older = nil // what came before has left the history meanwhile
		}
		x.older = append(x.older, list[i])
	}
	n := len(x.older)
	if n > 0 && len(list) > 0 && x.older[n-1].Seq < x.last {
		x.first = x.older[n-1].Seq + 1
		f.read(p)
		return
	}
	p.reads = nil
	if n > 0 && x.older[n-1].Seq == x.last {
		f.later(func() { f.Floor.Fill(name, x.epoch, x.older) })
	}
	at, _, _ := f.Floor.At(name)
	for i := range p.waiters {
		if w := &p.waiters[i]; need(w.since, at) >= x.from {
			w.read = true
		}
	}
}
