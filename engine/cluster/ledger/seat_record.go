package ledger

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/parleyd/parley/protocol/ident"
)

// holding is how many seats of a room one instance has.
type holding struct {
	instance ident.Worker
	seats    uint32
}

// A Ticket names a seat that one worker gives to another. The zero ticket is none.
type Ticket [16]byte

// gift is a seat on its way from one instance to another. Neither holds it, and it is not free.
type gift struct {
	from, to ident.Worker
	ticket   Ticket
}

// seatRecord is a record of seatBucket: how many seats each instance holds. Each holding is written by its own instance
// only, and removed by others once that is dead. So the record itself shows which of our writes has succeeded, even if
// others have written since.
//
// Owner: the decoder; immutable once it is a room's view.
type seatRecord struct {
	epoch    int64
	limit    uint32
	holdings []holding
	gifts    []gift
}

const (
	seatVersion = 2
	seatHeader  = 1 + 8 + 4 + 2
	holdingLen  = 2 + 4
	giftLen     = 2 + 2 + 16
)

var errSeats = errors.New("decode seats: not a record of this version")

func (r *seatRecord) encode() []byte {
	b := make([]byte, 0, seatHeader+holdingLen*len(r.holdings)+giftLen*len(r.gifts))
	b = append(b, seatVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.epoch))
	b = binary.BigEndian.AppendUint32(b, r.limit)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.holdings)))
	for _, h := range r.holdings {
		b = binary.BigEndian.AppendUint16(b, h.instance.Instance())
		b = binary.BigEndian.AppendUint32(b, h.seats)
	}
	for _, g := range r.gifts {
		b = binary.BigEndian.AppendUint16(b, g.from.Instance())
		b = binary.BigEndian.AppendUint16(b, g.to.Instance())
		b = append(b, g.ticket[:]...)
	}
	return b
}

// decodeSeats reads a record. One of an earlier version is of an earlier start: it counts as empty.
func decodeSeats(b []byte) (r seatRecord, err error) {
	if len(b) > 0 && b[0] < seatVersion {
		return r, nil
	}
	if len(b) < seatHeader || b[0] != seatVersion {
		return r, errSeats
	}
	r.epoch = int64(binary.BigEndian.Uint64(b[1:]))
	r.limit = binary.BigEndian.Uint32(b[9:])
	n := holdingLen * int(binary.BigEndian.Uint16(b[13:]))
	b = b[seatHeader:]
	if len(b) < n || (len(b)-n)%giftLen != 0 {
		return r, errSeats
	}
	held, given := b[:n], b[n:]
	for b := held; len(b) > 0; b = b[holdingLen:] {
		r.holdings = append(r.holdings, holding{ident.On(0, binary.BigEndian.Uint16(b)), binary.BigEndian.Uint32(b[2:])})
	}
	for b := given; len(b) > 0; b = b[giftLen:] {
		r.gifts = append(r.gifts, gift{ident.On(0, binary.BigEndian.Uint16(b)), ident.On(0, binary.BigEndian.Uint16(b[2:])), Ticket(b[4:giftLen])})
	}
	return r, nil
}

// payload is the stored form of the record: nil if it is empty.
func (r *seatRecord) payload() []byte {
	if len(r.holdings)+len(r.gifts) == 0 {
		return nil
	}
	return r.encode()
}

// sameSize reports whether two versions are equal, if one is the other with some parts removed.
func (r *seatRecord) sameSize(other seatRecord) bool {
	return r.epoch == other.epoch && len(r.holdings) == len(other.holdings) && len(r.gifts) == len(other.gifts)
}

// of is how many seats an instance holds.
func (r *seatRecord) of(instance ident.Worker) int {
	for _, h := range r.holdings {
		if h.instance == instance {
			return int(h.seats)
		}
	}
	return 0
}

// others is how many seats all but one instance hold, with the gifts, and how many of them hold any.
func (r *seatRecord) others(instance ident.Worker) (seats, holders int) {
	for _, h := range r.holdings {
		if h.instance != instance {
			seats += int(h.seats)
			holders++
		}
	}
	return seats + len(r.gifts), holders
}

// with is the holdings after one instance's has changed.
func (r *seatRecord) with(instance ident.Worker, seats int) []holding {
	next := slices.Clone(r.holdings)
	next = slices.DeleteFunc(next, func(h holding) bool { return h.instance == instance })
	if seats > 0 {
		next = append(next, holding{instance, uint32(seats)})
	}
	return next
}
