package ledger

import (
	"encoding/binary"
	"errors"
	"slices"
)

// holding is how many seats of a room one instance has.
type holding struct {
	instance uint16
	seats    uint32
}

// seatRecord is a record of seatBucket: who holds how many seats. Each holding is written by its own instance
// only (and removed by others once that is dead), so the record itself says which of our writes has landed, even
// where others have written since.
type seatRecord struct {
	epoch    int64
	limit    uint32
	holdings []holding
}

const (
	seatVersion = 1
	seatHeader  = 1 + 8 + 4
	holdingLen  = 2 + 4
)

var errSeats = errors.New("decode seats: not a record of this version")

func (r *seatRecord) encode() []byte {
	b := make([]byte, 0, seatHeader+holdingLen*len(r.holdings))
	b = append(b, seatVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.epoch))
	b = binary.BigEndian.AppendUint32(b, r.limit)
	for _, h := range r.holdings {
		b = binary.BigEndian.AppendUint16(b, h.instance)
		b = binary.BigEndian.AppendUint32(b, h.seats)
	}
	return b
}

func decodeSeats(b []byte) (r seatRecord, err error) {
	if len(b) < seatHeader || b[0] != seatVersion || (len(b)-seatHeader)%holdingLen != 0 {
		return r, errSeats
	}
	r.epoch = int64(binary.BigEndian.Uint64(b[1:]))
	r.limit = binary.BigEndian.Uint32(b[9:])
	for b = b[seatHeader:]; len(b) > 0; b = b[holdingLen:] {
		r.holdings = append(r.holdings, holding{binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])})
	}
	return r, nil
}

// of is what an instance holds.
func (r *seatRecord) of(instance uint16) int {
	for _, h := range r.holdings {
		if h.instance == instance {
			return int(h.seats)
		}
	}
	return 0
}

// others is what all but one instance hold, and how many they are.
func (r *seatRecord) others(instance uint16) (seats, holders int) {
	for _, h := range r.holdings {
		if h.instance != instance {
			seats += int(h.seats)
			holders++
		}
	}
	return seats, holders
}

// with is the record after an instance's holding has changed.
func (r *seatRecord) with(instance uint16, seats int) []holding {
	next := slices.Clone(r.holdings)
	next = slices.DeleteFunc(next, func(h holding) bool { return h.instance == instance })
	if seats > 0 {
		next = append(next, holding{instance, uint32(seats)})
	}
	return next
}
