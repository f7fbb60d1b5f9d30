package rooms

import "github.com/parleyd/parley/protocol/message"

// Reading a history: by members that are behind, and by requests for parts of it.

// Kind says what a reader gets for a number.
type Kind uint8

// The kinds.
const (
	KindMessage   Kind = iota
	KindConflated      // a later message with the same key is unread, too
	KindGone           // the history has it no longer
)

// Read is one piece of a history that a member reads.
//
// Owner: the loop that reads.
type Read struct {
	Next         uint64 // the number to begin with; after the piece, the next one
	BytesMax     int    // the piece ends in front of a message that would exceed them, but has at least one
	ConflateFrom uint64 // from this number on messages are conflated, where the room does that

	Epoch string // of the numbers, from the first call of take on
	Live  bool   // the piece reaches the newest message: later ones are delivered
}

// Read calls take for the next messages of a member that is behind: for numbers that are gone, together and without s, and then
// for each one that is kept, until take returns false: these numbers are read later. It makes the member live again when there
// are no more. take runs under the room's lock; s is borrowed, its frame is not. ok is false if p is not behind here. Only p's
// loop may call it.
func (h *History) Read(p Place, q *Read, now int64, take func(from, to uint64, s *Stored, kind Kind) (goOn bool)) (ok bool) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	stand := h.stand(p)
	if stand == nil || stand.From != Behind {
		return false
	}
	if !h.told(p.Loop, stand) {
		return true // the new epoch is told first
	}
	h.trim(h.room.index, now)
	q.Epoch = h.epoch
	if low := h.low(); q.Next < low {
		if !take(q.Next, low-1, nil, KindGone) {
			return true
		}
		q.Next = low
	}
	var newest map[uint64]uint64
	if h.Slow == SlowConflate {
		newest = h.newest(max(q.Next, q.ConflateFrom))
	}
	for left := q.BytesMax; q.Next <= h.top; q.Next++ {
		s := h.at(q.Next)
		kind := KindMessage
		if s.more != nil && s.more.key != 0 && newest[s.more.key] > q.Next && q.Next >= q.ConflateFrom {
			kind = KindConflated
		} else if left -= s.size(); left < 0 && left+s.size() < q.BytesMax {
			return true
		}
		if !take(q.Next, q.Next, s, kind) {
			return true
		}
	}
	q.Live = true
	stand.From = h.top
	return true
}

// newest is the newest number of each key for conflation, from a number on.
func (h *History) newest(from uint64) map[uint64]uint64 {
	newest := map[uint64]uint64{}
	for number := from; number <= h.top; number++ {
		if more := h.at(number).more; more != nil && more.key != 0 {
			newest[more.key] = number
		}
	}
	return newest
}

// Part is a part of a history, in ascending order.
//
// Owner: the caller.
type Part struct {
	message.Start // of a query with Since or Before: its epoch, its gap and what is missing
	Low, Top      uint64
	Frames        [][]byte
	First         uint64 // the number of the first frame
	More          bool   // there are further messages in the direction that was asked for
}

// PartQuery asks for a part of a history: behind Since, or before Before, or the newest messages.
//
// Owner: the caller.
type PartQuery struct {
	Since, Before *Position
	Limit         int // messages, at least 1
	BytesMax      int // of frames; one message at least
}

// Part reads a part of the history. Any goroutine.
func (h *History) Part(q PartQuery, now int64) Part {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.trim(h.room.index, now)
	low := h.low()
	p := Part{Start: message.Start{Position: Position{Epoch: h.epoch}}, Low: low, Top: h.top}
	if q.Since == nil {
		end := h.top + 1
		if q.Before != nil && q.Before.Epoch != h.epoch {
			p.Gap = true
		} else if q.Before != nil {
			end = min(max(q.Before.Seq, low), end)
		}
		h.backwards(&p, q, end)
		return p
	}
	p.Start = h.start(Since{Named: true, Position: *q.Since})
	p.First = p.Seq + 1
	left := q.BytesMax
	for number := p.First; number <= h.top; number++ {
		frame := h.at(number).Frame()
		if left -= len(frame); len(p.Frames) == q.Limit || left < 0 && len(p.Frames) > 0 {
			p.More = true
			break
		}
		p.Frames = append(p.Frames, frame)
	}
	return p
}

// backwards fills p with the messages in front of a number.
func (h *History) backwards(p *Part, q PartQuery, end uint64) {
	first, left := end, q.BytesMax
	for first > p.Low && end-first < uint64(q.Limit) {
		if left -= h.at(first - 1).size(); left < 0 && first < end {
			break
		}
		first--
	}
	for number := first; number < end; number++ {
		p.Frames = append(p.Frames, h.at(number).Frame())
	}
	p.First, p.More = first, first > p.Low
}
